// Every statistic at once: one small canvas each, a pixel per head, marks that follow the hovered and the locked head.
import { el, number, place } from "./dom.js";
import { colourIndex, gradient } from "./data.js";

function paintHeads(canvas, data, s) {
  const { layers, heads, table } = data;
  const context = canvas.getContext("2d");
  const image = context.createImageData(layers.length, heads.length);
  for (let i = 0; i < data.n; i++) {
    const index = colourIndex(s.mean[i], s.low, s.high, s.log);
    if (index < 0 || s.flat) continue;
    const at = 4 * ((i % heads.length) * layers.length + Math.floor(i / heads.length));
    image.data.set([table[3 * index], table[3 * index + 1], table[3 * index + 2], 255], at);
  }
  context.putImageData(image, 0, 0);
}

function headAt(event, canvas, data) {
  const box = canvas.getBoundingClientRect();
  const l = Math.floor((event.clientX - box.left) / box.width * data.layers.length);
  const h = Math.floor((event.clientY - box.top) / box.height * data.heads.length);
  const inside = l >= 0 && h >= 0 && l < data.layers.length && h < data.heads.length;
  return inside ? l * data.heads.length + h : null;
}

function summary(data, s) {
  if (!s.order.length) return "undefined for every head";
  if (s.flat) return `${number(s.low)} for every head`;
  return `highest: ${data.name(s.order[0])}`;
}

function createMap(data, state, s) {
  const canvas = el("canvas", {
    width: data.layers.length, height: data.heads.length, role: "img",
    "aria-label": `${s.title}: ${number(s.low)} to ${number(s.high)} ${s.unit}, ${summary(data, s)}`,
  });
  paintHeads(canvas, data, s);
  canvas.addEventListener("pointermove", (event) => state.hover(headAt(event, canvas, data)));
  canvas.addEventListener("pointerleave", () => state.hover(null));
  canvas.addEventListener("click", (event) => {
    const head = headAt(event, canvas, data);
    if (head !== null) state.lock(head);
  });
  const value = el("span", { class: "value" });
  const title = el("button", { type: "button", class: "title", title: "enlarge", text: s.title });
  title.addEventListener("click", () => state.pick(s.index));
  const legend = s.flat ? el("p", { class: "key", text: summary(data, s) }) : el("p", { class: "key" },
    el("span", { text: number(s.low) }), place(el("i", { class: "ramp" }), { background: gradient(data.table) }),
    el("span", { text: number(s.high) }), el("span", { class: "unit", text: s.unit + (s.log ? ", log" : "") }));
  const frame = el("div", { class: "frame" }, canvas, el("i", { class: "mark hover" }), el("i", { class: "mark lock" }));
  const map = el("figure", { class: s.flat && s.order.length ? "map flat" : "map", "data-statistic": s.name },
    el("figcaption", {}, title, value), frame, legend);
  state.subscribe(({ statistic }) => {
    map.classList.toggle("picked", statistic === s);
    const head = state.shown();
    value.textContent = head === null ? "" : number(s.mean[head]);
  });
  return map;
}

export function createMultiples(data, state, heading = "Every statistic") {
  const list = el("div", { class: "maps" }, ...data.statistics.map((s) => createMap(data, state, s)));
  const coordinates = (name, head) => {
    const l = head === null ? 0 : Math.floor(head / data.heads.length), h = head === null ? 0 : head % data.heads.length;
    list.classList.toggle(`has-${name}`, head !== null);
    place(list, { [`--${name}-x`]: l, [`--${name}-y`]: h });
  };
  state.subscribe(({ hover, lock }) => {
    coordinates("hover", hover);
    coordinates("lock", lock);
  });
  // Cells are square where that leaves a map neither flat nor tall.
  const shape = Math.min(4, Math.max(1, data.layers.length / data.heads.length));
  place(list, { "--layers": data.layers.length, "--heads": data.heads.length, "--shape": shape });
  return el("section", { class: "multiples" },
    el("h2", { text: heading }),
    el("p", { class: "note", text: "Layers run left to right, heads top to bottom, as above. Each map has its own range of colours: "
      + "compare places, not colours, between maps. Hatched: undefined." }), list);
}
