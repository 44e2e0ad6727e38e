// A small chart: lines or bars over one axis, with thresholds across and events along it. Arrows move its cursor, which the view reads out.
import { el, number, place } from "../dom.js";
import { colour } from "../data.js";
import { onKeys } from "./frame.js";

const CHART_WIDTH = 420, CHART_HEIGHT = 190, CHART_LEFT = 46, CHART_RIGHT = 10, CHART_TOP = 10, CHART_BOTTOM = 34, CHART_SVG = "http://www.w3.org/2000/svg";

function chartShape(tag, props = {}, styles = {}) {
  const node = document.createElementNS(CHART_SVG, tag);
  for (const [name, value] of Object.entries(props)) if (name === "text") node.textContent = value; else node.setAttribute(name, value);
  return place(node, styles);
}

// At most five round numbers from low to high.
export function chartTicks(low, high) {
  if (!(high > low)) return [low];
  const rough = (high - low) / 4, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return ticks;
}

// The colour of line i of n: the shared ramp, leaning to the ink so that both of its ends stand out from the paper in either theme.
export function lineColour(table, i, n) {
  return `color-mix(in srgb, ${colour(table, Math.round((255 * i) / Math.max(1, n - 1)))} 72%, var(--ink))`;
}

// over(index or null): the cursor moved; pick(index): a click or Enter.
export function createCurves(title, { over = () => {}, pick = () => {} } = {}) {
  const plot = chartShape("svg", { viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, width: CHART_WIDTH, height: CHART_HEIGHT, role: "img", tabindex: 0 });
  const key = el("div", { class: "iv-key" }), heading = el("h4", { text: title });
  const box = el("div", { class: "iv-chart" }, heading, plot, key);
  let spec = null, xs = [], cursor = null;
  const needle = chartShape("line", { class: "iv-needle", y1: CHART_TOP, y2: CHART_HEIGHT - CHART_BOTTOM }), dots = chartShape("g");

  const scaled = (v, low, high, log) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
  const atY = (y) => CHART_HEIGHT - CHART_BOTTOM - (CHART_HEIGHT - CHART_BOTTOM - CHART_TOP) * Math.min(1, Math.max(0, scaled(y, ...spec.y, spec.ylog)));
  const step = () => (spec.bars ? (CHART_WIDTH - CHART_LEFT - CHART_RIGHT) / spec.x.length : 0);
  function atX(x, i) {
    if (spec.bars) return CHART_LEFT + step() * (i + 0.5);
    const low = spec.x[0], high = spec.x.at(-1);
    return CHART_LEFT + (CHART_WIDTH - CHART_LEFT - CHART_RIGHT) * (high > low ? scaled(x, low, high) : 0.5);
  }

  // Labels along the axis: the given ones, else round numbers (whole ones for layers and steps).
  function places() {
    if (spec.labels) return spec.labels.map((words, i) => [xs[i], words]);
    const whole = spec.x.every(Number.isInteger);
    return chartTicks(spec.x[0], spec.x.at(-1)).filter((t) => !whole || Number.isInteger(t)).map((t) => [atX(t), number(t)]);
  }

  function path(values) {
    let text = "", pen = false;
    values.forEach((y, i) => {
      if (Number.isNaN(y) || y === null || (spec.ylog && y <= 0)) { pen = false; return; }
      text += `${pen ? "L" : "M"}${xs[i].toFixed(1)} ${atY(y).toFixed(1)}`;
      pen = true;
    });
    return text;
  }

  function point(i) {
    cursor = i;
    needle.setAttribute("visibility", i === null ? "hidden" : "visible");
    dots.replaceChildren();
    if (i === null) return;
    needle.setAttribute("x1", xs[i]);
    needle.setAttribute("x2", xs[i]);
    for (const s of spec.series) {
      if (s.quiet || spec.bars || Number.isNaN(s.values[i])) continue;
      dots.append(chartShape("circle", { cx: xs[i], cy: atY(s.values[i]), r: 3 }, { fill: s.colour ?? "var(--accent)" }));
    }
  }

  // {x, bars, labels, series: [{name, values, colour, dash, quiet, strong}], y: [low, high], ylog, xTitle, yTitle, lines: [{y, text}], events: [{x, text}], at}
  // labels: words in place of the numbers of x; at: index where the cursor rests; a quiet series has no entry in the key.
  function draw(news) {
    spec = news;
    xs = [...spec.x].map(atX);
    const shapes = [];
    const ticks = spec.ylog ? [spec.y[0], Math.sqrt(spec.y[0] * spec.y[1]), spec.y[1]] : chartTicks(...spec.y);
    for (const t of ticks) {
      shapes.push(chartShape("line", { class: "iv-rule", x1: CHART_LEFT, x2: CHART_WIDTH - CHART_RIGHT, y1: atY(t), y2: atY(t) }));
      shapes.push(chartShape("text", { class: "iv-tick", x: CHART_LEFT - 6, y: atY(t) + 3.5, "text-anchor": "end", text: number(t) }));
    }
    let free = -Infinity;
    for (const [at, words] of places()) {
      const half = words.length * 3;
      if (at - half < free) continue;
      free = at + half + 8;
      shapes.push(chartShape("text", { class: "iv-tick", x: at, y: CHART_HEIGHT - CHART_BOTTOM + 13, "text-anchor": at + half > CHART_WIDTH ? "end" : "middle", text: words }));
    }
    shapes.push(chartShape("text", { class: "iv-tick", x: (CHART_LEFT + CHART_WIDTH - CHART_RIGHT) / 2, y: CHART_HEIGHT - 4, "text-anchor": "middle", text: spec.xTitle ?? "" }));
    for (const s of spec.series) {
      const stroke = s.colour ?? "var(--accent)";
      if (spec.bars && !s.dash) {
        const wide = Math.max(1, step() - (step() > 4 ? 1 : 0));
        s.values.forEach((y, i) => {
          if (!Number.isNaN(y)) shapes.push(chartShape("rect", { class: "iv-bar", "data-bar": i, x: xs[i] - wide / 2, width: wide, y: atY(y), height: Math.max(0, CHART_HEIGHT - CHART_BOTTOM - atY(y)) }, { fill: stroke }));
        });
      } else shapes.push(chartShape("path", { class: "iv-curve", d: path(s.values), fill: "none", "data-curve": s.name ?? "" },
        { stroke, "stroke-width": s.strong ? 2.4 : s.quiet ? 1 : 1.6, "stroke-dasharray": s.dash ? "5 4" : "none", opacity: s.quiet ? 0.45 : 1 }));
    }
    for (const { y, text } of spec.lines ?? []) {
      shapes.push(chartShape("line", { class: "iv-limit", x1: CHART_LEFT, x2: CHART_WIDTH - CHART_RIGHT, y1: atY(y), y2: atY(y) }));
      shapes.push(chartShape("text", { class: "iv-limit-name", x: CHART_WIDTH - CHART_RIGHT, y: atY(y) < CHART_TOP + 14 ? atY(y) + 11 : atY(y) - 4, "text-anchor": "end", text }));
    }
    for (const { x, text } of spec.events ?? []) {
      const mark = chartShape("path", { class: "iv-event", d: `M${atX(x)} ${CHART_TOP + 7}l-5 -8h10z` });
      mark.append(chartShape("title", { text }));
      shapes.push(chartShape("line", { class: "iv-event-line", x1: atX(x), x2: atX(x), y1: CHART_TOP, y2: CHART_HEIGHT - CHART_BOTTOM }), mark);
    }
    plot.replaceChildren(...shapes, needle, dots);
    plot.setAttribute("aria-label", `${title}; ${spec.yTitle} over ${spec.xTitle}, ${spec.series.filter((s) => !s.quiet).map((s) => s.name).join(", ")}`);
    key.replaceChildren(el("span", { class: "iv-small", text: spec.yTitle ?? "" }), ...spec.series.filter((s) => !s.quiet && s.name).map((s) =>
      el("span", {}, place(el("i", { class: s.dash ? "iv-swatch iv-dashed" : "iv-swatch" }), { "border-top-color": s.colour ?? "var(--accent)" }), el("span", { text: s.name }))));
    point(spec.at ?? null);
  }

  const nearest = (event) => {
    const frame = plot.getBoundingClientRect(), x = ((event.clientX - frame.left) * CHART_WIDTH) / frame.width;
    return xs.reduce((best, at, i) => (Math.abs(at - x) < Math.abs(xs[best] - x) ? i : best), 0);
  };
  const go = (i) => { point(i); over(i); };
  plot.addEventListener("pointermove", (event) => { if (spec && xs.length) go(nearest(event)); });
  plot.addEventListener("pointerleave", () => { if (spec) { point(spec.at ?? null); over(null); } });
  plot.addEventListener("blur", () => { if (spec) { point(spec.at ?? null); over(null); } });
  plot.addEventListener("click", (event) => { if (spec && xs.length) pick(nearest(event)); });
  const shift = (by) => () => { if (spec && xs.length) go(Math.min(xs.length - 1, Math.max(0, (cursor ?? (by > 0 ? -1 : xs.length)) + by))); };
  onKeys(plot, { ArrowLeft: shift(-1), ArrowRight: shift(1), Home: () => go(0), End: () => go(xs.length - 1), Enter: () => { if (cursor !== null) pick(cursor); } });
  return { box, draw, title: (text) => { heading.textContent = text; title = text; } };
}
