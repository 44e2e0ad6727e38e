// Elements, numbers and token text. Text reaches the page as text only: nothing here or elsewhere parses HTML.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// A whole number with commas. Intl would do it as well, but loads its tables first: a tenth of the time in which a page's first picture appears.
export function grouped(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "–" : x < 0 ? "−∞" : "∞";
  return String(Math.round(x)).replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",");
}

// Three significant digits, or fewer; undefined is a dash.
export function number(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  const size = Math.abs(x);
  if (size === 0) return "0";
  if (size < 1e-3) return x.toExponential(digits - 2).replaceAll("-", "−");
  if (size >= 999.5) return grouped(x);
  return String(Number(x.toPrecision(digits))).replace("-", "−");
}

export function count(n) {
  if (n >= 1e9) return `${number(n / 1e9)}G`;
  if (n >= 1e6) return `${number(n / 1e6)}M`;
  if (n >= 1e4) return `${number(n / 1e3)}k`;
  return number(n);
}

const SHOWN = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "": "∅" };

// A token as visible characters: spaces and line ends get signs, and characters that would hide or reorder text their code.
export function token(text) {
  if (text === "") return SHOWN[""];
  return text.replace(/[ \n\t\r]/g, (c) => SHOWN[c])
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}]/gu, (c) => `⟨${c.codePointAt(0).toString(16)}⟩`);
}

export function ordinal(n) {
  const tens = n % 100, ones = n % 10;
  const end = tens >= 11 && tens <= 13 ? "th" : ones === 1 ? "st" : ones === 2 ? "nd" : ones === 3 ? "rd" : "th";
  return `${n}${end}`;
}

// Sets the place of a mark or bar without style attributes, which the page's policy forbids.
export function place(node, styles) {
  for (const [name, value] of Object.entries(styles)) node.style.setProperty(name, value);
  return node;
}
