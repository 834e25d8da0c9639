// The client of worker.js: starts it, sends it one image at a time, and replaces it if it crashes or hangs.

const PATIENCE = 60_000; // ms for one image, the model's loading apart

export class Classifier {
  /** `on` has the callbacks progress({ loaded, total }), ready(...) and failed({ code, detail }). */
  constructor(facts, on) {
    this.facts = facts;
    this.on = on;
    this.waiting = [];
    this.current = null;
    this.start();
  }

  /** Starts the worker, or restarts it after a failed load; a pending image is sent again. */
  start() {
    this.worker?.terminate();
    clearTimeout(this.timer);
    this.isReady = this.isBroken = false;
    if (this.current !== null) this.waiting.unshift(this.current);
    this.current = null;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.restart(event.message ?? "");
    };
    this.worker.postMessage({ type: "start", facts: this.facts });
    this.next();
  }

  /**
   * A promise of the answer for a File. `onSeen` is called with the decoded image first, its longer side at most
   * `side`. Rejects with { code, detail }.
   */
  classify(file, { side = 1024, onSeen = () => {} } = {}) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ id: crypto.randomUUID?.() ?? String(Math.random()), file, side, onSeen, resolve, reject });
      this.next();
    });
  }

  next() {
    if (this.isBroken) this.waiting.splice(0).forEach(({ reject }) => reject({ code: "noModel" }));
    if (this.current !== null || this.waiting.length === 0) return;
    this.current = this.waiting.shift();
    const { id, file, side } = this.current;
    this.worker.postMessage({ type: "image", id, file, side });
    this.watch();
  }

  watch() {
    clearTimeout(this.timer);
    if (this.current !== null && this.isReady) this.timer = setTimeout(() => this.restart("tooSlow"), PATIENCE);
  }

  receive(message) {
    if (message.type in this.on) {
      this.isReady ||= message.type === "ready";
      this.on[message.type](message);
      this.watch();
    } else if (message.id === this.current?.id) {
      if (message.type === "seen") this.current.onSeen(message);
      else this.finish(message.type === "answer" ? "resolve" : "reject", message);
    }
  }

  finish(how, message) {
    clearTimeout(this.timer);
    const job = this.current;
    this.current = null;
    job[how](message);
    this.next();
  }

  /** The worker crashed, or does not answer. */
  restart(detail) {
    const job = this.current;
    this.current = null;
    job?.reject({ code: this.isReady ? "gaveUp" : "noModel", detail });
    if (this.isReady) {
      this.start();
      return;
    }
    this.isBroken = true;
    this.next();
    this.on.failed({ code: "workerFailed", detail });
  }
}
