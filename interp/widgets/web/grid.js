// The chosen statistic, large: a keyboard-driven grid of heads (rows) by layers (columns), layer means above, legend below.
import { el, number, place } from "./dom.js";
import { colourIndex, gradient, headColour, middle } from "./data.js";
import { definition } from "./about.js";

export function createGrid(data, state) {
  const { layers, heads, table } = data, width = layers.length;
  const picker = el("select", { id: "statistic", "aria-label": "statistic" },
    ...data.statistics.map((s) => el("option", { value: s.index, text: s.title })));
  const formula = el("code", { class: "formula" }), meaning = el("div", { class: "meaning", hidden: true });
  const ask = el("button", { type: "button", class: "quiet", "aria-expanded": "false", text: "definition" });
  ask.addEventListener("click", () => {
    meaning.hidden = !meaning.hidden;
    ask.setAttribute("aria-expanded", String(!meaning.hidden));
  });
  const bars = layers.map(() => el("i"));
  const cells = [];
  const grid = el("div", { class: "grid", role: "grid", "aria-rowcount": heads.length, "aria-colcount": width });
  heads.forEach((head, h) => {
    const row = el("div", { class: "row", role: "row" }, el("span", { class: "axis", role: "rowheader", text: String(head) }));
    layers.forEach((_, l) => {
      const cell = el("div", { class: "cell", role: "gridcell", tabindex: -1, "aria-selected": "false", "data-head": l * heads.length + h });
      cells[l * heads.length + h] = cell;
      row.append(cell);
    });
    grid.append(row);
  });
  const step = Math.ceil(width / 32);
  const numbers = el("div", { class: "row axes", "aria-hidden": "true" }, el("span", { class: "axis" }),
    ...layers.map((layer, l) => el("span", { class: "axis", text: l % step === 0 ? String(layer) : "" })));
  const bar = place(el("i", { class: "ramp" }), { background: gradient(table) });
  const ends = [el("span"), el("span"), el("span")], unit = el("p", { class: "unit" });
  let current = 0;

  const focus = (i) => {
    cells[current].tabIndex = -1;
    current = i;
    cells[i].tabIndex = 0;
  };
  focus(0);
  picker.addEventListener("change", () => state.pick(Number(picker.value)));
  grid.addEventListener("pointerover", (event) => {
    if (event.target.dataset.head !== undefined) state.hover(Number(event.target.dataset.head));
  });
  grid.addEventListener("pointerleave", () => state.hover(null));
  grid.addEventListener("focusin", (event) => {
    if (event.target.dataset.head === undefined) return;
    focus(Number(event.target.dataset.head));
    state.hover(current);
  });
  grid.addEventListener("focusout", () => state.hover(null));
  grid.addEventListener("click", (event) => {
    if (event.target.dataset.head !== undefined) state.lock(Number(event.target.dataset.head));
  });
  grid.addEventListener("keydown", (event) => {
    const l = Math.floor(current / heads.length), h = current % heads.length;
    const at = (x, y) => Math.min(width - 1, Math.max(0, x)) * heads.length + Math.min(heads.length - 1, Math.max(0, y));
    const moves = {
      ArrowLeft: at(l - 1, h), ArrowRight: at(l + 1, h), ArrowUp: at(l, h - 1), ArrowDown: at(l, h + 1),
      Home: at(0, h), End: at(width - 1, h),
    };
    if (event.key in moves) cells[moves[event.key]].focus();
    else if (event.key === "Enter" || event.key === " ") state.lock(current);
    else if (event.key === "PageDown") state.pick(state.get().statistic.index + 1);
    else if (event.key === "PageUp") state.pick(state.get().statistic.index - 1);
    else return;
    event.preventDefault();
  });

  let painted = null;
  const paint = (s) => {
    picker.value = s.index;
    formula.textContent = s.formula;
    meaning.replaceChildren(definition(s));
    grid.setAttribute("aria-label", `${s.title} by head (rows) and layer (columns)`);
    cells.forEach((cell, i) => {
      cell.classList.toggle("undefined", Number.isNaN(s.mean[i]));
      place(cell, { "background-color": headColour(data, s, s.mean[i]) });
      cell.setAttribute("aria-label", `${data.name(i)}: ${number(s.mean[i])} ${s.unit}`);
    });
    s.layerMean.forEach((mean, l) => {
      const part = !s.flat && !Number.isNaN(mean) ? colourIndex(mean, s.low, s.high, s.log) / 255 : 0;
      place(bars[l], { height: `${Math.max(2, 100 * part)}%` });
    });
    [s.low, middle(s), s.high].forEach((x, i) => { ends[i].textContent = number(x); });
    unit.textContent = `${s.unit}, mean over ${s.over}${s.log ? "; logarithmic colours" : ""}. Bars above: layer means.`;
  };
  const marked = { hover: null, lock: null };
  const mark = (name, head) => {
    if (marked[name] !== null) cells[marked[name]].classList.remove(name);
    if (head !== null) cells[head].classList.add(name);
    marked[name] = head;
  };
  state.subscribe(({ statistic, hover, lock }) => {
    if (statistic !== painted) paint(statistic);
    painted = statistic;
    if (marked.lock !== null) cells[marked.lock].setAttribute("aria-selected", "false");
    if (lock !== null) cells[lock].setAttribute("aria-selected", "true");
    mark("hover", hover);
    mark("lock", lock);
  });
  const section = el("section", { class: "focus", "aria-label": "one statistic, every head" },
    el("div", { class: "picker" }, el("span", { class: "choose" }, picker), ask, formula), meaning,
    el("div", { class: "plot" },
      el("span", { class: "axis-name vertical", text: "head" }),
      el("div", { class: "body" },
        el("div", { class: "row profile", "aria-hidden": "true" }, el("span", { class: "axis" }), ...bars.map((b) => el("span", {}, b))),
        grid, numbers, el("p", { class: "axis-name", text: "layer" }))),
    el("div", { class: "legend" }, el("div", { class: "scale" }, bar, el("div", { class: "ticks" }, ...ends)), unit));
  // Rows are as high as cells are wide on a common page, within reason.
  return place(section, { "--layers": width, "--cell": `${Math.min(26, Math.max(10, 720 / width))}px` });
}
