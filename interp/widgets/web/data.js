// The report's one block of data, decoded: typed arrays per statistic, and the colour table shared with Python.

export function bytes(text) {
  const letters = atob(text), found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

// A column is a number (the same for every head), a list, or base64 of little-endian float32.
function column(packed, n) {
  if (typeof packed === "string") return new Float32Array(bytes(packed).buffer);
  if (Array.isArray(packed)) return packed;
  return new Array(n).fill(packed === null ? NaN : packed);
}

export const COLUMNS = ["mean", "std", "count", "min", "q05", "q25", "q50", "q75", "q95", "max"];

export function decode(raw) {
  const layers = raw.layers, heads = raw.heads, n = layers.length * heads.length;
  const table = bytes(raw.colours);
  const statistics = raw.statistics.map((s, index) => {
    const columns = Object.fromEntries([...COLUMNS, "control"].map((name) => [name, column(s[name] ?? null, n)]));
    const layerMean = layers.map((_, l) => {
      const defined = heads.map((_, h) => columns.mean[l * heads.length + h]).filter((x) => !Number.isNaN(x));
      return defined.length ? defined.reduce((a, b) => a + b, 0) / defined.length : NaN;
    });
    const order = [...columns.mean.keys()].filter((i) => !Number.isNaN(columns.mean[i]))
      .sort((a, b) => columns.mean[b] - columns.mean[a] || a - b);
    const defined = order.map((i) => columns.mean[i]);
    const overall = defined.length ? defined.reduce((a, b) => a + b, 0) / defined.length : NaN;
    return { ...s, ...columns, index, flat: !(s.high > s.low), layerMean, order, overall, rank: new Map(order.map((i, r) => [i, r + 1])) };
  });
  const maps = raw.maps.map((m) => ({ ...m, codes: new Uint16Array(bytes(m.codes).buffer) }));
  return { ...raw, n, table, statistics, maps };
}

// Colour index 0 to 255 on the statistic's own range, as interp.widgets.colours.index_of; -1: undefined.
export function colourIndex(x, low, high, log) {
  if (Number.isNaN(x)) return -1;
  if (!(high > low)) return 0;
  const part = log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);
  return Math.floor(Math.min(1, Math.max(0, part || 0)) * 255 + 0.5);
}

// The CSS colour of a head in a statistic's map: no colour where it is undefined, the page's own where all heads are alike.
export function headColour(data, s, x) {
  const index = colourIndex(x, s.low, s.high, s.log);
  if (index < 0) return "transparent";
  return s.flat ? "var(--wash)" : colour(data.table, index);
}

export function colour(table, index) {
  return `rgb(${table[3 * index]} ${table[3 * index + 1]} ${table[3 * index + 2]})`;
}

export function gradient(table) {
  const stops = [];
  for (let i = 0; i <= 16; i++) stops.push(colour(table, Math.round(i * 255 / 16)));
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

// What stands in the middle of the legend's bar.
export function middle(s) {
  return s.log ? Math.sqrt(s.low * s.high) : (s.low + s.high) / 2;
}
