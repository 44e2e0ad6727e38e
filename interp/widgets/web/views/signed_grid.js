// A grid of heads whose colours are signed: blue less, orange more, one fixed grey at zero. Arrows move, Enter locks, Esc clears.
import { el, number, place } from "../dom.js";
import { colour } from "../data.js";
import { NOWHERE, onKeys } from "./frame.js";

export const SIGNED_ZERO = 127;

// Colour index 0 to 254 of a change, as interp.widgets.diverging.signed_index; -1: undefined.
export function signedIndex(x, limit) {
  if (Number.isNaN(x)) return -1;
  return SIGNED_ZERO + Math.floor((limit > 0 ? Math.min(1, Math.max(-1, x / limit)) : 0) * SIGNED_ZERO + 0.5);
}

export function signedGradient(table) {
  const stops = [];
  for (let i = 0; i <= 16; i++) stops.push(colour(table, Math.round(i * 2 * SIGNED_ZERO / 16)));
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

// shape: {layers, heads, group}; tell(i) says what stands under the pointer or is locked: the number of a head, or null.
export function createSignedGrid(model, shape, table, tell) {
  const { layers, heads, group } = shape, depth = layers.length;
  const where = (i) => ({ layer: layers[Math.floor(i / heads)], head: i % heads });
  const indexOf = ({ layer, head }) => (layers.includes(layer) && head !== null && head < heads ? layers.indexOf(layer) * heads + head : null);
  const cells = [...Array(depth * heads).keys()].map((i) => el("div", { class: "iv-cell", role: "gridcell", tabindex: i ? -1 : 0, "aria-selected": "false", "data-head": i }));
  const rows = [...Array(heads).keys()].map((h) => el("div", { class: group > 1 ? `iv-row iv-group${h % group === 0 ? " iv-first" : ""}` : "iv-row", role: "row" },
    el("span", { class: "iv-axis", role: "rowheader", text: String(h) }), ...layers.map((_, l) => cells[l * heads + h])));
  const step = Math.ceil(depth / 32);
  const foot = el("div", { class: "iv-row", "aria-hidden": "true" }, el("span", { class: "iv-axis", text: "head" }),
    ...layers.map((layer, l) => el("span", { class: "iv-axis", text: l % step === 0 ? String(layer) : "" })));
  const grid = el("div", { class: "iv-grid", role: "grid", "aria-rowcount": heads, "aria-colcount": depth }, ...rows, foot,
    el("p", { class: "iv-axis-name", "aria-hidden": "true", text: "layer" }));
  place(grid, { "--columns": depth, "--cell": `${Math.min(26, Math.max(11, Math.floor(640 / depth)))}px` });
  let current = 0;

  function draw(change, limit, label) {
    grid.setAttribute("aria-label", `${label}, by head (rows) and layer (columns)`);
    cells.forEach((cell, i) => {
      const index = signedIndex(change[i], limit);
      cell.classList.toggle("iv-undefined", index < 0);
      place(cell, { "background-color": index < 0 ? "transparent" : colour(table, index) });
      cell.setAttribute("aria-label", `${where(i).layer}.${where(i).head}: ${number(change[i])}`);
    });
  }
  function mark() {
    const locked = indexOf(model.get("selection")), hovered = indexOf(model.get("hover"));
    cells.forEach((cell, i) => {
      cell.classList.toggle("iv-lock", i === locked);
      cell.classList.toggle("iv-hover", i === hovered);
      cell.setAttribute("aria-selected", String(i === locked));
    });
    tell(locked ?? hovered);
  }
  const hover = (i) => model.set("hover", i === null ? NOWHERE : { ...NOWHERE, ...where(i) });
  const lock = (i) => model.set("selection", { ...model.get("selection"), ...(indexOf(model.get("selection")) === i ? { layer: null, head: null } : where(i)) });
  const under = (event) => (event.target.dataset.head === undefined ? null : Number(event.target.dataset.head));
  grid.addEventListener("pointerover", (event) => { if (under(event) !== null) hover(under(event)); });
  grid.addEventListener("pointerleave", () => hover(null));
  grid.addEventListener("focusin", (event) => {
    if (under(event) === null) return;
    cells[current].tabIndex = -1;
    current = under(event);
    cells[current].tabIndex = 0;
    hover(current);
  });
  grid.addEventListener("focusout", () => hover(null));
  grid.addEventListener("click", (event) => { if (under(event) !== null) lock(under(event)); });
  const move = (dx, dy) => () => {
    const l = Math.floor(current / heads) + dx, h = (current % heads) + dy;
    if (l >= 0 && l < depth && h >= 0 && h < heads) cells[l * heads + h].focus();
  };
  onKeys(grid, {
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
    Enter: () => lock(current), " ": () => lock(current),
  });
  for (const trait of ["selection", "hover"]) model.on(trait, mark);
  return { box: grid, draw, mark, where, lock };
}
