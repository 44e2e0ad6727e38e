// SuccessorTable: a row per head, sortable. Arrows move, Enter locks, Esc clears; below stand the pairs of the head that is shown.
import { el, number, token } from "../dom.js";
import { floats } from "./requests.js";
import { createCopy } from "./copy.js";
import { NOWHERE, createFrame, onKeys } from "./frame.js";

const SUCC_MORE = 80;

export function mountSuccessorTable(model, root) {
  const payload = model.get("payload"), { columns, heads: n, ranked } = payload;
  const frame = createFrame(model, root, "table of successor heads", "Exact, from the weights alone: no text was run.");
  const buttons = columns.map((c) => el("button", { type: "button", text: c.title, title: c.words }));
  const tops = columns.map((c, i) => el("th", { scope: "col" }, buttons[i]));
  const body = el("tbody");
  const table = el("table", { class: "iv-succ", role: "grid", "aria-label": "successor scores of heads" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "head" }), ...tops)), body);
  const more = el("button", { type: "button" }), said = el("span", { class: "iv-small", role: "status" });
  const copy = createCopy("table as Markdown", (words) => { said.textContent = words; });
  const pairs = el("div", { class: "iv-succ-pairs", role: "group", tabindex: 0, "aria-label": "pairs of the shown head" });
  frame.body.append(el("div", { class: "iv-succ-box" }, table), el("div", { class: "iv-tools" }, more, copy.box, said), pairs);

  let layers = [], heads = [], values = [], lists = [], ranks = null;
  let sort = { column: 0, down: true }, shown = payload.shown, order = [], rows = [], current = null;
  const indexOf = ({ layer, head }) => (layer === null || head === null ? null : rowIndex.get(`${layer}.${head}`) ?? null);
  let rowIndex = new Map();
  const name = (i) => `${layers[i]}.${heads[i]}`;

  // Largest (or smallest) first, undefined last, ties to the lowest layer and head.
  function arrange() {
    const x = values[sort.column], sign = sort.down ? -1 : 1;
    const all = [...Array(n).keys()];
    order = [...all.filter((i) => !Number.isNaN(x[i])).sort((a, b) => sign * (x[a] - x[b]) || a - b), ...all.filter((i) => Number.isNaN(x[i]))];
    tops.forEach((th, c) => (c === sort.column ? th.setAttribute("aria-sort", sort.down ? "descending" : "ascending") : th.removeAttribute("aria-sort")));
    buttons.forEach((button, c) => { button.textContent = columns[c].title + (c === sort.column ? (sort.down ? " ▾" : " ▴") : ""); });
    const visible = order.slice(0, shown);
    rows = visible.map((i) => el("tr", { "data-row": i, tabindex: -1, "aria-selected": "false" }, el("th", { scope: "row", text: name(i) }),
      ...columns.map((c, k) => el("td", { text: number(values[k][i]), class: c.task && values[k][i] <= 0.5 ? "iv-below" : null }))));
    body.replaceChildren(...rows);
    if (!visible.includes(current)) current = visible[0];
    focusable(current);
    more.textContent = shown < n ? `show ${Math.min(SUCC_MORE, n - shown)} more of ${n}` : `all ${n} heads are shown`;
    more.disabled = shown >= n;
    copy.show(markdown());
    mark();
  }

  function focusable(i) {
    rows.forEach((row) => { row.tabIndex = Number(row.dataset.row) === i ? 0 : -1; });
    current = i;
  }

  function markdown() {
    const line = (cells) => `| ${cells.join(" | ")} |\n`;
    return [line(["head", ...columns.map((c) => c.title)]), line(["---", ...columns.map(() => "---:")]),
      ...order.slice(0, shown).map((i) => line([name(i), ...columns.map((_, k) => number(values[k][i]))]))].join("");
  }

  const shownHead = () => indexOf(model.get("selection")) ?? indexOf(model.get("hover")) ?? (order.length ? order[0] : null);

  async function loadPairs() {
    const i = shownHead();
    if (i === null || (ranks && ranks.head === i)) return;
    frame.settle("loading");
    const answer = await model.request({ op: "head", layer: layers[i], head: heads[i] }, "head");
    if (answer === null) return;
    frame.note(answer.error ?? "");
    ranks = answer.error ? null : { head: i, ranks: floats(answer.buffers[0]) };
    drawPairs();
    frame.settle();
  }

  function drawPairs() {
    if (!ranks) { pairs.replaceChildren(); return; }
    let at = 0;
    const parts = lists.map((list) => {
      const mine = ranks.ranks.slice(at, at + list.count), first = mine.filter((r) => r === 1).length;
      at += list.count;
      const items = list.pairs.map(([s, t], k) => el("li", { class: mine[k] === 1 ? "iv-first-rank" : null,
        text: `${token(s)} → ${token(t)}  ${mine[k] === 1 ? "✓" : mine[k] > 1 ? `rank ${mine[k]}` : "×"}` }));
      return [el("h4", {}, `${list.task.replaceAll("_", " ")}, ${list.case} `, el("span", { text: `${first} of ${list.count}` })),
        items.length ? el("ul", {}, ...items) : null];
    });
    pairs.setAttribute("aria-label", `pairs of head ${name(ranks.head)}`);
    const legend = ranked ? "else its rank among the list's words" : "×: another word has. Ranks, and the words of lists that were scored in part, need the model: .view(model=model)";
    pairs.replaceChildren(el("p", { class: "iv-small", text: `Head ${name(ranks.head)}. ✓: the successor has the largest logit; ${legend}.` }), ...parts.flat().filter(Boolean));
  }

  function mark() {
    const locked = indexOf(model.get("selection")), hovered = indexOf(model.get("hover"));
    rows.forEach((row) => {
      const i = Number(row.dataset.row);
      row.classList.toggle("iv-lock", i === locked);
      row.classList.toggle("iv-hover", i === hovered);
      row.setAttribute("aria-selected", String(i === locked));
    });
    const i = locked ?? hovered;
    const part = (c) => number(values[columns.findIndex((x) => x.name === c)][i]);
    frame.read(i === null ? "Point at a head; click locks it, Esc clears. A click on a column's name sorts by it."
      : `head ${name(i)}: score ${part("score")}, control ${part("control")}; itself ${part("itself")}`);
    loadPairs();
  }

  async function load() {
    const [scores, words] = await Promise.all([model.request({ op: "scores" }), model.request({ op: "words" })]);
    if (scores === null || words === null) return;
    if (scores.error || words.error) { frame.note(scores.error ?? words.error); return; }
    const all = floats(scores.buffers[0]);
    const column = (c) => all.subarray(c * n, (c + 1) * n);
    [layers, heads, values, lists] = [column(0), column(1), columns.map((_, c) => column(c + 2)), words.lists];
    rowIndex = new Map([...Array(n).keys()].map((i) => [name(i), i]));
    arrange();
    frame.settle();
  }

  const where = (i) => ({ layer: layers[i], head: heads[i] });
  const rowUnder = (event) => {
    const row = event.target.closest("[data-row]");
    return row ? Number(row.dataset.row) : null;
  };
  const hover = (i) => model.set("hover", i === null ? NOWHERE : { ...NOWHERE, ...where(i) });
  const lock = (i) => model.set("selection", { ...model.get("selection"), ...(indexOf(model.get("selection")) === i ? { layer: null, head: null } : where(i)) });
  body.addEventListener("pointerover", (event) => { if (rowUnder(event) !== null) hover(rowUnder(event)); });
  body.addEventListener("pointerleave", () => hover(null));
  body.addEventListener("focusin", (event) => { if (rowUnder(event) !== null) { focusable(rowUnder(event)); hover(current); } });
  body.addEventListener("focusout", () => hover(null));
  body.addEventListener("click", (event) => { if (rowUnder(event) !== null) lock(rowUnder(event)); });
  buttons.forEach((button, c) => button.addEventListener("click", () => {
    sort = { column: c, down: sort.column === c ? !sort.down : true };
    arrange();
  }));
  more.addEventListener("click", () => { shown += SUCC_MORE; arrange(); });
  const step = (by) => () => {
    const at = order.indexOf(current) + by;
    if (at >= 0 && at < rows.length) rows[at].focus();
  };
  onKeys(body, { ArrowDown: step(1), ArrowUp: step(-1), Enter: () => lock(current), " ": () => lock(current) });
  onKeys(frame.box, { Escape: () => { model.set("selection", { ...model.get("selection"), layer: null, head: null }); model.set("hover", NOWHERE); } });
  for (const trait of ["selection", "hover"]) model.on(trait, () => { if (order.length) mark(); });
  load();
}
