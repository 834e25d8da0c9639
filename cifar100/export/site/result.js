// One image and its answer on the page.

import { element } from "./about.js";
import { draw, drawPixels, strongest } from "./heat.js";
import { strings } from "./strings.js";

const part = (selector) => document.querySelector(selector);

export class Result {
  constructor(facts) {
    this.facts = facts;
    this.clear();
    part("#show-map").addEventListener("change", () => this.redraw());
  }

  /** A new image is being loaded. */
  clear() {
    this.seen?.picture.close();
    this.seen = this.answer = null;
    this.chosen = 0;
    part("#bars").replaceChildren();
    part("#time").textContent = "";
    this.say("hint", strings.working);
  }

  /** The decoded image, as posted by worker.js. */
  showImage(seen) {
    this.seen?.picture.close(); // of a worker that was replaced
    this.seen = seen;
    part("#empty").hidden = true;
    part("#picture").hidden = part("#seen").hidden = false;
    const size = this.facts.image_size;
    const canvas = part("#seen canvas");
    drawPixels(canvas, seen.pixels, size);
    canvas.setAttribute("aria-label", strings.seen(size));
    part("#seen figcaption").textContent = strings.seen(size);
    this.redraw();
  }

  /** The answer for the image that is shown; `note` is shown in place of the time. */
  showAnswer(answer, note = "") {
    this.answer = answer;
    this.chosen = 0;
    const [best] = answer.predictions;
    const guess = element("b", this.name(best.id));
    if (answer.reason) {
      const reason = strings.reasons[answer.reason](this.facts.unsure.min_probability);
      const nearest = strings.nearest(this.name(best.id), strings.percent(best.probability));
      this.say("unsure", element("span", strings.unsure, "badge"), ` ${reason} ${nearest}`);
    } else {
      this.say("", guess, ` ${strings.percent(best.probability)}`);
    }
    part("#bars").replaceChildren(...answer.predictions.map((prediction, place) => this.bar(prediction, place)));
    const time = note || strings.time(answer.milliseconds);
    part("#time").textContent = `${time} · ${strings.weights(this.facts.about.weights)}`;
    this.redraw();
  }

  /** Why the image was not classified. */
  showRefusal({ code, detail }) {
    if (this.seen === null) {
      part("#picture").hidden = part("#seen").hidden = true;
      part("#empty").hidden = false;
    }
    part("#bars").replaceChildren();
    this.say("refusal", (strings.refusals[code] ?? strings.refusals.failed)(detail));
  }

  /** The sentence about the image, for the page and for screen readers. */
  say(kind, ...content) {
    const verdict = part("#verdict");
    verdict.className = kind;
    verdict.replaceChildren(...content);
    part("#live").textContent = kind === "hint" ? "" : verdict.textContent;
  }

  name(id) {
    return strings.className(this.facts.classes[id]);
  }

  bar({ id, probability }, place) {
    const superclass = this.facts.superclasses[this.facts.superclass_of[id]];
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
      part("#show-map").checked = true;
      part("#bars").querySelectorAll("button").forEach((each, at) => each.setAttribute("aria-pressed", String(at === place)));
      this.redraw();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  redraw() {
    if (this.seen === null) return;
    const canvas = part("#picture");
    const prediction = part("#show-map").checked && this.answer?.predictions[this.chosen];
    draw(canvas, this.seen, prediction?.map, this.answer?.mapSize);
    let label = strings.pictureLabelPlain;
    if (prediction?.map.some((value) => value > 0)) {
      const [row, column] = strongest(prediction.map, this.answer.mapSize);
      label = strings.pictureLabel(this.name(prediction.id), strings.places[row][column]);
    }
    canvas.setAttribute("aria-label", label);
  }
}
