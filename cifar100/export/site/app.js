// Entry point of the page: reads model.json, loads the model, and classifies images.

import { element, fillAbout, fillClasses } from "./about.js";
import { setUpCamera } from "./camera.js";
import { Classifier } from "./classifier.js";
import { Result } from "./result.js";
import { strings } from "./strings.js";

const MAX_IMAGES = 100; // at once
const SIDE = 1024, THUMBNAIL = 160; // pixels

const part = (selector) => document.querySelector(selector);

async function main() {
  document.documentElement.lang = strings.locale;
  document.documentElement.classList.toggle("embed", new URLSearchParams(location.search).has("embed"));
  document.querySelectorAll("[data-text]").forEach((node) => (node.textContent = strings[node.dataset.text]));
  document.querySelectorAll("[data-label]").forEach((node) => node.setAttribute("aria-label", strings[node.dataset.label]));
  document.title = strings.title;
  part("#starting").remove();
  part("#app").hidden = false;
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault()); // else a drop leaves the page
  }
  let facts;
  try {
    const response = await fetch("model.json", { cache: "no-cache" }).catch(() => null);
    if (response === null) {
      showProblem("offline", "model.json", () => location.reload());
      return;
    }
    facts = await response.json();
    if (facts.format !== "cifar100-web" || facts.version !== 1) throw new Error(facts.format);
  } catch (error) {
    showProblem("facts", error.message, () => location.reload());
    return;
  }
  new Page(facts);
}

class Page {
  constructor(facts) {
    this.facts = facts;
    this.listTurn = 0; // of the list of several images that is being classified
    part("#lead").textContent = strings.lead(facts.classes.length, facts.about.network);
    part("#open-classes").textContent = strings.classesButton(facts.classes.length);
    fillClasses(part("#classes"), facts);
    fillAbout(part("#about"), facts);
    for (const name of ["classes", "about"]) {
      part(`#open-${name}`).addEventListener("click", () => part(`#${name}`).showModal());
    }
    this.result = new Result(facts);
    this.result.say("hint", strings.noAnswer);
    this.classifier = new Classifier(facts, {
      progress: showProgress,
      ready: (how) => this.ready(how),
      failed: ({ code, detail }) => {
        part("#loading").hidden = true;
        showProblem(code, detail, () => this.retry());
      },
    });
    this.listen();
    this.showExamples();
  }

  /** Listens to all inputs: file dialog, paste, drag and drop, camera. */
  listen() {
    part("#files").addEventListener("change", (event) => {
      this.take(event.target.files);
      event.target.value = ""; // so that the same file may be chosen again
    });
    document.addEventListener("paste", (event) => this.take(event.clipboardData?.files ?? []));
    for (const name of ["dragenter", "dragover"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        document.body.classList.add("dragging");
      });
    }
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) document.body.classList.remove("dragging");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      this.take(event.dataTransfer.files);
    });
    setUpCamera(part("#open-camera"), part("#camera"), (photo) => this.take([photo]));
  }

  take(files) {
    if (files.length === 0) return;
    if (files.length > 1) {
      this.showSeveral([...files]);
      return;
    }
    this.hideSeveral();
    this.show(files[0]);
  }

  hideSeveral() {
    part("#several").hidden = true;
    this.severalFiles = null;
    this.listTurn += 1; // the remaining images are not classified
  }

  /** Shows an image and its answer; that of an `example` is precomputed until the model is loaded. */
  async show(file, example = null) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const current = () => turn === this.turn;
    this.showAgain = () => this.show(file, example);
    this.result.clear();
    const onSeen = (seen) => {
      if (!current()) {
        seen.picture.close();
        return;
      }
      this.result.showImage(seen);
      if (example?.answer && !this.isReady) this.result.showAnswer(example.answer, strings.precomputed);
    };
    try {
      const answer = await this.classifier.classify(file, { side: SIDE, onSeen, isUrgent: true });
      if (current()) this.result.showAnswer(answer);
    } catch (refusal) {
      if (current() && !(this.result.answer && refusal.code === "noModel")) this.result.showRefusal(refusal);
    }
  }

  /** Lists several images; the first one, or the one that is clicked, is shown large. */
  async showSeveral(files) {
    const turn = (this.listTurn += 1);
    this.severalFiles = files;
    const taken = files.slice(0, MAX_IMAGES);
    const list = part("#several ul");
    const rows = taken.map((file) => new Row(file, () => this.show(file), this.facts));
    list.replaceChildren(...rows.map((row) => row.item));
    part("#several").hidden = false;
    const tooMany = files.length > MAX_IMAGES ? strings.tooMany(files.length, MAX_IMAGES) : "";
    part("#several p").textContent = tooMany;
    this.show(taken[0]);
    for (const [at, row] of rows.entries()) {
      await row.fill(this.classifier);
      if (turn !== this.listTurn) return;
      part("#live").textContent = strings.severalProgress(at + 1, rows.length);
    }
    if (tooMany) part("#live").textContent = tooMany;
  }

  showExamples() {
    const { examples } = this.facts;
    part("#examples").hidden = examples.length === 0;
    const buttons = examples.map((example) => {
      const button = document.createElement("button");
      const image = document.createElement("img");
      button.type = "button";
      image.src = example.path;
      image.alt = strings.example(strings.className(example.name));
      button.append(image);
      button.addEventListener("click", () => this.openExample(example));
      return button;
    });
    part("#examples").replaceChildren(...buttons);
    if (examples.length > 0) this.openExample(examples[0]);
  }

  async openExample(example) {
    this.hideSeveral();
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.result.clear();
    const response = await fetch(example.path).catch(() => null);
    const blob = response?.ok ? await response.blob().catch(() => null) : null;
    if (turn !== this.turn) return; // another image was chosen meanwhile
    if (blob) this.show(blob, example);
    else this.result.showRefusal({ code: "unreadable" });
  }

  ready({ verified, stored }) {
    this.isReady = true;
    const { showAgain } = this;
    if (this.retried && this.severalFiles) this.showSeveral(this.severalFiles);
    if (this.retried) showAgain?.();
    this.retried = false;
    part("#loading").hidden = true;
    part("#problem").hidden = true;
    part("#live").textContent = strings.ready;
    fillAbout(part("#about"), this.facts, verified);
    keepForOffline(stored).then((kept) => {
      if (kept !== null) part("#offline").textContent = strings.offline[kept ? "ready" : "denied"];
    });
  }

  retry() {
    part("#problem").hidden = true;
    this.retried = true;
    this.classifier.start();
  }
}

/** The list entry of one of several images. */
class Row {
  constructor(file, onChoose, facts) {
    this.file = file;
    this.facts = facts;
    this.item = document.createElement("li");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.canvas = document.createElement("canvas");
    this.text = element("span", strings.working);
    this.button.append(this.canvas, this.text, element("small", file.name));
    this.button.addEventListener("click", () => {
      onChoose();
      part("#image").scrollIntoView();
    });
    this.item.append(this.button);
  }

  async fill(classifier) {
    try {
      const onSeen = ({ picture }) => {
        [this.canvas.width, this.canvas.height] = [picture.width, picture.height];
        this.canvas.getContext("2d").drawImage(picture, 0, 0);
        picture.close();
      };
      const { predictions, reason } = await classifier.classify(this.file, { side: THUMBNAIL, onSeen });
      const [{ id, probability }] = predictions;
      this.text.replaceChildren(element("b", strings.className(this.facts.classes[id])), ` ${strings.percent(probability)} `);
      if (reason) this.text.append(element("span", strings.unsure, "badge"));
    } catch ({ code, detail }) {
      this.item.className = "refusal";
      this.text.textContent = (strings.refusals[code] ?? strings.refusals.failed)(detail);
    }
  }
}

function showProgress({ loaded, total }) {
  part("#loading").hidden = false;
  part("#progress").value = loaded / total;
  part("#loading label").textContent = loaded < total ? strings.loading(loaded, total) : strings.starting;
}

function showProblem(code, detail, retry) {
  const problem = part("#problem");
  problem.hidden = false;
  problem.querySelector("p").textContent = (strings.problems[code] ?? strings.problems.failed)(detail);
  problem.querySelector("button").onclick = retry;
}

/** Registers the service worker; resolves to whether the page works offline, null if it could not be installed now. */
async function keepForOffline(stored) {
  if (!stored) return false;
  try {
    const { installing } = await navigator.serviceWorker.register("sw.js");
    const failed = new Promise((resolve) => {
      installing?.addEventListener("statechange", () => installing.state === "redundant" && resolve(null));
    });
    return await Promise.race([navigator.serviceWorker.ready.then(() => true), failed]);
  } catch {
    return null;
  }
}

main();
