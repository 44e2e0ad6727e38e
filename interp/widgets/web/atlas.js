// Puts an atlas of heads together.
import { el, number } from "./dom.js";
import { decode } from "./data.js";
import { createState } from "./state.js";
import { createGrid } from "./grid.js";
import { createMultiples } from "./multiples.js";
import { createHead } from "./atlas_head.js";
import { createConfirmed, createLabels, createOutcomes, createPlaces } from "./atlas_parts.js";

function start() {
  const data = decode({ maps: [], ...JSON.parse(document.getElementById("data").textContent) });
  const place = (i) => [data.layers[Math.floor(i / data.heads.length)], data.heads[i % data.heads.length]];
  data.name = (i) => place(i).join(".");
  data.title = (i) => `Layer ${place(i)[0]}, head ${place(i)[1]}`;
  document.title = `${data.title_text}: atlas of heads`;
  const root = document.getElementById("report");
  const header = el("header", {}, el("p", { class: "kicker", text: "atlas of heads" }), el("h1", { text: data.title_text }),
    el("p", { class: "lead" }, `What the ${number(data.n)} heads of this model do: every score of the taxonomy beside its control. `,
      el("span", { class: "caution", text: "A score says where a head looks, an ablation whether the model needs it." })),
    el("dl", { class: "facts" }, ...data.facts.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value })))));
  const manifest = el("footer", {}, el("details", { class: "manifest" }, el("summary", { text: "Manifest: what was run, with which versions" }),
    el("pre", { text: JSON.stringify(data.manifest, null, 2) })));
  if (data.statistics.length) {
    const state = createState(data);
    const { panel, status } = createHead(data, state);
    root.append(header,
      el("div", { class: "columns" }, createGrid(data, state), panel, createMultiples(data, state, "Every score"), createLabels(data, state)),
      ...[createConfirmed(data), createPlaces(data, state)].filter(Boolean), createOutcomes(data), manifest, status);
  } else root.append(header, createOutcomes(data), manifest);
  document.documentElement.dataset.ready = "true";
}

start();
