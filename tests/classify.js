// For page.evaluate on the static site: classifies files of its server with the page's classifier.
async ({ paths, side }) => {
  const { Classifier } = await import("./classifier.js");
  const model = await (await fetch("model.json")).json();
  const classifier = new Classifier(model, { progress() {}, ready() {}, failed(error) { throw error; } });
  const answers = [];
  for (const path of paths) {
    const file = await (await fetch(path)).blob();
    let pixels;
    const onSeen = (seen) => { pixels = [...seen.pixels]; seen.picture.close(); };
    try {
      const { predictions, reason, milliseconds } = await classifier.classify(file, { side, onSeen });
      const ids = predictions.map(({ id }) => id), probabilities = predictions.map(({ probability }) => probability);
      answers.push({ pixels, reason, ids, probabilities, milliseconds });
    } catch ({ code }) {
      answers.push({ code });
    }
  }
  classifier.worker.terminate();
  return answers;
}
