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

// Round numbers on a logarithmic axis: 1, 2, 5, 10 ... where there are enough of them, powers of ten where there are too many.
function chartLogTicks(low, high) {
  const ticks = [];
  for (let size = 10 ** Math.floor(Math.log10(low)); size <= high; size *= 10) ticks.push(...[1, 2, 5].map((m) => m * size));
  const inside = ticks.filter((t) => t >= low * 0.999 && t <= high * 1.001), tens = inside.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
  if (inside.length < 3) return chartTicks(low, high);
  return inside.length <= 6 ? inside : tens.filter((_, i) => i % Math.ceil(tens.length / 5) === 0);
}

// Labels that have room, as [place, words, anchor]; the first and the last come before those between.
function chartLabels(places) {
  const half = (words) => words.length * 3;
  const all = places.map(([at, words]) => (at + half(words) > CHART_WIDTH ? { at, words, anchor: "end", from: at - 2 * half(words), to: at } : { at, words, anchor: "middle", from: at - half(words), to: at + half(words) }));
  const last = all.at(-1);
  let free = -Infinity;
  return all.filter((label) => {
    if (label.from < free || (label !== last && label.to + 8 > last.from)) return false;
    free = label.to + 8;
    return true;
  });
}

// The colour of line i of n: the shared ramp, leaning to the ink so that both of its ends stand out from the paper in either theme.
export function lineColour(table, i, n) {
  return `color-mix(in srgb, ${colour(table, Math.round((255 * i) / Math.max(1, n - 1)))} 72%, var(--ink))`;
}

// A line, or a point, as the key shows it.
function chartSign(series, points) {
  const hue = series.colour ?? "var(--accent)";
  if (points) return place(el("i", { class: "iv-dot" }), { "border-color": hue, background: series.dash ? "transparent" : hue });
  return place(el("i", { class: series.dash ? "iv-swatch iv-dashed" : "iv-swatch" }), { "border-top-color": hue });
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
  const bands = () => spec.bars || (spec.points && spec.labels);
  const step = () => (bands() ? (CHART_WIDTH - CHART_LEFT - CHART_RIGHT) / spec.x.length : 0);
  function atX(x, i) {
    if (bands()) return CHART_LEFT + step() * (i + 0.5);
    const low = spec.x[0], high = spec.x.at(-1);
    return CHART_LEFT + (CHART_WIDTH - CHART_LEFT - CHART_RIGHT) * (high > low ? scaled(x, low, high) : 0.5);
  }

  // Labels along the axis: the given ones, else round numbers (whole ones for layers and steps).
  function places() {
    if (spec.labels) return spec.labels.map((words, i) => [xs[i], words]);
    const whole = spec.x.every(Number.isInteger);
    return chartTicks(spec.x[0], spec.x.at(-1)).filter((t) => !whole || Number.isInteger(t)).map((t) => [atX(t), number(t)]);
  }

  // Points of one place stand side by side, so that their intervals can be told.
  const aside = (n) => (spec.points && bands() ? step() * 0.7 * ((n + 0.5) / spec.series.length - 0.5) : 0);

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
      if (s.quiet || bands() || Number.isNaN(s.values[i])) continue;
      dots.append(chartShape("circle", { cx: xs[i], cy: atY(s.values[i]), r: 3 }, { fill: s.colour ?? "var(--accent)" }));
    }
  }

  // {x, bars, points, labels, series: [{name, values, low, high, colour, dash, quiet, strong}], y: [low, high], ylog, xTitle, yTitle, lines: [{y, text}], events: [{x, text}], at}
  // points: values stand alone, nothing joins them; low, high: ends of intervals; labels: words in place of the numbers of x; at: index where the cursor rests; a quiet series has no entry in the key.
  function draw(news) {
    spec = news;
    xs = [...spec.x].map(atX);
    const shapes = [];
    const ticks = spec.ylog ? chartLogTicks(...spec.y) : chartTicks(...spec.y);
    for (const t of ticks) {
      shapes.push(chartShape("line", { class: "iv-rule", x1: CHART_LEFT, x2: CHART_WIDTH - CHART_RIGHT, y1: atY(t), y2: atY(t) }));
      shapes.push(chartShape("text", { class: "iv-tick", x: CHART_LEFT - 6, y: atY(t) + 3.5, "text-anchor": "end", text: number(t) }));
    }
    for (const { at, words, anchor } of chartLabels(places())) {
      shapes.push(chartShape("text", { class: "iv-tick", x: at, y: CHART_HEIGHT - CHART_BOTTOM + 13, "text-anchor": anchor, text: words }));
    }
    shapes.push(chartShape("text", { class: "iv-tick", x: (CHART_LEFT + CHART_WIDTH - CHART_RIGHT) / 2, y: CHART_HEIGHT - 4, "text-anchor": "middle", text: spec.xTitle ?? "" }));
    for (const [n, s] of spec.series.entries()) {
      const stroke = s.colour ?? "var(--accent)";
      for (let i = 0; s.low && i < xs.length; i += 1) {
        const x = xs[i] + aside(n);
        if (!Number.isNaN(s.low[i])) shapes.push(chartShape("line", { class: "iv-whisker", x1: x, x2: x, y1: atY(s.low[i]), y2: atY(s.high[i]) }, { stroke }));
      }
      if (spec.bars && !s.dash) {
        const wide = Math.max(1, step() - (step() > 4 ? 1 : 0));
        s.values.forEach((y, i) => {
          if (!Number.isNaN(y)) shapes.push(chartShape("rect", { class: "iv-bar", "data-bar": i, x: xs[i] - wide / 2, width: wide, y: atY(y), height: Math.max(0, CHART_HEIGHT - CHART_BOTTOM - atY(y)) }, { fill: stroke }));
        });
      } else if (spec.points) {
        s.values.forEach((y, i) => {
          if (!Number.isNaN(y)) shapes.push(chartShape("circle", { class: "iv-point", "data-curve": s.name ?? "", cx: xs[i] + aside(n), cy: atY(y), r: s.strong ? 4 : 3 }, { stroke, fill: s.dash ? "var(--paper)" : stroke }));
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
    key.replaceChildren(...(spec.yTitle ? [el("span", { class: "iv-small", text: spec.yTitle })] : []), ...spec.series.filter((s) => !s.quiet && s.name).map((s) =>
      el("span", {}, chartSign(s, spec.points), el("span", { text: s.name }))));
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
