// Tables: the summary, the paired differences, where the page came from.
const COLUMNS = [
  ["TTFT, s", "p50", "ttft_s.p50", 1, -1], ["", "p90", "ttft_s.p90", 1, -1], ["", "p99", "ttft_s.p99", 1, -1],
  ["End to end, s", "p50", "e2e_s.p50", 1, -1], ["", "p90", "e2e_s.p90", 1, -1], ["", "p99", "e2e_s.p99", 1, -1],
  ["Queue, s", "p99", "queue_s.p99", 1, -1], ["Cold", "%", "cold_start_ratio", 100, -1],
  ["GPU, %", "allocated", "gpu_allocated_pct", 1, 0], ["", "resident", "gpu_resident_pct", 1, 0], ["", "busy", "gpu_busy_pct", 1, 0],
  ["Good", "per GPU h", "goodput_per_gpu_hour", 1, 1], ["Cost", "$", "cost_usd", 1, 0], ["Refused", "", "refused", 1, -1],
];
// Refusing makes these look better, and those not.
const flattered = (name) => !["goodput_per_gpu_hour", "refused"].includes(name) && !name.startsWith("gpu_") && name !== "cost_usd";
function summaryTable() {
  const best = COLUMNS.map(([, , name, , sense]) => {
    const found = DATA.rows.filter((row) => sound(row) || !flattered(name)).map((row) => row.cells[name]).filter(Boolean).map((cell) => cell[0]);
    if (!sense || new Set(found).size < 2) return null;
    return sense > 0 ? Math.max(...found) : Math.min(...found);
  });
  const edge = (i) => (COLUMNS[i][0] ? "edge" : "");
  let over = "<th></th>";
  for (let i = 0; i < COLUMNS.length;) {
    let next = i + 1;
    while (next < COLUMNS.length && !COLUMNS[next][0]) next++;
    over += `<th class="group edge" colspan="${next - i}" ${next - i === 1 ? 'style="text-align:right"' : ""}>${COLUMNS[i][0]}</th>`;
    i = next;
  }
  const under = COLUMNS.map(([, words], i) => `<th class="${edge(i)}">${words}</th>`).join("");
  const body = DATA.rows.map((row, at) => {
    const cells = COLUMNS.map(([, , name, factor], i) => {
      const cell = row.cells[name];
      const half = cell && cell[1] !== null ? `<small>± ${short(cell[1] * factor)}</small>` : "";
      const partial = flattered(name) && !sound(row);
      return `<td class="${edge(i)} ${partial ? "partial" : cell && cell[0] === best[i] ? "best" : ""}">${cell ? short(cell[0] * factor) : "–"}${half}</td>`;
    }).join("");
    const tag = row.policy === DATA.baseline ? '<span class="tag">baseline</span>' : "";
    const part = lost(row) > 0 ? `<small>${percent(1 - lost(row))} answered</small>` : "";
    return `<tr><td><i class="swatch" style="background:${policyColour(at)}"></i>${escaped(row.policy)}${tag}${part}</td>${cells}</tr>`;
  }).join("");
  byId("table").innerHTML = `<table><thead><tr>${over}</tr><tr><th></th>${under}</tr></thead><tbody>${body}</tbody></table>`;
  const seeds = Math.max(...DATA.rows.map((row) => row.seeds.length), 0);
  const many = seeds > 1 ? `Means over ${seeds} seeds ± half a 95 % interval; pictures show the first seed. ` : "One seed, n=1: no interval. ";
  const partly = DATA.rows.every(sound) ? "" : " Grey: of the requests that the policy served, and not compared, since it left over one percentage point more unanswered than the best did.";
  const warm = DATA.warmup_s ? `Quantiles leave out requests that arrived in the first ${seconds(DATA.warmup_s)}. ` : "";
  byId("table-lead").textContent = `${many}${warm}Good: finished, with a first token within ${seconds(DATA.slo_ttft_s)}; per hour of every GPU of the cluster. Green: the best.${partly}`;
}
// Of fewer pairs a correlation says nothing: of two it is always 1 or -1.
const CORRELATED = 5;
function pairedTable() {
  byId("paired-card").hidden = !DATA.paired.length;
  if (!DATA.paired.length) return;
  const names = [...new Set(DATA.paired.map((pair) => pair.metric))].filter((name) => name !== "cost_usd" && name !== "ttft_s.p90" && name !== "gpu_resident_pct");
  const policies = [...new Set(DATA.paired.map((pair) => pair.policy))];
  const words = (name) => name.replace("ttft_s.", "TTFT s ").replace("e2e_s.", "E2E s ").replace("queue_s.", "queue s ").replace("slo_met_ratio", "SLO met, ratio").replace("cold_start_ratio", "cold, ratio").replace("gpu_allocated_pct", "allocated %").replace("gpu_busy_pct", "busy %").replace("goodput_per_gpu_hour", "good / GPU h");
  const body = names.map((name) => {
    const cells = policies.map((policy) => {
      const pair = DATA.paired.find((p) => p.policy === policy && p.metric === name);
      if (!pair || pair.mean_difference === null) return "<td>–</td>";
      const sign = pair.mean_difference > 0 ? "+" : "";
      if (pair.ci95_low === null) return `<td>${sign}${short(pair.mean_difference)}</td>`;
      const r = pair.correlation === null || pair.n < CORRELATED ? "" : ` · r ${pair.correlation.toFixed(2)}`;
      return `<td><span class="${pair.p_holm < 0.05 ? "sure" : "unsure"}">${sign}${short(pair.mean_difference)}</span><small>[${short(pair.ci95_low)}, ${short(pair.ci95_high)}]${r}</small></td>`;
    }).join("");
    return `<tr><td>${escaped(words(name))}</td>${cells}</tr>`;
  }).join("");
  byId("paired").innerHTML = `<table><thead><tr><th></th>${policies.map((p) => `<th>${escaped(p)}</th>`).join("")}</tr></thead><tbody>${body}</tbody></table>`;
  const n = Math.max(...DATA.paired.map((pair) => pair.n));
  byId("paired-lead").textContent = n < 2
    ? `Each policy less ${DATA.baseline}, on the same arrivals. n=1: one seed gives no interval, so none is shown.`
    : `Each policy less ${DATA.baseline}, seed by seed on the same arrivals, n=${n}. Brackets: 95 % interval (Student). Bold: p < 0.05 after Holm's correction over policies.${n < CORRELATED ? "" : " r: correlation that pairing achieved."}`;
  if (!DATA.rows.every(sound)) byId("paired-lead").textContent += " Latencies are those of finished requests: a policy that turns many away looks quicker than it is.";
}
function facts() {
  const m = DATA.manifest;
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  byId("command").textContent = m.command.map(quoted).join(" ");
  const nodes = m.cluster.map((n) => `${n.count} × ${n.instance_type || "node"}: ${n.gpus} × ${n.gpu_type}, ${short(n.hbm_bytes / 2 ** 30)} GiB each, $${n.usd_per_hour}/h`).join("; ");
  const rows = [
    ["Cluster", nodes], ["Seeds", m.seeds.join(", ")],
    ["Commit", m.git ? m.git.commit + (m.git.dirty ? " with local changes" : "") : "installed package"],
    ["Versions", Object.entries(m.versions).map(([name, v]) => `${name} ${v}`).join(", ")],
    ...Object.entries(m.settings),
    ...Object.entries(DATA.hashes).map(([policy, hash]) => [`Result, ${policy}`, hash]),
  ];
  byId("facts").innerHTML = rows.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${/^[0-9a-f]{40}/.test(value) ? `<code>${escaped(value)}</code>` : escaped(value)}</dd>`).join("");
  const files = [...Object.entries(m.inputs), ...Object.entries(m.outputs)];
  byId("files").innerHTML = `<table><thead><tr><th>Role</th><th>Path</th><th>Bytes</th><th>SHA-256</th></tr></thead><tbody>${files.map(([role, f]) => `<tr><td>${escaped(role)}</td><td>${escaped(f.path)}</td><td>${f.size_bytes.toLocaleString("en")}</td><td><code>${f.sha256}</code></td></tr>`).join("")}</tbody></table>`;
}
