// Logits -> the answer: calibrated probabilities, whether they are flagged as unsure, and heatmaps. The rules are those
// of the Python package; thresholds and temperature are in model.json.

/**
 * `logits` float [C], `maps` float [C * h * w], `pixels` uint8 [S * S * 3]. Returns { predictions: [{ id, probability,
 * map }], reason, mapSize: [h, w] }: the `topK` most probable classes, their maps in 0..1; `reason` says why the answer
 * is flagged as unsure: "" if it is not, "uniform", "noise" or "low_confidence".
 */
export function answer(logits, maps, mapSize, pixels, modelInfo, topK = 5) {
  const probabilities = softmax(logits, modelInfo.temperature);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const area = mapSize[0] * mapSize[1];
  const predictions = order.slice(0, topK).map((id) => ({
    id,
    probability: probabilities[id],
    map: normalizeMap(maps.subarray(id * area, (id + 1) * area)),
  }));
  return { predictions, reason: rejectionReason(probabilities, pixels, modelInfo), mapSize };
}

export function softmax(logits, temperature) {
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** The positive part of the map, divided by its maximum. */
function normalizeMap(map) {
  const highest = map.reduce((a, b) => Math.max(a, b), 0);
  return Float32Array.from(map, (value) => (highest > 0 ? Math.max(value, 0) / highest : 0));
}

function rejectionReason(probabilities, pixels, { unsure, image_size: size }) {
  const { std, autocorrelation } = pixelStatistics(pixels, size);
  if (std < unsure.min_pixel_std) return "uniform";
  if (autocorrelation < unsure.min_autocorrelation) return "noise";
  return probabilities.reduce((a, b) => Math.max(a, b), 0) < unsure.min_probability ? "low_confidence" : "";
}

/** The largest standard deviation of a channel, and the spatial autocorrelation (-1..1; 1 without contrast). */
function pixelStatistics(pixels, size) {
  const count = size * size;
  const mean = [0, 0, 0], squares = [0, 0, 0];
  pixels.forEach((value, at) => (mean[at % 3] += value / count));
  const centered = Float64Array.from(pixels, (value, at) => value - mean[at % 3]);
  centered.forEach((value, at) => (squares[at % 3] += (value * value) / count));
  const spread = (squares[0] + squares[1] + squares[2]) / 3;
  const std = Math.sqrt(Math.max(...squares));
  if (spread === 0) return { std, autocorrelation: 1 };
  let right = 0, lower = 0;
  for (let at = 0; at < centered.length; at++) {
    if (Math.floor(at / 3) % size < size - 1) right += centered[at] * centered[at + 3];
    if (at < 3 * size * (size - 1)) lower += centered[at] * centered[at + 3 * size];
  }
  const pairs = 3 * size * (size - 1);
  return { std, autocorrelation: (right + lower) / pairs / 2 / spread };
}
