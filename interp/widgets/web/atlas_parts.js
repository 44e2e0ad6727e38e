// What stands below an atlas' maps: heads by label, ablations, the embedding of all heads, and what was not measured.
import { el, number, place } from "./dom.js";
import { colour } from "./data.js";
import { headLink } from "./atlas_head.js";

const LISTED = 24;

// The heads of every label as buttons that lock them; pages of heads are linked behind.
export function createLabels(data, state) {
  const index = new Map([...Array(data.n).keys()].map((i) => [data.name(i), i]));
  const rows = Object.entries(data.rules).map(([label, { heads, by_controls }]) => {
    const buttons = heads.slice(0, LISTED).map((name) => {
      const button = el("button", { type: "button", class: "head", text: name });
      button.addEventListener("click", () => state.lock(index.get(name)));
      return button;
    });
    const more = heads.length > LISTED ? [el("span", { class: "unit", text: `and ${heads.length - LISTED} more` })] : [];
    return el("tr", { "data-label": label }, el("th", { scope: "row", text: label }), el("td", { text: String(heads.length) }),
      el("td", { text: String(by_controls) }), el("td", { class: "heads" }, ...buttons, ...more));
  });
  const pages = data.pages.map((name) => headLink(data, name));
  return el("section", { class: "ranking by-label" }, el("h2", { text: "Heads by label" }),
    el("p", { class: "note", text: "Rules on the raw scores (thresholds in the manifest); strongest first. By controls: how many heads the same rule "
      + "would name where the effect was taken away." }),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {},
      ...["label", "heads", "by controls", ""].map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows))),
    pages.length ? el("p", { class: "links" }, el("span", { class: "unit", text: "Pages of heads: " }), ...pages) : null);
}

export function createConfirmed(data) {
  if (!data.confirmed) return null;
  const columns = ["label", "ablation", "metric", "base", "labelled heads", "random heads", "harm", "harm of random"];
  const rows = data.confirmed.map((r) => el("tr", {}, el("th", { scope: "row", text: r.label, title: r.heads }),
    ...[r.kind, r.metric, number(r.base), number(r.ablated), `${number(r.control_mean)} ± ${number(r.control_std, 2)}`].map((text) => el("td", { text })),
    el("td", { class: "mean", text: number(r.score) }), el("td", { text: `${number(r.control)} ± ${number(r.spread, 2)}` })));
  return el("section", { class: "attention ranking" }, el("h2", { text: "Confirmed by ablation?" }),
    el("p", { class: "note", text: "Harm: how far the metric moves the bad way when a label's strongest heads are ablated, and when as many random "
      + "heads of the same layers are (± standard deviation over draws). A label holds where the two stand clear of each other." }),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows))));
}

// Every head as a point; clusters by colour, the shown head marked.
export function createPlaces(data, state) {
  if (!data.placed) return null;
  const { views, cluster, features } = data.placed, clusters = Math.max(...cluster) + 1;
  const names = { tsne: "t-SNE (neighbours)", pca: "PCA (distances)" };
  const points = cluster.map((c, i) => {
    const point = el("i", { class: "point", "data-head": i, title: `${data.name(i)}, cluster ${c}${data.labels[i] ? `: ${data.labels[i]}` : ""}` });
    return place(point, { background: colour(data.table, Math.round(c * 255 / Math.max(1, clusters - 1))) });
  });
  const board = el("div", { class: "field", role: "img", "aria-label": "every head, placed by how it attends" }, ...points);
  board.addEventListener("pointerover", (event) => { if (event.target.dataset.head !== undefined) state.hover(Number(event.target.dataset.head)); });
  board.addEventListener("pointerleave", () => state.hover(null));
  board.addEventListener("click", (event) => { if (event.target.dataset.head !== undefined) state.lock(Number(event.target.dataset.head)); });
  const buttons = Object.keys(views).map((view) => el("button", { type: "button", text: names[view] }));
  const show = (view) => {
    const [x, y] = views[view], span = (v) => [Math.min(...v), Math.max(...v)], [x0, x1] = span(x), [y0, y1] = span(y);
    points.forEach((point, i) => place(point, {
      left: `${2 + 96 * (x[i] - x0) / (x1 - x0 || 1)}%`, top: `${97 - 94 * (y[i] - y0) / (y1 - y0 || 1)}%`,
    }));
    Object.keys(views).forEach((name, i) => buttons[i].setAttribute("aria-pressed", String(name === view)));
  };
  Object.keys(views).forEach((view, i) => buttons[i].addEventListener("click", () => show(view)));
  show("tsne");
  let marked = null;
  state.subscribe(() => {
    const head = state.shown();
    if (marked !== null) points[marked].classList.remove("on");
    if (head !== null) points[head].classList.add("on");
    marked = head;
  });
  return el("section", { class: "attention places" }, el("h2", { text: "Heads that attend alike" }),
    el("p", { class: "note", text: `Every head, placed by ${features.length} standardised features of how it attends; colours are ${clusters} k-means clusters. `
      + `Mean silhouette ${number(data.placed.silhouette)}, with shuffled features ${number(data.placed.control)}. Distances between t-SNE's islands mean nothing.` }),
    el("div", { class: "choice", role: "group", "aria-label": "view" }, ...buttons), board);
}

export function createOutcomes(data) {
  const rows = data.parts.map((p) => el("tr", {}, el("th", { scope: "row", text: p.name }), el("td", { class: "heads", text: p.outcome + (p.reason ? `: ${p.reason}` : "") }),
    el("td", { text: `${number(p.seconds)} s` })));
  return el("section", { class: "attention ranking" }, el("h2", { text: "What was measured" }),
    el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...rows))));
}
