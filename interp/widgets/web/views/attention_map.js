// AttentionMap: a deep zoom into one head's map. Every key does what a pointer does: see KEYS.
import { el, number, place, token } from "../dom.js";
import { bytes, gradient } from "../data.js";
import { floats } from "./requests.js";
import { createChoice, createFrame, labelled, onKeys } from "./frame.js";
import { TILE, mapLowest, codeDifference, codeWeight, createTiles, differenceColours, weightColours } from "./map_tiles.js";
import { GUTTER, createCanvases, createNames, drawBars, drawGutter, loadMarginals } from "./map_axes.js";

const WIDEST = 560, HIGHEST = 520, LARGEST_CELL = 32, MINI = 112, LOWS = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
const KEYS = "Arrows move the cursor, with Shift the map; + and − zoom, Home shows all; Enter locks, b marks a rectangle's corners, g jumps, m changes peak and mass, Esc clears.";
const MODES = [["mass", "mass", "share of the rows' attention that goes to the keys under a pixel"], ["peak", "peak", "largest weight under a pixel"]];

export function mountAttentionMap(model, root) {
  let payload = model.get("payload"), { queries, keys, levels, floor } = payload;
  const frame = createFrame(model, root, "attention map", ""), { box, body } = frame;
  const sequential = bytes(payload.colours), signed = bytes(payload.diverging);
  let which = "a", mode = "mass", low = mapLowest(keys), bars = null, corner = null, cursor = null, asked = "", answered = null, drag = null, frames = 0, focused = false;
  let W = 0, H = 0, fit = 1, view = { x: 0, y: 0, s: 1 }; // page pixels of the map; top left cell, page pixels per cell
  const fingers = new Map();
  const { canvases, contexts, resize, ratio } = createCanvases(["cells", "over", "left", "top", "peaks", "received", "mini"].map((name) => `iv-map-${name}`));
  const [map, over, left, top, peaks, received, mini] = canvases, [map2d, over2d, left2d, top2d, peaks2d, received2d, mini2d] = contexts;
  const ground = el("div", { class: "iv-map-ground", tabindex: 0, role: "application" }, map, over);

  // As large as there is room for. Small changes of the room, such as a scroll bar's, change nothing.
  function size() {
    const room = (root.clientWidth || 1000) - GUTTER.left - GUTTER.bar - MINI - 40, wide = Math.round(Math.max(240, Math.min(WIDEST, room, HIGHEST * keys / queries)));
    if (Math.abs(wide - W) < 24) return false;
    [W, H] = [wide, Math.round(Math.max(160, Math.min(HIGHEST, wide * queries / keys)))];
    resize([[W, H], [W, H], [GUTTER.left, H], [W, GUTTER.top], [GUTTER.bar, H], [W, GUTTER.bar], [MINI, MINI]]);
    place(ground, { width: `${W}px`, height: `${H}px` });
    return true;
  }
  // A host may put the box into the page after it was made.
  new ResizeObserver(() => {
    const whole = view.s === fit;
    if (!size()) return;
    fit = Math.min(W / keys, H / queries, LARGEST_CELL);
    view.s = whole ? fit : Math.max(fit, view.s);
    keepInside();
  }).observe(root);

  const modes = createChoice("what a pixel shows", MODES, (value) => set({ mode: value }));
  const names = () => [["a", payload.names[0]], ["b", payload.names[1]], ["difference", "difference"]].filter(([w]) => payload.which.includes(w));
  const whiches = createChoice("which map", names(), (value) => set({ which: value }));
  whiches.box.hidden = payload.which.length < 2;
  const lows = el("select", {}, ...LOWS.map((x) => el("option", { value: x, text: number(x) })));
  const jumpQ = el("input", { type: "number", min: 0, "aria-label": "query to jump to", placeholder: "query" });
  const jumpK = el("input", { type: "number", min: 0, "aria-label": "key to jump to", placeholder: "key" });
  const jump = el("button", { type: "button", text: "jump" });
  const button = (text, title, run) => { const b = el("button", { type: "button", text, title }); b.addEventListener("click", run); return b; };
  const save = button("save rectangle", "exact weights of the marked rectangle, as a table", () => saveRegion());
  const zooms = el("div", { class: "iv-choice", role: "group", "aria-label": "zoom" },
    button("−", "zoom out", () => zoom(0.5)), button("+", "zoom in", () => zoom(2)), button("all", "show the whole map", () => home()));
  const ramp = el("i", { class: "iv-ramp" }), ends = [el("span"), el("span"), el("span")], unit = el("span", { class: "iv-small" });
  const near = el("span", { class: "iv-map-near" });
  body.append(
    el("div", { class: "iv-tools" }, whiches.box, modes.box, zooms, labelled("colours from", lows), el("span", { class: "iv-map-jump" }, jumpQ, jumpK, jump), save),
    el("div", { class: "iv-map-board" },
      el("span", { class: "iv-map-corner", text: "key →\nquery ↓" }), top, el("span"), mini,
      left, ground, peaks, near,
      el("span"), received));
  body.append(el("div", { class: "iv-legend" }, el("div", { class: "iv-scale" }, ramp, el("div", { class: "iv-ticks" }, ...ends)), unit),
    el("p", { class: "iv-small", text: KEYS }));

  const tiles = createTiles(model, () => { redraw(); if (answered?.answer.missing) say(); }, (text) => frame.note(text));
  let nameOf = createNames(model, named);
  function named() { redraw(); say(); }
  const level = () => Math.max(0, Math.min(levels, Math.floor(-Math.log2(view.s * ratio) + 0.001)));
  const shape = () => ({ q: queries, k: keys });
  const locked = () => { const { q, k } = model.get("selection"); return q !== null && k !== null && q < queries && k < keys ? { q, k } : null; };
  const clamp = (x, size) => Math.max(0, Math.min(size - 1, x));

  function start() {
    payload = model.get("payload");
    const same = payload.queries === queries && payload.keys === keys;
    ({ queries, keys, levels, floor } = payload);
    ground.setAttribute("aria-label", `attention map, ${queries} queries by ${keys} keys. ${KEYS}`);
    if (!same) W = 0;
    size();
    fit = Math.min(W / keys, H / queries, LARGEST_CELL);
    if (!same || view.s === 1) { view = { x: 0, y: 0, s: fit }; low = mapLowest(keys); }
    lows.value = low;
    nameOf = createNames(model, named);
    bars = null;
    loadMarginals(model).then((found) => { bars = found; redraw(); });
    set({});
  }

  function set(change) {
    ({ which = which, mode = mode, low = low } = change);
    if (!payload.which.includes(which)) which = "a";
    whiches.press(which);
    modes.press(mode);
    tiles.show({ which, mode });
    const difference = which === "difference";
    tiles.colour(difference ? differenceColours(signed, floor, low) : weightColours(sequential, floor, low));
    const stops = [0, 0.25, 0.5, 0.75, 1].map((t) => { const i = 3 * Math.round(254 * t); return `rgb(${signed[i]} ${signed[i + 1]} ${signed[i + 2]})`; });
    place(ramp, { background: difference ? `linear-gradient(90deg, ${stops.join(", ")})` : gradient(sequential) });
    (difference ? [-1, 0, 1] : [low, Math.sqrt(low), 1]).forEach((x, i) => { ends[i].textContent = number(x); });
    const what = mode === "peak" ? "largest weight under a pixel" : "share of its rows' attention under a pixel";
    unit.textContent = difference
      ? `${payload.names[0]} − ${payload.names[1]} of the ${what}; logarithmic from ${number(low)} on both sides of 0`
      : `${what}, logarithmic; hatched: hidden. Bars: largest weight of the row (right), mass received by the key (below), square-root heights`;
    redraw();
  }

  // ---- drawing --------------------------------------------------------------------------------------------------------------
  function redraw() { if (!frames) frames = requestAnimationFrame(draw); }

  function draw() {
    frames = 0;
    const missing = drawCells();
    drawSides();
    drawOver();
    drawMini();
    const L = level(), cells = 1 << L;
    frame.exactly(L === 0 ? "Each cell is one exact weight." : `Each pixel is the ${mode} of ${number(cells)} × ${number(cells)} exact weights.`);
    box.dataset.level = L;
    box.dataset.view = JSON.stringify(view);
    frame.settle(missing || !tiles.idle() ? "loading" : "ready");
  }

  function drawCells() {
    const L = level(), span = TILE * 2 ** L;
    map2d.clearRect(0, 0, W, H);
    map2d.imageSmoothingEnabled = false;
    const right = Math.min(keys, view.x + W / view.s), bottom = Math.min(queries, view.y + H / view.s), wished = [];
    for (let y = Math.max(0, Math.floor(view.y / span)); y * span < bottom; y++) {
      for (let x = Math.max(0, Math.floor(view.x / span)); x * span < right; x++) {
        const tile = tiles.get([L, y, x]), at = [(x * span - view.x) * view.s, (y * span - view.y) * view.s, span * view.s];
        if (tile) { if (tile.canvas) map2d.drawImage(tile.canvas, at[0], at[1], at[2], at[2]); continue; }
        if (!tiles.lacks([L, y, x])) wished.push([L, y, x]);
        drawAncestor(L, y, x, at);
      }
    }
    clearOutside();
    const middle = [(view.y + H / 2 / view.s) / span, (view.x + W / 2 / view.s) / span];
    const far = ([, y, x]) => Math.hypot(y + 0.5 - middle[0], x + 0.5 - middle[1]);
    wished.sort((a, b) => far(a) - far(b));
    if (!tiles.has([levels, 0, 0]) && !tiles.lacks([levels, 0, 0]) && L !== levels) wished.push([levels, 0, 0]); // for the minimap
    tiles.wish(wished);
    return wished.length;
  }

  // Until a tile comes, the part of a coarser one that covers it.
  function drawAncestor(L, y, x, [px, py, size]) {
    for (let up = 1; L + up <= levels && TILE >> up; up++) {
      const tile = tiles.get([L + up, y >> up, x >> up]), part = TILE >> up;
      if (tile?.canvas) { map2d.drawImage(tile.canvas, (x & ((1 << up) - 1)) * part, (y & ((1 << up) - 1)) * part, part, part, px, py, size, size); return; }
    }
  }

  // A tile at the edge of a map is padded with hidden cells; beyond the map there is nothing, not even hatching.
  function clearOutside() {
    const right = (keys - view.x) * view.s, bottom = (queries - view.y) * view.s;
    place(map, { "clip-path": `inset(${Math.max(0, -view.y * view.s)}px ${Math.max(0, W - right)}px ${Math.max(0, H - bottom)}px ${Math.max(0, -view.x * view.s)}px)` });
  }

  function drawSides() {
    const { color } = getComputedStyle(box), soft = getComputedStyle(unit).color, accent = getComputedStyle(ramp).color || color, on = locked() ?? cursor;
    left2d.clearRect(0, 0, GUTTER.left, H);
    top2d.clearRect(0, 0, W, GUTTER.top);
    drawGutter(left2d, "q", view, H, queries, (at) => nameOf("q", at), on?.q ?? null, color, soft);
    drawGutter(top2d, "k", view, W, keys, (at) => nameOf("k", at), on?.k ?? null, color, soft);
    peaks2d.clearRect(0, 0, GUTTER.bar, H);
    received2d.clearRect(0, 0, W, GUTTER.bar);
    if (!bars) return;
    drawBars(peaks2d, "q", view, H, bars.peaks, bars.step, accent);
    drawBars(received2d, "k", view, W, bars.received, 1, accent);
  }

  const rectangle = ([q0, q1, k0, k1]) => [(k0 - view.x) * view.s, (q0 - view.y) * view.s, (k1 - k0) * view.s, (q1 - q0) * view.s];

  function drawOver() {
    over2d.clearRect(0, 0, W, H);
    const lock = locked(), at = lock ?? cursor, style = getComputedStyle(over);
    if (at) {
      const cells = lock || level() === 0 ? 1 : 1 << level(), q = cells * Math.floor(at.q / cells), k = cells * Math.floor(at.k / cells);
      const [x, y, w, h] = rectangle([q, Math.min(queries, q + cells), k, Math.min(keys, k + cells)]);
      over2d.fillStyle = lock ? style.outlineColor : "rgb(255 255 255 / 45%)";
      over2d.globalAlpha = lock ? 0.7 : 1;
      over2d.fillRect(0, y + h / 2 - 0.5, Math.max(0, x - 2), 1);
      over2d.fillRect(x + w / 2 - 0.5, 0, 1, Math.max(0, y - 2));
      over2d.globalAlpha = 1;
      over2d.lineWidth = 3;
      over2d.strokeStyle = "#0b1020";
      over2d.strokeRect(x - 2, y - 2, Math.max(3, w) + 4, Math.max(3, h) + 4);
      over2d.lineWidth = 1.5;
      over2d.strokeStyle = lock ? style.outlineColor : "#ffffff";
      over2d.strokeRect(x - 2, y - 2, Math.max(3, w) + 4, Math.max(3, h) + 4);
    }
    const marked = drag?.brush ?? region();
    if (marked) {
      const [x, y, w, h] = rectangle(marked);
      over2d.lineWidth = 3; over2d.strokeStyle = "#0b1020"; over2d.setLineDash([]); over2d.strokeRect(x, y, w, h);
      over2d.lineWidth = 1.5; over2d.strokeStyle = "#ffffff"; over2d.setLineDash([5, 4]); over2d.strokeRect(x, y, w, h); over2d.setLineDash([]);
    }
    save.disabled = !region();
  }

  function drawMini() {
    mini2d.clearRect(0, 0, MINI, MINI);
    const tile = tiles.get([levels, 0, 0]), scale = MINI / Math.max(queries, keys), cells = TILE * 2 ** levels;
    if (tile?.canvas) {
      mini2d.save();
      mini2d.beginPath();
      mini2d.rect(0, 0, keys * scale, queries * scale);
      mini2d.clip();
      mini2d.drawImage(tile.canvas, 0, 0, cells * scale, cells * scale);
      mini2d.restore();
    }
    mini2d.strokeStyle = getComputedStyle(box).color;
    mini2d.lineWidth = 1.5;
    const w = Math.min(keys, W / view.s), h = Math.min(queries, H / view.s);
    mini2d.strokeRect(Math.max(0, view.x) * scale + 0.5, Math.max(0, view.y) * scale + 0.5, Math.max(3, w * scale - 1), Math.max(3, h * scale - 1));
  }

  // ---- reading --------------------------------------------------------------------------------------------------------------
  function told(at) { return `${nameOf("q", at.q) ?? "query"} (${at.q}) → ${nameOf("k", at.k) ?? "key"} (${at.k})`; }

  async function read() {
    const at = locked() ?? cursor, key = at ? `${model.get("rev")} ${at.q} ${at.k}` : "";
    if (at && key === asked) return;
    asked = key;
    answered = null;
    if (!at) { say(); return; }
    const answer = await model.request({ op: "value", q: at.q, k: at.k }, "value");
    if (asked !== key || answer === null) return;
    answered = { at, answer };
    say();
  }

  // Says it again when token names have come.
  function say() {
    if (!answered) {
      if (!asked) frame.read("Point at the map to read weights; click locks, Shift-drag marks a rectangle.");
      near.textContent = "";
      return;
    }
    const { at, answer } = answered;
    if (answer.error) { frame.read(answer.missing ? fromPicture(at) : answer.error); return; }
    const other = answer.other === null ? "" : `; ${payload.names[1]}: ${number(answer.other)}, difference ${number(answer.weight - answer.other)}`;
    frame.read(`${told(at)}: weight ${answer.weight === 0 ? "0 (hidden)" : `${number(answer.weight, 4)}, ${answer.rank === 1 ? "largest" : `number ${answer.rank}`} of its row`}${other}`);
    near.textContent = `row ${at.q}\nentropy ${number(answer.entropy)} nats\nlargest ${number(answer.peak)}\nat key ${answer.top}${nameOf("k", answer.top) ? ` ${nameOf("k", answer.top)}` : ""}`;
  }

  // A saved page has no kernel: the code under the pointer says the weight to a few percent.
  function fromPicture(at) {
    const L = level(), side = TILE * 2 ** L, inside = (x) => Math.floor((x % side) / 2 ** L);
    const code = tiles.code([L, Math.floor(at.q / side), Math.floor(at.k / side)], inside(at.q) * TILE + inside(at.k));
    if (code === null) return `${told(at)}: not in this file`;
    const value = which === "difference" ? codeDifference(code, floor) : codeWeight(code, floor);
    return `${told(at)}: ${code === 0 ? "hidden" : `about ${number(value)}`}${L ? ` (${mode} of ${2 ** L} × ${2 ** L} cells)` : ""}, read from the picture`;
  }

  // ---- moving ---------------------------------------------------------------------------------------------------------------
  function keepInside() {
    const bound = (at, size, extent) => { const cells = extent / view.s; return cells >= size ? 0 : Math.min(size - cells, Math.max(0, at)); };
    view.x = bound(view.x, keys, W);
    view.y = bound(view.y, queries, H);
    redraw();
  }
  function zoom(by, px = W / 2, py = H / 2) {
    const s = Math.max(fit, Math.min(LARGEST_CELL, view.s * by));
    view = { x: view.x + px / view.s - px / s, y: view.y + py / view.s - py / s, s };
    keepInside();
  }
  function home() { view = { x: 0, y: 0, s: fit }; keepInside(); }
  function centre(at, s = view.s) { view = { x: at.k + 0.5 - W / 2 / s, y: at.q + 0.5 - H / 2 / s, s }; keepInside(); }
  function follow(at) {
    const x = (at.k - view.x) * view.s, y = (at.q - view.y) * view.s;
    if (x < 0 || y < 0 || x > W - view.s || y > H - view.s) centre(at);
  }
  function cellAt(event) {
    const edge = ground.getBoundingClientRect(), k = Math.floor(view.x + (event.clientX - edge.left) / view.s), q = Math.floor(view.y + (event.clientY - edge.top) / view.s);
    return q >= 0 && k >= 0 && q < queries && k < keys ? { q, k } : null;
  }
  function point(at) {
    cursor = at;
    model.set("hover", { ...model.get("hover"), q: at?.q ?? null, k: at?.k ?? null });
    read();
    redraw();
  }
  function lock(at) {
    const now = locked();
    model.set("selection", { ...model.get("selection"), ...(at && !(now && now.q === at.q && now.k === at.k) ? at : { q: null, k: null }) });
  }
  function go(at) { centre(at, Math.max(view.s, 12)); if (!(locked()?.q === at.q && locked()?.k === at.k)) lock(at); }
  const region = () => { const last = model.get("picks").at(-1); return last?.length === 4 && last[1] <= queries && last[3] <= keys ? last : null; };
  const between = (a, b) => [Math.min(a.q, b.q), Math.max(a.q, b.q) + 1, Math.min(a.k, b.k), Math.max(a.k, b.k) + 1];

  async function saveRegion() {
    const [q0, q1, k0, k1] = region(), answer = await model.request({ op: "cells", q0, q1, k0, k1 });
    if (!answer || answer.error) { frame.note(answer?.error ?? "no answer"); return; }
    const weights = floats(answer.buffers[0]), across = [...Array(k1 - k0).keys()];
    const rows = [...Array(q1 - q0).keys()].map((i) => [q0 + i, ...across.map((j) => weights[i * (k1 - k0) + j])].join("\t"));
    const text = [["query", ...across.map((j) => k0 + j)].join("\t"), ...rows].join("\n");
    const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/tab-separated-values" })), download: `attention_${payload.layer}_${payload.head}_${q0}-${q1}_${k0}-${k1}.tsv` });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // ---- pointer --------------------------------------------------------------------------------------------------------------
  ground.addEventListener("wheel", (event) => {
    if (!focused) return; // a page must scroll past a map that nobody works with
    event.preventDefault();
    const edge = ground.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.002), event.clientX - edge.left, event.clientY - edge.top);
  }, { passive: false });
  ground.addEventListener("focus", () => { focused = true; });
  ground.addEventListener("blur", () => { focused = false; });
  ground.addEventListener("dblclick", (event) => { const edge = ground.getBoundingClientRect(); zoom(2, event.clientX - edge.left, event.clientY - edge.top); });
  ground.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    drag = { x: event.clientX, y: event.clientY, view: { ...view }, moved: false, from: event.shiftKey ? cellAt(event) : null, brush: null, apart: fingersApart() };
    ground.setPointerCapture(event.pointerId);
    ground.focus({ preventScroll: true });
  });
  ground.addEventListener("pointermove", (event) => {
    if (!drag) { point(cellAt(event)); return; }
    fingers.set(event.pointerId, event);
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    drag.moved ||= Math.hypot(dx, dy) > 3;
    if (fingers.size === 2) { // pinch
      view = { ...drag.view };
      zoom(fingersApart() / drag.apart);
    } else if (drag.from) {
      const to = cellAt(event);
      if (to) drag.brush = between(drag.from, to);
      redraw();
    } else if (drag.moved) {
      view.x = drag.view.x - dx / view.s;
      view.y = drag.view.y - dy / view.s;
      keepInside();
    }
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    if (!drag || event.type === "pointercancel") { drag = null; return; }
    const { brush, moved, from } = drag;
    drag = null;
    if (brush && moved) model.set("picks", [brush]);
    else if (!moved && !from && cellAt(event)) lock(cellAt(event));
    redraw();
  };
  ground.addEventListener("pointerup", release);
  ground.addEventListener("pointercancel", release);
  ground.addEventListener("pointerleave", () => { if (!drag) point(null); });
  mini.addEventListener("click", (event) => {
    const edge = mini.getBoundingClientRect(), scale = Math.max(queries, keys) / MINI;
    centre({ q: clamp(Math.floor((event.clientY - edge.top) * scale), queries), k: clamp(Math.floor((event.clientX - edge.left) * scale), keys) });
  });
  function fingersApart() { const [a, b] = [...fingers.values()]; return a && b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 1; }

  // ---- keys -----------------------------------------------------------------------------------------------------------------
  const step = (dq, dk) => (event) => {
    if (event.shiftKey) { view.x += dk * W / 4 / view.s; view.y += dq * H / 4 / view.s; keepInside(); return; }
    const cells = 1 << level(), at = cursor ?? locked() ?? { q: clamp(Math.floor(view.y + H / 2 / view.s), queries), k: clamp(Math.floor(view.x + W / 2 / view.s), keys) };
    const next = { q: clamp(at.q + dq * cells, queries), k: clamp(at.k + dk * cells, keys) };
    follow(next);
    point(next);
  };
  onKeys(ground, {
    ArrowUp: step(-1, 0), ArrowDown: step(1, 0), ArrowLeft: step(0, -1), ArrowRight: step(0, 1),
    "+": () => aim(2), "=": () => aim(2), "-": () => aim(0.5), Home: home, Enter: () => lock(cursor), " ": () => lock(cursor),
    m: () => set({ mode: mode === "mass" ? "peak" : "mass" }), g: () => jumpQ.focus(),
    b: () => {
      if (!cursor) return;
      if (corner) { model.set("picks", [between(corner, cursor)]); corner = null; } else { corner = cursor; frame.note("First corner set: move to the opposite corner and press b."); return; }
      frame.note("");
    },
  });
  function aim(by) { if (cursor) zoom(by, (cursor.k + 0.5 - view.x) * view.s, (cursor.q + 0.5 - view.y) * view.s); else zoom(by); }
  onKeys(box, { Escape: () => { corner = null; point(null); lock(null); model.set("picks", []); frame.note(""); } });
  const leap = () => {
    const q = Number(jumpQ.value), k = jumpK.value === "" ? q : Number(jumpK.value);
    if (jumpQ.value === "" || !Number.isInteger(q) || !Number.isInteger(k) || q < 0 || k < 0 || q >= queries || k >= keys) {
      frame.note(`There is no such cell: queries are 0 to ${queries - 1}, keys 0 to ${keys - 1}.`);
      return;
    }
    frame.note("");
    go({ q, k });
  };
  jump.addEventListener("click", leap);
  for (const input of [jumpQ, jumpK]) onKeys(input, { Enter: leap });
  lows.addEventListener("change", () => set({ low: Number(lows.value) }));
  model.on("selection", () => { const at = locked(); if (at && !drag) follow(at); read(); redraw(); });
  model.on("hover", () => { const { q, k } = model.get("hover"); if (q !== null && k !== null && q < queries && k < keys && !(cursor?.q === q && cursor?.k === k)) { cursor = { q, k }; read(); redraw(); } });
  model.on("picks", redraw);

  // Words and bars are drawn in the host's colours: again when it changes its theme.
  const themed = new MutationObserver(() => { if (box.isConnected) redraw(); else themed.disconnect(); });
  for (const node of [document.body, document.documentElement]) themed.observe(node, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  read();
  start();
  return () => { frame.settle("loading"); tiles.forget(); asked = ""; start(); read(); };
}
