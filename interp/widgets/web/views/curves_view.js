// CurvesView: charts of lines over steps, positions or models, what they say at a place, and their numbers as tables.
import { el, grouped, number } from "../dom.js";
import { bytes } from "../data.js";
import { floats } from "./requests.js";
import { createFrame, labelled, onKeys } from "./frame.js";
import { createCurves, lineColour } from "./curves.js";

const CURVES_ROWS = 24;  // most rows of a table: evenly spaced ones where there are more places
const CURVES_TOLD = 9;   // most lines that the read-out names

// The answer of a panel as charts: {...words, x, values, low, high: [line][place], all: [layer * heads + head][place]}.
function curvesCharts(answer) {
  return answer.charts.map((c, n) => {
    const [x, values, low, high, all] = answer.buffers.slice(5 * n, 5 * n + 5).map(floats), many = x.length;
    const rows = (a) => Array.from({ length: many ? a.length / many : 0 }, (_, i) => [...a.subarray(i * many, (i + 1) * many)]);
    return { ...c, x: [...x], values: rows(values), low: rows(low), high: rows(high), all: rows(all) };
  });
}

export function mountCurvesView(model, root) {
  const payload = model.get("payload"), { layers, panels } = payload, table = bytes(payload.colours);
  const frame = createFrame(model, root, "curves", payload.exact);
  const picker = el("select", {}, ...panels.map((name) => el("option", { value: name, text: name })));
  const tools = el("div", { class: "iv-tools" }, labelled(payload.word, picker));
  const charts = el("div", { class: "iv-charts" }), numbers = el("div");
  tools.hidden = panels.length < 2;
  frame.body.append(tools, charts, numbers);
  let shown = [], kept = null;  // kept: {chart, place} that a click holds
  const same = (a, b) => a.layer === b.layer && a.head === b.head;
  const chosen = () => {
    const hover = model.get("hover"), lock = model.get("selection");
    return lock.layer !== null && lock.head !== null ? lock : hover.layer !== null && hover.head !== null ? hover : null;
  };
  const placeName = (c, i) => (c.labels.length ? c.labels[i] : `${c.xTitle} ${number(c.x[i], 6)}`);
  const said = (line, value, low, high) => `${line.name} ${number(value)}${Number.isNaN(low) ? "" : ` (${number(low)} to ${number(high)})`}`;

  // The lines of a chart, and that of the chosen head where it has none.
  function linesOf(c) {
    const head = chosen(), own = c.lines.map((line, n) => ({ ...line, values: c.values[n], low: c.low[n], high: c.high[n], on: head !== null && line.layer !== null && same(line, head) }));
    const at = head === null || c.heads === null ? -1 : layers.indexOf(head.layer);
    if (at < 0 || head.head >= c.heads || own.some((line) => line.on)) return own;
    const none = c.x.map(() => NaN);
    return [...own, { name: `${head.layer}.${head.head}`, layer: head.layer, head: head.head, shade: null, dash: false, interval: false, values: c.all[at * c.heads + head.head], low: none, high: none, on: true }];
  }
  function tell(c, i) {
    const lines = linesOf(c).filter((line) => !Number.isNaN(line.values[i]));
    // The chosen head first: a long list is cut.
    const told = [...lines.filter((line) => line.on), ...lines.filter((line) => !line.on)];
    const rest = told.length > CURVES_TOLD ? `; ${told.length - CURVES_TOLD} more in the table` : "";
    frame.read(`${c.title}, ${placeName(c, i)}: ${told.slice(0, CURVES_TOLD).map((line) => said(line, line.values[i], line.low[i], line.high[i])).join("; ") || "not measured"}${rest}`);
  }
  function rest() {
    if (kept !== null) tell(shown[kept.chart].chart, kept.place);
    else frame.read("Point at a chart to read it, or use the arrow keys; a click keeps the place, Esc clears.");
  }

  function drawCharts() {
    for (const [n, { chart: c, curves }] of shown.entries()) {
      if (!curves) continue;
      const series = linesOf(c).map((line) => ({
        name: line.name, values: line.values, dash: line.dash, strong: line.on, low: line.interval ? line.low : null, high: line.high,
        colour: line.on ? "var(--lock)" : line.shade === null ? "var(--ink)" : lineColour(table, line.shade, 2),
      }));
      curves.draw({ x: c.x, labels: c.labels.length ? c.labels : null, y: c.y, ylog: c.log, points: !c.joined, xTitle: c.xTitle, yTitle: c.lines.length === 1 && c.yTitle === c.lines[0].name ? "" : `${c.yTitle}${c.log ? ", logarithmic" : ""}`, series,
        lines: c.limit ? [{ y: c.limit[0], text: c.limit[1] }] : [], at: kept !== null && kept.chart === n ? kept.place : null });
    }
  }
  function tableOf(n) {
    const c = shown[n].chart, few = c.drawn ? CURVES_ROWS : c.x.length, count = Math.min(few, c.x.length);
    const places = Array.from({ length: count }, (_, i) => (count < 2 ? 0 : Math.round((i * (c.x.length - 1)) / (count - 1))));
    const heads = c.lines.map((line) => {
      if (line.layer === null) return el("th", { scope: "col", text: line.name });
      const button = el("button", { type: "button", text: line.name, title: "lock this head" });
      button.addEventListener("click", () => {
        const held = model.get("selection"), off = same(held, line);
        model.set("selection", { ...held, layer: off ? null : line.layer, head: off ? null : line.head });
      });
      return el("th", { scope: "col" }, button);
    });
    const rows = places.map((i) => el("tr", {}, el("th", { scope: "row", text: c.labels.length ? c.labels[i] : number(c.x[i], 6) }), ...c.lines.map((line, j) =>
      el("td", { text: `${number(c.values[j][i])}${Number.isNaN(c.low[j][i]) ? "" : ` (${number(c.low[j][i])} to ${number(c.high[j][i])})`}` }))));
    const whole = el("table", { "aria-label": c.title }, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: c.xTitle }), ...heads)), el("tbody", {}, ...rows));
    const cut = count < c.of ? `${count} of ${grouped(c.of)} places` : "";
    return el("details", { class: "iv-numbers", open: !c.drawn }, el("summary", { text: `${c.drawn ? "numbers of " : ""}${c.title}${cut ? `: ${cut}` : ""}` }), el("div", { class: "iv-scroll" }, whole));
  }

  function keep(chart, place) {
    kept = kept !== null && kept.chart === chart && kept.place === place ? null : { chart, place };
    drawCharts();
    rest();
  }
  async function load() {
    frame.settle("loading");
    const answer = await model.request({ op: "panel", panel: picker.value }, "panel");
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); frame.settle(); return; }
    frame.note("");
    kept = null;
    shown = curvesCharts(answer).map((c, n) => ({ chart: c, curves: c.drawn ? createCurves(c.title, { over: (i) => (i === null ? rest() : tell(c, i)), pick: (i) => keep(n, i) }) : null }));
    charts.replaceChildren(...shown.filter((s) => s.curves).map((s) => s.curves.box));
    numbers.replaceChildren(...shown.map((_, n) => tableOf(n)));
    drawCharts();
    rest();
    frame.settle();
  }
  const follow = () => { drawCharts(); rest(); };
  for (const trait of ["selection", "hover"]) model.on(trait, follow);
  picker.addEventListener("change", load);
  onKeys(frame.box, { Escape: () => {
    kept = null;
    model.set("selection", { ...model.get("selection"), layer: null, head: null });
    follow();
  } });
  picker.value = payload.first;
  load();
}
