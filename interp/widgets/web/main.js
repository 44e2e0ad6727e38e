// Puts the report together.
import { el } from "./dom.js";
import { decode } from "./data.js";
import { createState } from "./state.js";
import { createGrid } from "./grid.js";
import { createMultiples } from "./multiples.js";
import { createInspector } from "./inspector.js";
import { createRanking } from "./ranking.js";
import { createMaps } from "./maps.js";
import { createAbout, createDefinitions, createHeader } from "./about.js";

function start() {
  const data = decode(JSON.parse(document.getElementById("data").textContent));
  const place = (i) => [data.layers[Math.floor(i / data.heads.length)], data.heads[i % data.heads.length]];
  data.name = (i) => place(i).join(".");
  data.title = (i) => `Layer ${place(i)[0]}, head ${place(i)[1]}`;
  document.title = `${data.title_text}: attention heads`;
  const state = createState(data);
  const { panel, status } = createInspector(data, state);
  document.getElementById("report").append(
    createHeader(data),
    el("div", { class: "columns" }, createGrid(data, state), panel, createMultiples(data, state), createRanking(data, state)),
    ...[createMaps(data, state), createDefinitions(data), createAbout(data)].filter(Boolean), status);
  document.documentElement.dataset.ready = "true";
}

start();
