// The canvases of an attention map, and what stands beside it: token names or numbers along both axes, and bars of what rows peak at and keys receive.
import { el, number, place, token } from "../dom.js";
import { floats } from "./requests.js";

export const GUTTER = { left: 92, top: 74, bar: 30 };
const NAMED = 11; // page pixels that a name needs

// Names of tokens, asked for in blocks when they are needed. Where there are none, or none kept, numbers stand instead.
export function createNames(model, arrived) {
  const blocks = new Map(), SIZE = 1024;
  return (axis, at) => {
    const block = Math.floor(at / SIZE), key = `${axis}${block}`;
    if (!blocks.has(key)) {
      blocks.set(key, null);
      if (model.get("payload").tokens) {
        model.request({ op: "tokens", axis, start: block * SIZE }).then((answer) => {
          if (answer?.tokens) { blocks.set(key, answer.tokens); arrived(); }
        });
      }
    }
    const text = blocks.get(key)?.[at - block * SIZE];
    return text === undefined ? null : token(text);
  };
}

// Cells between ticks: every one where names fit, else 2, 5, 10, 20, 50 ... so that ticks keep apart.
function mapStep(pixels) {
  const apart = NAMED / pixels;
  if (apart <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(apart));
  return power * ([1, 2, 5, 10].find((n) => n * power >= apart) ?? 10);
}

function mapTicks(from, cells, pixels, size) {
  const step = Math.max(1, Math.round(mapStep(pixels))), apart = pixels < 2 ? Math.max(step, mapStep(pixels / 4)) : step, ticks = [];
  for (let at = Math.max(0, Math.ceil(from / apart) * apart); at < Math.min(size, from + cells); at += apart) ticks.push(at);
  return ticks;
}

// Draws one gutter. names(at) gives a token or null; on is the cell under the pointer or lock, or null.
export function drawGutter(context, axis, view, extent, size, names, on, ink, soft) {
  const along = axis === "q" ? view.y : view.x, pixels = view.s, cells = extent / pixels;
  const close = pixels >= NAMED / 4;
  context.font = `10px ${close ? "monospace" : "sans-serif"}`;
  context.textBaseline = "middle";
  const write = (at, strong) => {
    const text = close ? names(at) : null, place = (at + 0.5 - along) * pixels;
    if (place < 0 || place > extent) return;
    context.fillStyle = strong ? ink : soft;
    const shown = text === null ? number(at) : `${text.slice(0, strong ? 9 : 12)}${strong ? ` ${number(at)}` : ""}`;
    context.save();
    if (axis === "q") { context.textAlign = "right"; context.translate(GUTTER.left - 5, place); }
    else { context.textAlign = "left"; context.translate(place, GUTTER.top - 5); context.rotate(-Math.PI / 2); }
    if (strong) {
      const width = context.measureText(shown).width;
      context.clearRect(axis === "q" ? -width - 2 : -1, -7, width + 3, 14);
    }
    context.fillText(shown, 0, 0, axis === "q" ? GUTTER.left - 8 : GUTTER.top - 8);
    context.restore();
  };
  for (const at of mapTicks(along, cells, pixels, size)) if (on === null || Math.abs(at - on) * pixels >= NAMED) write(at, false);
  if (on !== null) write(on, true);
}

// Draws one strip of bars: for each pixel along the axis the largest of its values; square root of the share of the largest in sight.
export function drawBars(context, axis, view, extent, values, step, ink) {
  const along = axis === "q" ? view.y : view.x, peaks = new Float64Array(extent);
  let highest = 0;
  for (let p = 0; p < extent; p++) {
    const from = Math.floor((along + p / view.s) / step), to = Math.max(from + 1, Math.ceil((along + (p + 1) / view.s) / step));
    for (let i = Math.max(0, from); i < Math.min(values.length, to); i++) if (values[i] > peaks[p]) peaks[p] = values[i];
    if (peaks[p] > highest) highest = peaks[p];
  }
  context.fillStyle = ink;
  for (let p = 0; p < extent && highest > 0; p++) {
    const size = (GUTTER.bar - 4) * Math.sqrt(peaks[p] / highest);
    if (axis === "q") context.fillRect(3, p, size, 1);
    else context.fillRect(p, 3, 1, size);
  }
  return highest;
}

export async function loadMarginals(model) {
  const answer = await model.request({ op: "marginals" }, "marginals");
  if (!answer || answer.error) return null;
  const [peaks, received] = answer.buffers.map(floats);
  return { peaks, received, step: answer.step };
}

// Canvases by class, their contexts, and `resize`, which takes width and height of each in page pixels.
export function createCanvases(classes) {
  const ratio = window.devicePixelRatio || 1;
  const canvases = classes.map((name) => el("canvas", { class: name, "aria-hidden": "true" })), contexts = canvases.map((c) => c.getContext("2d"));
  const resize = (sizes) => sizes.forEach(([width, height], n) => {
    Object.assign(canvases[n], { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    place(canvases[n], { width: `${width}px`, height: `${height}px` });
    contexts[n].setTransform(ratio, 0, 0, ratio, 0, 0);
  });
  return { canvases, contexts, resize, ratio };
}
