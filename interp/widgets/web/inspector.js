// One head in numbers: every statistic of the shown head beside the mean of its layer; all heads while none is shown.
import { count, el, number, ordinal, place } from "./dom.js";
import { headColour } from "./data.js";

const STANDS_OUT = 3;
const OF_ONE = ["mean", "layer mean", "sd", "5 – 95 %", "n"];
const OF_ALL = ["mean", "lowest", "highest", "highest head", ""];

function standing(data, head) {
  const high = data.statistics.filter((s) => !s.flat && s.rank.get(head) <= STANDS_OUT)
    .sort((a, b) => a.rank.get(head) - b.rank.get(head));
  if (!high.length) return "";
  const words = high.slice(0, 4).map((s) => `${ordinal(s.rank.get(head))} in ${s.title}`);
  return `Of ${number(data.n)} heads: ${words.join(", ")}${high.length > 4 ? ` and ${high.length - 4} more` : ""}.`;
}

export function createInspector(data, state) {
  const title = el("h2", { class: "who" }), tag = el("span", { class: "tag" });
  const hint = el("p", { class: "note" });
  const columns = OF_ONE.map((text) => el("th", { scope: "col", text }));
  const rows = data.statistics.map((s) => {
    const name = el("button", { type: "button", class: "title", text: s.title });
    name.addEventListener("click", () => state.pick(s.index));
    const swatch = el("i", { class: "swatch" }), cells = columns.map(() => el("span"));
    const row = el("tr", { "data-statistic": s.name },
      el("th", { scope: "row", title: `${s.title}, ${s.unit}` }, name),
      ...cells.map((cell, i) => el("td", { class: i === 0 ? "mean" : null }, i === 0 ? swatch : null, cell)));
    return { s, row, swatch, cells };
  });
  const status = el("p", { class: "status", role: "status", "aria-live": "polite" });

  function fill({ s, row, swatch, cells }, head, picked) {
    const layer = head === null ? 0 : Math.floor(head / data.heads.length);
    const mean = head === null ? s.overall : s.mean[head];
    const texts = head === null
      ? [number(s.overall), number(s.low), number(s.high), !s.flat ? data.name(s.order[0]) : "all alike", ""]
      : [number(mean), number(s.layerMean[layer]), number(s.std[head], 2), `${number(s.q05[head], 2)} – ${number(s.q95[head], 2)}`, count(s.count[head])];
    cells.forEach((cell, i) => { cell.textContent = texts[i]; });
    swatch.classList.toggle("undefined", Number.isNaN(mean));
    place(swatch, { "background-color": headColour(data, s, mean) });
    row.classList.toggle("picked", s === picked);
  }

  state.subscribe(({ statistic, hover, lock }) => {
    const head = state.shown();
    title.textContent = head === null ? `All ${number(data.n)} heads` : data.title(head);
    tag.textContent = lock !== null ? "locked" : "";
    tag.hidden = lock === null;
    columns.forEach((th, i) => { th.textContent = (head === null ? OF_ALL : OF_ONE)[i]; });
    if (head === null) hint.textContent = "Means over all heads. Point at a head to see its numbers; click to lock it, Esc to clear. In the large map arrow keys move and Enter locks.";
    else hint.textContent = standing(data, head) || `Among the three highest of ${number(data.n)} heads in no statistic.`;
    for (const row of rows) fill(row, head, statistic);
    const other = lock !== null && hover !== null && hover !== lock ? `  (under the pointer: ${data.name(hover)}, ${number(statistic.mean[hover])})` : "";
    const layer = head === null ? 0 : Math.floor(head / data.heads.length);
    status.textContent = head === null ? "" : `${data.title(head)}: ${statistic.title} ${number(statistic.mean[head])} ${statistic.unit}, `
      + `layer mean ${number(statistic.layerMean[layer])}${lock !== null ? ". Locked, Esc clears" : ""}${other}`;
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") state.clear(); });
  const panel = el("aside", { class: "inspector", "aria-label": "the shown head" },
    el("div", { class: "heading" }, title, tag), hint,
    el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "statistics of the shown head" },
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "statistic" }), ...columns)), el("tbody", {}, ...rows.map((r) => r.row)))));
  return { panel, status };
}
