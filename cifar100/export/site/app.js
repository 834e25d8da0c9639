// Entry point of the page: reads model.json, loads the model, and classifies images.

import { fillAbout, fillClasses } from "./about.js";
import { setUpCamera } from "./camera.js";
import { Classifier } from "./classifier.js";
import { element, query } from "./dom.js";
import { Result } from "./result.js";
import { strings } from "./strings.js";

const MAX_IMAGES = 100; // at once
const SIDE = 1024, THUMBNAIL = 160; // pixels

async function main() {
  document.documentElement.lang = strings.locale;
  document.documentElement.classList.toggle("embed", new URLSearchParams(location.search).has("embed"));
  document.querySelectorAll("[data-text]").forEach((node) => (node.textContent = strings[node.dataset.text]));
  document.querySelectorAll("[data-label]").forEach((node) => node.setAttribute("aria-label", strings[node.dataset.label]));
  document.title = strings.title;
  query("#starting").remove();
  query("#app").hidden = false;
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault()); // else a drop leaves the page
  }
  let modelInfo;
  try {
    const response = await fetch("model.json", { cache: "no-cache" }).catch(() => null);
    if (response === null) {
      showProblem("offline", "model.json", () => location.reload());
      return;
    }
    modelInfo = await response.json();
    if (modelInfo.format !== "cifar100-web" || modelInfo.version !== 1) throw new Error(modelInfo.format);
  } catch (error) {
    showProblem("modelInfo", error.message, () => location.reload());
    return;
  }
  new Page(modelInfo);
}

class Page {
  constructor(modelInfo) {
    this.modelInfo = modelInfo;
    this.listTurn = 0; // of the list of several images that is being classified
    query("#lead").textContent = strings.lead(modelInfo.classes.length, modelInfo.about.network);
    query("#open-classes").textContent = strings.classesButton(modelInfo.classes.length);
    fillClasses(query("#classes"), modelInfo);
    fillAbout(query("#about"), modelInfo);
    for (const name of ["classes", "about"]) {
      query(`#open-${name}`).addEventListener("click", () => query(`#${name}`).showModal());
    }
    this.result = new Result(modelInfo);
    this.result.say("hint", strings.noAnswer);
    this.classifier = new Classifier(modelInfo, {
      progress: showProgress,
      ready: (how) => this.ready(how),
      failed: ({ code, detail }) => {
        query("#loading").hidden = true;
        showProblem(code, detail, () => this.retry());
      },
    });
    this.listen();
    this.showExamples();
  }

  /** Listens to all inputs: file dialog, paste, drag and drop, camera. */
  listen() {
    query("#files").addEventListener("change", (event) => {
      this.take(event.target.files);
      event.target.value = ""; // so that the same file may be chosen again
    });
    document.addEventListener("paste", (event) => this.take(event.clipboardData?.files ?? []));
    document.addEventListener("dragover", () => document.body.classList.add("dragging"));
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) document.body.classList.remove("dragging");
    });
    document.addEventListener("drop", (event) => {
      document.body.classList.remove("dragging");
      this.take(event.dataTransfer.files);
    });
    setUpCamera(query("#open-camera"), query("#camera"), (photo) => this.take([photo]));
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
    query("#several").hidden = true;
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
    const list = query("#several ul");
    const rows = taken.map((file) => new Row(file, () => this.show(file), this.modelInfo));
    list.replaceChildren(...rows.map((row) => row.item));
    query("#several").hidden = false;
    const tooMany = files.length > MAX_IMAGES ? strings.tooMany(files.length, MAX_IMAGES) : "";
    query("#several p").textContent = tooMany;
    this.show(taken[0]);
    for (const [at, row] of rows.entries()) {
      await row.fill(this.classifier);
      if (turn !== this.listTurn) return;
      query("#live").textContent = strings.severalProgress(at + 1, rows.length);
    }
    if (tooMany) query("#live").textContent = tooMany;
  }

  showExamples() {
    const { examples } = this.modelInfo;
    query("#examples").hidden = examples.length === 0;
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
    query("#examples").replaceChildren(...buttons);
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
    query("#loading").hidden = true;
    query("#problem").hidden = true;
    query("#live").textContent = strings.ready;
    fillAbout(query("#about"), this.modelInfo, verified);
    keepForOffline(stored).then((kept) => {
      if (kept !== null) query("#offline").textContent = strings.offline[kept ? "ready" : "denied"];
    });
  }

  retry() {
    query("#problem").hidden = true;
    this.retried = true;
    this.classifier.start();
  }
}

/** The list entry of one of several images. */
class Row {
  constructor(file, onChoose, modelInfo) {
    this.file = file;
    this.modelInfo = modelInfo;
    this.item = document.createElement("li");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.canvas = document.createElement("canvas");
    this.text = element("span", strings.working);
    this.button.append(this.canvas, this.text, element("small", file.name));
    this.button.addEventListener("click", () => {
      onChoose();
      query("#image").scrollIntoView();
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
      this.text.replaceChildren(element("b", strings.className(this.modelInfo.classes[id])), ` ${strings.percent(probability)} `);
      if (reason) this.text.append(element("span", strings.unsure, "badge"));
    } catch ({ code, detail }) {
      this.item.className = "refusal";
      this.text.textContent = (strings.refusals[code] ?? strings.refusals.failed)(detail);
    }
  }
}

function showProgress({ loaded, total }) {
  query("#loading").hidden = false;
  query("#progress").value = loaded / total;
  query("#loading label").textContent = loaded < total ? strings.loading(loaded, total) : strings.starting;
}

function showProblem(code, detail, retry) {
  const problem = query("#problem");
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
