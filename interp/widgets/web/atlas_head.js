// The shown head of an atlas: labels, a link to its own page, and every score beside its spread, its control and its rank.
import { el, number, place } from "./dom.js";
import { headColour } from "./data.js";

const OF_ONE = ["score", "spread", "control", "rank"];
const OF_ALL = ["mean", "lowest", "highest", "highest head"];

export function headLink(data, name) {
  return data.pages.includes(name)
    ? el("a", { href: `heads/${name}.html`, class: "page-link", text: `page of head ${name}` }) : null;
}

export function createHead(data, state) {
  const title = el("h2", { class: "who" }), tag = el("span", { class: "tag" }), hint = el("p", { class: "note" });
  const labels = el("p", { class: "labels" });
  const columns = OF_ONE.map((text) => el("th", { scope: "col", text }));
  const rows = data.statistics.map((s) => {
    const name = el("button", { type: "button", class: "title", text: s.title });
    name.addEventListener("click", () => state.pick(s.index));
    const swatch = el("i", { class: "swatch" }), cells = columns.map(() => el("span"));
    const row = el("tr", { "data-statistic": s.name }, el("th", { scope: "row", title: `${s.title}, ${s.unit}` }, name),
      ...cells.map((cell, i) => el("td", { class: i === 0 ? "mean" : null }, i === 0 ? swatch : null, cell)));
    return { s, row, swatch, cells };
  });
  const status = el("p", { class: "status", role: "status", "aria-live": "polite" });

  state.subscribe(({ statistic, lock }) => {
    const head = state.shown();
    title.textContent = head === null ? `All ${number(data.n)} heads` : data.title(head);
    tag.textContent = lock !== null ? "locked" : "";
    tag.hidden = lock === null;
    columns.forEach((th, i) => { th.textContent = (head === null ? OF_ALL : OF_ONE)[i]; });
    const words = head === null ? [] : data.labels[head].split(", ").filter(Boolean);
    labels.replaceChildren(...words.map((text) => el("span", { class: "label", text })),
      ...(head === null ? [] : [headLink(data, data.name(head))].filter(Boolean)));
    if (head === null) hint.textContent = "Point at a head to see its scores; click to lock it, Esc to clear. In the large map arrow keys move and Enter locks.";
    else hint.textContent = (words.length ? "Labels are given by rule; an ablation confirms them. " : "No rule gives this head a label. ")
      + (data.patterns ? `Sparse pattern: ${data.patterns[head].replaceAll("_", " ")}.` : "");
    for (const { s, row, swatch, cells } of rows) {
      const mean = head === null ? s.overall : s.mean[head];
      const texts = head === null
        ? [number(s.overall), number(s.low), number(s.high), s.flat ? "all alike" : data.name(s.order[0])]
        : [number(mean), number(s.std[head], 2), number(s.control[head]), s.rank.has(head) ? String(s.rank.get(head)) : "–"];
      cells.forEach((cell, i) => { cell.textContent = texts[i]; });
      swatch.classList.toggle("undefined", Number.isNaN(mean));
      place(swatch, { "background-color": headColour(data, s, mean) });
      row.classList.toggle("picked", s === statistic);
    }
    status.textContent = head === null ? "" : `${data.title(head)}: ${statistic.title} ${number(statistic.mean[head])}, `
      + `control ${number(statistic.control[head])}${words.length ? `; ${words.join(", ")}` : ""}`;
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") state.clear(); });
  const panel = el("aside", { class: "inspector scores", "aria-label": "the shown head" },
    el("div", { class: "heading" }, title, tag), labels, hint,
    el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "scores of the shown head" },
      el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "score" }), ...columns)), el("tbody", {}, ...rows.map((r) => r.row)))));
  return { panel, status };
}
