// The client of worker.js: starts it, sends it images, and replaces it if it crashes or hangs.

const TIMEOUT_MS = 60_000; // for one image; loading the model is not counted

export class Classifier {
  /** `on` has the callbacks progress({ loaded, total }), ready(...) and failed({ code, detail }). */
  constructor(modelInfo, on) {
    this.modelInfo = modelInfo;
    this.on = on;
    this.waiting = [];
    this.sent = [];
    this.start();
  }

  /** Starts the worker, or restarts it after a failed load; pending images are sent again. */
  start() {
    this.worker?.terminate();
    this.isReady = this.isBroken = false;
    this.watch();
    this.waiting.unshift(...this.sent.splice(0));
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.restart(event.message ?? "");
    };
    this.worker.postMessage({ type: "start", modelInfo: this.modelInfo });
    this.next();
  }

  /**
   * A promise of the answer for a File. `onSeen` is called with the decoded image first, its longer side at most
   * `side`. An image that `isUrgent` is sent at once; the others one after another. Rejects with { code, detail }.
   */
  classify(file, { side = 1024, onSeen = () => {}, isUrgent = false } = {}) {
    return new Promise((resolve, reject) => {
      const id = crypto.randomUUID?.() ?? String(Math.random());
      const job = { id, file, side, onSeen, isUrgent, resolve, reject };
      if (isUrgent) this.waiting.unshift(job);
      else this.waiting.push(job);
      this.next();
    });
  }

  next() {
    if (this.isBroken) this.waiting.splice(0).forEach(({ reject }) => reject({ code: "noModel" }));
    while (this.waiting.length > 0 && (this.waiting[0].isUrgent || this.sent.length === 0)) {
      const job = this.waiting.shift();
      this.sent.push(job);
      this.worker.postMessage({ type: "image", id: job.id, file: job.file, side: job.side });
    }
    this.watch();
  }

  /** Starts the timer of the image that was sent first, if it is not running. */
  watch() {
    const first = this.isReady ? this.sent[0] : undefined;
    if (first === this.watched) return;
    this.watched = first;
    clearTimeout(this.timer);
    if (first !== undefined) this.timer = setTimeout(() => this.restart("tooSlow"), TIMEOUT_MS);
  }

  receive(message) {
    if (message.type in this.on) {
      this.isReady ||= message.type === "ready";
      this.on[message.type](message);
      this.watch();
      return;
    }
    const at = this.sent.findIndex(({ id }) => id === message.id);
    if (at === -1) return;
    if (message.type === "seen") {
      this.sent[at].onSeen(message);
      return;
    }
    const [job] = this.sent.splice(at, 1);
    job[message.type === "answer" ? "resolve" : "reject"](message);
    this.next();
  }

  /** The worker crashed, or does not answer: the image that was sent first is given up. */
  restart(detail) {
    const code = this.isReady ? "gaveUp" : "noModel";
    this.sent.splice(0, this.isReady ? 1 : this.sent.length).forEach(({ reject }) => reject({ code, detail }));
    if (this.isReady) {
      this.start();
      return;
    }
    this.isBroken = true;
    this.next();
    this.on.failed({ code: "workerFailed", detail });
  }
}
