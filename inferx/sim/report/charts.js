// Figures in SVG: curves, scatter, conservation, ridges, tiers, causes.
const LEFT = 46;
function curves(id, kind, mode) {
  const drawn = DATA.pictures.map((p) => p.curves[kind]), answered = DATA.pictures.map((p) => p.answered);
  const all = drawn.flat().filter((v) => v > 0);
  if (!all.length) { byId(id).textContent = "No request finished."; return; }
  const low = 10 ** Math.floor(Math.log10(Math.max(Math.min(...all), 1e-3))), high = Math.max(...all) * 1.05;
  const P = DATA.probability, least = 1e-4, tail = mode === "tail", roof = 32;
  const { svg, width } = draw(id, 322, (w, h) => {
    const x = log(low, high, LEFT, w - 14);
    const y = tail ? log(least, 1, h - 40, roof) : linear(0, 1, h - 40, roof);
    let out = axisX(x, decades(low, high), h - 40, roof, seconds) + axisY(y, tail ? decades(least, 1) : [0, 0.25, 0.5, 0.75, 1], LEFT, w - 14, percent);
    if (kind === "ttft" && DATA.slo_ttft_s > low && DATA.slo_ttft_s < high) {
      const at = x(DATA.slo_ttft_s);
      out += line(at, roof - 4, at, h - 40, "slo") + text(Math.min(at, w - 40), roof - 7, `target ${seconds(DATA.slo_ttft_s)}`, "middle");
    }
    drawn.forEach((values, row) => {
      const up = (share) => (tail ? y(Math.max(1 - share, least)) : y(share));
      const points = values.map((v, i) => [x(v), up(P[i] * answered[row])]);
      // What is not answered by the last answer never is. The tail of all answered ends there.
      if (values.length && !(tail && answered[row] === 1)) points.push([x(high), up(answered[row])]);
      out += `<path d="${path(points)}" fill="none" stroke="${policyColour(row)}" stroke-dasharray="${policyDash(row)}" stroke-width="2" stroke-linejoin="round"/>`;
    });
    out += text(0, 11, tail ? "share of all arrived requests not answered by then, log scale" : "share of all arrived requests answered by then");
    return out + text((LEFT + w) / 2, h - 4, `time from arrival to the ${kind === "ttft" ? "first" : "last"} token, log scale`, "middle");
  });
  const named = DATA.rows.map((row, i) => key(policyColour(i), row.policy + (answered[i] < 1 ? `, ${percent(answered[i])} answered` : "")));
  byId(id).insertAdjacentHTML("beforeend", `<div class="legend">${named.join("")}</div>`);
  hover(svg, (px) => {
    const value = log(low, high, LEFT, width - 14).invert(px);
    if (px < LEFT || px > width - 14) return "";
    const shares = drawn.map((values, row) => { let i = values.findIndex((v) => v > value); if (i < 0) i = values.length; return i ? P[i - 1] * answered[row] : 0; });
    return `<b>within ${seconds(+value.toPrecision(3))}</b><br>${DATA.rows.map((r, i) => `<i class="swatch" style="background:${policyColour(i)}"></i>${escaped(r.policy)} ${(shares[i] * 100).toFixed(shares[i] > 0.99 ? 2 : 1)} %`).join("<br>")}`;
  });
}
function scatter(quantile) {
  const points = DATA.rows.map((row, i) => {
    const cost = row.cells.cost_usd && row.cells.slo_met && row.cells.slo_met[0] ? (1000 * row.cells.cost_usd[0]) / row.cells.slo_met[0] : null;
    const good = row.cells.goodput_per_gpu_hour;
    return { i, name: row.policy, sound: sound(row), y: row.cells[`ttft_s.${quantile}`]?.[0], cost, good: good && good[0] > 0 ? 1000 / good[0] : null };
  });
  const priced = points.every((p) => p.cost > 0);
  points.forEach((p) => { p.x = priced ? p.cost : p.good; });
  const shown = points.filter((p) => p.x > 0 && p.y > 0);
  byId("scatter-lead").textContent = `${priced ? "Dollars" : "GPU hours"} per 1,000 good requests against TTFT ${quantile}. Down and to the left is better.${DATA.rows.every(sound) ? "" : " Hollow: the policy answered fewer requests than others did."}`;
  if (!shown.length) { byId("scatter").textContent = "No policy met the target."; return; }
  // Room around the points, and at least most of a decade, so that small differences look small.
  const range = (values) => {
    const low = Math.min(...values), high = Math.max(...values), pad = Math.max(1.5, Math.sqrt((8 * low) / high));
    return [low / pad, high * pad];
  };
  const [x0, x1] = range(shown.map((p) => p.x)), [y0, y1] = range(shown.map((p) => p.y));
  const fine = (a, b) => [...new Set(decades(a / 10, b).flatMap((d) => [d, 2 * d, 5 * d]))].filter((v) => v >= a && v <= b);
  draw("scatter", 312, (w, h) => {
    const roof = 22, x = log(x0, x1, LEFT, w - 14), y = log(y0, y1, h - 40, roof);
    let out = axisX(x, fine(x0, x1), h - 40, roof, (v) => (priced ? `$${short(v)}` : short(v))) + axisY(y, fine(y0, y1), LEFT, w - 14, seconds);
    const taken = shown.map((p) => [x(p.x) - 8, y(p.y) - 8, x(p.x) + 8, y(p.y) + 8]);
    const clash = ([a, b, c, d]) => a < LEFT || c > w || b < roof || d > h - 38 || taken.some((t) => a < t[2] && c > t[0] && b < t[3] && d > t[1]);
    for (const p of shown) {
      const cx = x(p.x), cy = y(p.y), long = p.name.length * 7.4;
      const places = [[12, -6], [-12 - long, -6], [-long / 2, 10], [-long / 2, -23], [8, 9], [-long - 6, 9], [8, -22], [-long - 6, -22]].map(([dx, dy]) => [cx + dx, cy + dy, cx + dx + long, cy + dy + 13]);
      const place = places.find((box) => !clash(box));
      out += `<circle cx="${cx}" cy="${cy}" r="${p.sound ? 7 : 6}" fill="${p.sound ? policyColour(p.i) : "var(--card)"}" stroke="${p.sound ? "var(--card)" : policyColour(p.i)}" stroke-width="2"><title>${escaped(p.name)}: ${short(p.x)}, ${seconds(p.y)}</title></circle>`;
      // A crowded point keeps its name for the pointer.
      if (place) { taken.push(place); out += text(place[0], place[1] + 11, p.name, "start", "name"); }
    }
    out += text(0, 11, `TTFT ${quantile} of finished requests, log scale`);
    return out + text((LEFT + w) / 2, h - 4, `${priced ? "$" : "GPU h"} per 1,000 good requests, log scale`, "middle");
  });
}
function conservation() {
  const kinds = ["finished", "refused", "aborted", "unfinished"], step = 46;
  draw("conservation", Math.max(DATA.rows.length * step + 26, 120), (w, h) => {
    let out = "";
    DATA.rows.forEach((row, i) => {
      const value = (kind) => row.counts[kind], total = value("arrived") || 1;
      const rest = kinds.filter((kind) => value(kind)).map((kind) => `${exact(value(kind))} ${kind}`).join(" + ");
      out += text(0, i * step + 13, row.policy, "start", "name") + text(w, i * step + 13, w < 470 ? `${exact(value("finished"))} of ${exact(value("arrived"))}` : `${exact(value("arrived"))} = ${rest}`, "end");
      let at = 0;
      for (const kind of kinds) {
        const part = (value(kind) / total) * w;
        if (part > 0) out += `<rect x="${at.toFixed(1)}" y="${i * step + 20}" width="${Math.max(part - 1.5, 1).toFixed(1)}" height="13" rx="2.5" fill="var(--${kind})"><title>${exact(value(kind))} ${kind}</title></rect>`;
        at += part;
      }
    });
    let at = 0;
    for (const kind of kinds) { out += `<rect x="${at}" y="${h - 14}" width="10" height="10" rx="3" fill="var(--${kind})"/>` + text(at + 16, h - 5, kind); at += 92; }
    return out;
  });
}
function ridges() {
  const E = DATA.edges_s, half = 36, step = 2 * half + 12, n = DATA.rows.length;
  const top = Math.max(1, ...DATA.pictures.flatMap((p) => [...p.warm, ...p.cold]));
  // Square roots keep a thin tail visible beside a tall peak.
  const tall = (count) => Math.sqrt(count / top) * half;
  draw("ridges", n * step + 30, (w, h) => {
    const left = 150, x = log(E[0], E[E.length - 1], left, w - 150), total = (list) => list.reduce((a, b) => a + b, 0);
    let out = axisX(x, decades(E[0], E[E.length - 1]), h - 28, 4, (v) => (v <= E[0] ? `≤ ${seconds(v)}` : seconds(v)));
    if (DATA.slo_ttft_s > E[0]) out += line(x(DATA.slo_ttft_s), 4, x(DATA.slo_ttft_s), h - 28, "slo");
    DATA.rows.forEach((row, i) => {
      const mid = i * step + half + 6, p = DATA.pictures[i];
      const side = (counts, sign, fill) => {
        const steps = counts.flatMap((c, b) => [[x(E[b]), mid - sign * tall(c)], [x(E[b + 1]), mid - sign * tall(c)]]);
        return `<path d="${path([[x(E[0]), mid], ...steps, [x(E[counts.length]), mid]])}Z" fill="${fill}" fill-opacity=".85"/>`;
      };
      out += side(p.warm, 1, "var(--working)") + side(p.cold, -1, "var(--cold)") + line(left, mid, w - 150, mid, "axis");
      out += text(0, mid + 4, row.policy, "start", "name");
      const cold = row.cells["cold_ttft_s.p50"];
      out += text(w, mid - 8, `${exact(total(p.warm))} warm`, "end", "num", 'style="fill:var(--working)"') + text(w, mid + 17, `${exact(total(p.cold))} cold${cold ? `, p50 ${seconds(cold[0])}` : ""}`, "end", "num", 'style="fill:var(--cold)"');
    });
    return out;
  });
}
// Series stacked over equal bins of `span`, the seconds of the policy's own run.
function stacked(id, height, span, names, series, top, format, title = "", mark = null) {
  const bins = series[0].length;
  const { svg, width } = draw(id, height, (w, h) => {
    const roof = title ? 22 : 6, x = linear(0, span, LEFT + 26, w - 14), y = linear(0, top, h - 24, roof);
    let out = axisY(y, ticks(0, top, 4), LEFT + 26, w - 14, format);
    const floor = new Array(bins).fill(0);
    names.forEach((name, s) => {
      const up = floor.map((v, b) => v + series[s][b]);
      const edge = (list) => list.flatMap((v, b) => [[x((b / bins) * span), y(v)], [x(((b + 1) / bins) * span), y(v)]]);
      out += `<path d="${path([...edge(up), ...edge(floor).reverse()])}Z" fill="var(--${name})" shape-rendering="crispEdges"/>`;
      up.forEach((v, b) => { floor[b] = v; });
    });
    if (mark) out += `<path d="M${x(mark[0])} ${roof}V${h - 24}M${x(mark[1])} ${roof}V${h - 24}" stroke="var(--ink)"/><rect x="${x(mark[0])}" y="${roof}" width="${x(mark[1]) - x(mark[0])}" height="3" fill="var(--ink)"/>`;
    return out + axisX(x, timeTicks(0, span, w / 110), h - 24, h - 24, (v) => clock(v, span)) + text(LEFT + 26, 12, title, "start", "name");
  });
  hover(svg, (px) => {
    const bin = Math.floor(((px - LEFT - 26) / (width - 40 - LEFT)) * bins);
    if (bin < 0 || bin >= bins) return "";
    return `<b>${seen((bin / bins) * span, span)}</b><br>${names.map((name, s) => `<i class="swatch" style="background:var(--${name})"></i>${name} ${format(series[s][bin])}`).reverse().join("<br>")}`;
  });
}
const legend = (names) => `<div class="legend">${names.map((name) => key(`var(--${name})`, name)).join("")}</div>`;
// Tier -> what lies in it, from the bottom of the picture.
const TIERS = { HBM: ["HBM"], DRAM: ["suspended", "live"], NVMe: ["NVMe"] };
function tiers(picture, unit) {
  const found = picture.tiers[unit], bytes = unit === "bytes";
  const held = (name) => TIERS[name].filter((part) => (found[name][part] || []).some((v) => v > 0));
  const names = Object.keys(TIERS).filter((name) => held(name).length);
  byId("tier-lead").textContent = bytes
    ? "Memory held by tier, and what the cluster has of it: pods in HBM; in host memory suspended pods, and the CPU side of live ones; snapshots on local disks. Each has its own scale."
    : "How many: live pods in HBM, suspended pods in host memory, snapshots on local disks. Each has its own scale.";
  byId("tiers").innerHTML = names.map((name) => `<div id="tier-${name}"></div>`).join("") || "Nothing was kept anywhere.";
  const sized = (gib) => (gib >= 1024 ? `${short(gib / 1024)} TiB` : `${short(gib)} GiB`);
  for (const name of names) {
    const parts = held(name), sums = found[name][parts[0]].map((_, b) => parts.reduce((sum, part) => sum + found[name][part][b], 0));
    const large = bytes && Math.max(...sums) >= 1024, scale = large ? 1024 : 1, suffix = bytes ? (large ? " TiB" : " GiB") : "";
    const series = parts.map((part) => found[name][part].map((v) => v / scale));
    const title = bytes ? `${name}, ${sized(DATA.capacity_gib[name])} in all` : name;
    stacked(`tier-${name}`, 122, picture.span_s, parts, series, (Math.max(...sums) / scale) * 1.08, (v) => short(v) + suffix, title);
    if (parts.length > 1) byId(`tier-${name}`).insertAdjacentHTML("beforeend", legend(parts));
  }
}
function causes(picture) {
  const names = DATA.causes.filter((name) => picture.causes.time[name].some(Boolean));
  if (!names.length) { byId("causes").textContent = byId("popularity").textContent = "No cold starts."; return; }
  const series = names.map((name) => picture.causes.time[name]);
  const sums = series[0].map((_, b) => series.reduce((sum, list) => sum + list[b], 0));
  stacked("causes", 230, picture.span_s, names, series, Math.max(...sums, 1), short, `requests per ${duration(picture.span_s / sums.length)}`);
  byId("causes").insertAdjacentHTML("beforeend", legend(names));
  const started = picture.causes.started, share = names.map((name) => picture.causes.decile[name].map((c, d) => (started[d] ? c / started[d] : 0)));
  draw("popularity", 230, (w, h) => {
    const y = linear(0, 1, h - 40, 6), wide = (w - LEFT - 14) / 10;
    let out = axisY(y, [0, 0.25, 0.5, 0.75, 1], LEFT, w - 14, (v) => `${v * 100} %`);
    for (let d = 0; d < 10; d++) {
      let floor = 0;
      names.forEach((name, s) => {
        const up = floor + share[s][d];
        out += `<rect x="${(LEFT + d * wide + 3).toFixed(1)}" width="${(wide - 6).toFixed(1)}" y="${y(up).toFixed(1)}" height="${(y(floor) - y(up)).toFixed(1)}" fill="var(--${name})"><title>${name}: ${(share[s][d] * 100).toFixed(1)} % of ${short(started[d])} started</title></rect>`;
        floor = up;
      });
      out += text(LEFT + (d + 0.5) * wide, h - 22, short(started[d]), "middle");
    }
    return out + text((LEFT + w) / 2, h - 4, "started requests, by tenth of the functions", "middle");
  });
  byId("popularity").insertAdjacentHTML("beforeend", legend(names));
}
