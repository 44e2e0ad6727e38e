// Mounts the views of a saved page: the same model, over the answers that the file holds. Views of one page share selection and hover.
const SHARED_TRAITS = ["selection", "hover"];

function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

function unpack(kept) {
  if (kept.raw !== undefined) return bytes(kept.raw);
  const stream = new Blob([bytes(kept.zlib)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
}

function savedModel({ state, answers }, peers) {
  const values = { ...state }, heard = {};
  const model = {
    batch: 1,
    saved: true,
    get: (name) => values[name],
    set: (name, value) => (SHARED_TRAITS.includes(name) ? peers : [model]).forEach((peer) => peer.take(name, value)),
    take: (name, value) => {
      if (canonical(values[name]) === canonical(value)) return;
      values[name] = value;
      (heard[name] ?? []).forEach((listener) => listener(value));
    },
    on: (name, listener) => { (heard[name] ??= []).push(listener); },
    request: async (message) => {
      const answer = answers[canonical(message)];
      if (answer === undefined) return { error: "this file does not hold that; open the view in a notebook", missing: true, buffers: [] };
      const { kept, ...said } = answer;
      return { ...said, buffers: await Promise.all(kept.map(unpack)) };
    },
  };
  peers.push(model);
  return model;
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.title = data.title;
  const peers = [], root = document.getElementById("views");
  for (const view of data.views) MOUNTS[view.state.name](savedModel(view, peers), root.appendChild(el("section")));
  document.documentElement.dataset.ready = "true";
}

start();
