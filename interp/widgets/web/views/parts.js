// A view inside another one: the same model, with a payload of its own, whose requests go out under the part's name.

// shared: traits that belong to all parts together; all others are the part's own.
const PARTS_SHARED = ["selection", "hover", "status"];

// wrap(message) makes the request of the whole from that of the part. The part's own traits: payload, title, picks (unless shared), rev.
export function createPart(model, name, own, wrap, shared = PARTS_SHARED) {
  const values = { rev: 0, picks: [], title: "", ...own }, heard = {};
  return {
    batch: model.batch,
    saved: model.saved,
    get: (trait) => (shared.includes(trait) ? model.get(trait) : values[trait]),
    set: (trait, value) => {
      if (shared.includes(trait)) { model.set(trait, value); return; }
      values[trait] = value;
      (heard[trait] ?? []).forEach((listener) => listener(value));
    },
    on: (trait, listener) => { if (shared.includes(trait)) model.on(trait, listener); else (heard[trait] ??= []).push(listener); },
    // An answer that belongs to what the part showed before is not wanted any more.
    request: async (message, instead = null) => {
      const mine = values.rev, answer = await model.request(wrap(message), instead === null ? null : `${name} ${instead}`);
      return mine === values.rev ? answer : null;
    },
    // Another source for the part: {payload, title}; the part itself is told by its mount's function.
    renew: (news) => {
      Object.assign(values, news, { rev: values.rev + 1 });
      (heard.title ?? []).forEach((listener) => listener(values.title));
    },
  };
}
