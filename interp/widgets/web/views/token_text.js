// A long text as lines of tokens of which only those in sight are in the page: a list box with a fixed line height and a mono font.
import { el, place, token } from "../dom.js";

const TEXT_LINE = 22, TEXT_AROUND = 6, TEXT_GAP = 2;
const TEXT_WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/u;
let textBoxes = 0;

// Spaces inside a text are read as spaces; everything else that cannot be seen gets its sign.
export function tokenRun(raw) {
  return raw === "" ? token(raw) : raw.split(" ").map((part) => (part === "" ? "" : token(part))).join(" ");
}

// Tokens from byte lengths (uint32) and UTF-8.
export function unpackTokens(lengths, text) {
  const sizes = new Uint32Array(lengths.slice().buffer), decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let at = 0;
  return [...sizes].map((size) => decoder.decode(text.subarray(at, (at += size))));
}

function textColumns(text) {
  let n = 0;
  for (const c of text) n += TEXT_WIDE.test(c) ? 2 : 1;
  return n;
}

// First token of each line. A line is full, or ends with a token that ends a line.
export function breakLines(tokens, shown, columns, gap = 0) {
  const starts = [0];
  let filled = 0;
  for (let i = 0; i < tokens.length; i++) {
    const size = textColumns(shown[i]) + gap;
    if (filled > 0 && filled + size > columns) { starts.push(i); filled = 0; }
    filled += size;
    if (tokens[i].endsWith("\n") && i + 1 < tokens.length) { starts.push(i + 1); filled = 0; }
  }
  return starts;
}

// over(i), click(i): what the pointer does. Returns {box, fill, paint, mark, reveal, lineOf, step, top}.
export function createText(label, { over, leave, click }) {
  const name = `iv-text-${++textBoxes}`;
  const probe = el("span", { class: "iv-probe", "aria-hidden": "true", text: "0".repeat(50) });
  const view = el("div", { class: "iv-window" }), tall = el("div", { class: "iv-tall" }, view);
  const strip = el("div", { class: "iv-strip", "aria-hidden": "true" });
  const box = el("div", { class: "iv-text", role: "listbox", tabindex: 0, "aria-label": label }, probe, tall);
  const whole = el("div", { class: "iv-textbox" }, box, strip);
  let tokens = [], shown = [], starts = [0], spans = new Map(), from = -1, columns = 0;
  let shares = new Map(), marks = { at: null, pair: null, locked: false, found: new Set() };

  const lineOf = (i) => {
    let low = 0, high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= i) low = middle; else high = middle - 1;
    }
    return low;
  };

  function dress(span, i) {
    const share = shares.get(i), strength = share === undefined ? 0 : Math.round(100 * Math.sqrt(share));
    place(span, { background: strength ? `color-mix(in srgb, var(--accent) ${strength}%, transparent)` : "transparent" });
    span.classList.toggle("iv-strong", strength > 60);
    span.classList.toggle("iv-at", i === marks.at);
    span.classList.toggle("iv-locked", i === marks.at && marks.locked);
    span.classList.toggle("iv-pair", i === marks.pair);
    span.classList.toggle("iv-found", marks.found.has(i));
    span.setAttribute("aria-selected", String(i === marks.at && marks.locked));
  }
  const dressAll = () => spans.forEach(dress);

  function draw(anew = false) {
    const first = Math.max(0, Math.floor(box.scrollTop / TEXT_LINE) - TEXT_AROUND);
    const last = Math.min(starts.length, Math.ceil((box.scrollTop + box.clientHeight) / TEXT_LINE) + TEXT_AROUND);
    if (!anew && first === from) return;
    from = first;
    spans = new Map();
    const lines = [];
    for (let n = first; n < last; n++) {
      const line = el("div", { class: "iv-line", role: "presentation" });
      for (let i = starts[n]; i < (starts[n + 1] ?? tokens.length); i++) {
        const span = el("span", { class: "iv-token", role: "option", id: `${name}-${i}`, "data-token": i,
          "aria-posinset": i + 1, "aria-setsize": tokens.length, "aria-label": `${i}: ${token(tokens[i])}`, text: shown[i] });
        spans.set(i, span);
        line.append(span);
      }
      lines.push(line);
    }
    place(view, { top: `${first * TEXT_LINE}px` });
    view.replaceChildren(...lines);
    dressAll();
  }

  function lay() {
    const width = probe.getBoundingClientRect().width / 50;
    const fits = Math.max(20, Math.floor((box.clientWidth - 12) / (width || 8)));
    if (fits === columns || !tokens.length) return;
    const top = starts[Math.floor(box.scrollTop / TEXT_LINE)] ?? 0;
    columns = fits;
    starts = breakLines(tokens, shown, columns, TEXT_GAP / (width || 8));
    place(tall, { height: `${starts.length * TEXT_LINE}px` });
    box.scrollTop = top ? lineOf(top) * TEXT_LINE : 0;
    draw(true);
    drawStrip();
  }

  function drawStrip() {
    const at = (i) => `${(100 * lineOf(i)) / Math.max(starts.length, 1)}%`;
    const mark = (i, kind) => place(el("i", { class: kind }), { top: at(i) });
    strip.replaceChildren(...[...shares].sort((a, b) => a[1] - b[1]).map(([i, share]) => place(mark(i, "iv-streak"), { opacity: Math.max(0.15, Math.sqrt(share)) })),
      ...(marks.at === null ? [] : [mark(marks.at, "iv-here")]));
  }

  function reveal(i) {
    const y = lineOf(i) * TEXT_LINE;
    if (y < box.scrollTop || y + TEXT_LINE > box.scrollTop + box.clientHeight) box.scrollTop = Math.max(0, y - Math.floor(box.clientHeight / 2));
    draw();
  }

  const under = (event) => (event.target.dataset.token === undefined ? null : Number(event.target.dataset.token));
  view.addEventListener("pointerover", (event) => { if (under(event) !== null) over(under(event)); });
  view.addEventListener("pointerleave", leave);
  view.addEventListener("click", (event) => { if (under(event) !== null) click(under(event)); });
  box.addEventListener("scroll", () => draw());
  new ResizeObserver(lay).observe(box);

  return {
    box: whole, list: box, reveal, lineOf,
    fill: (texts) => {
      tokens = texts;
      shown = texts.map(tokenRun);
      columns = 0;
      lay();
    },
    // shares: Map of position -> weight in [0, 1].
    paint: (found) => { shares = found; dressAll(); drawStrip(); },
    mark: (news) => { marks = { ...marks, ...news }; dressAll(); drawStrip(); },
    active: (i) => (i === null ? box.removeAttribute("aria-activedescendant") : box.setAttribute("aria-activedescendant", `${name}-${i}`)),
    // The token above or below: so many lines on, at the same share of the line.
    step: (i, by) => {
      const line = lineOf(i), to = Math.min(starts.length - 1, Math.max(0, line + by));
      return Math.min(starts[to] + i - starts[line], (starts[to + 1] ?? tokens.length) - 1);
    },
    page: () => Math.max(1, Math.floor(box.clientHeight / TEXT_LINE) - 1),
  };
}
