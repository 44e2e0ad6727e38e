// TokenView: the text; what a token looks at (or what looks at it) is shaded. Arrows move, Enter locks, d turns the direction, / finds, Esc lets go.
import { el, grouped, number, place, token } from "../dom.js";
import { floats } from "./requests.js";
import { NOWHERE, createChoice, createFrame, labelled, onKeys } from "./frame.js";
import { createText, unpackTokens } from "./token_text.js";

const TOKEN_DIRECTIONS = [["sources", "looks at", "the token's row: its weights on the tokens that it looks at"], ["readers", "is looked at by", "the token's column: the weights that the others put on it"]];
const TOKEN_WEIGHTINGS = [["weight", "by weight", "attention weights"], ["norm", "by value norm", "weight times the norm of what the key adds, scaled to sum 1"]];

export function mountTokenView(model, root) {
  const payload = model.get("payload"), { layers, heads, first, norms, top } = payload;
  const frame = createFrame(model, root, "tokens of a text", `Every weight is exact. The ${top} strongest are shaded and named, all others are one number.`);
  let tokens = [], direction = "sources", by = "weight", current = 0, wanted = null, found = [];

  const layerPicker = el("select", {}, ...layers.map((layer) => el("option", { value: layer, text: String(layer) })));
  const headPicker = el("select", {}, ...[...Array(heads).keys()].map((head) => el("option", { value: head, text: String(head) })));
  const way = createChoice("direction", TOKEN_DIRECTIONS, (value) => { direction = value; turn(); });
  const weighting = createChoice("weights", TOKEN_WEIGHTINGS, (value) => { by = value; show(); });
  const finder = el("input", { type: "search", size: 14, placeholder: "text or #number" }), counted = el("span", { class: "iv-small" });
  const text = createText("tokens of the text", {
    over: (i) => hover(i),
    leave: () => model.set("hover", NOWHERE),
    click: (i) => { current = i; lock(i); },
  });
  const strongest = el("ol", { class: "iv-strongest", "aria-label": "strongest tokens" }), sum = el("p", { class: "iv-small iv-sum" });
  const ramp = el("div", { class: "iv-scale" }, el("i", { class: "iv-ramp iv-shades" }), el("div", { class: "iv-ticks" }, ...["0", "0.25", "1"].map((t) => el("span", { text: t }))));
  weighting.box.hidden = !norms;
  frame.body.append(
    el("div", { class: "iv-tools" }, labelled("layer", layerPicker), labelled("head", headPicker), way.box, weighting.box, labelled("find", finder), counted),
    el("div", { class: "iv-columns" }, text.box, el("div", { class: "iv-side" }, strongest, sum)),
    el("div", { class: "iv-legend" }, ramp, el("span", { class: "iv-small", text: "weight, colours by its square root; underlined: a found text" })));

  const axis = () => (direction === "sources" ? "q" : "k");
  const inside = (i) => (i !== null && i < tokens.length ? i : null);
  const headOf = ({ layer, head }) => (layers.includes(layer) && head !== null && head < heads ? [layer, head] : first);
  const locked = () => inside(model.get("selection")[axis()]);
  const hovered = () => inside(model.get("hover")[axis()]);
  const hover = (i) => {
    const [layer, head] = headOf(model.get("selection"));
    model.set("hover", { ...NOWHERE, layer, head, [axis()]: i });
  };
  const lock = (i) => model.set("selection", { ...model.get("selection"), q: null, k: null, [axis()]: locked() === i ? null : i });
  const pair = (i) => model.set("selection", { ...model.get("selection"), q: direction === "sources" ? wanted.at : i, k: direction === "sources" ? i : wanted.at });

  function face() {
    way.press(direction);
    if (direction === "readers" && by === "norm") by = "weight";
    weighting.press(by);
    weighting.box.querySelector('[data-value="norm"]').disabled = direction === "readers";
    show();
  }
  // Turned by hand: what was locked stays locked, the same token seen from the other side.
  function turn() {
    const { q, k } = model.get("selection");
    if ((q === null) !== (k === null)) model.set("selection", { ...model.get("selection"), q: k, k: q });
    face();
  }

  async function show() {
    if (!tokens.length) return;
    const selection = model.get("selection"), [layer, head] = headOf(selection);
    layerPicker.value = layer;
    headPicker.value = head;
    const at = locked() ?? hovered() ?? (direction === "sources" ? tokens.length - 1 : 0);
    const other = inside(selection[direction === "sources" ? "k" : "q"]);
    text.mark({ at, pair: locked() === null ? null : other, locked: locked() !== null });
    const message = { op: "looks", layer, head, at, direction, by };
    if (wanted && Object.keys(message).every((key) => message[key] === wanted[key])) return;
    wanted = message;
    frame.settle("loading");
    const answer = await model.request(message, "looks");
    if (answer === null || wanted !== message) return;
    if (answer.error) {
      frame.note(answer.error);
      text.paint(new Map());
      strongest.replaceChildren();
      sum.textContent = "";
      frame.settle();
      return;
    }
    frame.note("");
    const index = new Uint32Array(answer.buffers[0].slice().buffer), weights = floats(answer.buffers[1]);
    text.paint(new Map([...index].map((i, n) => [i, Math.min(1, weights[n])])));
    strongest.replaceChildren(...[...index].map((i, n) => el("li", {},
      el("button", { type: "button", "data-strong": i, title: "lock this pair" }, el("span", { class: "iv-place", text: String(i) }),
        el("code", { text: token(tokens[i]) }), el("b", { text: number(weights[n]) }),
        place(el("i", { class: "iv-share" }), { width: `${100 * Math.min(1, weights[n])}%` })))));
    tell(message, answer, weights);
    frame.settle();
  }

  function tell({ layer, head, at }, answer, weights) {
    const name = `layer ${layer}, head ${head}: token ${at} “${token(tokens[at])}”`;
    const named = weights.reduce((a, b) => a + b, 0);
    const others = `${grouped(answer.others)} other${answer.others === 1 ? "" : "s"}`;
    sum.textContent = `rest: ${number(answer.rest)} on ${others}`;
    frame.read(direction === "sources"
      ? `${name} looks at ${weights.length} token${weights.length === 1 ? "" : "s"} with ${number(named)} of ${number(answer.total)}; ${others} share ${number(answer.rest)}`
      : `${name} receives ${number(answer.total)} rows’ worth of ${grouped(tokens.length)}; the ${weights.length} named give ${number(named)}`);
  }

  // Every place where the words stand, also across tokens; #12 is token 12.
  function search() {
    const words = finder.value.toLowerCase();
    found = [];
    if (/^#\d+$/.test(words)) found = [Number(words.slice(1))].filter((i) => i < tokens.length);
    else if (words) {
      const starts = [], parts = tokens.map((t) => t.toLowerCase());
      let length = 0;
      for (const part of parts) { starts.push(length); length += part.length; }
      const all = parts.join("");
      let t = 0;
      for (let at = all.indexOf(words); at >= 0; at = all.indexOf(words, at + 1)) {
        while (t + 1 < starts.length && starts[t + 1] <= at) t++;
        if (found.at(-1) !== t) found.push(t);
      }
    }
    text.mark({ found: new Set(found) });
    counted.textContent = words ? `${grouped(found.length)} found` : "";
  }
  let turnOf = -1;
  const next = (step) => {
    if (!found.length) return;
    turnOf = (turnOf + step + found.length) % found.length;
    counted.textContent = `${turnOf + 1} of ${grouped(found.length)}`;
    move(found[turnOf]);
  };

  const move = (i) => {
    current = Math.max(0, Math.min(tokens.length - 1, i));
    text.reveal(current);
    text.active(current);
    hover(current);
  };
  onKeys(text.list, {
    ArrowLeft: () => move(current - 1), ArrowRight: () => move(current + 1), ArrowUp: () => move(text.step(current, -1)), ArrowDown: () => move(text.step(current, 1)),
    PageUp: () => move(text.step(current, -text.page())), PageDown: () => move(text.step(current, text.page())), Home: () => move(0), End: () => move(tokens.length - 1),
    Enter: () => lock(current), " ": () => lock(current), d: () => { direction = direction === "sources" ? "readers" : "sources"; turn(); }, "/": () => finder.focus(),
  });
  finder.addEventListener("input", () => { turnOf = -1; search(); });
  finder.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") event.stopPropagation();
    if (event.key === "Enter") { event.preventDefault(); next(event.shiftKey ? -1 : 1); }
  });
  text.list.addEventListener("blur", () => model.set("hover", NOWHERE));
  strongest.addEventListener("click", (event) => {
    const button = event.target.closest("[data-strong]");
    if (!button) return;
    const i = Number(button.dataset.strong);
    pair(i);
    text.reveal(i);
  });
  const choose = () => model.set("selection", { ...model.get("selection"), layer: Number(layerPicker.value), head: Number(headPicker.value) });
  layerPicker.addEventListener("change", choose);
  headPicker.addEventListener("change", choose);
  onKeys(frame.box, { Escape: () => { model.set("selection", { ...model.get("selection"), q: null, k: null }); model.set("hover", NOWHERE); } });
  model.on("hover", show);
  model.on("selection", () => {
    // A place that another view locked on one side only is shown from that side.
    const { q, k } = model.get("selection");
    if (inside(k) !== null && q === null) direction = "readers";
    if (inside(q) !== null && k === null) direction = "sources";
    face();
    if (locked() !== null) text.reveal(locked());
  });

  async function start() {
    way.press(direction);
    weighting.press(by);
    const answer = await model.request({ op: "tokens" });
    if (answer === null) return;
    if (answer.error) { frame.note(answer.error); frame.settle(); return; }
    tokens = unpackTokens(...answer.buffers);
    text.list.setAttribute("aria-label", `tokens of the text, ${grouped(tokens.length)}`);
    text.fill(tokens);
    const { q, k } = model.get("selection");
    if (q === null && inside(k) !== null) direction = "readers";
    way.press(direction);
    text.active(current);
    await show();
    if (locked() !== null) text.reveal(locked());
  }
  start();
}
