// What stands around every view: title, a line that says what is under the pointer, notices, and what attention does not mean.
import { el } from "../dom.js";

const CAUTION = "Attention weight is not causal effect.";
const WORDS = {
  ok: "",
  busy: "The kernel is busy: answers come when it is free (a host with subshells answers while a cell runs).",
  gone: "The kernel was restarted or is gone. What is drawn stays; run the cell again to go on.",
};

// kind: what the view is called to a screen reader; exact: what of it is exact and what is pooled, in one sentence.
export function createFrame(model, root, kind, exact) {
  const title = el("h3", { class: "iv-title", text: model.get("title") });
  const body = el("div", { class: "iv-body" }), readout = el("p", { class: "iv-readout", role: "status", "aria-live": "polite" });
  const notice = el("p", { class: "iv-notice", role: "alert" });
  const small = el("span", { text: `${exact} ` });
  // The attribute asks JupyterLab to leave the keys of this box alone.
  const box = el("div", { class: "iv", role: "region", "aria-label": kind, "data-lm-suppress-shortcuts": "true", "data-state": "loading" },
    title, body, readout, notice, el("p", { class: "iv-small" }, small, el("span", { class: "iv-caution", text: CAUTION })));
  root.append(box);
  model.on("title", (text) => { title.textContent = text; });
  model.on("status", (word) => { notice.textContent = WORDS[word]; box.dataset.kernel = word; });
  return {
    box, body,
    read: (text) => { readout.textContent = text; },
    note: (text) => { notice.textContent = text; },
    exactly: (text) => { small.textContent = `${text} `; },
    // "ready" when everything on show has arrived: what tests wait for.
    settle: (word = "ready") => { box.dataset.state = word; },
  };
}

// Keys of a box: {ArrowLeft: function, ...}. A handled key goes no further, so that the notebook does not take it too.
export function onKeys(node, keys) {
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    if (keys[event.key](event) === false) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

// A row of buttons of which one is pressed: choices are [value, text, title]; chosen(value) is called on a change.
export function createChoice(label, choices, chosen) {
  const buttons = choices.map(([value, text, title]) => el("button", { type: "button", text, title, "data-value": value }));
  const box = el("div", { class: "iv-choice", role: "group", "aria-label": label }, ...buttons);
  const press = (value) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.value === String(value))));
  buttons.forEach((button, i) => button.addEventListener("click", () => { press(choices[i][0]); chosen(choices[i][0]); }));
  return { box, press };
}

// A label before a control.
export function labelled(text, control) {
  control.setAttribute("aria-label", text);
  return el("label", {}, el("span", { text }), control);
}

export const NOWHERE = { layer: null, head: null, q: null, k: null };
