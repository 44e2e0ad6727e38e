// Requests of a view to its Python: ids, at most two under way, text in place of bytes where a host loses them, and what to say when nothing answers.
import { bytes } from "../data.js";

const UNDER_WAY = 2, BUSY_AFTER = 1000, ASK_AGAIN = 4000;

// send(message) passes a message on or throws; revision() is the source that the page shows; say("ok" | "busy" | "gone") tells the reader.
export function createRequests(send, revision, say) {
  const waiting = [], flying = new Map();
  let last = 0, text = false, alarm = null, told = "ok";
  const tell = (word) => {
    if (word !== told) say(word);
    told = word;
  };
  const lost = () => {
    const jobs = [...flying.values(), ...waiting.splice(0)];
    flying.clear();
    watch();
    tell("gone");
    for (const job of jobs) job.resolve(null); // the notice says why
  };
  const pass = (message) => {
    try { Promise.resolve(send(message)).catch(lost); } catch { lost(); }
  };
  // A kernel that restarted answers nothing, but sending to it fails: while we wait we ask again.
  function watch() {
    clearTimeout(alarm);
    alarm = flying.size ? setTimeout(() => { tell("busy"); alarm = setTimeout(again, ASK_AGAIN); }, BUSY_AFTER) : null;
  }
  function again() {
    if (!flying.size) return;
    alarm = setTimeout(again, ASK_AGAIN);
    pass({ op: "ping" });
  }
  function pump() {
    while (flying.size < UNDER_WAY && waiting.length) {
      const job = waiting.shift(), id = ++last;
      flying.set(id, job);
      watch();
      pass(text ? { ...job.message, id, b64: true } : { ...job.message, id });
    }
  }
  function receive(content, buffers) {
    const job = flying.get(content.id);
    if (!job) return;
    flying.delete(content.id);
    watch();
    tell("ok");
    if (content.k > 0 && !content.b64 && !(buffers && buffers.length)) {
      text = true;
      waiting.unshift(job);
    } else if (content.rev !== undefined && content.rev !== revision()) job.resolve(null);
    else {
      const raws = content.b64 ? content.b64.map(bytes) : [...(buffers ?? [])].map((b) => new Uint8Array(b.buffer ?? b, b.byteOffset ?? 0, b.byteLength));
      job.resolve({ ...content, buffers: raws });
    }
    pump();
  }
  // The answer with its buffers as Uint8Arrays; {error} where it failed; null where none comes: the kernel is gone, the source has changed, or
  // a later request with the same `instead` took its place before it was sent.
  function request(message, instead = null) {
    return new Promise((resolve) => {
      const old = instead === null ? -1 : waiting.findIndex((job) => job.instead === instead);
      if (old >= 0) waiting.splice(old, 1)[0].resolve(null);
      waiting.push({ message, instead, resolve });
      pump();
    });
  }
  return { request, receive, stop: () => clearTimeout(alarm) };
}

// A buffer of little-endian float32; copied, because its place in the message may not be a multiple of four.
export function floats(buffer) {
  return new Float32Array(buffer.slice().buffer);
}
