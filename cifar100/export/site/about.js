// The dialogs: all classes, and information about the model.

import { element } from "./dom.js";
import { strings } from "./strings.js";

export function fillClasses(dialog, modelInfo) {
  dialog.querySelector("h2").textContent = strings.classesButton(modelInfo.classes.length);
  const groups = new Map();
  modelInfo.classes.forEach((name, id) => {
    const superclass = modelInfo.superclasses[modelInfo.superclass_of[id]] ?? "";
    groups.set(superclass, [...(groups.get(superclass) ?? []), name]);
  });
  const sorted = [...groups].sort(([a], [b]) => a.localeCompare(b, strings.locale));
  dialog.querySelector(".groups").replaceChildren(
    ...sorted.map(([superclass, names]) => {
      const group = document.createElement("section");
      if (superclass) group.append(element("h3", strings.className(superclass)));
      const list = document.createElement("ul");
      list.append(...names.map((name) => element("li", strings.className(name))));
      group.append(list);
      return group;
    }),
  );
  dialog.classList.toggle("ungrouped", modelInfo.superclasses.length === 0);
}

/** `verified`: whether the SHA-256 of the model is correct; undefined while it is loading. */
export function fillAbout(dialog, modelInfo, verified) {
  const { about: text } = strings;
  const { evaluation, about, files } = modelInfo;
  const rows = [
    [text.weights, strings.weights(about.weights)],
    [text.network, text.networkValue({ ...about, image_size: modelInfo.image_size })],
    [text.accuracy, evaluation.top1 == null ? text.notMeasured : text.accuracyValue(evaluation)],
    [text.top5, evaluation.top5 == null ? "" : strings.percent(evaluation.top5)],
    [text.superclass, evaluation.superclass_top1 == null ? "" : strings.percent(evaluation.superclass_top1)],
    [text.trainedOn, about.trained_on],
    [text.assumed, (about.assumed ?? []).join("; ")],
    [text.probabilities, modelInfo.temperature === 1 ? text.uncalibrated : text.calibrated(modelInfo.temperature, about.calibration)],
    [text.unsureRule, text.unsureValue(modelInfo.unsure.min_probability)],
    [text.file, text.fileValue(files.model.bytes)],
    [text.digest, files.model.sha256 + (verified === false ? ` (${text.unverified})` : "")],
    [text.madeWith, Object.entries(about.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
    [text.runsOn, `${modelInfo.runtime.name} ${modelInfo.runtime.version} (${modelInfo.runtime.license})`],
  ];
  dialog.querySelector("tbody").replaceChildren(
    ...rows.filter(([, value]) => value).map(([name, value]) => {
      const row = document.createElement("tr");
      const head = element("th", name);
      head.scope = "row";
      row.append(head, element("td", value));
      return row;
    }),
  );
}
