// CompareView: what changed: the signed change of every head, metrics with interval and control, and the recipe to copy.
import { el, number, place } from "../dom.js";
import { bytes } from "../data.js";
import { floats } from "./requests.js";
import { createFrame, labelled, onKeys } from "./frame.js";
import { createCopy } from "./copy.js";
import { createSignedGrid, signedGradient } from "./signed_grid.js";

const LARGEST = 8;
const COMPARE_COLUMNS = [
  ["before", "before", (r) => number(r.before)],
  ["after", "after", (r) => number(r.after)],
  ["change", "change", (r) => number(r.change)],
  ["low", "interval", (r) => (r.low === null ? "–" : `${number(r.low)} to ${number(r.high)}`)],
  ["sd", "sd", (r) => number(r.sd, 2)],
  ["control", "control", (r) => `${number(r.control)}${r.control_sd === null ? "" : ` ± ${number(r.control_sd, 2)}`}`],
];

// A row's change as a dot with its interval, and its control as a hollow diamond with its spread; each row has its own scale, zero in the middle.
function compareBar(row) {
  const ends = [row.change, row.low, row.high, row.control, row.control === null ? null : row.control - (row.control_sd ?? 0), row.control === null ? null : row.control + (row.control_sd ?? 0)];
  const limit = Math.max(...ends.filter((x) => x !== null).map(Math.abs)) || 1;
  const at = (x) => `${50 + 48 * x / limit}%`, wide = (a, b) => `${48 * (b - a) / limit}%`;
  const bar = el("div", { class: "iv-effect", "aria-hidden": "true" }, el("i", { class: "iv-effect-zero" }));
  if (row.control !== null) {
    const spread = row.control_sd ?? 0;
    bar.append(place(el("i", { class: "iv-effect-spread" }), { left: at(row.control - spread), width: wide(0, 2 * spread) }), place(el("i", { class: "iv-effect-control" }), { left: at(row.control) }));
  }
  if (row.low !== null) bar.append(place(el("i", { class: "iv-effect-interval" }), { left: at(row.low), width: wide(row.low, row.high) }));
  if (row.change !== null) bar.append(place(el("i", { class: "iv-effect-change" }), { left: at(row.change) }));
  return bar;
}

export function mountCompareView(model, root) {
  const payload = model.get("payload"), { numbers } = payload, table = bytes(payload.diverging), ordinary = payload.ends[0] === "before";
  const frame = createFrame(model, root, "comparison", "Every change is exact for what was measured, hatched heads were not; interval and control say what chance does.");
  const recipe = createCopy("recipe (JSON)", frame.read);
  const metrics = el("div", { class: "iv-effects" });
  let effectsHere = false, headsHere = !numbers.length;
  const settle = () => { if (effectsHere && headsHere) frame.settle(); };
  frame.body.append(...(numbers.length ? [mapOf()] : []), metrics, recipe.box);
  recipe.show(payload.recipe);

  function mapOf() {
    const picker = el("select", {}, ...numbers.map((n, i) => el("option", { value: i, text: n.title })));
    const ends = [el("span"), el("span", { text: "0" }), el("span")], unit = el("span", { class: "iv-small" });
    const legend = el("div", { class: "iv-legend" },
      el("div", { class: "iv-scale" }, place(el("i", { class: "iv-ramp" }), { background: signedGradient(table) }), el("div", { class: "iv-ticks" }, ...ends)), unit);
    const largest = el("ol", { class: "iv-largest", "aria-label": "largest changes" });
    let shown = null;
    const grid = createSignedGrid(model, payload, table, tell);
    function tell(i) {
      if (i === null || !shown) {
        frame.read("Point at a head; click locks it, Esc clears.");
        return;
      }
      const { layer, head } = grid.where(i), { title, change, before, after, spread, control, low, high, rank } = shown;
      const parts = [`layer ${layer}, head ${head}: ${title} ${change[i] > 0 ? "+" : ""}${number(change[i])}`];
      if (!Number.isNaN(low[i])) parts.push(`interval ${number(low[i])} to ${number(high[i])}`);
      if (!Number.isNaN(before[i])) parts.push(ordinary ? `from ${number(before[i])} to ${number(after[i])}` : `${payload.ends[0]} ${number(before[i])}, ${payload.ends[1]} ${number(after[i])}`);
      if (!Number.isNaN(spread[i])) parts.push(`sd ${number(spread[i], 2)}`);
      if (!Number.isNaN(control[i])) parts.push(`control ${number(control[i])}`);
      if (rank.has(i)) parts.push(`${rank.get(i)} of ${rank.size} by size`);
      frame.read(parts.join("; "));
    }
    async function load() {
      const n = numbers[picker.value];
      headsHere = false;
      frame.settle("loading");
      const answer = await model.request({ op: "heads", name: n.name }, "heads");
      if (answer === null) return;
      if (answer.error) { frame.note(answer.error); return; }
      const [change, before, after, spread, control, low, high] = answer.buffers.map(floats);
      const sorted = [...change.keys()].filter((i) => !Number.isNaN(change[i])).sort((a, b) => Math.abs(change[b]) - Math.abs(change[a]) || a - b);
      shown = { title: n.title, change, before, after, spread, control, low, high, rank: new Map(sorted.map((i, r) => [i, r + 1])) };
      grid.draw(change, answer.limit, `change of ${n.title}`);
      [ends[0].textContent, ends[2].textContent] = [number(-answer.limit), number(answer.limit)];
      unit.textContent = `${n.unit}${answer.limit > 0 ? "" : "; no head changed"}`;
      largest.replaceChildren(...sorted.filter((i) => change[i] !== 0).slice(0, LARGEST).map((i) => {
        const { layer, head } = grid.where(i), button = el("button", { type: "button", text: `${layer}.${head}`, title: "lock this head" });
        button.addEventListener("click", () => grid.lock(i));
        return el("li", {}, button, el("span", { text: ` ${change[i] > 0 ? "+" : ""}${number(change[i])}${Number.isNaN(control[i]) ? "" : ` (control ${number(control[i])})`}` }));
      }));
      grid.mark();
      headsHere = true;
      settle();
    }
    picker.addEventListener("change", load);
    onKeys(frame.box, { Escape: () => { model.set("selection", { ...model.get("selection"), layer: null, head: null }); } });
    load();
    return el("div", { class: "iv-compare" },
      el("div", {}, el("div", { class: "iv-tools" }, labelled("change of", picker)), el("div", { class: "iv-scroll" }, grid.box), legend),
      el("div", { class: "iv-largest-box" }, el("p", { class: "iv-small", text: "largest changes" }), largest));
  }

  async function loadEffects() {
    const answer = await model.request({ op: "effects" });
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); return; }
    const shown = COMPARE_COLUMNS.filter(([name]) => answer.rows.some((row) => row[name] !== null));
    const told = { before: payload.ends[0], after: payload.ends[1], interval: payload.interval || "interval" };
    const heading = (words) => told[words] ?? words;
    const head = el("tr", {}, el("th", { scope: "col", text: "metric" }), ...shown.map(([, words]) => el("th", { scope: "col", text: heading(words) })), el("th", { "aria-hidden": "true" }));
    const rows = answer.rows.map((row) => el("tr", {}, el("th", { scope: "row", text: row.name }), ...shown.map(([name, , say]) => el("td", { class: name === "change" ? "iv-strong" : null, text: say(row) })), el("td", {}, compareBar(row))));
    const notes = [payload.note, payload.control && `Control: ${payload.control}.`, answer.of > answer.rows.length && `The first ${answer.rows.length} of ${answer.of} rows.`].filter(Boolean);
    if (rows.length) metrics.append(el("div", { class: "iv-scroll" }, el("table", { "aria-label": `metrics ${payload.ends.join(" and ")}` }, el("thead", {}, head), el("tbody", {}, ...rows))));
    if (notes.length) metrics.append(el("p", { class: "iv-small", text: notes.join(" ") }));
    effectsHere = true;
    settle();
  }
  loadEffects();
}
