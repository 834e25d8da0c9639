// One image and its answer on the page.

import { element, query } from "./dom.js";
import { draw, drawPixels, strongest } from "./heat.js";
import { strings } from "./strings.js";

export class Result {
  constructor(modelInfo) {
    this.modelInfo = modelInfo;
    this.clear();
    query("#show-map").addEventListener("change", () => this.redraw());
  }

  /** A new image is being loaded. */
  clear() {
    this.seen?.picture.close();
    this.seen = this.answer = null;
    this.chosen = 0;
    query("#bars").replaceChildren();
    query("#time").textContent = "";
    this.say("hint", strings.working);
  }

  /** The decoded image, as posted by worker.js. */
  showImage(seen) {
    this.seen?.picture.close(); // of a worker that was replaced
    this.seen = seen;
    query("#empty").hidden = true;
    query("#picture").hidden = query("#seen").hidden = false;
    const size = this.modelInfo.image_size;
    const canvas = query("#seen canvas");
    drawPixels(canvas, seen.pixels, size);
    canvas.setAttribute("aria-label", strings.seen(size));
    query("#seen figcaption").textContent = strings.seen(size);
    this.redraw();
  }

  /** The answer for the image that is shown; `note` is shown in place of the time. */
  showAnswer(answer, note = "") {
    this.answer = answer;
    this.chosen = 0;
    const [best] = answer.predictions;
    const guess = element("b", this.name(best.id));
    if (answer.reason) {
      const reason = strings.reasons[answer.reason](this.modelInfo.unsure.min_probability);
      const nearest = strings.nearest(this.name(best.id), strings.percent(best.probability));
      this.say("unsure", element("span", strings.unsure, "badge"), ` ${reason} ${nearest}`);
    } else {
      this.say("", guess, ` ${strings.percent(best.probability)}`);
    }
    query("#bars").replaceChildren(...answer.predictions.map((prediction, place) => this.bar(prediction, place)));
    const time = note || strings.time(answer.milliseconds);
    query("#time").textContent = `${time} · ${strings.weights(this.modelInfo.about.weights)}`;
    this.redraw();
  }

  /** Why the image was not classified. */
  showRefusal({ code, detail }) {
    if (this.seen === null) {
      query("#picture").hidden = query("#seen").hidden = true;
      query("#empty").hidden = false;
    }
    query("#bars").replaceChildren();
    this.say("refusal", (strings.refusals[code] ?? strings.refusals.failed)(detail));
  }

  /** The sentence about the image, for the page and for screen readers. */
  say(kind, ...content) {
    const verdict = query("#verdict");
    verdict.className = kind;
    verdict.replaceChildren(...content);
    query("#live").textContent = kind === "hint" ? "" : verdict.textContent;
  }

  name(id) {
    return strings.className(this.modelInfo.classes[id]);
  }

  bar({ id, probability }, place) {
    const superclass = this.modelInfo.superclasses[this.modelInfo.superclass_of[id]];
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(place === this.chosen));
    const name = element("span", this.name(id), "name");
    if (superclass) name.append(element("small", strings.className(superclass)));
    const track = element("span", "", "track");
    track.append(element("span", "", "fill"));
    track.firstChild.style.inlineSize = `${100 * probability}%`;
    button.append(name, track, element("span", strings.percent(probability), "share"));
    button.addEventListener("click", () => {
      this.chosen = place;
      query("#show-map").checked = true;
      query("#bars").querySelectorAll("button").forEach((each, at) => each.setAttribute("aria-pressed", String(at === place)));
      this.redraw();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  redraw() {
    if (this.seen === null) return;
    const canvas = query("#picture");
    const prediction = query("#show-map").checked && this.answer?.predictions[this.chosen];
    draw(canvas, this.seen, prediction?.map, this.answer?.mapSize);
    let label = strings.pictureLabelPlain;
    if (prediction?.map.some((value) => value > 0)) {
      const [row, column] = strongest(prediction.map, this.answer.mapSize);
      label = strings.pictureLabel(this.name(prediction.id), strings.places[row][column]);
    }
    canvas.setAttribute("aria-label", label);
  }
}
