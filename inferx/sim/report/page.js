// Puts the figures on the page and keeps the reader's choices.
const state = { policy: 0, curve: "share", mode: "function", window: 0, tier: "bytes", quantile: "p99" };
// Policies end at different times, so each has a close-up of its own length, or none.
function windows(picture) {
  const near = picture.strips[1];
  if (!near) { byId("strip-window").innerHTML = byId("strip-window").className = ""; return; }
  choice("strip-window", [[0, "Whole run"], [1, `Busiest ${duration(near.to - near.from)}`]], state.window, (value) => { state.window = Number(value); perPolicy(); });
}
function perPolicy() {
  const picture = DATA.pictures[state.policy];
  if (!picture) return;
  const names = DATA.groups.slice(0, 5).filter((name) => picture.states[name].some((v) => v > 0));
  windows(picture);
  const close = state.window && picture.strips[1] ? [picture.strips[1].from, picture.strips[1].to] : null;
  if (names.length) stacked("states", 146, picture.span_s, names, names.map((name) => picture.states[name]), 100, (v) => `${short(v)} %`, "share of GPU time", close);
  strips(picture, state.window, state.mode);
  tiers(picture, state.tier);
  causes(picture);
}
function latency() {
  curves("ttft", "ttft", state.curve);
  curves("e2e", "e2e", state.curve);
}
function everything() {
  latency();
  scatter(state.quantile);
  conservation();
  ridges();
  perPolicy();
}
function theme(name) {
  document.documentElement.dataset.theme = name;
  perPolicy();
}
function open() {
  const asked = new URLSearchParams(location.hash.slice(1)), prefers = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = asked.get("theme") || (prefers.matches ? "dark" : "light");
  for (const name of Object.keys(state)) if (asked.has(name)) state[name] = typeof state[name] === "number" ? Number(asked.get(name)) : asked.get(name);
  const usual = Math.max(DATA.rows.findIndex((row) => row.policy === "default"), 0);
  state.policy = asked.has("policy") && DATA.rows[state.policy] ? state.policy : usual;
  const arrived = DATA.requests;
  byId("title").textContent = document.title;
  byId("subtitle").textContent = `${exact(arrived)} requests for ${DATA.functions.length} functions over ${duration(DATA.span_s)}, on ${DATA.gpus} GPUs of ${DATA.nodes.length} node${DATA.nodes.length === 1 ? "" : "s"}, under ${DATA.rows.length} ${DATA.rows.length === 1 ? "policy" : "policies"}`;
  if (!DATA.complete) byId("banner").textContent = "This run was interrupted: it holds the policies and seeds that were finished.";
  if (!DATA.rows.length) { byId("banner").textContent = "This run holds no results."; return facts(); }
  byId("ttft-lead").textContent = "From arrival to the first token (or to the start of service, where a request has none). Refused, aborted and unfinished requests are never answered.";
  const curve = (value) => { state.curve = value; for (const id of ["scale-ttft", "scale-e2e"]) choice(id, [["share", "Share"], ["tail", "Tail"]], value, curve); latency(); };
  for (const id of ["scale-ttft", "scale-e2e"]) choice(id, [["share", "Share"], ["tail", "Tail"]], state.curve, curve);
  choice("scatter-choice", ["p50", "p90", "p99"].map((q) => [q, q]), state.quantile, (value) => { state.quantile = value; scatter(value); });
  choice("strip-mode", [["state", "State"], ["function", "Function"]], state.mode, (value) => { state.mode = value; perPolicy(); });
  choice("tier-choice", [["bytes", "Bytes"], ["count", "Count"]], state.tier, (value) => { state.tier = value; perPolicy(); });
  byId("picker").innerHTML = '<span>Below, one policy:</span><div id="policy"></div>';
  choice("policy", DATA.rows.map((row, i) => [i, `<i class="swatch" style="background:${policyColour(i)}"></i>${escaped(row.policy)}`]), state.policy, (value) => { state.policy = Number(value); perPolicy(); });
  byId("theme").onclick = () => theme(dark() ? "light" : "dark");
  prefers.addEventListener("change", (event) => theme(event.matches ? "dark" : "light"));
  summaryTable();
  pairedTable();
  facts();
  everything();
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(everything, 120); });
}
open();
