// What is looked at: one statistic, one hovered head, one locked head. Views subscribe; a hover never overrides a lock.

export function createState(data) {
  const state = { statistic: data.statistics[data.first], hover: null, lock: null };
  const views = [];
  const change = (next) => {
    Object.assign(state, next);
    for (const view of views) view(state);
  };
  return {
    get: () => state,
    shown: () => state.lock ?? state.hover,
    subscribe: (view) => { views.push(view); view(state); },
    pick: (index) => change({ statistic: data.statistics[(index + data.statistics.length) % data.statistics.length] }),
    hover: (head) => { if (head !== state.hover) change({ hover: head }); },
    lock: (head) => change({ lock: head === state.lock ? null : head }),
    clear: () => change({ lock: null, hover: null }),
  };
}
