// Attention maps of a few heads: a pixel is one exact cell (with its tokens) or a pool of exact cells, and each picture says which.
import { el, number, place, token } from "./dom.js";
import { gradient } from "./data.js";

const NAMES = { max: "peak (max)", mean: "mean" };

function weight(code, floor) {
  return code === 0 ? 0 : Math.exp(Math.log(floor) * (1 - (code - 1) / 65534));
}

function paintMap(canvas, data, map) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.width, map.height);
  map.codes.forEach((code, at) => {
    if (code === 0) return;
    const part = Math.sqrt(weight(code, data.floor) / map.high);
    const index = Math.floor(Math.min(1, part) * 255 + 0.5);
    image.data.set([data.table[3 * index], data.table[3 * index + 1], data.table[3 * index + 2], 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
}

// The cells under a pixel: pixel p of n covers floor(p * cells / n) up to floor((p + 1) * cells / n).
function cellsUnder(pixel, pixels, [start, stop]) {
  const cells = stop - start;
  return [start + Math.floor(pixel * cells / pixels), start + Math.floor((pixel + 1) * cells / pixels)];
}

function labels(tokens, side) {
  return el("div", { class: `tokens ${side}`, "aria-hidden": "true" }, ...tokens.map((text) => el("span", { text: token(text), title: token(text) })));
}

function createPicture(data, map) {
  const exact = map.pool === "exact";
  const canvas = el("canvas", { width: map.width, height: map.height, tabindex: 0, role: "img" });
  paintMap(canvas, data, map);
  const readout = el("p", { class: "readout", role: "status" });
  const cross = el("i", { class: "cross" });
  const frame = el("div", { class: "frame" }, canvas, cross);
  const sides = exact ? [labels(map.row_tokens, "left"), labels(map.col_tokens, "top")] : [];
  const [i0, i1] = map.rows, [j0, j1] = map.cols;
  const what = exact
    ? `Exact: each cell is one weight. Queries ${i0} to ${i1 - 1} (rows), keys ${j0} to ${j1 - 1} (columns).`
    : `Pooled: each pixel is the ${map.pool} of exact weights, about ${number((i1 - i0) / map.height)} × ${number((j1 - j0) / map.width)} cells. All ${i1 - i0} queries (rows) and ${j1 - j0} keys.`;
  canvas.setAttribute("aria-label", `${data.name(map.head_index)}. ${what} Arrow keys read weights.`);
  let cursor = null;

  const read = (next) => {
    cursor = next;
    cross.hidden = next === null;
    sides.forEach((side, axis) => [...side.children].forEach((child, at) => child.classList.toggle("on", next !== null && at === next[axis])));
    if (next === null) { readout.textContent = "Point at the map to read weights."; return; }
    const [y, x] = next;
    place(cross, { left: `${100 * x / map.width}%`, top: `${100 * y / map.height}%`, width: `${100 / map.width}%`, height: `${100 / map.height}%` });
    const code = map.codes[y * map.width + x], value = weight(code, data.floor);
    const [qa, qb] = cellsUnder(y, map.height, map.rows), [ka, kb] = cellsUnder(x, map.width, map.cols);
    const where = exact
      ? `${token(map.row_tokens[y])} (${qa}) → ${token(map.col_tokens[x])} (${ka})`
      : `queries ${qa}–${qb - 1} → keys ${ka}–${kb - 1}, ${map.pool}`;
    readout.textContent = `${where}: ${code === 0 ? "hidden" : number(value)}`;
  };
  const clamp = (value, size) => Math.min(size - 1, Math.max(0, value));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    read([clamp(Math.floor((event.clientY - box.top) / box.height * map.height), map.height),
      clamp(Math.floor((event.clientX - box.left) / box.width * map.width), map.width)]);
  });
  canvas.addEventListener("pointerleave", () => read(null));
  canvas.addEventListener("blur", () => read(null));
  canvas.addEventListener("keydown", (event) => {
    const [y, x] = cursor ?? [map.height - 1, 0];
    const moves = { ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    read(cursor === null ? [y, x] : [clamp(moves[event.key][0], map.height), clamp(moves[event.key][1], map.width)]);
  });
  read(null);
  const scale = el("p", { class: "key" }, el("span", { text: "0" }), place(el("i", { class: "ramp" }), { background: gradient(data.table) }),
    el("span", { text: number(map.high) }), el("span", { class: "unit", text: `weight, square-root colours (middle: ${number(map.high / 4)})` }));
  const picture = el("figure", { class: exact ? "picture exact" : "picture pooled" },
    el("div", { class: "board" }, ...(exact ? [el("span", { class: "corner", text: "key →\nquery ↓" }), sides[1], sides[0]] : []), frame),
    readout, scale, el("figcaption", { text: what }));
  return place(picture, { "--rows": map.height, "--cols": map.width });
}

// A whole map is there pooled by max and by mean: one picture is shown, buttons choose.
function createWhole(pictures) {
  if (!pictures.length) return null;
  const buttons = pictures.map(({ map }) => el("button", { type: "button", text: NAMES[map.pool] }));
  const show = (chosen) => pictures.forEach(({ node }, i) => {
    node.hidden = i !== chosen;
    buttons[i].setAttribute("aria-pressed", String(i === chosen));
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => show(i)));
  show(0);
  return el("div", { class: "whole" }, el("div", { class: "choice", role: "group", "aria-label": "what a pixel shows" }, ...buttons),
    ...pictures.map(({ node }) => node));
}

// Cards of pictures, and a strip of small whole maps that chooses which card is open.
// An entry: maps (pooled and exact), name and why (under its small map), heading (a node), extra (a node behind the pictures, or null).
export function createCards(data, entries, first, label) {
  const panels = entries.map(({ maps, why, heading, extra }, i) => {
    const pictures = maps.map((map) => ({ map, node: createPicture(data, map) }));
    const exact = pictures.filter(({ map }) => map.pool === "exact"), whole = pictures.filter(({ map }) => map.pool !== "exact");
    return el("article", { class: "card", role: "tabpanel", id: `card-${i}`, "aria-labelledby": `tab-${i}` },
      el("h3", {}, heading, el("span", { class: "why", text: why })),
      el("div", { class: "pictures" }, createWhole(whole), ...exact.map(({ node }) => node), extra));
  });
  const tabs = entries.map(({ maps, name, why }, i) => {
    const small = el("canvas", { "aria-hidden": "true" }), shown = maps.find((map) => map.pool !== "exact") ?? maps[0];
    Object.assign(small, { width: shown.width, height: shown.height });
    paintMap(small, data, shown);
    return el("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-controls": `card-${i}` }, small,
      el("span", { text: name }), el("small", { text: why }));
  });
  const open = (chosen) => tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === chosen));
    tab.tabIndex = i === chosen ? 0 : -1;
    panels[i].hidden = i !== chosen;
  });
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(i));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      const next = (i + step + tabs.length) % tabs.length;
      open(next);
      tabs[next].focus();
    });
  });
  open(Math.max(0, first));
  return [el("div", { class: "strip", role: "tablist", "aria-label": label }, ...tabs), ...panels];
}

// One card per pictured head of a scan.
export function createMaps(data, state) {
  if (!data.maps.length) return null;
  const cards = new Map();
  for (const map of data.maps) {
    const id = `${map.head_index} ${map.statistic}`;
    if (!cards.has(id)) cards.set(id, []);
    cards.get(id).push(map);
  }
  const entries = [...cards.values()].map((maps) => {
    const { head_index, why } = maps[0];
    const lock = el("button", { type: "button", class: "title", text: data.title(head_index), title: "lock this head above" });
    lock.addEventListener("click", () => state.lock(head_index));
    return { maps, name: data.name(head_index), why, heading: lock, extra: null };
  });
  const first = entries.findIndex(({ maps }) => maps[0].statistic === data.first_map);
  return el("section", { class: "attention" },
    el("h2", { text: "Attention maps" }),
    el("p", { class: "note", text: "Heads that lead a statistic, on the first text of the scan. Every weight is exact, "
      + "exp(logit − log-sum-exp of its row), and read to three digits; hatched: hidden from the query. In tokens · is a space and ↵ a line end. "
      + "A head may look at a token and make no use of it." }),
    ...createCards(data, entries, first, "pictured heads"));
}
