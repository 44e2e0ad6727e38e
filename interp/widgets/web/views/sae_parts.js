// Parts of a feature's page: bars with what they say, lists of tokens, and contexts whose tokens are shaded by a number of each.
import { el, number, place, token } from "../dom.js";

// Bars from the left, each named by name(i); pressed(i) where a bar can be chosen.
export function saeBars(label, heights, name, pressed = null) {
  const most = Math.max(...heights.map((h) => h ?? 0), 0) || 1;
  const bars = heights.map((h, i) => {
    const bar = el(pressed ? "button" : "span", { class: "iv-sae-bar", type: pressed ? "button" : null, title: `${name(i)}: ${number(h)}`, "aria-label": `${name(i)}: ${number(h)}` }, place(el("i"), { height: `${100 * (h ?? 0) / most}%` }));
    if (pressed) bar.addEventListener("click", () => pressed(i));
    return bar;
  });
  return el("div", { class: "iv-sae-bars", role: "group", "aria-label": label }, ...bars);
}

export function saeHistogram(label, { edges, counts }) {
  if (!counts.length) return el("p", { class: "iv-small", text: "it never fires on this text" });
  return el("div", {}, saeBars(label, counts, (i) => `${number(edges[i])} to ${number(edges[i + 1])}`),
    el("div", { class: "iv-ticks" }, el("span", { text: number(edges[0]) }), el("span", { text: number(edges[edges.length - 1]) })));
}

export function saeTokens(label, pairs) {
  return el("table", { class: "iv-sae-tokens", "aria-label": label }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: label }), el("th", { scope: "col", text: "logit" }))),
    el("tbody", {}, ...pairs.map(([text, value]) => el("tr", {}, el("th", { scope: "row", text: token(text) }), el("td", { text: number(value) })))));
}

// One context: its tokens shaded by `numbers` (values of the feature, or DFA by source), of which `most` is full strength. The token that the
// context was chosen for has a frame, the source of its largest attribution a line below. said(words) tells what is under the pointer.
export function saeContext(example, numbers, most, what, said) {
  const words = example.tokens.map((text, i) => {
    const x = numbers[i] ?? 0, share = most > 0 ? Math.min(1, Math.abs(x) / most) : 0;
    const classes = ["iv-sae-token", i === example.position ? "iv-sae-at" : "", i === example.source ? "iv-sae-source" : "", x < 0 ? "iv-sae-less" : ""].filter(Boolean).join(" ");
    return place(el("span", { class: classes, "data-i": i, text: token(text) }), { "--share": `${Math.round(60 * Math.sqrt(share))}%` });
  });
  const tell = (i) => said(`token ${i} ${token(example.tokens[i])}: ${what} ${number(numbers[i] ?? 0)}${i === example.position ? "; the token that this context is shown for" : ""}${i === example.source ? "; the source of its largest attribution" : ""}`);
  const line = el("p", { class: "iv-sae-context", tabindex: 0, "aria-label": `context around token ${example.position}` }, ...words);
  line.addEventListener("pointerover", (event) => { if (event.target.dataset.i !== undefined) tell(Number(event.target.dataset.i)); });
  line.addEventListener("focus", () => tell(example.position));
  return line;
}
