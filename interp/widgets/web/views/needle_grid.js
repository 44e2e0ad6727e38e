// NeedleGrid: length by depth. Arrows move, Enter locks a cell, PageUp and PageDown change what is shown, Esc lets go of cell and head.
import { el, grouped, number, place } from "../dom.js";
import { bytes, colour, colourIndex, gradient } from "../data.js";
import { floats } from "./requests.js";
import { NOWHERE, createChoice, createFrame, labelled, onKeys } from "./frame.js";

// From this colour on dark figures read better than light ones (equal contrast in sequential()).
const NEEDLE_LIGHT = 124;
const NEEDLE_PARTS = {
  answers: ["found", "share of answers found", "Shares of answers that were accepted; intervals are Wilson's, 95 %."],
  score: ["score of a head", "mean retrieval score", "Means over the accepted answers of each cell: how much of the span the head copied."],
  copied: ["answers it copied in", "share of accepted answers in which the head copied", "Shares of the accepted answers; intervals are Wilson's, 95 %."],
};

const needlePercent = (x) => `${number(100 * x)} %`;
const needleInterval = (low, high) => (Number.isNaN(low) ? "" : ` (95 % interval ${needlePercent(low)} to ${needlePercent(high)})`);

export function mountNeedleGrid(model, root) {
  const payload = model.get("payload"), { lengths, depths, layers, heads, best, high } = payload;
  const table = bytes(payload.colours), n = lengths.length * depths.length;
  const frame = createFrame(model, root, "grid of needles", "");
  const kinds = layers.length ? ["answers", "score", "copied"] : ["answers"];
  const measure = createChoice("what is shown", kinds.map((kind) => [kind, NEEDLE_PARTS[kind][0], NEEDLE_PARTS[kind][1]]), (kind) => turnTo(kind));
  const picker = el("select", {}, ...best.map(([layer, head]) => el("option", { value: `${layer}.${head}`, text: `${layer}.${head}` })));
  const other = el("option", { value: "", hidden: true });
  picker.append(other);
  const at = (i, j) => i * depths.length + j;
  const cells = [...Array(n).keys()].map((c) => el("div", { class: "iv-trial", role: "gridcell", tabindex: c ? -1 : 0, "aria-selected": "false", "data-cell": c }, el("b"), el("small")));
  const rowOf = (j) => el("div", { class: "iv-needle-row", role: "row" }, el("span", { class: "iv-axis", role: "rowheader", text: `depth ${needlePercent(depths[j])}` }),
    ...lengths.map((_, i) => cells[at(i, j)]));
  const foot = el("div", { class: "iv-needle-row", "aria-hidden": "true" }, el("span", { class: "iv-axis", text: "tokens" }),
    ...lengths.map((length) => el("span", { class: "iv-axis", text: grouped(length) })));
  const grid = el("div", { class: "iv-needles", role: "grid", "aria-rowcount": depths.length, "aria-colcount": lengths.length }, ...depths.map((_, j) => rowOf(j)), foot);
  const ends = [el("span", { text: "0" }), el("span"), el("span")], what = el("span", { class: "iv-small" });
  frame.body.append(el("div", { class: "iv-tools" }, measure.box, layers.length ? labelled("head", picker) : null), el("div", { class: "iv-scroll" }, grid),
    el("div", { class: "iv-legend" }, el("div", { class: "iv-scale" }, place(el("i", { class: "iv-ramp" }), { background: gradient(table) }), el("div", { class: "iv-ticks" }, ...ends)), what));
  frame.box.querySelector(".iv-readout").classList.add("iv-two");
  place(frame.box, { "--lengths": lengths.length, "--wide": `${Math.max(46, Math.min(76, Math.floor(900 / lengths.length)))}px` });

  let kind = layers.length ? "score" : "answers", current = 0, pointed = null;
  let answers = null;                          // { share, low, high, found, asked }
  let copied = null;                           // { layer, head, score, spread, control, share, low, high, active }

  const locked = () => {
    const [i, j] = model.get("picks")[0] ?? [];
    return i >= 0 && i < lengths.length && j >= 0 && j < depths.length ? at(i, j) : null;
  };
  const inside = ({ layer, head }) => layers.includes(layer) && head !== null && head < heads;
  const wanted = () => {
    const chosen = [model.get("selection"), model.get("hover")].find(inside);
    return chosen ? [chosen.layer, chosen.head] : best[0];
  };

  async function loadHead() {
    if (!layers.length) return;
    const [layer, head] = wanted();
    const name = `${layer}.${head}`;
    if (![...picker.options].some((o) => o !== other && o.value === name)) Object.assign(other, { value: name, textContent: name });
    picker.value = name;
    if (copied && copied.layer === layer && copied.head === head) return;
    frame.settle("loading");
    const answer = await model.request({ op: "head", layer, head }, "head");
    if (answer === null) return;
    if (answer.error) frame.note(answer.error);
    else {
      const [score, spread, control, share, low, top, active] = answer.buffers.map(floats);
      frame.note("");
      copied = { layer, head, score, spread, control, share, low, high: top, active };
    }
    paint();
    frame.settle();
  }

  async function load() {
    const answer = await model.request({ op: "answers" });
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); return; }
    const [share, low, top, found, asked] = answer.buffers.map(floats);
    answers = { share, low, high: top, found, asked };
    paint();
    if (layers.length) await loadHead();
    else frame.settle();
  }

  function turnTo(next) {
    kind = next;
    measure.press(kind);
    paint();
  }

  // What stands in a cell: its value, and the counts below it.
  const valueOf = (c) => (kind === "answers" ? answers.share[c] : copied === null ? NaN : kind === "score" ? copied.score[c] : copied.share[c]);
  const countsOf = (c) => (kind === "copied" && copied ? `${number(copied.active[c])} of ${number(answers.found[c])}` : `${number(answers.found[c])} of ${number(answers.asked[c])}`);

  function paint() {
    if (!answers) return;
    const end = kind === "score" ? high : 1;
    cells.forEach((cell, c) => {
      const x = valueOf(c), index = colourIndex(x, 0, end, false), [value, counts] = cell.children;
      cell.classList.toggle("iv-undefined", index < 0);
      place(cell, { "background-color": index < 0 ? "transparent" : colour(table, index), color: index < 0 ? "var(--ink)" : index >= NEEDLE_LIGHT ? "#1b2230" : "#fcfbf8" });
      value.textContent = number(x, 2);
      counts.textContent = countsOf(c);
      cell.setAttribute("aria-label", `${number(lengths[Math.floor(c / depths.length)])} tokens, depth ${needlePercent(depths[c % depths.length])}: ${number(x)}, ${countsOf(c)}`);
    });
    ends[1].textContent = number(end / 2);
    ends[2].textContent = number(end);
    const whose = kind === "answers" ? "the model" : `head ${copied ? `${copied.layer}.${copied.head}` : "–"}`;
    what.textContent = `${NEEDLE_PARTS[kind][1]}: ${whose}; small: ${kind === "copied" ? "copied in, of accepted" : "accepted, of asked"}`;
    grid.setAttribute("aria-label", `${NEEDLE_PARTS[kind][1]}, ${whose}, by depth (rows) and length (columns)`);
    frame.exactly(NEEDLE_PARTS[kind][2]);
    mark();
  }

  function tell(c) {
    if (c === null || !answers) {
      frame.read(`Point at a cell; click locks it, Esc clears.${layers.length ? " Choose a head above or in a linked view." : ""}`);
      return;
    }
    const of = Number.isNaN(answers.asked[c]) ? "" : ` of ${number(answers.asked[c])}`;
    const parts = [`${number(lengths[Math.floor(c / depths.length)])} tokens, depth ${needlePercent(depths[c % depths.length])}: found in ${number(answers.found[c])}${of} answers${needleInterval(answers.low[c], answers.high[c])}`];
    if (copied) {
      const more = [`score ${number(copied.score[c])}`];
      if (!Number.isNaN(copied.spread[c])) more.push(`sd ${number(copied.spread[c], 2)}`);
      if (!Number.isNaN(copied.control[c])) more.push(`random spans ${number(copied.control[c])}`);
      if (!Number.isNaN(copied.active[c])) more.push(`copied in ${number(copied.active[c])} of ${number(answers.found[c])} accepted answers${needleInterval(copied.low[c], copied.high[c])}`);
      parts.push(`head ${copied.layer}.${copied.head}: ${more.join(", ")}`);
    }
    frame.read(parts.join("; "));
  }

  function mark() {
    const lock = locked();
    cells.forEach((cell, c) => {
      cell.classList.toggle("iv-lock", c === lock);
      cell.classList.toggle("iv-hover", c === pointed);
      cell.setAttribute("aria-selected", String(c === lock));
    });
    tell(lock ?? pointed);
  }

  const point = (c) => { pointed = c; mark(); };
  const lock = (c) => model.set("picks", locked() === c ? [] : [[Math.floor(c / depths.length), c % depths.length]]);
  const focusable = (c) => {
    cells[current].tabIndex = -1;
    current = c;
    cells[c].tabIndex = 0;
  };
  const under = (event) => {
    const cell = event.target.closest("[data-cell]");
    return cell ? Number(cell.dataset.cell) : null;
  };
  grid.addEventListener("pointerover", (event) => { if (under(event) !== null) point(under(event)); });
  grid.addEventListener("pointerleave", () => point(null));
  grid.addEventListener("focusin", (event) => { if (under(event) !== null) { focusable(under(event)); point(current); } });
  grid.addEventListener("focusout", () => point(null));
  grid.addEventListener("click", (event) => { if (under(event) !== null) lock(under(event)); });
  picker.addEventListener("change", () => {
    const [layer, head] = picker.value.split(".").map(Number);
    model.set("selection", { ...model.get("selection"), layer, head });
  });
  const move = (di, dj) => () => {
    const i = Math.floor(current / depths.length) + di, j = (current % depths.length) + dj;
    if (i >= 0 && i < lengths.length && j >= 0 && j < depths.length) cells[at(i, j)].focus();
  };
  const turn = (by) => turnTo(kinds[(kinds.indexOf(kind) + by + kinds.length) % kinds.length]);
  onKeys(grid, {
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
    Enter: () => lock(current), " ": () => lock(current), PageDown: () => turn(1), PageUp: () => turn(-1),
  });
  onKeys(frame.box, { Escape: () => {
    model.set("picks", []);
    model.set("selection", { ...model.get("selection"), layer: null, head: null });
    model.set("hover", NOWHERE);
  } });
  model.on("picks", mark);
  for (const trait of ["selection", "hover"]) model.on(trait, loadHead);

  measure.press(kind);
  tell(null);
  load();
}
