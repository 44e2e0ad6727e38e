// Intervene: heads, an edit, run; how far it is, cancel; then before and after, and the Python that does the same.
import { el, place } from "../dom.js";
import { createFrame, labelled, onKeys } from "./frame.js";
import { createCopy } from "./copy.js";
import { createPart } from "./parts.js";
import { mountCompareView } from "./compare_view.js";

const INTERVENE_POLL = 400;

// "3.1, 5.2" as [[3, 1], [5, 2]]; null where it cannot be read.
export function interveneHeads(text) {
  const parts = text.split(/[\s,;]+/).filter(Boolean).map((part) => part.match(/^(\d+)\.(\d+)$/));
  return parts.every(Boolean) ? parts.map((m) => [Number(m[1]), Number(m[2])]) : null;
}

export function mountIntervene(model, root) {
  const payload = model.get("payload");
  const frame = createFrame(model, root, "intervention panel", "Effects are exact on the text or prompts that are chosen; the control is the same edit on random heads of the same layers.");
  const heads = el("input", { type: "text", placeholder: "3.1, 5.2", spellcheck: "false", class: "iv-edit-heads" });
  const picker = el("select", {}, ...payload.choices.map((c, i) => el("option", { value: i, text: c.title })));
  const grounds = el("select", { class: "iv-edit-on" }, ...payload.grounds.map((g, i) => el("option", { value: i, text: g.title })));
  const fields = el("span", { class: "iv-tools" });
  const run = el("button", { type: "button", text: "run", class: "iv-edit-run" }), cancel = el("button", { type: "button", text: "cancel", hidden: true });
  const bar = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "share done" });
  const code = createCopy("Python", frame.read), result = el("div");
  code.show("");
  frame.body.append(el("p", { class: "iv-small", text: payload.made }),
    el("div", { class: "iv-tools" }, labelled("heads", heads), labelled("edit", picker), fields, labelled("on", grounds), run, cancel, bar), result, code.box);
  let running = false, timer = null;

  function drawFields() {
    const choice = payload.choices[picker.value];
    heads.disabled = choice.fields === null;
    fields.replaceChildren(...(choice.fields ?? []).map((f) => labelled(f.label, f.choices.length
      ? el("select", { "data-field": f.name }, ...f.choices.map((c) => el("option", { value: c, text: c })))
      : el("input", { type: "number", "data-field": f.name, value: f.value, min: f.low, max: f.high, step: f.step, class: "iv-edit-number" }))));
  }
  // Heads that were picked elsewhere, else the locked one.
  function takeHeads() {
    const picks = model.get("picks").filter((p) => p.length === 2), { layer, head } = model.get("selection");
    const found = picks.length ? picks : layer === null || head === null ? [] : [[layer, head]];
    if (found.length && !heads.matches(":focus")) heads.value = found.map(([a, b]) => `${a}.${b}`).join(", ");
  }
  function show(state) {
    running = state.state === "running";
    run.hidden = running;
    cancel.hidden = bar.hidden = !running;
    bar.value = state.share;
    if (running) frame.read(`working, ${Math.round(100 * state.share)} % done; the notebook stays free`);
    if (state.state === "failed" || state.state === "stopped") { frame.note(state.words); frame.read(""); }
    frame.box.dataset.job = state.state;
  }
  async function poll() {
    clearTimeout(timer);
    const state = await model.request({ op: "state" }, "state");
    if (state === null) return;
    if (state.error) { if (!model.saved) frame.note(state.error); frame.settle(); return; }
    show(state);
    if (running) timer = setTimeout(poll, INTERVENE_POLL);
    else if (state.state === "done") await drawOutcome();
    frame.settle();
  }
  async function drawOutcome() {
    const made = await model.request({ op: "outcome" });
    if (made === null || made.error) { if (made) frame.note(made.error); return; }
    result.replaceChildren();
    const part = createPart(model, "compare", { payload: { colours: payload.colours, ...made.payload }, title: "Before and after" }, (message) => ({ op: "compare", message }));
    mountCompareView(part, result);
    code.show(made.code);
    if (model.saved) grounds.value = payload.grounds.findIndex((g) => g.task === made.task);
    frame.read(`done on ${made.on}: before and after below, and the Python that does the same`);
  }
  async function start() {
    const chosen = payload.choices[picker.value], pairs = interveneHeads(heads.value);
    frame.note("");
    if (chosen.fields !== null && (pairs === null || !pairs.length)) { frame.note("Write heads as layer.head, such as 3.1, 5.2, or pick some in a linked grid."); return; }
    const values = Object.fromEntries([...fields.querySelectorAll("[data-field]")].map((f) => [f.dataset.field, f.tagName === "SELECT" ? f.value : f.value === "" ? null : Number(f.value)]));
    frame.settle("loading");
    const state = await model.request({ op: "run", edit: chosen.name, heads: chosen.fields === null ? [] : pairs, values, task: payload.grounds[grounds.value].task });
    if (state === null) return;
    if (state.error) { frame.note(state.error); frame.settle(); return; }
    show(state);
    poll();
  }
  picker.addEventListener("change", drawFields);
  run.addEventListener("click", start);
  cancel.addEventListener("click", async () => { await model.request({ op: "cancel" }); poll(); });
  onKeys(heads, { Enter: start });
  heads.addEventListener("keydown", (event) => event.stopPropagation());
  for (const trait of ["picks", "selection"]) model.on(trait, takeHeads);
  drawFields();
  takeHeads();
  place(bar, { width: "160px" });
  if (model.saved) { run.disabled = true; run.title = "open the view in a notebook to run"; }
  poll();
  return () => poll();
}
