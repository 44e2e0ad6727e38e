// Mounts a view in a notebook. Every view is written against {get, set, on, request, batch}; here they go to an anywidget's model.
function widgetModel(model) {
  const offs = [], heard = [];
  const say = (word) => heard.forEach((listener) => listener(word));
  const { request, receive, stop } = createRequests((message) => model.send(message), () => model.get("rev"), say);
  model.on("msg:custom", receive);
  return {
    batch: 8,
    get: (name) => model.get(name),
    set: (name, value) => {
      if (JSON.stringify(model.get(name)) === JSON.stringify(value)) return; // marimo would send it again
      model.set(name, value);
      model.save_changes();
    },
    on: (name, listener) => {
      if (name === "status") { heard.push(listener); return; }
      const changed = () => listener(model.get(name));
      model.on(`change:${name}`, changed);
      offs.push(() => model.off(`change:${name}`, changed));
    },
    request,
    close: () => { stop(); model.off("msg:custom", receive); offs.forEach((off) => off()); },
  };
}

// mountNAME(model, element) draws a view. It may return a function that takes in another source (a change of rev); else the view is drawn anew.
export default {
  render({ model, el }) {
    let host, refresh, over = false;
    const mount = () => {
      host?.close();
      el.replaceChildren();
      host = widgetModel(model);
      refresh = MOUNTS[model.get("name")](host, el);
    };
    const renew = () => { if (!over) (refresh ? refresh() : mount()); };
    // A step later: marimo tells of each value before it has set the next, and payload and title come with rev.
    const changed = () => queueMicrotask(renew);
    mount();
    model.on("change:rev", changed);
    return () => { over = true; model.off("change:rev", changed); host.close(); };
  },
};
