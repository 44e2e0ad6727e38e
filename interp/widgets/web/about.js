// The frame of the report: what was run on what, definitions on demand, the manifest.
import { el, number } from "./dom.js";

const CAUTION = "Attention weight is not causal effect.";

// What a statistic is, when it is undefined, what it costs, where it comes from.
export function definition(s) {
  const term = (name, text) => text ? [el("dt", { text: name }), el("dd", { text })] : [];
  return el("dl", { class: "definition" }, ...term("formula", s.formula), ...term("unit", s.unit), ...term("mean over", s.over),
    ...term("undefined for", s.undefined), ...term("cost", s.cost), ...term("source", s.citation), ...term("merging", s.merge), ...term("name", s.name));
}

export function createHeader(data) {
  return el("header", {},
    el("p", { class: "kicker", text: "attention heads" }),
    el("h1", { text: data.title_text }),
    el("p", { class: "lead" }, `What the ${number(data.n)} heads of this model attend to: exact means over every query of the text. `
      + "Point at a head in any map to find it in all of them. ", el("span", { class: "caution", text: CAUTION })),
    el("dl", { class: "facts" }, ...data.facts.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value })))),
    ...data.notes.map((text) => el("p", { class: "notice", text })));
}

export function createDefinitions(data) {
  return el("section", { class: "definitions" }, el("h2", { text: "Definitions" }),
    el("p", { class: "note", text: "p is an attention weight, s a logit, i a query, j a key, n the number of keys that a query sees, z a head's output, v a value vector." }),
    ...data.statistics.map((s) => el("details", {}, el("summary", {}, el("span", { text: s.title }), el("code", { text: s.formula })), definition(s))));
}

export function createAbout(data) {
  return el("footer", {}, el("details", { class: "manifest" }, el("summary", { text: "Manifest: what was run, with which versions" }),
    el("pre", { text: JSON.stringify(data.manifest, null, 2) })),
    el("p", { class: "note", text: "Each number is the mean over the rows (or keys, or texts) of the whole scan; sd, quantiles and n are over the same values. "
      + "Quantiles are read from a histogram of 512 bins. Layer means are unweighted means over heads. "
      + "Weights say where a head looks, not what the model needs." }));
}
