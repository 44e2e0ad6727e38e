// SAEFeature: an index of features; one at a time is fetched and shown. Arrows move in the index, Enter opens, Esc clears the head.
import { el, number } from "../dom.js";
import { floats } from "./requests.js";
import { createChoice, createFrame, labelled, onKeys } from "./frame.js";
import { saeBars, saeContext, saeHistogram, saeTokens } from "./sae_parts.js";

const SAE_SORTS = { feature: 1, head_share: -1, density: -1, firings: -1, max: -1, sink_share: -1 };
const SAE_TITLES = { feature: "feature", layer: "layer", head: "head", head_share: "its share", tokens: "raises", density: "density", firings: "firings", max: "largest", sink_share: "sink's share", family: "family" };
const SAE_HEADS = [["dfa", "DFA", "mean share in |DFA| at the top contexts"], ["dfa_without_sink", "without sink", "the same, position 0 left out"], ["weights", "weights", "share of the decoder's norm"]];
const SAE_ROWS = 300;

export function mountSAEFeature(model, root) {
  const frame = createFrame(model, root, "features of an autoencoder", "Exact on the text that was read. DFA says which head and source a firing was made of.");
  const search = el("input", { type: "search", placeholder: "token, family or number" });
  const body = el("tbody"), head = el("thead"), note = el("p", { class: "iv-small" });
  const page = el("div", { class: "iv-sae-page", role: "region", "aria-label": "feature", "aria-live": "polite" });
  frame.body.append(el("p", { class: "iv-small", text: model.get("payload").made }), el("div", { class: "iv-tools" }, labelled("search", search)), el("div", { class: "iv-sae" },
    el("div", {}, el("div", { class: "iv-sae-index" }, el("table", { role: "grid", "aria-label": "features" }, head, body)), note), page));
  let rows = [], columns = [], sort = null, current = 0, shown = null, by = "values", heads = "dfa";

  const opened = () => {
    const picks = model.get("picks").filter((p) => p.length === 1).map(([f]) => f).filter((f) => rows.some((row) => row.feature === f));
    return picks.length ? picks[picks.length - 1] : rows[0].feature;
  };
  const open = (feature) => model.set("picks", [[feature]]);

  function listed() {
    const words = search.value.trim().toLowerCase(), { layer, head: h } = model.get("selection");
    const mine = rows.filter((row) => h === null || (row.head === h && (row.layer === undefined || row.layer === layer)));
    const found = mine.filter((row) => !words || String(row.feature) === words || (row.family ?? "").includes(words) || (row.tokens ?? []).some((t) => t.toLowerCase().includes(words)));
    if (sort) found.sort((a, b) => sort.way * ((a[sort.name] ?? -Infinity) - (b[sort.name] ?? -Infinity)) || a.feature - b.feature);
    return found;
  }

  function drawIndex() {
    const found = listed(), first = found.slice(0, SAE_ROWS), { layer, head: h } = model.get("selection");
    body.replaceChildren(...first.map((row, i) => el("tr", { "data-feature": row.feature, tabindex: i === 0 ? 0 : -1, "aria-selected": String(shown !== null && row.feature === shown.record.feature) },
      ...columns.map((name) => el("td", { class: name === "tokens" || name === "family" ? "iv-sae-words" : null, text: Array.isArray(row[name]) ? row[name].join(" ") : typeof row[name] === "string" ? row[name] : number(row[name]) })))));
    current = 0;
    note.textContent = `${found.length} of ${rows.length} features${found.length > first.length ? `, the first ${first.length} listed` : ""}${h === null ? "" : `; those mostly of head ${layer}.${h} (Esc: all)`}`;
  }

  function drawHead() {
    head.replaceChildren(el("tr", {}, ...columns.map((name) => {
      if (SAE_SORTS[name] === undefined) return el("th", { scope: "col", text: SAE_TITLES[name] });
      const button = el("button", { type: "button", text: SAE_TITLES[name] });
      button.addEventListener("click", () => {
        sort = { name, way: sort && sort.name === name ? -sort.way : SAE_SORTS[name] };
        drawHead();
        drawIndex();
      });
      return el("th", { scope: "col", "aria-sort": sort && sort.name === name ? (sort.way > 0 ? "ascending" : "descending") : "none" }, button);
    })));
  }

  async function load() {
    const feature = opened();
    if (shown && shown.record.feature === feature) return;
    frame.settle("loading");
    const answer = await model.request({ op: "feature", feature }, "feature");
    if (answer === null) return;
    frame.note(answer.error ?? "");
    if (answer.error) return frame.settle();
    shown = { record: answer.record, numbers: floats(answer.buffers[0]) };
    body.querySelectorAll("tr").forEach((row) => row.setAttribute("aria-selected", String(Number(row.dataset.feature) === feature)));
    drawPage();
    frame.settle();
  }

  function drawPage() {
    const { record } = shown, facts = [["density", record.density], ["firings", record.firings], ["at position 0", record.at_first], ["largest", record.max], ["mean", record.mean], ["sink's share", record.sink_share]];
    page.replaceChildren(el("h3", { class: "iv-title", text: `feature ${record.feature}` }),
      el("p", { class: "iv-small", text: facts.filter(([, x]) => x !== undefined && x !== null).map(([name, x]) => `${name} ${number(x)}`).join("; ") }), parts(record), ...contexts(record));
  }

  function parts(record) {
    const found = [];
    if (record.histogram) found.push(el("div", {}, el("p", { class: "iv-small", text: "values where it fires" }), saeHistogram("values where it fires", record.histogram)));
    const there = SAE_HEADS.filter(([name]) => record.heads?.[name]);
    if (there.length) {
      const kind = there.some(([name]) => name === heads) ? heads : there[0][0];
      const choice = createChoice("shares of heads", there, (value) => { heads = value; drawPage(); });
      choice.press(kind);
      const lock = (h) => model.set("selection", { ...model.get("selection"), layer: record.layer ?? null, head: h });
      found.push(el("div", {}, choice.box, saeBars("shares of heads", record.heads[kind], (i) => `head ${record.layer}.${i}`, record.layer === undefined ? null : lock), el("p", { class: "iv-small", text: "a bar per head; click locks the head" })));
    }
    if (record.logits?.raised) found.push(saeTokens("raises", record.logits.raised), saeTokens("lowers", record.logits.lowered));
    else if (record.logits) found.push(el("p", { class: "iv-small", text: record.logits.reason }));
    if (record.related?.length) {
      const buttons = record.related.map(([f, cosine]) => {
        const button = el("button", { type: "button", text: `${f} (${number(cosine, 2)})`, disabled: !rows.some((row) => row.feature === f) });
        button.addEventListener("click", () => open(f));
        return button;
      });
      found.push(el("div", {}, el("p", { class: "iv-small", text: "related (cosine of what they write)" }), el("div", { class: "iv-tools" }, ...buttons)));
    }
    return el("div", { class: "iv-sae-parts" }, ...found);
  }

  function contexts(record) {
    if (!record.groups?.length) return [el("p", { class: "iv-small", text: record.groups && record.histogram ? "no contexts: it never fires on this text" : "no contexts here: give the model and a text (feature_source)" })];
    const choice = createChoice("shade tokens by", [["values", "value", "the feature's value at each token"], ["dfa", "DFA by source", "what the framed token took from each source"]], (value) => { by = value; drawPage(); });
    choice.press(by);
    let at = 0;
    const groups = record.groups.map((group) => {
      const lines = group.examples.map((example) => {
        const values = shown.numbers.subarray(at, at + example.tokens.length), dfa = shown.numbers.subarray(at + example.tokens.length, at + example.tokens.length + example.sources);
        at += example.tokens.length + example.sources;
        const most = by === "values" ? record.max : Math.max(...dfa.map(Math.abs));
        return saeContext(example, by === "values" ? values : dfa, most, by === "values" ? "value" : "DFA", frame.read);
      });
      const words = group.name === "top" ? "largest values, one per text" : `values from ${number(group.low)} to ${number(group.high)}: ${number(100 * group.share)} % of firings`;
      return el("div", {}, el("p", { class: "iv-small", text: words }), ...lines);
    });
    return [el("div", { class: "iv-tools" }, choice.box), ...groups];
  }

  const rowOf = (event) => event.target.closest("tr[data-feature]");
  body.addEventListener("click", (event) => { if (rowOf(event)) open(Number(rowOf(event).dataset.feature)); });
  body.addEventListener("pointerover", (event) => {
    const row = rows.find((r) => r.feature === Number(rowOf(event)?.dataset.feature));
    if (row) frame.read(`feature ${row.feature}, mostly of head ${row.layer === undefined ? "" : `${row.layer}.`}${row.head} (share ${number(row.head_share)}); click opens it`);
  });
  const move = (by) => () => {
    const lines = [...body.children], at = lines.findIndex((line) => line.matches(":focus-within"));
    const next = lines[Math.min(lines.length - 1, Math.max(0, (at < 0 ? current : at) + by))];
    if (!next) return;
    lines.forEach((line) => { line.tabIndex = line === next ? 0 : -1; });
    next.focus();
  };
  onKeys(body, { ArrowDown: move(1), ArrowUp: move(-1), PageDown: move(10), PageUp: move(-10), Enter: (event) => open(Number(rowOf(event).dataset.feature)), " ": (event) => open(Number(rowOf(event).dataset.feature)) });
  onKeys(frame.box, { Escape: () => model.set("selection", { ...model.get("selection"), layer: null, head: null }) });
  search.addEventListener("input", drawIndex);
  search.addEventListener("keydown", (event) => event.stopPropagation());
  let filtered = JSON.stringify([model.get("selection").layer, model.get("selection").head]);
  model.on("selection", ({ layer, head: h }) => {
    if (filtered === (filtered = JSON.stringify([layer, h]))) return;
    drawIndex();
  });
  model.on("picks", load);

  (async () => {
    const answer = await model.request({ op: "index" });
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); return; }
    rows = answer.rows;
    columns = Object.keys(SAE_TITLES).filter((name) => rows.some((row) => row[name] !== undefined && (name !== "layer" || row.layer !== rows[0].layer)));
    drawHead();
    drawIndex();
    await load();
  })();
}
