// EntropyView: entropy of all heads at a step; their course over layers and steps with loss, alarms and the line of collapse; profiles of one head.
import { el, number } from "../dom.js";
import { bytes, gradient, middle } from "../data.js";
import { floats } from "./requests.js";
import { createFrame, labelled, onKeys } from "./frame.js";
import { createHeat } from "./heat.js";
import { createCurves, lineColour } from "./curves.js";

const ENTROPY_NAMED = 8;  // curves that get a name of their own in a key

function entropyMean(xs) {
  let sum = 0, n = 0;
  for (const x of xs) if (!Number.isNaN(x)) { sum += x; n += 1; }
  return n ? sum / n : NaN;
}

export function mountEntropyView(model, root) {
  let payload = model.get("payload");
  const { layers, heads, profiles } = payload, n = layers.length * heads, table = bytes(payload.colours);
  const frame = createFrame(model, root, "entropy of attention heads", payload.exact);
  if (!payload.tracks.length) {
    // The host draws the view anew when the first reading is there.
    frame.read("Nothing is measured yet: this fills as the training goes on.");
    frame.settle();
    return undefined;
  }
  const heat = createHeat(model, table, layers, heads);
  const shade = (l) => lineColour(table, l, layers.length);
  let track = null, values = null, at = 0, following = true, heir = null;

  const tracks = el("select", {}, ...payload.tracks.map((name) => el("option", { value: name, text: name })));
  const picker = el("select", {}, ...payload.quantities.map((q) => el("option", { value: q.name, text: q.title })));
  const scrub = el("input", { type: "range", min: 0, step: 1, "aria-label": "training step" }), said = el("output");
  const scrubber = el("label", { class: "iv-scrub" }, el("span", { text: "step" }), scrub, said);
  const trackLabel = labelled("training", tracks);
  tracks.value = payload.track;
  trackLabel.hidden = payload.tracks.length < 2;
  const heading = el("h4"), ramp = el("i", { class: "iv-ramp" }), ends = [el("span"), el("span"), el("span")];
  ramp.style.setProperty("background", gradient(table));
  const legend = el("div", { class: "iv-legend" }, el("div", { class: "iv-scale" }, ramp, el("div", { class: "iv-ticks" }, ...ends)));
  const byStep = createCurves("over steps", { over: (i) => (i === null ? tell() : frame.read(stepWords(i))), pick: (i) => seek(i) });
  const byLayer = createCurves("by layer", { over: (i) => (i === null ? tell() : frame.read(layerWords(i))) });
  const loss = createCurves("loss", { over: (i) => (i === null ? tell() : frame.read(`step ${track.lossSteps[i]}: loss ${number(track.loss[i], 4)}`)) });
  const charts = profiles.map((p) => {
    const chart = createCurves(p.title, { over: (i) => (i === null ? tell() : chart.words && frame.read(chart.words(i))) });
    const empty = el("p", { class: "iv-empty", text: p.costly ? "Lock a head to see this: it reads the whole map." : "Point at a head to see this." });
    return { p, chart, empty, box: el("div", {}, chart.box, empty), asked: null };
  });
  frame.body.append(el("div", { class: "iv-tools" }, trackLabel, labelled("quantity", picker), scrubber),
    el("div", { class: "iv-charts" }, el("div", {}, heading, heat.box, legend), byStep.box, byLayer.box, loss.box, ...charts.map((c) => c.box)));

  const quantity = () => payload.quantities.find((q) => q.name === picker.value);
  const valueAt = (step, i) => values.all[step * n + i];
  const ofLayer = (source, from, l) => entropyMean(source.subarray(from + l * heads, from + (l + 1) * heads));
  const words = (x) => `${number(x)}${quantity().unit ? ` ${quantity().unit}` : ""}`;
  const headName = (i) => `layer ${heat.where(i).layer}, head ${heat.where(i).head}`;

  function tell() {
    if (!values) return;
    const i = heat.shown(), step = track.steps.length > 1 ? ` at step ${track.steps[at]}` : "";
    if (i === null) {
      const all = entropyMean(values.all.subarray(at * n, (at + 1) * n)), control = entropyMean(values.control);
      frame.read(`All heads${step}: ${quantity().title} ${words(all)}${Number.isNaN(control) ? "" : `; random tokens ${words(control)}`}. Point at a head, click locks it.`);
      return;
    }
    const limit = quantity().limit, x = valueAt(at, i), control = values.control[i];
    frame.read([`${headName(i)}${step}: ${quantity().title} ${words(x)}`, ...(Number.isNaN(control) ? [] : [`random tokens ${words(control)}`]), ...(limit && x < limit[0] ? ["below the line of collapse"] : [])].join("; "));
  }
  const stepWords = (i) => {
    const head = heat.shown(), alarms = track.alarms.filter((a) => a.step === track.steps[i]).map((a) => a.text);
    const told = head === null ? layers.map((layer, l) => `layer ${layer} ${number(ofLayer(values.all, i * n, l))}`).slice(0, ENTROPY_NAMED) : [`${headName(head)} ${words(valueAt(i, head))}`];
    return [`step ${track.steps[i]}`, ...told, ...alarms].join("; ");
  };
  const layerWords = (l) => {
    const control = ofLayer(values.control, 0, l);
    return `layer ${layers[l]}: mean over heads ${words(ofLayer(values.all, at * n, l))}${Number.isNaN(control) ? "" : `; random tokens ${words(control)}`}`;
  };

  // The vertical axis starts at 0 where colours do not follow a logarithm, so that the line of collapse can be drawn.
  const span = () => (values.log ? [values.low, values.high] : [Math.min(0, values.low), values.high > values.low ? values.high : values.low + 1]);
  const limits = () => (quantity().limit ? [{ y: quantity().limit[0], text: quantity().limit[1] }] : []);

  function drawSteps() {
    byStep.box.hidden = track.steps.length < 2;
    if (byStep.box.hidden) return;
    const head = heat.shown(), many = layers.length > ENTROPY_NAMED;
    const series = layers.map((layer, l) => ({ name: `layer ${layer}`, values: [...track.steps].map((_, s) => ofLayer(values.all, s * n, l)), colour: shade(l), quiet: head !== null || (many && l % Math.ceil(layers.length / ENTROPY_NAMED) !== 0) }));
    if (head !== null) series.push({ name: headName(head), values: [...track.steps].map((_, s) => valueAt(s, head)), colour: "var(--lock)", strong: true });
    byStep.draw({ x: [...track.steps], y: span(), ylog: values.log, xTitle: "step", yTitle: `${quantity().title}${head === null ? ", mean over heads" : ""}`, series, lines: limits(), at,
      events: track.alarms.map((a) => ({ x: a.step, text: a.text })) });
  }

  function drawLayers() {
    const rows = layers.map((_, l) => [...values.all.subarray(at * n + l * heads, at * n + (l + 1) * heads)].filter((x) => !Number.isNaN(x)));
    const series = [{ name: "", quiet: true, values: rows.map((r) => (r.length ? Math.min(...r) : NaN)) }, { name: "", quiet: true, values: rows.map((r) => (r.length ? Math.max(...r) : NaN)) },
      { name: "mean over heads (thin: lowest and highest)", values: rows.map(entropyMean), strong: true }];
    if (!Number.isNaN(entropyMean(values.control))) series.push({ name: "random tokens", dash: true, colour: "var(--soft)", values: layers.map((_, l) => ofLayer(values.control, 0, l)) });
    byLayer.draw({ x: layers, y: span(), ylog: values.log, xTitle: "layer", yTitle: quantity().title, series, lines: limits() });
  }

  function drawLoss() {
    loss.box.hidden = track.loss.length < 2;
    if (loss.box.hidden) return;
    const known = [...track.loss].filter(Number.isFinite), low = Math.min(0, ...known), high = Math.max(...known);
    const step = track.steps[at], near = [...track.lossSteps].reduce((best, s, i) => (Math.abs(s - step) < Math.abs(track.lossSteps[best] - step) ? i : best), 0);
    loss.draw({ x: [...track.lossSteps], y: [low, high > low ? high : low + 1], xTitle: "step", yTitle: "loss", at: near,
      series: [{ name: "loss", values: [...track.loss].map((x) => (Number.isFinite(x) ? x : NaN)), colour: "var(--ink)" }], events: track.alarms.map((a) => ({ x: a.step, text: a.text })) });
  }

  function paint() {
    const q = quantity(), many = track.steps.length > 1;
    heading.textContent = `${q.title}${q.unit ? ` (${q.unit})` : ""}${many ? `, step ${track.steps[at]}` : ""}`;
    heat.paint(values.all.subarray(at * n, (at + 1) * n), values.low, values.high, q.title, q.unit, values.log);
    [values.low, values.low === null ? null : middle(values), values.high].forEach((x, i) => { ends[i].textContent = number(x); });
    scrubber.hidden = !many;
    scrub.max = track.steps.length - 1;
    scrub.value = at;
    scrub.setAttribute("aria-valuetext", `step ${track.steps[at]}`);
    said.textContent = String(track.steps[at]);
    drawSteps();
    drawLayers();
    drawLoss();
    tell();
  }

  function seek(i) {
    if (!track) return;
    at = Math.min(track.steps.length - 1, Math.max(0, i));
    following = at === track.steps.length - 1;
    paint();
  }

  let loading = 0;
  async function load() {
    const turn = ++loading;
    frame.settle("loading");
    const told = await model.request({ op: "track", track: tracks.value });
    if (told === null || turn !== loading) return;
    if (told.error) { frame.note(told.error); frame.settle(); return; }
    const [steps, lossSteps, losses] = told.buffers.map(floats);
    for (const option of picker.options) option.disabled = !told.quantities.includes(option.value);
    if (!told.quantities.includes(picker.value)) picker.value = told.quantities[0];
    const answer = await model.request({ op: "values", track: tracks.value, quantity: picker.value });
    if (answer === null || turn !== loading) return;
    if (answer.error) { frame.note(answer.error); frame.settle(); return; }
    frame.note("");
    track = { steps, lossSteps, loss: losses, alarms: told.alarms };
    values = { all: floats(answer.buffers[0]), control: floats(answer.buffers[1]), low: answer.low, high: answer.high, log: answer.log };
    at = following ? steps.length - 1 : Math.min(at, steps.length - 1);
    paint();
    await loadProfiles(turn);
    if (turn === loading) frame.settle();
  }

  async function loadProfiles(turn) {
    const locked = layers.includes(model.get("selection").layer);
    for (const entry of charts) {
      const { p, chart, empty } = entry, i = p.costly && !locked ? null : heat.shown();
      const none = i === null && !p.overall;
      if (none) { if (entry.asked === null) { chart.box.hidden = true; empty.hidden = false; } continue; }
      const message = { op: "profile", profile: p.name, ...(i === null ? { layer: null, head: null } : heat.where(i)) };
      if (JSON.stringify(message) === entry.asked) continue;
      entry.asked = JSON.stringify(message);
      const answer = await model.request(message, `profile ${p.name}`);
      if (answer === null || turn !== loading || entry.asked !== JSON.stringify(message)) return;
      if (answer.error) { frame.note(answer.error); continue; }
      frame.note("");
      const curves = answer.buffers.map((b) => [...floats(b)]), name = i === null ? "mean of all heads" : headName(i);
      const known = curves.flat().filter(Number.isFinite);
      chart.title(`${p.title}, ${name}`);
      chart.draw({ x: p.labels.map((_, j) => j), labels: p.labels, y: [0, p.top ?? Math.max(0.1, Math.ceil(10 * Math.max(...known, 0) - 1e-6) / 10)], xTitle: p.xTitle, yTitle: p.yTitle,
        series: curves.map((c, j) => ({ name: p.names[j], values: c, strong: j === 0, dash: j > 0, colour: j > 0 ? "var(--soft)" : "var(--accent)" })) });
      chart.words = (j) => `${name}, ${p.xTitle} ${p.labels[j]}: ${p.yTitle} ${curves.map((c, k) => `${p.names[k]} ${number(c[j])}`).join("; ")}`;
      chart.box.hidden = false;
      empty.hidden = true;
    }
  }

  async function follow() {
    if (!values || heir) return;
    drawSteps();
    tell();
    frame.settle("loading");
    const turn = loading;
    await loadProfiles(turn);
    if (turn === loading) frame.settle();
  }
  for (const trait of ["selection", "hover"]) model.on(trait, follow);
  tracks.addEventListener("change", () => { following = true; load(); });
  picker.addEventListener("change", load);
  scrub.addEventListener("input", () => seek(Number(scrub.value)));
  scrub.addEventListener("keydown", (event) => event.stopPropagation());
  onKeys(frame.box, { Escape: () => model.set("selection", { ...model.get("selection"), layer: null, head: null }) });
  picker.value = payload.first;
  load();

  // A training that goes on brings a new source: the step on show stays, unless it was the last one. Other heads mean another drawing.
  return () => {
    if (heir) { heir(); return; }
    const news = model.get("payload");
    if (JSON.stringify([news.layers, news.heads]) !== JSON.stringify([payload.layers, payload.heads])) {
      root.replaceChildren();
      heir = mountEntropyView(model, root);
      return;
    }
    payload = news;
    load();
  };
}
