// The chosen statistic as a table of heads: sortable, with the spread of each head's values.
import { count, el, number, place } from "./dom.js";
import { headColour } from "./data.js";

const SHORT = 12;
const KEYS = [
  ["head", "head", (s, i) => i],
  ["mean", "mean", (s, i) => s.mean[i]],
  ["std", "sd", (s, i) => s.std[i]],
  ["q05", "5 %", (s, i) => s.q05[i]],
  ["q50", "median", (s, i) => s.q50[i]],
  ["q95", "95 %", (s, i) => s.q95[i]],
  ["count", "n", (s, i) => s.count[i]],
];

export function createRanking(data, state) {
  let key = "mean", descending = true, all = false;
  const title = el("h2"), body = el("tbody");
  const more = el("button", { type: "button", class: "quiet" });
  const headers = KEYS.map(([name, text]) => {
    const button = el("button", { type: "button", text });
    button.addEventListener("click", () => {
      descending = key === name ? !descending : name !== "head";
      key = name;
      draw(state.get());
    });
    return el("th", { scope: "col", "data-key": name }, button);
  });
  headers.splice(3, 0, el("th", { scope: "col", class: "spread", text: "spread" }));
  more.addEventListener("click", () => { all = !all; draw(state.get()); });

  function sorted(s) {
    const value = KEYS.find(([name]) => name === key)[2];
    const known = [...Array(data.n).keys()].filter((i) => !Number.isNaN(s.mean[i]));
    return known.sort((a, b) => (descending ? value(s, b) - value(s, a) : value(s, a) - value(s, b)) || a - b);
  }

  function spread(s, i, low, high) {
    const at = (x) => high > low ? 100 * (s.log ? Math.log(Math.max(x, low) / low) / Math.log(high / low) : (x - low) / (high - low)) : 0;
    const span = (from, to) => ({ left: `${at(from)}%`, width: `${at(to) - at(from)}%` });
    if (Number.isNaN(s.q05[i])) return el("td", { class: "spread" });
    return el("td", { class: "spread", title: "line: 5 to 95 %, bar: middle half, tick: median" }, el("div", {},
      place(el("i", { class: "whole" }), span(s.q05[i], s.q95[i])), place(el("i", { class: "half" }), span(s.q25[i], s.q75[i])),
      place(el("i", { class: "median" }), { left: `${at(s.q50[i])}%` })));
  }

  function draw({ statistic: s }) {
    const order = sorted(s), shown = all ? order : order.slice(0, SHORT);
    const low = s.log ? Math.min(...shown.map((i) => s.q05[i]).filter((x) => x > 0)) : Math.min(...shown.map((i) => s.q05[i]));
    const high = Math.max(...shown.map((i) => s.q95[i]));
    title.textContent = `Heads by ${s.title}`;
    headers.forEach((th) => {
      if (th.dataset.key) th.setAttribute("aria-sort", th.dataset.key === key ? (descending ? "descending" : "ascending") : "none");
    });
    body.replaceChildren(...shown.map((i) => {
      const lock = el("button", { type: "button", class: "title", text: data.name(i), title: data.title(i) });
      lock.addEventListener("click", (event) => { event.stopPropagation(); state.lock(i); });
      const swatch = place(el("i", { class: "swatch" }), { "background-color": headColour(data, s, s.mean[i]) });
      const row = el("tr", { "data-head": i }, el("th", { scope: "row" }, lock), el("td", { class: "mean" }, swatch, number(s.mean[i])),
        el("td", { text: number(s.std[i]) }), spread(s, i, low, high), el("td", { text: number(s.q05[i]) }),
        el("td", { text: number(s.q50[i]) }), el("td", { text: number(s.q95[i]) }), el("td", { text: count(s.count[i]) }));
      row.addEventListener("pointerenter", () => state.hover(i));
      row.addEventListener("pointerleave", () => state.hover(null));
      row.addEventListener("click", () => state.lock(i));
      return row;
    }));
    more.textContent = all ? `show the first ${SHORT}` : `show all ${number(order.length)}`;
    more.hidden = order.length <= SHORT;
    mark(state.get());
  }

  function mark({ hover, lock }) {
    for (const row of body.children) {
      row.classList.toggle("hover", Number(row.dataset.head) === hover);
      row.classList.toggle("lock", Number(row.dataset.head) === lock);
    }
  }

  let drawn = null;
  state.subscribe((now) => {
    if (now.statistic !== drawn) { drawn = now.statistic; draw(now); } else mark(now);
  });
  return el("section", { class: "ranking" }, title,
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...headers)), body)), more);
}
