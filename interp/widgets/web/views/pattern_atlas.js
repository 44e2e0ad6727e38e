// PatternAtlas: a field of heads and their small maps. Arrows move from tile to tile, Enter locks, Esc clears.
import { el, number, place } from "../dom.js";
import { bytes, colour, gradient } from "../data.js";
import { floats } from "./requests.js";
import { NOWHERE, createChoice, createFrame, onKeys } from "./frame.js";

// The darkest colours of the table are left out: clusters must stand clear of a dark page.
const ATLAS_SHAPES = 10, ATLAS_REACH = 3, ATLAS_TOLD = 3, ATLAS_DARKEST = 80;
const ATLAS_VIEWS = { tsne: ["t-SNE", "neighbours are kept; distances between islands mean nothing"], pca: ["PCA", "large distances are kept"] };

export function mountPatternAtlas(model, root) {
  const payload = model.get("payload"), { clusters, features, layers, heads, side, maps } = payload;
  const table = bytes(payload.colours);
  const exact = maps === null ? "Profiles are means over texts, in standard deviations from the mean of all heads."
    : `Small maps are means of exact cells of the ${maps.tokens < maps.of ? `first ${number(maps.tokens)} of ${number(maps.of)}` : number(maps.tokens)} tokens, on a logarithmic scale.`;
  const frame = createFrame(model, root, "atlas of heads", exact);
  const fill = (c) => colour(table, Math.round(ATLAS_DARKEST + c * (255 - ATLAS_DARKEST) / Math.max(1, clusters.length - 1)));
  const shape = (c) => `iv-shape-${c % ATLAS_SHAPES}`;

  const views = createChoice("places", Object.entries(ATLAS_VIEWS).map(([view, words]) => [view, ...words]), (view) => { seen = view; put(); });
  const orders = createChoice("order of the tiles", [["place", "by layer", "layers from left to right"], ["cluster", "by cluster", "clusters one below the other"]], (order) => { sorted = order; lay(); });
  const pictures = createChoice("what the tiles show", [["maps", "small maps", "mean attention weights"], ["profile", "profiles", "features above and below the mean of all heads"]],
    (kind) => { drawn = kind; draw(); });
  const field = el("div", { class: "iv-field", role: "img", "aria-label": "every head, placed by how it attends" });
  const rings = [el("i", { class: "iv-ring", hidden: true }), el("i", { class: "iv-ring iv-lock", hidden: true })];
  const names = clusters.map((c, n) => el("button", { type: "button", "aria-pressed": "false", "data-cluster": n },
    place(el("i", { class: `iv-shape ${shape(n)}`, "aria-hidden": "true" }), { "--fill": fill(n) }), el("span", { text: `${n}: ${c.name}` }), el("small", { text: String(c.size) })));
  const tiles = el("div", { class: "iv-tiles", role: "grid", "aria-label": "every head's picture" });
  const ends = [el("span"), el("span"), el("span")], unit = el("span", { class: "iv-small" });
  const legend = el("div", { class: "iv-legend" }, el("div", { class: "iv-scale" }, place(el("i", { class: "iv-ramp" }), { background: gradient(table) }), el("div", { class: "iv-ticks" }, ...ends)));
  frame.body.append(el("div", { class: "iv-tools" }, views.box, orders.box, maps === null ? null : pictures.box), el("div", { class: "iv-atlas-top" }, field,
    el("div", { class: "iv-clusters", role: "group", "aria-label": "clusters" }, ...names,
      el("p", { class: "iv-small", text: `Made from ${payload.embedded}; k-means. Named by the features farthest from the mean of all heads. Mean silhouette ${number(payload.silhouette, 2)}, with shuffled features ${number(payload.control, 2)}.` }))),
    tiles, legend, unit);
  frame.box.querySelector(".iv-readout").classList.add("iv-atlas-said");
  place(frame.box, { "--tile": `${Math.min(32, Math.max(16, Math.floor(780 / layers.length)))}px` });

  let seen = "tsne", sorted = "place", drawn = maps === null ? "profile" : "maps", kept = null, current = 0;
  let layer = [], head = [], cluster = [], silhouette = [], labels = [], places = {}, profile = null, dots = [], boxes = [], index = new Map();
  const pixels = new Map();            // layer -> Uint8Array of its heads' maps
  const name = (i) => `${layer[i]}.${head[i]}`;
  const indexOf = ({ layer: l, head: h }) => index.get(`${l}.${h}`) ?? null;
  const unitsOf = (i) => [...profile.subarray(i * features.length, (i + 1) * features.length)];

  function put() {
    const [x, y] = places[seen], span = (v) => [Math.min(...v), Math.max(...v)], [x0, x1] = span(x), [y0, y1] = span(y);
    dots.forEach((dot, i) => {
      dot.at = { left: `${3 + 94 * (x[i] - x0) / (x1 - x0 || 1)}%`, top: `${96 - 92 * (y[i] - y0) / (y1 - y0 || 1)}%` };
      place(dot.node, dot.at);
    });
    mark();
  }

  // By place: rows are heads and columns layers. By cluster: one paragraph of tiles for each.
  function lay() {
    const row = (className, axis, members) => el("div", { class: `iv-tile-row ${className}`, role: "row" }, el("span", { class: "iv-axis", role: "rowheader", text: axis }), ...members.map((i) => boxes[i]));
    if (sorted === "cluster") {
      tiles.replaceChildren(...clusters.map((c, n) => row("iv-wrap", `${n}: ${c.name}`, [...boxes.keys()].filter((i) => cluster[i] === n))));
      return;
    }
    const step = Math.ceil(layers.length / 32);
    const foot = el("div", { class: "iv-tile-row iv-foot", "aria-hidden": "true" }, el("span", { class: "iv-axis", text: "" }),
      ...layers.map((l, n) => el("span", { class: "iv-axis", text: n % step === 0 ? String(l) : "" })));
    tiles.replaceChildren(...[...Array(heads).keys()].map((h) => row("", String(h), layers.map((l) => index.get(`${l}.${h}`)).filter((i) => i !== undefined))), foot);
  }

  function drawMap(context, i) {
    const codes = pixels.get(layer[i]), first = layer.indexOf(layer[i]);
    context.canvas.width = context.canvas.height = side;
    if (!codes) return;
    const image = context.createImageData(side, side), from = (i - first) * side * side;
    for (let p = 0; p < side * side; p++) {
      const code = codes[from + p];
      if (code) image.data.set([table[3 * code], table[3 * code + 1], table[3 * code + 2], 255], 4 * p);
    }
    context.putImageData(image, 0, 0);
  }

  // One bar a feature, up where the head has more of it than heads have on average.
  function drawProfile(context, i) {
    const { canvas } = context, tall = 24, units = unitsOf(i);
    canvas.width = Math.max(1, features.length);
    canvas.height = tall;
    context.fillStyle = fill(cluster[i]);
    units.forEach((x, f) => {
      const part = Math.round(Math.min(1, Math.abs(x) / ATLAS_REACH) * tall / 2);
      context.fillRect(f, x > 0 ? tall / 2 - part : tall / 2, 1, Math.max(part, 1));
    });
  }

  function draw() {
    pictures.press(drawn);
    boxes.forEach((box, i) => (drawn === "maps" ? drawMap : drawProfile)(box.firstChild.getContext("2d"), i));
    legend.hidden = drawn !== "maps";
    [payload.faint, Math.sqrt(payload.faint), 1].forEach((x, n) => { ends[n].textContent = `${n === 0 ? "≤ " : ""}${number(x)}`; });
    unit.textContent = drawn === "maps" ? "mean weight under a pixel; queries down, keys across"
      : `a bar for each of ${features.length} features, in this order, up to ${ATLAS_REACH} standard deviations: ${features.join(", ")}`;
  }

  function tell(i) {
    if (i === null || !profile) {
      frame.read("Point at a head; click locks it, Esc clears. A click on a cluster fades the others.");
      return;
    }
    const units = unitsOf(i), far = [...units.keys()].sort((a, b) => Math.abs(units[b]) - Math.abs(units[a]) || a - b).slice(0, ATLAS_TOLD);
    const parts = [`layer ${layer[i]}, head ${head[i]}: cluster ${cluster[i]} (${clusters[cluster[i]].name})`, `silhouette ${number(silhouette[i], 2)}`];
    if (labels[i]) parts.push(`labels ${labels[i]}`);
    parts.push(far.map((f) => `${features[f]} ${units[f] > 0 ? "+" : ""}${number(units[f], 2)} sd`).join(", "));
    frame.read(parts.filter(Boolean).join("; "));
  }

  function mark() {
    const locked = indexOf(model.get("selection")), hovered = indexOf(model.get("hover"));
    boxes.forEach((box, i) => {
      const faded = kept !== null && cluster[i] !== kept;
      box.classList.toggle("iv-lock", i === locked);
      box.classList.toggle("iv-hover", i === hovered);
      box.classList.toggle("iv-faded", faded);
      dots[i].node.classList.toggle("iv-faded", faded);
      box.setAttribute("aria-selected", String(i === locked));
    });
    [hovered, locked].forEach((i, n) => {
      rings[n].hidden = i === null;
      if (i !== null) place(rings[n], dots[i].at);
    });
    names.forEach((button, n) => button.setAttribute("aria-pressed", String(n === kept)));
    tell(locked ?? hovered);
  }

  async function load() {
    const [placed, profiles] = await Promise.all([model.request({ op: "places" }), model.request({ op: "profile" })]);
    if (placed === null || profiles === null) return;
    if (placed.error || profiles.error) { frame.note(placed.error ?? profiles.error); return; }
    const [l, h, c, s, ...xy] = placed.buffers.map(floats), n = l.length;
    [layer, head, cluster, silhouette, labels, profile] = [l, h, c, s, placed.labels, floats(profiles.buffers[0])];
    places = Object.fromEntries(placed.views.map((view, k) => [view, [xy[k].subarray(0, n), xy[k].subarray(n)]]));
    index = new Map([...Array(n).keys()].map((i) => [name(i), i]));
    dots = [...Array(n).keys()].map((i) => ({ node: place(el("i", { class: `iv-dot ${shape(cluster[i])}`, "data-head": i }), { "--fill": fill(cluster[i]) }) }));
    boxes = dots.map((_, i) => el("div", { class: "iv-tile", role: "gridcell", tabindex: i ? -1 : 0, "data-head": i, "aria-selected": "false",
      "aria-label": `${name(i)}: ${clusters[cluster[i]].name}${labels[i] ? `; ${labels[i]}` : ""}` }, el("canvas", { "aria-hidden": "true" })));
    field.replaceChildren(...dots.map((dot) => dot.node), ...rings);
    put();
    lay();
    draw();
    if (maps !== null) await loadMaps();
    frame.settle();
  }

  async function loadMaps() {
    await Promise.all(layers.map(async (l) => {
      const answer = await model.request({ op: "maps", layer: l });
      if (answer === null) return;
      if (answer.error) { frame.note(answer.error); return; }
      pixels.set(l, answer.buffers[0]);
      if (drawn === "maps") boxes.forEach((box, i) => { if (layer[i] === l) drawMap(box.firstChild.getContext("2d"), i); });
    }));
  }

  const hover = (i) => model.set("hover", i === null ? NOWHERE : { ...NOWHERE, layer: layer[i], head: head[i] });
  const nobody = { layer: null, head: null };
  const lock = (i) => model.set("selection", { ...model.get("selection"), ...(indexOf(model.get("selection")) === i ? nobody : { layer: layer[i], head: head[i] }) });
  const under = (event) => {
    const node = event.target.closest("[data-head]");
    return node ? Number(node.dataset.head) : null;
  };
  const focusable = (i) => {
    boxes[current].tabIndex = -1;
    current = i;
    boxes[i].tabIndex = 0;
  };
  for (const area of [field, tiles]) {
    area.addEventListener("pointerover", (event) => { if (under(event) !== null) hover(under(event)); });
    area.addEventListener("pointerleave", () => hover(null));
    area.addEventListener("click", (event) => { if (under(event) !== null) lock(under(event)); });
  }
  tiles.addEventListener("focusin", (event) => { if (under(event) !== null) { focusable(under(event)); hover(current); } });
  tiles.addEventListener("focusout", () => hover(null));
  names.forEach((button, n) => button.addEventListener("click", () => { kept = kept === n ? null : n; mark(); }));
  // The nearest tile in a direction, whatever the order: sideways counts three times.
  const move = (dx, dy) => () => {
    const middle = (box) => { const b = box.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; };
    const [x, y] = middle(boxes[current]);
    let nearest = null, best = Infinity;
    boxes.forEach((box, i) => {
      const [u, v] = middle(box), along = (u - x) * dx + (v - y) * dy, aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
      if (along > 1 && along + 3 * aside < best) [nearest, best] = [i, along + 3 * aside];
    });
    if (nearest !== null) boxes[nearest].focus();
  };
  onKeys(tiles, {
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1), Enter: () => lock(current), " ": () => lock(current),
  });
  onKeys(frame.box, { Escape: () => {
    kept = null;
    model.set("selection", { ...model.get("selection"), ...nobody });
    model.set("hover", NOWHERE);
    if (boxes.length) mark();
  } });
  for (const trait of ["selection", "hover"]) model.on(trait, () => { if (boxes.length) mark(); });

  views.press(seen);
  orders.press(sorted);
  tell(null);
  load();
}
