// One feature of an autoencoder, drawn from its record: heads, logits, histogram, contexts with their attributions to source tokens.
import { el, number, place, token } from "./dom.js";

const NEAR = 14; // tokens shown on either side of the one that matters

function percent(x) {
  return x === null || x === undefined ? "–" : `${number(100 * x)} %`;
}

// Bars of equal bins; `edges` has one more than `counts`.
export function histogram(counts, edges, label) {
  if (!counts.length) return el("p", { class: "note", text: "Never fires on this text." });
  const highest = Math.max(...counts, 1);
  return el("div", {},
    el("div", { class: "bars", role: "img", "aria-label": label },
      ...counts.map((n, i) => place(el("i", { title: `${number(edges[i])} to ${number(edges[i + 1])}: ${number(n)}` }), { height: `${100 * n / highest}%` }))),
    el("div", { class: "ticks" }, el("span", { text: number(edges[0]) }), el("span", { text: number(edges.at(-1)) })));
}

// A share for each head, by weights, by attribution, and by attribution without the sink.
function heads(record) {
  const columns = [["weights", "weights"], ["dfa", "DFA"], ["dfa_without_sink", "DFA, no sink"]];
  const rows = record.heads.weights.map((_, h) => el("tr", {}, el("th", { scope: "row", text: `${record.layer}.${h}` }),
    ...columns.map(([key]) => {
      const share = record.heads[key]?.[h];
      return el("td", { class: "share", title: percent(share) }, place(el("i"), { width: `${100 * (share ?? 0)}%` }), el("span", { text: percent(share) }));
    })));
  return el("div", {}, el("h3", { text: "Heads" }),
    el("p", { class: "note", text: "Share of each head: by norms of the decoder row, and of |DFA| at the top contexts. Where they differ, DFA says what happens." }),
    el("table", { class: "heads" }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "head" }), ...columns.map(([, text]) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...rows)));
}

function logits(record) {
  const found = record.logits;
  if (found.reason) return el("div", {}, el("h3", { text: "Logits" }), el("p", { class: "note", text: `Not shown: ${found.reason}` }));
  const side = (name, pairs) => el("div", { class: "words" }, el("h4", { text: name }),
    ...pairs.map(([text, value]) => el("span", {}, el("b", { text: token(text) }), ` ${number(value, 2)}`)));
  return el("div", {}, el("h3", { text: "Logits" }),
    el("p", { class: "note", text: "What the decoder row raises and lowers by its direct path: W_O, the last norm's gain, W_U. Ranks mean something, sizes little." }),
    side("raised", found.raised), side("lowered", found.lowered));
}

function span(text, at, share, kind, title, marked) {
  return place(el("span", { class: `${kind}${marked ? " here" : ""}`, text: token(text), title: `${at}: ${title}` }), { "--share": String(Math.min(1, Math.max(0, share))) });
}

// Tokens from `first` up to `stop`, shaded.
function row(example, first, stop, draw) {
  const shown = [];
  if (first > 0) shown.push(el("span", { class: "cut", text: "…" }));
  for (let i = first; i < stop; i++) shown.push(draw(i));
  if (stop < example.tokens.length) shown.push(el("span", { class: "cut", text: "…" }));
  return shown;
}

function around(example, at, whole) {
  return whole ? [0, example.tokens.length] : [Math.max(0, at - NEAR), Math.min(example.tokens.length, at + NEAR + 1)];
}

// `view.sink`: whether the first token, which much of the attention rests on, is counted among the sources.
function context(example, highest, view) {
  const values = el("p", { class: "tokens-line" }), sources = el("p", { class: "tokens-line" });
  let whole = false;
  const button = el("button", { type: "button", class: "quiet", "aria-expanded": "false" });
  function draw() {
    const dfa = example.dfa.map((x, i) => (i === 0 && !view.sink ? 0 : x));
    const strongest = Math.max(...dfa.map(Math.abs), 1e-12), source = dfa.indexOf(Math.max(...dfa));
    values.replaceChildren(...row(example, ...around(example, example.position, whole),
      (i) => span(example.tokens[i], i, example.values[i] / highest, "act", `value ${number(example.values[i])}`, i === example.position)));
    sources.replaceChildren(...row(example, ...around(example, source, whole), (i) => {
      const x = dfa[i];
      const said = x === undefined ? "behind the token" : `adds ${number(x)}`;
      return span(example.tokens[i], i, Math.abs(x ?? 0) / strongest, (x ?? 0) < 0 ? "dfa less" : "dfa", said, i === source);
    }));
    button.textContent = whole ? "less" : "whole text";
    button.setAttribute("aria-expanded", String(whole));
  }
  button.addEventListener("click", () => { whole = !whole; draw(); });
  view.redraw.push(draw);
  draw();
  const by = example.by_head.map((x, h) => [h, x]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 3);
  return el("li", { class: "context" },
    el("p", { class: "said" }, el("b", { text: number(example.values[example.position]) }), ` at token ${example.position} of text ${example.context}; from head `,
      by.map(([h, x]) => `${h}: ${number(x, 2)}`).join(", "), `; ${percent(example.sink_share)} of |DFA| from the first token `, button),
    values, sources);
}

function group(data, highest, view) {
  const title = data.name === "top" ? "Top contexts, one of each text" : `${number(data.low)} to ${number(data.high)}: ${percent(data.share)} of its firings`;
  return el("section", { class: "group" }, el("h3", { text: title }),
    data.examples.length ? el("ol", {}, ...data.examples.map((e) => context(e, highest, view))) : el("p", { class: "note", text: "No firing in this interval." }));
}

function sinkChoice(view) {
  const buttons = [["counted", true], ["left out", false]].map(([text, sink]) => {
    const button = el("button", { type: "button", text, "aria-pressed": String(sink === view.sink) });
    button.addEventListener("click", () => {
      view.sink = sink;
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      view.redraw.forEach((draw) => draw());
    });
    return button;
  });
  return el("span", { class: "choice", role: "group", "aria-label": "the first token as a source" }, ...buttons);
}

// `go(feature)` opens another feature; null where it is not on the page.
export function createFeature(record, go) {
  const view = { sink: true, redraw: [] };
  const related = record.related.map(([feature, cosine]) => {
    const open = go(feature);
    const button = open === null ? el("span", { text: String(feature) }) : el("button", { type: "button", class: "head", text: String(feature) });
    if (open !== null) button.addEventListener("click", open);
    return el("li", {}, button, ` cosine ${number(cosine)}`);
  });
  return el("article", { class: "feature", "data-feature": record.feature },
    el("h2", { text: `Feature ${record.feature}` }),
    el("p", { class: "note", text: `Fires on ${percent(record.density)} of ${number(record.tokens)} tokens (${number(record.firings)} times), `
      + `and at position 0 of ${percent(record.at_first)} of the texts, which counts nowhere else; mean ${number(record.mean)}, largest ${number(record.max)} where it fires.` }),
    el("div", { class: "two" }, heads(record), logits(record),
      el("div", {}, el("h3", { text: "Values where it fires" }), histogram(record.histogram.counts, record.histogram.edges, "histogram of its values")),
      el("div", {}, el("h3", { text: "Nearest decoder rows" }), el("ol", { class: "related" }, ...related))),
    el("p", { class: "note key-line" }, "In each context: above, the feature's value at each token; below, what each source token adds to it at the outlined one (",
      place(el("span", { class: "dfa", text: "adds" }), { "--share": "0.8" }), " ", place(el("span", { class: "dfa less", text: "takes away" }), { "--share": "0.8" }),
      "), heads together, the attention pattern held. The first token as a source: ", sinkChoice(view)),
    ...record.groups.map((g) => group(g, record.max, view)));
}
