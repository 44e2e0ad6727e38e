// A small map of layers x heads inside a view: the cells, keys and locks of HeadGrid, painted with whatever numbers the view has.
import { el, number, place } from "../dom.js";
import { colour, colourIndex } from "../data.js";
import { NOWHERE, onKeys } from "./frame.js";

// Returns {box, paint(values, low, high, label, unit, log), shown()}: shown() is the index of the locked head, else of the one pointed at, else null.
export function createHeat(model, table, layers, heads) {
  const depth = layers.length, n = depth * heads;
  const where = (i) => ({ layer: layers[Math.floor(i / heads)], head: i % heads });
  const indexOf = ({ layer, head }) => (layers.includes(layer) && head !== null && head < heads ? layers.indexOf(layer) * heads + head : null);
  const cells = [...Array(n).keys()].map((i) => el("div", { class: "iv-cell", role: "gridcell", tabindex: i ? -1 : 0, "aria-selected": "false", "data-head": i }));
  const step = Math.ceil(depth / 16);
  const rows = [...Array(heads).keys()].map((head) => el("div", { class: "iv-row", role: "row" },
    el("span", { class: "iv-axis", role: "rowheader", text: String(head) }), ...layers.map((_, l) => cells[l * heads + head])));
  const foot = el("div", { class: "iv-row", "aria-hidden": "true" }, el("span", { class: "iv-axis", text: "head" }),
    ...layers.map((layer, l) => el("span", { class: "iv-axis", text: l % step === 0 ? String(layer) : "" })));
  const grid = el("div", { class: "iv-grid", role: "grid", "aria-rowcount": heads, "aria-colcount": depth }, ...rows, foot, el("p", { class: "iv-axis-name", "aria-hidden": "true", text: "layer" }));
  const box = place(el("div", { class: "iv-scroll" }, grid), { "--columns": depth, "--cell": `${Math.min(22, Math.max(9, Math.floor(360 / depth)))}px` });
  let current = 0;

  const hover = (i) => model.set("hover", i === null ? NOWHERE : { ...NOWHERE, ...where(i) });
  const lock = (i) => model.set("selection", { ...model.get("selection"), ...(indexOf(model.get("selection")) === i ? { layer: null, head: null } : where(i)) });
  function mark() {
    const locked = indexOf(model.get("selection")), hovered = indexOf(model.get("hover"));
    cells.forEach((cell, i) => {
      cell.classList.toggle("iv-lock", i === locked);
      cell.classList.toggle("iv-hover", i === hovered);
      cell.setAttribute("aria-selected", String(i === locked));
    });
  }
  const focus = (i) => {
    cells[current].tabIndex = -1;
    current = i;
    cells[i].tabIndex = 0;
  };
  const under = (event) => (event.target.dataset.head === undefined ? null : Number(event.target.dataset.head));
  grid.addEventListener("pointerover", (event) => { if (under(event) !== null) hover(under(event)); });
  grid.addEventListener("pointerleave", () => hover(null));
  grid.addEventListener("focusin", (event) => { if (under(event) !== null) { focus(under(event)); hover(current); } });
  grid.addEventListener("focusout", () => hover(null));
  grid.addEventListener("click", (event) => { if (under(event) !== null) lock(under(event)); });
  const move = (dx, dy) => () => {
    const l = Math.floor(current / heads) + dx, h = (current % heads) + dy;
    if (l >= 0 && l < depth && h >= 0 && h < heads) cells[l * heads + h].focus();
  };
  onKeys(grid, { ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1), Enter: () => lock(current), " ": () => lock(current) });
  model.on("selection", mark);
  model.on("hover", mark);
  mark();

  return {
    box, where,
    shown: () => indexOf(model.get("selection")) ?? indexOf(model.get("hover")),
    paint: (values, low, high, label, unit = "", log = false) => {
      grid.setAttribute("aria-label", `${label}, by head (rows) and layer (columns)`);
      cells.forEach((cell, i) => {
        const index = colourIndex(values[i], low, high, log), { layer, head } = where(i);
        cell.classList.toggle("iv-undefined", index < 0);
        place(cell, { "background-color": index < 0 ? "transparent" : high > low ? colour(table, index) : "var(--wash)" });
        cell.setAttribute("aria-label", `${layer}.${head}: ${number(values[i])}${unit ? ` ${unit}` : ""}`);
      });
    },
  };
}
