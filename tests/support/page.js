// Runs a report's scripts without a browser: `node page.js report.html [HASH] [CLICKS]` prints, as
// JSON, what each element holds, and what is painted on the canvas, words and x. CLICKS is a JSON list of
// [id, value]: which choices to press, one after the other.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");

const page = fs.readFileSync(process.argv[2], "utf8");
const data = /<script id="data" type="application\/json">([^]*?)<\/script>/.exec(page)[1];
const script = /<script>([^]*?)<\/script>/.exec(page)[1];
const painted = [];
const pen = new Proxy({ fillText: (words, x) => painted.push([words, x]) }, {
  get: (target, name) => target[name] ?? (() => pen),
  set: () => true,
});

class Element {
  constructor(id) {
    this.id = id;
    this.clientWidth = 1200;
    this.html = this.textContent = "";
    this.style = {};
    this.children = [];
  }
  get innerHTML() { return this.html; }
  set innerHTML(html) {
    this.html = html;
    if (html.includes("<canvas")) painted.length = 0;
    this.firstChild = new Element(`${this.id} first`);
  }
  insertAdjacentHTML(_, html) { this.html += html; }
  getBoundingClientRect() { return { left: 0, top: 0, width: 100, height: 20 }; }
  getContext() { return pen; }
}
const elements = new Map();
const byId = (id) => {
  if (!elements.has(id)) elements.set(id, new Element(id));
  return elements.get(id);
};
byId("data").textContent = data;
vm.runInNewContext(script, {
  document: {
    title: "page",
    documentElement: { dataset: {} },
    getElementById: byId,
    createElement: () => new Element("made"),
  },
  location: { hash: process.argv[3] || "" },
  matchMedia: () => ({ matches: false, addEventListener() {} }),
  addEventListener() {},
  getComputedStyle: () => ({ getPropertyValue: (name) => name }),
  URLSearchParams, Uint8Array, Uint32Array, atob, innerWidth: 1300, innerHeight: 900, devicePixelRatio: 1,
});
for (const [id, value] of JSON.parse(process.argv[4] || "[]")) {
  byId(id).onclick({ target: { closest: () => ({ dataset: { value }, setAttribute() {} }) } });
}
const held = {};
for (const [id, { html, textContent }] of elements) if (id !== "data") held[id] = html + textContent;
// What a reader sees where the pointer rests: id -> tips along the middle.
const tips = {};
for (const [id, element] of elements) {
  const target = [element, element.firstChild].find((each) => each?.onmousemove);
  if (!target) continue;
  tips[id] = [];
  for (let x = 0; x < 1200; x += 8) {
    target.onmousemove({ clientX: x, clientY: 20 });
    tips[id].push(byId("tip").hidden ? "" : byId("tip").innerHTML);
  }
}
console.log(JSON.stringify({ held, painted, tips }));
