// HeadGrid: one number of every head. Arrows move, Enter locks, x picks, PageUp and PageDown change the statistic, Esc clears.
import { el, number, place } from "../dom.js";
import { bytes, colour, colourIndex, gradient, middle } from "../data.js";
import { floats } from "./requests.js";
import { NOWHERE, createChoice, createFrame, labelled, onKeys } from "./frame.js";

const ORDERS = [["position", "by layer", "layers from left to right"], ["value", "by value", "largest first"], ["cluster", "by likeness", "heads alike in all statistics side by side"]];

export function mountHeadGrid(model, root) {
  const payload = model.get("payload"), { layers, heads, group, statistics } = payload;
  const table = bytes(payload.colours), depth = layers.length, n = depth * heads;
  const frame = createFrame(model, root, "grid of heads", "Every number is exact for the texts that were measured.");
  const name = (i) => `${layers[Math.floor(i / heads)]}.${i % heads}`;
  const where = (i) => ({ layer: layers[Math.floor(i / heads)], head: i % heads });
  const indexOf = ({ layer, head }) => (layers.includes(layer) && head !== null && head < heads ? layers.indexOf(layer) * heads + head : null);

  const picker = el("select", {}, ...statistics.map((s, i) => el("option", { value: i, text: s.title })));
  const order = createChoice("order of the heads", ORDERS, (value) => arrange(value));
  const formula = el("code", { class: "iv-small" });
  const grid = el("div", { class: "iv-grid", role: "grid", "aria-multiselectable": "true" });
  const cells = [...Array(n).keys()].map((i) => el("div", { class: "iv-cell", role: "gridcell", tabindex: -1, "aria-selected": "false", "data-head": i }));
  const ends = [el("span"), el("span"), el("span")], unit = el("span", { class: "iv-small" });
  const legend = el("div", { class: "iv-legend" },
    el("div", { class: "iv-scale" }, place(el("i", { class: "iv-ramp" }), { background: gradient(table) }), el("div", { class: "iv-ticks" }, ...ends)), unit);
  frame.body.append(el("div", { class: "iv-tools" }, labelled("statistic", picker), order.box, formula), el("div", { class: "iv-scroll" }, grid), legend);
  place(frame.box, { "--columns": depth, "--cell": `${Math.min(26, Math.max(11, Math.floor(720 / depth)))}px` });

  let shown = null;      // { s, values, spread, control, low, high, log, rank }
  let sequence = [...Array(n).keys()], ordered = "position", current = 0, columns = depth;

  const focusable = (i) => {
    cells[current].tabIndex = -1;
    current = i;
    cells[i].tabIndex = 0;
  };

  // Cells by position: rows are heads and columns layers. In any other order: rows of as many heads, first to last.
  function lay() {
    const byPlace = ordered === "position", rows = byPlace ? heads : Math.ceil(n / columns);
    const at = (row, column) => (byPlace ? column * heads + row : sequence[row * columns + column]);
    const rowOf = (row) => el("div", { class: byPlace && group > 1 ? `iv-row iv-group${row % group === 0 ? " iv-first" : ""}` : "iv-row", role: "row" },
      el("span", { class: "iv-axis", role: "rowheader", text: byPlace ? String(row) : `${row * columns + 1}.` }),
      ...[...Array(columns).keys()].map((column) => cells[at(row, column)]).filter(Boolean));
    const step = Math.ceil(depth / 32);
    const foot = el("div", { class: "iv-row", "aria-hidden": "true" }, el("span", { class: "iv-axis", text: byPlace ? "head" : "rank" }),
      ...(byPlace ? layers.map((layer, l) => el("span", { class: "iv-axis", text: l % step === 0 ? String(layer) : "" })) : []));
    grid.replaceChildren(...[...Array(rows).keys()].map(rowOf), foot, el("p", { class: "iv-axis-name", "aria-hidden": "true",
      text: byPlace ? `layer${group > 1 ? `; lines join the ${group} heads that share keys` : ""}` : `${columns} heads in a row` }));
    grid.setAttribute("aria-rowcount", rows);
    grid.setAttribute("aria-colcount", columns);
    grid.setAttribute("aria-label", `${statistics[picker.value].title}, ${byPlace ? "by head (rows) and layer (columns)" : `heads ${ORDERS.find(([o]) => o === ordered)[1]}`}`);
  }

  async function arrange(value) {
    ordered = value;
    order.press(value);
    if (value === "cluster") {
      const answer = await model.request({ op: "clusters" }, "order");
      if (answer === null || ordered !== value) return;
      if (answer.error) { frame.note(answer.error); return; }
      sequence = [...floats(answer.buffers[0])];
    } else if (value === "value" && shown) sequence = [...shown.sorted];
    lay();
    focusable(current);
  }

  async function load() {
    const s = statistics[picker.value];
    frame.settle("loading");
    const answer = await model.request({ op: "values", statistic: s.name }, "values");
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); return; }
    const [values, spread, control] = answer.buffers.map(floats);
    const defined = [...values.keys()].filter((i) => !Number.isNaN(values[i]));
    const sorted = defined.sort((a, b) => values[b] - values[a] || a - b);
    const rest = [...values.keys()].filter((i) => Number.isNaN(values[i]));
    shown = { s, values, spread, control, ...answer, sorted: [...sorted, ...rest], rank: new Map(sorted.map((i, r) => [i, r + 1])) };
    paint();
    await arrange(ordered);
    mark();
    frame.settle();
  }

  function paint() {
    const { s, values, low, high, log } = shown;
    formula.textContent = s.formula;
    cells.forEach((cell, i) => {
      const index = colourIndex(values[i], low, high, log);
      cell.classList.toggle("iv-undefined", index < 0);
      place(cell, { "background-color": index < 0 ? "transparent" : high > low ? colour(table, index) : "var(--wash)" });
      cell.setAttribute("aria-label", `${name(i)}: ${number(values[i])}${s.unit ? ` ${s.unit}` : ""}`);
    });
    [low, low === null ? null : middle(shown), high].forEach((x, i) => { ends[i].textContent = number(x); });
    unit.textContent = `${s.unit}${log ? ", logarithmic colours" : ""}${high > low ? "" : "; all heads alike"}`;
  }

  function tell(i) {
    if (i === null || !shown) {
      frame.read("Point at a head; click locks it, Shift-click picks several, Esc clears.");
      return;
    }
    const { s, values, spread, control, rank } = shown;
    const parts = [`layer ${where(i).layer}, head ${where(i).head}: ${s.title} ${number(values[i])}${s.unit ? ` ${s.unit}` : ""}`];
    if (!Number.isNaN(spread[i])) parts.push(`sd ${number(spread[i], 2)}`);
    if (!Number.isNaN(control[i])) parts.push(`control ${number(control[i])}`);
    if (rank.has(i)) parts.push(`rank ${rank.get(i)} of ${rank.size}`);
    frame.read(parts.join("; "));
  }

  function mark() {
    const locked = indexOf(model.get("selection")), hovered = indexOf(model.get("hover"));
    const picked = new Set(model.get("picks").map(([layer, head]) => indexOf({ layer, head })));
    cells.forEach((cell, i) => {
      cell.classList.toggle("iv-lock", i === locked);
      cell.classList.toggle("iv-hover", i === hovered);
      cell.classList.toggle("iv-pick", picked.has(i));
      cell.setAttribute("aria-selected", String(i === locked || picked.has(i)));
    });
    tell(locked ?? hovered);
  }

  const hover = (i) => model.set("hover", i === null ? NOWHERE : { ...NOWHERE, ...where(i) });
  const unlocked = { layer: null, head: null };
  const lock = (i) => model.set("selection", { ...model.get("selection"), ...(indexOf(model.get("selection")) === i ? unlocked : where(i)) });
  const pick = (i) => {
    const { layer, head } = where(i), picks = model.get("picks"), others = picks.filter(([a, b]) => a !== layer || b !== head);
    model.set("picks", others.length < picks.length ? others : [...picks, [layer, head]]);
  };
  const headUnder = (event) => (event.target.dataset.head === undefined ? null : Number(event.target.dataset.head));
  grid.addEventListener("pointerover", (event) => { if (headUnder(event) !== null) hover(headUnder(event)); });
  grid.addEventListener("pointerleave", () => hover(null));
  grid.addEventListener("focusin", (event) => { if (headUnder(event) !== null) { focusable(headUnder(event)); hover(current); } });
  grid.addEventListener("focusout", () => hover(null));
  grid.addEventListener("click", (event) => {
    const i = headUnder(event);
    if (i !== null) (event.shiftKey ? pick : lock)(i);
  });
  picker.addEventListener("change", load);
  const turn = (by) => { picker.value = (Number(picker.value) + by + statistics.length) % statistics.length; load(); };
  const move = (dx, dy) => () => {
    const byPlace = ordered === "position", at = byPlace ? null : sequence.indexOf(current);
    if (byPlace) {
      const l = Math.floor(current / heads) + dx, h = (current % heads) + dy;
      if (l >= 0 && l < depth && h >= 0 && h < heads) cells[l * heads + h].focus();
    } else if (at + dx + dy * columns >= 0 && at + dx + dy * columns < n) cells[sequence[at + dx + dy * columns]].focus();
  };
  onKeys(grid, {
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
    Enter: () => lock(current), " ": () => lock(current), x: () => pick(current), PageDown: () => turn(1), PageUp: () => turn(-1),
  });
  onKeys(frame.box, { Escape: () => { model.set("selection", { ...model.get("selection"), ...unlocked }); model.set("hover", NOWHERE); model.set("picks", []); } });
  for (const trait of ["selection", "hover", "picks"]) model.on(trait, mark);

  picker.value = payload.first;
  order.press(ordered);
  focusable(0);
  lay();
  tell(null);
  load();
}
