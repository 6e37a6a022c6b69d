// Scales, axes, formats, the tooltip: what every figure shares. SVG is built as text.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
// Requests that were never answered, and whether that is within a percentage point of the least: the
// latencies of a policy that turns more away are those of fewer requests, and win nothing.
const lost = (row) => (row.counts.arrived - row.counts.finished) / (row.counts.arrived || 1);
const leastLost = Math.min(...DATA.rows.map(lost));
const sound = (row) => lost(row) <= leastLost + 0.01 + 1e-9;
const policyColour = (row) => `var(--p${row % 8})`;
// A second round of eight is dashed.
const policyDash = (row) => (row < 8 ? "" : "5 3");

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 999500) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 9999.5) return `${+(value / 1e3).toPrecision(3)}k`;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (size >= 99.95) return Math.round(value).toLocaleString("en");
  if (size >= 9.995) return value.toFixed(1);
  if (size >= 0.0995) return value.toFixed(2);
  return `${+value.toPrecision(2)}`;
}
// Rounded down: only all is 100 %.
const percent = (share) => (share > 0 && share < 1e-3 ? `${+(share * 100).toPrecision(2)} %` : `${Math.floor(share * 1000 + 1e-6) / 10} %`);
const exact = (value) => value.toLocaleString("en");
function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0.0009995) return `${+(value * 1e6).toPrecision(3)} µs`;
  if (value < 0.9995) return `${+(value * 1e3).toPrecision(3)} ms`;
  if (value < 999.5) return `${+value.toPrecision(3)} s`;
  return `${short(value)} s`;
}
function duration(value) {
  if (value >= 2 * 86400) return `${+(value / 86400).toPrecision(3)} days`;
  if (value >= 7200) return `${+(value / 3600).toPrecision(3)} h`;
  return value >= 120 ? `${+(value / 60).toPrecision(3)} min` : seconds(value);
}
function clock(value, span) {
  const whole = Math.round(value);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  if (span > 2 * 86400) return `day ${+(value / 86400).toFixed(1)}`;
  if (span >= 7200) return `${parts[0]}:${parts[1]}`;
  if (span >= 120) return `${Math.floor(whole / 60)}:${parts[2]}`;
  return `${+value.toFixed(1)} s`;
}
const seen = (value, span) => (span > 2 * 86400 ? `day ${Math.floor(value / 86400)}, ${clock(value % 86400, 7200)}` : clock(value, span < 7200 ? span : 7200));

const linear = (from, to, low, high) => Object.assign((v) => low + ((v - from) / (to - from || 1)) * (high - low), { from, to, low, high, invert: (p) => from + ((p - low) / (high - low)) * (to - from) });
function log(from, to, low, high) {
  const a = Math.log10(from), b = Math.log10(to);
  const at = (v) => low + ((Math.log10(Math.max(v, from)) - a) / (b - a || 1)) * (high - low);
  return Object.assign(at, { from, to, low, high, invert: (p) => 10 ** (a + ((p - low) / (high - low)) * (b - a)) });
}
function ticks(from, to, count) {
  const raw = (to - from) / count, power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
  const found = [];
  for (let v = Math.ceil(from / step) * step; v <= to + step * 1e-9; v += step) found.push(+v.toPrecision(10));
  return found;
}
function timeTicks(from, to, count) {
  const raw = (to - from) / count;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].find((n) => n >= raw) || Math.ceil(raw / 86400) * 86400;
  const found = [];
  for (let v = Math.ceil(from / step) * step; v <= to; v += step) found.push(v);
  return found;
}
function decades(from, to) {
  const found = [];
  for (let n = Math.ceil(Math.log10(from) - 1e-9); n <= Math.log10(to) + 1e-9; n++) found.push(10 ** n);
  return found;
}
const line = (x1, y1, x2, y2, kind) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" class="${kind}"/>`;
const text = (x, y, words, anchor = "start", kind = "num", more = "") => `<text x="${x}" y="${y}" text-anchor="${anchor}" class="${kind}" ${more}>${escaped(words)}</text>`;
function axisX(scale, at, bottom, top, format) {
  return at.map((v) => line(scale(v), top, scale(v), bottom, "grid") + text(scale(v), bottom + 17, format(v), "middle")).join("");
}
function axisY(scale, at, left, right, format) {
  return at.map((v) => line(left, scale(v), right, scale(v), "grid") + text(left - 8, scale(v) + 4, format(v), "end")).join("");
}
const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function draw(id, height, build) {
  const box = byId(id), width = Math.max(box.clientWidth, 280);
  box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img">${build(width, height)}</svg>`;
  return { svg: box.firstChild, width, height };
}
const tip = byId("tip");
function showTip(event, html) {
  tip.innerHTML = html;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
// `describe(x, y)` returns HTML or "" for a place in the figure.
function hover(element, describe) {
  element.onmousemove = (event) => {
    const box = element.getBoundingClientRect();
    const html = describe(event.clientX - box.left, event.clientY - box.top);
    if (html) showTip(event, html); else hideTip();
  };
  element.onmouseleave = hideTip;
}
const key = (colour, words) => `<span><i class="swatch" style="background:${colour}"></i>${escaped(words)}</span>`;
function choice(id, options, chosen, change) {
  const box = byId(id);
  box.className = "choice";
  box.innerHTML = options.map(([value, words]) => `<button type="button" data-value="${escaped(value)}" aria-pressed="${String(value) === String(chosen)}">${words}</button>`).join("");
  box.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of box.children) other.setAttribute("aria-pressed", String(other === button));
    change(button.dataset.value);
  };
}
