// An object with anywidget's model interface, whose kernel is the test's own process.
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

class FakeModel {
  constructor(state) {
    this.state = state;
    this.listeners = {};
    this.dirty = new Set();
    this.dead = false;
  }
  get(name) { return this.state[name]; }
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.dirty.add(name);
    this.emit(`change:${name}`);
  }
  save_changes() {
    for (const name of this.dirty) {
      // The page waits: when a test's click or key press is over, Python has what it changed.
      const request = new XMLHttpRequest();
      request.open("POST", "/changed", false);
      request.setRequestHeader("Content-Type", "application/json");
      request.send(JSON.stringify({ name, value: this.state[name] }));
    }
    this.dirty.clear();
  }
  // What Python set: all values are there before the first listener hears of one.
  take(values) {
    const changed = Object.keys(values).filter((name) => JSON.stringify(values[name]) !== JSON.stringify(this.state[name]));
    Object.assign(this.state, values);
    changed.forEach((name) => this.emit(`change:${name}`));
  }
  on(event, listener) { (this.listeners[event] ??= []).push(listener); }
  off(event, listener) { this.listeners[event] = (this.listeners[event] ?? []).filter((other) => other !== listener); }
  emit(event, ...values) { (this.listeners[event] ?? []).forEach((listener) => listener(...values)); }
  send(message) {
    if (this.dead) throw new Error("Cannot send");
    window.python_answer(JSON.stringify(message)).then((answer) => {
      if (answer) this.emit("msg:custom", answer[0], answer[1].map(bytes));
    });
  }
}

export async function mount(state) {
  const view = (await import("/view.js")).default;
  window.host = new FakeModel(state);
  window.unmount = view.render({ model: window.host, el: document.body });
}
