// The strip of GPUs: one lane a GPU (or a slice of it), on a canvas, from packed runs.
function unpack(packed, count) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const cells = new Uint32Array(count);
  let at = 0, next = 0;
  const number = () => {
    let value = 0, shift = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * shift; shift *= 128; } while (byte > 127);
    return value;
  };
  while (at < bytes.length) { const length = number(); cells.fill(number(), next, (next += length)); }
  return cells;
}
const GROUP = DATA.groups;
const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const dark = () => document.documentElement.dataset.theme === "dark";
// The golden angle keeps neighbours in rank far apart in hue; lesser functions are greyer.
function functionColour(rank, group, fine = false) {
  const hue = (165 + rank * 137.508) % 360, rich = rank < 12 ? 58 : 30;
  if (GROUP[group] === "idle") return dark() ? `hsl(${hue} ${rich * 0.6}% 27%)` : `hsl(${hue} ${rich}% ${fine ? 79 : 86}%)`;
  return dark() ? `hsl(${hue} ${rich}% 60%)` : `hsl(${hue} ${rich}% 47%)`;
}
// GPU -> its node, and for the first GPU of nodes that are alike, what these are.
const NODE_OF = [], HEADS = new Map();
{
  let node = 0;
  for (const kind of DATA.manifest.cluster) {
    const many = kind.count > 1, which = many ? `nodes ${node} to ${node + kind.count - 1}` : `node ${node}`;
    const type = kind.instance_type ? `${kind.instance_type}, ` : "";
    if (kind.gpus) HEADS.set(NODE_OF.length, `${which}: ${type}${kind.gpus} × ${kind.gpu_type}${many ? " each" : ""}`);
    for (const end = node + kind.count; node < end; node++) for (let g = 0; g < kind.gpus; g++) NODE_OF.push({ node, type: kind.gpu_type });
  }
}
const HEAD = 18;
function laneBoxes(picture, total) {
  const per = Math.max(2, Math.min(20, Math.floor(460 / total))), gap = per >= 14 ? 3 : per >= 6 ? 2 : per >= 4 ? 1 : 0;
  const firsts = new Set(); let gpuCount = 0;
  for (const n of DATA.nodes) { firsts.add(gpuCount); gpuCount += n; }
  const subs = new Map(), boxes = []; let y = 0, last = -1;
  for (const gpu of picture.lanes) subs.set(gpu, (subs.get(gpu) || 0) + 1);
  const tops = new Map(), heads = [];
  for (const gpu of picture.lanes) {
    if (gpu !== last) { if (last >= 0) y += per + gap; if (firsts.has(gpu) && gpu) y += 6; if (HEADS.has(gpu)) { heads.push([HEADS.get(gpu), y]); y += HEAD; } tops.set(gpu, y); last = gpu; }
    const index = boxes.at(-1)?.gpu === gpu ? boxes.at(-1).index + 1 : 0;
    const high = per / subs.get(gpu);
    boxes.push({ gpu, index, y: y + index * high, h: Math.max(high - (high > 5 && index + 1 < subs.get(gpu) ? 1 : 0), 1) });
  }
  return { boxes, tops, heads, per, height: y + per };
}
function hatch(context, colour, back) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const pen = tile.getContext("2d");
  pen.fillStyle = back; pen.fillRect(0, 0, 6, 6);
  pen.strokeStyle = colour; pen.lineWidth = 1.6;
  pen.beginPath();
  for (const shift of [-6, 0, 6]) { pen.moveTo(shift, 6); pen.lineTo(shift + 6, 0); }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}
function strips(picture, chosen, mode) {
  const box = byId("strips"), data = picture.strips[Math.min(chosen, picture.strips.length - 1)];
  const width = Math.max(box.clientWidth, 280), left = LEFT + 26, wide = width - left - 14, bins = data.bins;
  const { boxes, tops, heads, per, height } = laneBoxes(picture, DATA.gpus || 1), full = height + 22, ratio = devicePixelRatio || 1;
  box.innerHTML = `<canvas style="width:${width}px;height:${full}px"></canvas>`;
  const canvas = box.firstChild, pen = canvas.getContext("2d");
  canvas.width = width * ratio; canvas.height = full * ratio;
  pen.scale(ratio, ratio);
  const cells = unpack(data.cells, boxes.length * bins);
  const empty = styleOf("grid"), fills = new Map();
  const fill = (value) => {
    if (!fills.has(value)) {
      const group = (value - 1) % 8, rank = Math.floor((value - 1) / 8), name = GROUP[group];
      const plain = mode === "state" || !["working", "idle"].includes(name);
      const hatched = name === "starting" || name === "suspending";
      fills.set(value, hatched && mode === "function" && per >= 6 ? hatch(pen, styleOf("card"), styleOf(name)) : plain ? styleOf(name) : functionColour(rank, group, per < 6));
    }
    return fills.get(value);
  };
  boxes.forEach(({ y, h }, lane) => {
    pen.fillStyle = empty;
    pen.fillRect(left, y, wide, h);
    for (let b = 0; b < bins;) {
      const value = cells[lane * bins + b]; let end = b + 1;
      while (end < bins && cells[lane * bins + end] === value) end++;
      if (value) {
        // On whole device pixels: half-covered edges would show as seams.
        const snap = (bin) => Math.round((left + (bin / bins) * wide) * ratio) / ratio;
        pen.fillStyle = fill(value);
        pen.fillRect(snap(b), y, Math.max(snap(end) - snap(b), 1 / ratio), h);
      }
      b = end;
    }
  });
  pen.fillStyle = styleOf("soft"); pen.font = `11px ${styleOf("sans")}`; pen.textBaseline = "middle";
  for (const [words, y] of heads) pen.fillText(words, left, y + HEAD / 2);
  const several = DATA.nodes.length > 1;
  let node = 0, at = 0; pen.textAlign = "right";
  for (const count of DATA.nodes) {
    if (per >= 9) for (let g = at; g < at + count; g++) pen.fillText(several ? `n${node} GPU ${g}` : `GPU ${g}`, left - 8, tops.get(g) + per / 2);
    else if (count && (count * per >= 11 || node % Math.ceil(11 / (count * per)) === 0)) pen.fillText(`node ${node}`, left - 8, tops.get(at) + 6);
    node++; at += count;
  }
  pen.textAlign = "center";
  const span = data.to - data.from;
  for (const v of timeTicks(data.from, data.to, width / 110)) pen.fillText(clock(v, picture.span_s), left + ((v - data.from) / span) * wide, height + 14);
  hover(canvas, (px, py) => {
    const bin = Math.floor(((px - left) / wide) * bins), lane = boxes.findIndex(({ y, h }) => py >= y && py < y + h + 1);
    if (bin < 0 || bin >= bins || lane < 0) return "";
    const value = cells[lane * bins + bin], time = (b) => seen(data.from + (b / bins) * span, picture.span_s);
    let from = bin, to = bin + 1;
    while (from > 0 && cells[lane * bins + from - 1] === value) from--;
    while (to < bins && cells[lane * bins + to] === value) to++;
    const what = value ? `${escaped(DATA.functions[Math.floor((value - 1) / 8)])}, ${GROUP[(value - 1) % 8]}` : "free";
    return `<b>GPU ${boxes[lane].gpu}${boxes[lane].index || boxes[lane + 1]?.gpu === boxes[lane].gpu ? ` · slice ${boxes[lane].index + 1}` : ""}</b><br>node ${NODE_OF[boxes[lane].gpu].node}, ${escaped(NODE_OF[boxes[lane].gpu].type)}<br>${what}<br>${time(from)} to ${time(to)}`;
  });
  const shown = GROUP.slice(0, 5).filter((name) => picture.states[name].some((v) => v > 0));
  const functions = DATA.functions.slice(0, 10).map((name, rank) => key(functionColour(rank, 0), name)).join("");
  byId("state-legend").innerHTML = shown.map((name) => key(`var(--${name})`, name)).join("") + key("var(--grid)", "free");
  byId("strip-legend").innerHTML = mode === "function" ? `${functions}<span>Strong: working; pale: idle; hatched: starting or suspending. The most asked-for functions are named.</span>` : "";
  byId("strip-lead").textContent = `Above, the share of all GPU time by state. Below, one lane per GPU: a cell is the state, and the function, that held most of its ${duration(span / bins)}.`;
}
