// The page of an autoencoder's features: the index first; a feature's contexts are decoded when it is opened.
import { el, number, token } from "./dom.js";
import { createFeature, histogram } from "./feature.js";

const COLUMNS = [["feature", "feature"], ["density", "fires on"], ["at_first", "at position 0"], ["max", "largest"], ["mean", "mean"],
  ["head", "head"], ["head_share", "its share"]];

function shown(key, value) {
  if (value === null) return "–";
  if (key === "feature" || key === "head") return String(value);
  return key === "density" || key === "at_first" || key === "head_share" ? `${number(100 * value)} %` : number(value);
}

function createIndex(data, open) {
  let by = "order", down = false;
  const body = el("tbody");
  const heads = COLUMNS.map(([key, text]) => {
    const button = el("button", { type: "button", class: "title", text });
    button.addEventListener("click", () => { down = by === key ? !down : true; by = key; draw(); });
    return el("th", { scope: "col", "data-key": key }, button);
  });
  function draw() {
    const order = data.index.map((_, i) => i);
    const size = (i) => data.index[i][by] ?? -Infinity;
    if (by !== "order") order.sort((a, b) => (down ? size(b) - size(a) : size(a) - size(b)) || a - b);
    heads.forEach((th) => th.setAttribute("aria-sort", th.dataset.key !== by ? "none" : down ? "descending" : "ascending"));
    body.replaceChildren(...order.map((i) => {
      const item = data.index[i];
      const button = el("button", { type: "button", class: "head", text: String(item.feature) });
      button.addEventListener("click", () => open(item.feature));
      return el("tr", { "data-feature": item.feature }, el("th", { scope: "row" }, button),
        ...COLUMNS.slice(1).map(([key]) => el("td", { text: shown(key, item[key]) })),
        el("td", { class: "heads words" }, ...item.tokens.map((text) => el("span", {}, el("b", { text: token(text) })))));
    }));
  }
  draw();
  const node = el("section", { class: "attention ranking" }, el("h2", { text: "Index" }),
    el("p", { class: "note", text: "Click a feature to open it, a column to sort by it. Head: the one with the largest share of the decoder row." }),
    el("div", { class: "scroll index" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads, el("th", { scope: "col", class: "heads", text: "raises" }))), body)));
  const mark = (feature) => body.querySelectorAll("tr").forEach((tr) => tr.classList.toggle("picked", tr.dataset.feature === String(feature)));
  return { node, mark };
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = el("section", { class: "attention", "aria-label": "the opened feature" });
  document.title = `${data.title_text}: features`;
  const known = new Set(data.index.map((item) => item.feature));
  function open(feature) {
    // Each record is a string of its own, so that only the ones that are looked at are decoded.
    const record = JSON.parse(data.records[feature]);
    panel.replaceChildren(createFeature(record, (other) => (known.has(other) ? () => open(other) : null)));
    index.mark(feature);
    document.documentElement.dataset.feature = feature;
    if (location.hash !== `#${feature}`) history.replaceState(null, "", `#${feature}`);
  }
  const index = createIndex(data, (feature) => { open(feature); panel.scrollIntoView({ block: "start" }); });
  document.getElementById("report").append(
    el("header", {}, el("p", { class: "kicker", text: "features of attention outputs" }), el("h1", { text: data.title_text }),
      el("p", { class: "lead" }, `What ${number(data.index.length)} of ${number(data.features)} features of layer ${data.layer} fire on, which heads they are, and which tokens they read. `,
        el("span", { class: "caution", text: "What a feature fires on is not what it does." })),
      el("dl", { class: "facts" }, ...data.facts.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value }))))),
    el("section", { class: "attention" }, el("h2", { text: "Density" }),
      el("p", { class: "note", text: `Features by the logarithm (base 10) of the share of tokens on which they fire; ${number(data.dead)} never fire on this text.` }),
      histogram(data.density.counts, data.density.edges, "features by the logarithm of their density")),
    index.node, panel,
    el("footer", {}, el("details", { class: "manifest" }, el("summary", { text: "Manifest" }), el("pre", { text: JSON.stringify(data.manifest, null, 2) }))));
  const named = Number(location.hash.slice(1));
  if (data.index.length) open(location.hash && known.has(named) ? named : data.index[0].feature);
  document.documentElement.dataset.ready = "true";
}

start();
