// The page of one head: scores, exact maps on three inputs with the token pairs they link, circuits.
import { el, number, place, token } from "./dom.js";
import { bytes } from "./data.js";
import { createCards } from "./maps.js";

function scores(data) {
  const head = ["score", "value", "spread", "control", "rank"];
  const rows = data.scores.map((s) => el("tr", {}, el("th", { scope: "row", text: s.title, title: s.source }),
    el("td", { class: "mean", text: number(s.value) }), el("td", { text: number(s.spread, 2) }), el("td", { text: number(s.control) }),
    el("td", { text: s.rank === null ? "–" : `${s.rank} of ${s.of}` }), el("td", { class: "heads" }, el("code", { class: "formula", text: s.formula }))));
  return el("section", { class: "attention ranking" }, el("h2", { text: "Scores" }),
    el("p", { class: "note", text: "Spread: standard deviation over samples. Control: the same where the effect was taken away." }),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col", text })),
      el("th", { scope: "col", class: "heads", text: "formula" }))), el("tbody", {}, ...rows))));
}

function pairs(input) {
  const rows = input.pairs.map((p) => el("tr", {}, el("th", { scope: "row", text: `${token(p.query)} (${p.at})` }),
    el("td", { text: `→ ${token(p.key)} (${p.from})` }), el("td", { class: "mean", text: number(p.weight) })));
  return el("div", { class: "pairs" }, el("h3", { text: "Strongest pairs" }),
    el("p", { class: "note", text: "Each pair of tokens once; the first key is left out." }), el("table", {}, el("tbody", {}, ...rows)));
}

function bars(name, sizes, why) {
  if (!sizes) return el("div", {}, el("h3", { text: name }), el("p", { class: "note", text: why }));
  const highest = sizes[0] || 1;
  return el("div", {}, el("h3", { text: name }),
    el("div", { class: "bars", role: "img", "aria-label": `${sizes.length} singular values, ${number(sizes[0])} down to ${number(sizes.at(-1))}` },
      ...sizes.map((x) => place(el("i", { title: number(x) }), { height: `${100 * x / highest}%` }))),
    el("p", { class: "note", text: `${sizes.length} singular values: ${number(sizes[0])} down to ${number(sizes.at(-1))}` }));
}

function circuits(data) {
  const { reason, written, ov, qk } = data.circuits;
  if (reason) return el("section", { class: "attention" }, el("h2", { text: "Circuits" }), el("p", { class: "note", text: `Not shown: ${reason}` }));
  const words = (list) => el("td", { class: "words" }, ...list.map(([text, value]) => el("span", {}, el("b", { text: token(text) }), ` ${number(value, 2)}`)));
  const rows = written.map((w) => el("tr", {}, el("th", { scope: "row", text: token(w.source) }), words(w.raised), words(w.lowered)));
  return el("section", { class: "attention" }, el("h2", { text: "Circuits" }),
    el("p", { class: "note", text: "OV: what the head's direct path raises and lowers at the output when it attends to a token (logit less the mean over the vocabulary)." }),
    el("div", { class: "two" }, el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {},
      ...["attended", "raised", "lowered"].map((text) => el("th", { scope: "col", class: text === "attended" ? null : "words", text })))), el("tbody", {}, ...rows))),
    el("div", {}, bars("OV: W_V W_O", ov, ""), bars("QK: W_Q W_Kᵀ, without positions", qk, "This model has no bridge that gives W_Q and W_K."))));
}

function start() {
  const raw = JSON.parse(document.getElementById("data").textContent);
  const name = `${raw.layer}.${raw.head}`;
  const inputs = raw.inputs.map((input) => ({ ...input, maps: input.maps.map((m) => ({ ...m, codes: new Uint16Array(bytes(m.codes).buffer) })) }));
  const data = { ...raw, inputs, table: bytes(raw.colours), name: () => name, title: () => `Layer ${raw.layer}, head ${raw.head}` };
  document.title = `${raw.model}: head ${name}`;
  const entries = inputs.map((input) => ({ maps: input.maps, name: input.name, why: input.note, heading: el("span", { text: input.name }), extra: pairs(input) }));
  document.getElementById("report").append(
    el("header", {}, el("p", { class: "kicker" }, el("a", { href: data.atlas, text: "atlas of heads" }), ` / ${raw.model}`),
      el("h1", { text: `${data.title()}` }),
      el("p", { class: "labels" }, ...data.labels.map((text) => el("span", { class: "label", text })),
        data.pattern ? el("span", { class: "unit", text: `sparse pattern: ${data.pattern.replaceAll("_", " ")}` }) : null),
      el("p", { class: "lead" }, el("span", { class: "caution", text: "Attention weight is not causal effect." }))),
    scores(data),
    el("section", { class: "attention" }, el("h2", { text: "Attention maps" }),
      el("p", { class: "note", text: "Every weight is exact, exp(logit − log-sum-exp of its row). In tokens · is a space and ↵ a line end." }),
      ...createCards(data, entries, 0, "inputs")),
    circuits(data),
    el("footer", {}, el("details", { class: "manifest" }, el("summary", { text: "Manifest" }), el("pre", { text: JSON.stringify(data.manifest, null, 2) }))));
  document.documentElement.dataset.ready = "true";
}

start();
