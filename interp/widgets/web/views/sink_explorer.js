// SinkExplorer: sink rates by head and layer at any threshold, what each key receives, and the norms beside it. The slider asks nothing of Python.
import { el, number, token } from "../dom.js";
import { bytes, gradient } from "../data.js";
import { floats } from "./requests.js";
import { createChoice, createFrame, labelled, onKeys } from "./frame.js";
import { createHeat } from "./heat.js";
import { createCurves, lineColour } from "./curves.js";

const SINK_PLACES = [["first", "first token", "alpha of the first key"], ["behind", "behind it", "alpha of the strongest key behind the first: sinks that leaving out BOS does not remove"]];

// Passed and counted sequences of one head: alpha is [sequence, head].
function sinksPassing(alpha, heads, i, threshold) {
  let passed = 0, counted = 0, sum = 0;
  for (let at = i; at < alpha.length; at += heads) {
    if (Number.isNaN(alpha[at])) continue;
    counted += 1;
    sum += alpha[at];
    if (alpha[at] > threshold) passed += 1;
  }
  return { passed, counted, rate: counted ? passed / counted : NaN, mean: counted ? sum / counted : NaN };
}

export function mountSinkExplorer(model, root) {
  const payload = model.get("payload"), { layers, heads, conditions, ratios, hidden } = payload;
  const table = bytes(payload.colours), n = layers.length * heads;
  const frame = createFrame(model, root, "attention sinks", "Alpha is exact: the mean over all rows that see a key of its weight; keys that fewer than 16 rows see are left out. Where a bar stands for several keys it is the largest of them.");
  const heat = createHeat(model, table, layers, heads);
  let condition = conditions[0].name, place = "first", threshold = payload.threshold, keysWanted = null;
  const alphas = new Map(), sequences = () => conditions.find((c) => c.name === condition).sequences;
  const shade = (i) => lineColour(table, i, conditions.length);

  const picker = el("select", {}, ...conditions.map(({ name }) => el("option", { value: name, text: name })));
  const which = createChoice("key", SINK_PLACES, (value) => { place = value; load(); });
  const slider = el("input", { type: "range", min: 0, max: 1, step: 0.01, value: threshold, "aria-label": "threshold" }), said = el("output", { text: number(threshold) });
  const ends = el("div", { class: "iv-ticks" }, ...["0", "0.5", "1"].map((text) => el("span", { text }))), ramp = el("i", { class: "iv-ramp" });
  ramp.style.setProperty("background", gradient(table));
  const heading = el("h4"), legend = el("div", { class: "iv-legend" }, el("div", { class: "iv-scale" }, ramp, ends));
  const byLayer = createCurves("mean over heads, by layer", { over: (i) => (i === null ? tell() : frame.read(layerWords(i))) });
  const byKey = createCurves("alpha by key", { over: (i) => (i === null ? tell() : frame.read(keyWords(i))) });
  const byNorm = createCurves("norm of the first token over the others", { over: (i) => (i === null ? tell() : frame.read(`layer ${layers[i]}: ${Object.entries(ratios).map(([name, x]) => `${name} ${number(x[i])}`).join("; ")}`)) });
  const listed = el("div", { class: "iv-list", tabindex: 0, role: "region", "aria-label": "strongest keys" });
  const others = el("div", { class: "iv-list", tabindex: 0, role: "region", "aria-label": "strongest sinks behind the first token" });
  others.hidden = !hidden.length;
  byNorm.box.hidden = !Object.keys(ratios).length;
  frame.body.append(
    el("div", { class: "iv-tools" }, labelled("text", picker), which.box, el("label", { class: "iv-slide" }, el("span", { text: "threshold" }), slider, said)),
    el("div", { class: "iv-charts" }, el("div", {}, heading, heat.box, legend), byLayer.box, byKey.box, listed, byNorm.box, others));
  let keys = null;

  const alphaOf = (name) => alphas.get(`${name}\n${place}`);
  const rateOf = (name, i) => sinksPassing(alphaOf(name), n, i, threshold);
  const mean = (xs) => { const known = xs.filter((x) => !Number.isNaN(x)); return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN; };
  const layerMean = (name, l) => mean([...Array(heads).keys()].map((h) => rateOf(name, l * heads + h).rate));
  const what = () => (place === "first" ? "the first token" : "the strongest key behind it");
  const layerWords = (l) => `layer ${layers[l]}: ${conditions.filter((c) => alphaOf(c.name)).map((c) => `${c.name} ${number(layerMean(c.name, l))}`).join("; ")}`;
  const keyWords = (i) => `key ${keys.strongest[i]}${keys.edges[i + 1] > keys.edges[i] + 1 ? `, the strongest of ${keys.edges[i]} to ${keys.edges[i + 1] - 1}` : ""}: alpha ${number(keys.values[i])}${Number.isNaN(keys.even[i]) ? "" : `; spread evenly ${number(keys.even[i])}`}`;

  function tell() {
    const i = heat.shown();
    if (!alphaOf(condition)) return;
    if (i === null) {
      const rates = conditions.filter((c) => alphaOf(c.name)).map((c) => `${c.name} ${number(mean([...Array(n).keys()].map((h) => rateOf(c.name, h).rate)))}`);
      frame.read(`All heads, ${what()} over ${number(threshold)}: ${rates.join("; ")}. Point at a head, click locks it.`);
      return;
    }
    const { layer, head } = heat.where(i), here = rateOf(condition, i);
    const controls = conditions.filter((c) => c.name !== condition && alphaOf(c.name)).map((c) => `${c.name} ${number(rateOf(c.name, i).rate)}`);
    frame.read(`layer ${layer}, head ${head}: ${what()} passes ${number(threshold)} in ${here.passed} of ${here.counted} (mean alpha ${number(here.mean)})${controls.length ? `; ${controls.join("; ")}` : ""}`);
  }

  // With one text there is no share of sequences, so alpha itself is painted.
  function paint() {
    if (!alphaOf(condition)) return;
    const found = [...Array(n).keys()].map((i) => rateOf(condition, i)), single = sequences() === 1;
    const label = single ? `alpha of ${what()}` : `share of ${sequences()} sequences in which ${what()} passes ${number(threshold)}`;
    heading.textContent = single ? `${label}: ${found.filter((f) => f.passed).length} of ${n} heads over ${number(threshold)}` : label;
    heat.paint(found.map((f) => (single ? f.mean : f.rate)), 0, 1, label);
    byLayer.draw({
      x: layers, y: [0, 1], xTitle: "layer", yTitle: `share over ${number(threshold)}`,
      series: conditions.filter((c) => alphaOf(c.name)).map((c) => ({
        name: c.name, values: layers.map((_, l) => layerMean(c.name, l)), colour: shade(conditions.indexOf(c)), strong: c.name === condition, dash: c.name !== condition })),
    });
    tell();
  }

  function paintKeys() {
    if (!keys) return;
    const top = Math.max(0.02, threshold * 1.15, ...[...keys.values].filter((x) => !Number.isNaN(x)), ...[...keys.even].filter((x) => !Number.isNaN(x)));
    byKey.draw({
      x: keys.strongest, labels: [...keys.edges.slice(0, -1)].map((e) => String(e)), bars: true, y: [0, Math.min(1, top)], xTitle: `key position (${keys.keys} keys)`, yTitle: "alpha",
      series: [{ name: keys.name, values: [...keys.values] }, ...([...keys.even].some((x) => !Number.isNaN(x)) ? [{ name: "spread evenly", values: [...keys.even], dash: true, colour: "var(--soft)" }] : [])],
      lines: [{ y: threshold, text: `threshold ${number(threshold)}` }],
    });
    listed.replaceChildren(el("h4", { text: `strongest keys, ${keys.name}` }), keys.listed.some((r) => r.token !== null)
      ? rows(["key", "token", "alpha"], keys.listed.map((r) => [String(r.key), r.token, number(r.alpha)]))
      : rows(["key", "alpha"], keys.listed.map((r) => [String(r.key), number(r.alpha)])));
  }

  function rows(names, lines) {
    const cell = (text, i) => el("td", {}, names[i] === "token" ? el("code", { text: token(text) }) : text);
    return el("table", {}, el("thead", {}, el("tr", {}, ...names.map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...lines.map((line) => el("tr", {}, ...line.map(cell)))));
  }

  async function load() {
    which.press(place);
    frame.settle("loading");
    for (const { name } of [conditions.find((c) => c.name === condition), ...conditions]) {
      const key = `${name}\n${place}`;
      if (alphas.has(key)) continue;
      const answer = await model.request({ op: "heads", condition: name, place });
      if (answer === null) return;
      if (answer.error) { frame.note(answer.error); frame.settle(); return; }
      alphas.set(key, floats(answer.buffers[0]));
    }
    paint();
    await loadKeys();
  }

  async function loadKeys() {
    const i = heat.shown(), at = i === null ? { layer: null, head: null } : heat.where(i);
    const message = { op: "keys", condition, ...at }, asked = JSON.stringify(message);
    if (asked === keysWanted) { if (keys) frame.settle(); return; }
    keysWanted = asked;
    frame.settle("loading");
    const answer = await model.request(message, "keys");
    if (answer === null || asked !== keysWanted) return;
    if (answer.error) frame.note(answer.error);
    else {
      frame.note("");
      const [edges, values, strongest, even] = answer.buffers.map(floats);
      keys = { edges, values, strongest, even, keys: answer.keys, listed: answer.listed, name: i === null ? "mean of all heads" : `layer ${at.layer}, head ${at.head}` };
      paintKeys();
    }
    frame.settle();
  }

  picker.addEventListener("change", () => { condition = picker.value; paint(); loadKeys(); });
  slider.addEventListener("input", () => { threshold = Number(slider.value); said.textContent = number(threshold); paint(); paintKeys(); });
  slider.addEventListener("keydown", (event) => event.stopPropagation());
  onKeys(frame.box, { Escape: () => model.set("selection", { ...model.get("selection"), layer: null, head: null }) });
  for (const trait of ["selection", "hover"]) model.on(trait, () => { tell(); loadKeys(); });
  if (!byNorm.box.hidden) {
    const all = Object.values(ratios).flat().filter((x) => x !== null && x > 0), low = Math.min(1, ...all), high = Math.max(1, ...all);
    byNorm.draw({ x: layers, y: high > low ? [low, high] : [low / 2, high * 2], ylog: true, xTitle: "layer", yTitle: "ratio of norms (log)", lines: [{ y: 1, text: "as the others" }],
      series: Object.entries(ratios).map(([name, values], i, all) => ({ name, values: values.map((x) => x ?? NaN), colour: lineColour(table, i, all.length), dash: i % 2 === 1 })) });
  }
  if (hidden.length) others.append(el("h4", { text: "strongest sinks behind the first token of the long text" }),
    rows(["head", "token", "key", "alpha"], hidden.map((r) => [`${r.layer}.${r.head}`, r.token, String(r.key), number(r.alpha)])));
  load();
}
