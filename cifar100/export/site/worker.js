// Loads the model, decodes images and runs the network in a worker, so that the page stays responsive.
//
// In:  { type: "start", modelInfo }        Out: progress { loaded, total }, then ready { ... } or failed { code, detail }
//      { type: "image", id, file, side }   Out: seen { id, ... }, then answer { id, ... } or refused { id, code, detail }

import { answer } from "./answer.js";
import { canvasIsExact, open, picture, Refused, toPixels } from "./decode.js";
import { download, LoadError, unpack } from "./download.js";

let modelInfo;
let network; // a promise of the function pixels -> { logits, maps, mapSize }
let lastRun = Promise.resolve(); // forward passes run one after another
let lastDecode = Promise.resolve(); // so do decodings

self.onmessage = ({ data }) => {
  if (data.type === "start") {
    modelInfo = data.modelInfo;
    network = load();
    network.catch(({ code = "failed", detail, message }) => self.postMessage({ type: "failed", code, detail: detail ?? message }));
  } else {
    classify(data);
  }
};

async function load() {
  if (typeof WebAssembly === "undefined") throw new LoadError("noWebAssembly");
  if (!canvasIsExact()) throw new LoadError("canvasNoise");
  const { model, wasm, runtime } = modelInfo.files;
  const total = model.bytes + wasm.bytes;
  let loaded = 0, hasFailed = false;
  const onBytes = (count) => {
    loaded += count;
    if (!hasFailed) self.postMessage({ type: "progress", loaded: Math.min(loaded, total), total });
  };
  const [graph, binary, ort] = await Promise.all([
    download(model, onBytes),
    download(wasm, onBytes),
    import(`./${runtime.path}`).catch(() => {
      throw new LoadError("missing", runtime.path);
    }),
  ]).catch((error) => {
    hasFailed = true; // the other file may still be loading
    throw error;
  });
  ort.env.logLevel = "error";
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: (await unpack(binary.bytes)).buffer });
  let session;
  try {
    session = await ort.InferenceSession.create(graph.bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new LoadError("failed", error.message);
  }
  const run = (pixels) => runNetwork(ort, session, pixels);
  await run(new Uint8Array(3 * modelInfo.image_size ** 2)); // the first run prepares memory
  self.postMessage({
    type: "ready",
    verified: graph.verified && binary.verified,
    stored: graph.stored && binary.stored,
  });
  return run;
}

async function runNetwork(ort, session, pixels) {
  const size = modelInfo.image_size;
  const images =
    modelInfo.takes === "uint8"
      ? new ort.Tensor("uint8", pixels, [1, size, size, 3])
      : new ort.Tensor("float32", planes(pixels), [1, 3, size, size]);
  const { logits, maps } = await session.run({ images });
  return { logits: logits.data, maps: maps.data, mapSize: maps.dims.slice(2) };
}

/** [S, S, 3] in 0..255 -> [3, S, S] in 0..1 */
function planes(pixels) {
  const area = pixels.length / 3;
  return Float32Array.from(pixels, (_, at) => pixels[3 * (at % area) + Math.floor(at / area)] / 255);
}

async function classify({ id, file, side }) {
  try {
    const seen = lastDecode.then(() => decode(id, file, side)); // one at a time: a photo takes 50 to 200 MB
    lastDecode = seen.catch(() => {});
    const { pixels, prepare } = await seen;
    const run = await network.catch(() => {
      throw new Refused("noModel");
    });
    const answered = lastRun.then(async () => {
      const start = performance.now();
      const { logits, maps, mapSize } = await run(pixels);
      const milliseconds = { prepare, network: performance.now() - start };
      self.postMessage({ type: "answer", id, milliseconds, ...answer(logits, maps, mapSize, pixels, modelInfo) });
    });
    lastRun = answered.catch(() => {}); // one run at a time
    await answered;
  } catch (error) {
    const { code, detail } = error instanceof Refused ? error : new Refused("failed", error.message);
    self.postMessage({ type: "refused", id, code, detail });
  }
}

/** Decodes an image and posts it; returns the model input, and the milliseconds that it took. */
async function decode(id, file, side) {
  const start = performance.now();
  const image = await open(file);
  try {
    const { pixels, source } = toPixels(image, modelInfo.image_size);
    const prepare = performance.now() - start;
    const shown = picture(image, side);
    const { width, height } = image;
    self.postMessage({ type: "seen", id, pixels, source, picture: shown, width, height }, [shown]);
    return { pixels, prepare };
  } finally {
    image.bitmap.close();
  }
}
