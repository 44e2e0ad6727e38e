// Explore: the grid of heads, the map and the tokens of the head that is locked in it, that head's page, its features, and edits to try.
import { el, number, token } from "../dom.js";
import { floats } from "./requests.js";
import { createFrame } from "./frame.js";
import { createPart } from "./parts.js";
import { createCurves } from "./curves.js";
import { mountHeadGrid } from "./head_grid.js";
import { mountAttentionMap } from "./attention_map.js";
import { mountTokenView } from "./token_view.js";
import { mountSAEFeature } from "./sae_feature.js";
import { mountIntervene } from "./intervene.js";

const EXPLORE_PICKS = ["selection", "hover", "status", "picks"];

export function mountExplore(model, root) {
  const payload = model.get("payload"), { layers, heads, first } = payload;
  const frame = createFrame(model, root, "explore a run", "Everything is exact for this text.");
  frame.box.classList.add("iv-explore");
  const section = (name, label) => el("div", { class: `iv-explore-${name} iv-explore-part`, role: "region", "aria-label": label });
  const grid = section("grid", "heads"), page = section("page", "the head's page"), map = section("map", "attention map"), tokens = section("tokens", "tokens");
  frame.body.append(el("div", { class: "iv-explore-top" }, grid, page), el("div", { class: "iv-explore-middle" }, map, tokens));
  const passed = (op) => (message) => ({ op, message });
  const headOf = ({ layer, head }) => (layers.includes(layer) && head !== null && head < heads ? [layer, head] : first);
  const colours = payload.colours;
  let shown = first;

  const mapPart = payload.map && createPart(model, "map", { payload: { colours, ...payload.map }, title: exploreTitle(first) },
    (message) => ({ op: "map", layer: shown[0], head: shown[1], message }));
  const scores = el("tbody"), facts = el("div"), heading = el("h3", { class: "iv-title" });
  const chart = createCurves("entropy by position", { over: (i) => chartSays(i) });
  let curve = null;
  page.append(heading, el("div", { class: "iv-explore-scores" }, el("table", { "aria-label": "scores of the head" },
    el("thead", {}, el("tr", {}, ...["score", "value", "control", "rank"].map((text) => el("th", { scope: "col", text })))), scores)), facts, chart.box);

  const chartSays = (i) => { if (i !== null && curve) frame.read(`rows around ${Math.round(curve.x[i])}: entropy ${number(curve.y[i])} nats`); };

  function drawPage(answer) {
    const [x, y] = answer.buffers.map(floats), known = [...y].filter((v) => !Number.isNaN(v));
    heading.textContent = exploreTitle(shown);
    scores.replaceChildren(...answer.scores.map((s) => el("tr", {}, el("th", { scope: "row", text: s.title, title: s.unit }), el("td", { class: "iv-strong", text: number(s.value) }),
      el("td", { text: number(s.control) }), el("td", { text: s.rank === null ? "–" : `${s.rank} of ${s.of}` }))));
    const sinks = answer.sinks.map((s) => el("li", {}, exploreKey(s.position), el("span", { class: "iv-mono", text: ` ${token(s.token)} ` }), el("span", { text: number(s.share) })));
    const features = answer.features.map((f) => el("li", { text: `${f.feature} (share ${number(f.head_share, 2)})${f.family ? `, ${f.family}` : ""} ${(f.tokens ?? []).map(token).join(" ")}` }));
    facts.replaceChildren(...(sinks.length ? [el("p", { class: "iv-small", text: "keys that receive most, mean weight over the rows that see them" }), el("ol", { class: "iv-largest", "aria-label": "sinks" }, ...sinks)] : []),
      ...(features.length ? [el("p", { class: "iv-small", text: "features mostly of this head" }), el("ul", { class: "iv-largest", "aria-label": "features" }, ...features)] : []));
    chart.box.hidden = known.length < 2;
    curve = { x, y };
    if (known.length >= 2) chart.draw({ x: [...x], series: [{ name: "", values: [...y] }], y: [0, Math.max(...known) || 1], xTitle: "query position", yTitle: "nats" });
  }
  function exploreKey(position) {
    const button = el("button", { type: "button", text: String(position), title: "lock the last query and this key" });
    button.addEventListener("click", () => model.set("selection", { layer: shown[0], head: shown[1], q: payload.map.queries - 1, k: position }));
    return button;
  }

  async function loadPage() {
    const [layer, head] = shown, answer = await model.request({ op: "head", layer, head }, "head");
    if (answer === null || shown[0] !== layer || shown[1] !== head) return;
    frame.note(answer.error ?? "");
    if (answer.error) { heading.textContent = exploreTitle(shown); scores.replaceChildren(); facts.replaceChildren(); chart.box.hidden = true; } else drawPage(answer);
    frame.box.dataset.head = `${layer}.${head}`;
    frame.settle();
  }
  // All heads of a run have maps of one shape, so that another head needs no question before its first tile.
  function showMap() {
    if (!mapPart) return;
    const [layer, head] = shown;
    mapPart.renew({ payload: { ...mapPart.get("payload"), layer, head, names: [`head ${layer}.${head}`] }, title: exploreTitle(shown) });
    renewMap();
  }

  mountHeadGrid(createPart(model, "grid", { payload: payload.grid, title: "Heads" }, passed("grid"), EXPLORE_PICKS), grid);
  shown = headOf(model.get("selection"));
  const renewMap = mapPart && mountAttentionMap(mapPart, map);
  if (shown[0] !== first[0] || shown[1] !== first[1]) showMap();
  if (payload.tokens) mountTokenView(createPart(model, "tokens", { payload: payload.tokens, title: "Tokens" }, passed("tokens")), tokens);
  else tokens.append(el("p", { class: "iv-small", text: 'No maps and tokens: this run kept no queries and keys. Run again with keep="qk".' }));
  loadPage();
  if (payload.features) {
    const features = frame.body.appendChild(section("features", "features"));
    mountSAEFeature(createPart(model, "features", { payload: { colours, ...payload.features }, title: "Features of the autoencoder" }, passed("features")), features);
  }
  if (payload.bench) {
    const bench = frame.body.appendChild(section("bench", "intervene"));
    mountIntervene(createPart(model, "bench", { payload: { colours, ...payload.bench }, title: "Intervene on the picked heads, or on the locked one" }, passed("bench"), EXPLORE_PICKS), bench);
  }
  model.on("selection", (selection) => {
    const now = headOf(selection);
    if (now[0] === shown[0] && now[1] === shown[1]) return;
    shown = now;
    frame.settle("loading");
    showMap();
    loadPage();
  });
}

function exploreTitle([layer, head]) {
  return `Layer ${layer}, head ${head}`;
}
