// Tiles of an attention map: which are wanted, which have come, and their colours. A tile is 256 x 256 codes of a byte.
export const TILE = 256;
const CACHED = 600;

// Code -> colour as 32 bits. Codes 1 to 255 are weights, even in the logarithm from floor to 1; colours run from low to 1. 0 is clear.
export function weightColours(table, floor, low) {
  const words = new Uint32Array(256);
  for (let code = 1; code < 256; code++) {
    const log = Math.log(floor) * (1 - (code - 1) / 254);
    words[code] = mapWord(table, Math.floor(255 * Math.min(1, Math.max(0, 1 - log / Math.log(low))) + 0.5));
  }
  return words;
}

// Codes 1 to 255 of a difference: 128 is none; strength runs from low to 1 in the logarithm.
export function differenceColours(table, floor, low) {
  const words = new Uint32Array(256);
  for (let code = 1; code < 256; code++) {
    const size = Math.abs(code - 128), log = Math.log(floor) * (1 - size / 127);
    const part = size === 0 ? 0 : Math.min(1, Math.max(0, 1 - log / Math.log(low)));
    words[code] = mapWord(table, 127 + Math.sign(code - 128) * Math.floor(127 * part + 0.5));
  }
  return words;
}

function mapWord(table, index) {
  return ((255 << 24) | (table[3 * index + 2] << 16) | (table[3 * index + 1] << 8) | table[3 * index]) >>> 0;
}

// The weight that a code stands for.
export function codeWeight(code, floor) {
  return code === 0 ? 0 : Math.exp(Math.log(floor) * (1 - (code - 1) / 254));
}

export function codeDifference(code, floor) {
  const size = Math.abs(code - 128);
  return code === 0 || size === 0 ? 0 : Math.sign(code - 128) * Math.exp(Math.log(floor) * (1 - size / 127));
}

// arrived() is called when a tile has come; failed(text) when one cannot. Tiles are named by {which, mode} and [level, y, x].
export function createTiles(model, arrived, failed) {
  const cache = new Map(), flying = new Set(), absent = new Set();
  let wanted = [], kind = { which: "a", mode: "mass" }, words = new Uint32Array(256), asking = 0, age = 0;
  const name = ([level, y, x], { which, mode } = kind) => `${which}/${mode}/${level}/${y}/${x}`;

  function paint(tile) {
    const image = new ImageData(TILE, TILE), out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < out.length; i++) out[i] = words[tile.codes[i]];
    tile.canvas ??= Object.assign(document.createElement("canvas"), { width: TILE, height: TILE });
    tile.canvas.getContext("2d").putImageData(image, 0, 0);
    tile.words = words;
    return tile;
  }
  function get(place) {
    const key = name(place), tile = cache.get(key);
    if (!tile) return null;
    cache.delete(key);
    cache.set(key, tile); // the last used is the last to go
    return tile.codes.length && tile.words !== words ? paint(tile) : tile;
  }
  function keep(key, codes) {
    cache.set(key, { codes, canvas: null, words: null });
    while (cache.size > CACHED) cache.delete(cache.keys().next().value);
  }
  // Two messages under way, some tiles in each: what is not wanted any more was never asked for.
  function pump() {
    while (asking < 2 && wanted.length) {
      const batch = wanted.splice(0, model.batch), keys = batch.map((place) => name(place)), born = age;
      keys.forEach((key) => flying.add(key));
      asking++;
      model.request({ op: "tiles", t: batch, mode: kind.mode, which: kind.which }).then((answer) => {
        asking--;
        keys.forEach((key) => flying.delete(key));
        if (answer?.missing) keys.forEach((key) => absent.add(key));
        else if (answer?.error) { keys.forEach((key) => absent.add(key)); failed(answer.error); }
        else if (answer && born === age) answer.buffers.forEach((codes, i) => keep(keys[i], codes));
        if (answer) arrived(); // what the time limit cut off is wished for again
      });
    }
  }
  return {
    get,
    code: (place, at) => { const tile = cache.get(name(place)); return tile ? tile.codes[at] ?? 0 : null; },
    has: (place) => cache.has(name(place)),
    lacks: (place) => absent.has(name(place)),
    wish: (places) => { wanted = places.filter((place) => !flying.has(name(place)) && !absent.has(name(place))); pump(); },
    idle: () => asking === 0,
    show: (next) => { kind = next; },
    colour: (next) => { words = next; },
    forget: () => { cache.clear(); absent.clear(); wanted = []; age++; },
  };
}

// The low end of the colours: a power of ten at or below what each key gets if all get the same (as attention_picture.lowest_shown).
export function mapLowest(keys) {
  return Number(`1e-${Math.min(7, Math.max(2, Math.ceil(Math.log10(keys))))}`);
}
