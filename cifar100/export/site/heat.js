// Draws the image, with the class activation map over the part that was the model input.

// Every eighth of matplotlib's "inferno", as in the Python package: its lightness rises evenly
const INFERNO = [
  [0, 0, 4], [32, 12, 74], [88, 15, 109], [136, 34, 106], [187, 55, 84],
  [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];
const SMOOTH = 64; // pixels a side of the enlarged map
const OPACITY = 0.55;

/**
 * Draws `picture` (an ImageBitmap of an image of `width` x `height`) into the canvas. `map` (0..1, [h, w]) covers
 * `source`, in pixels of the image; without a map, the image alone.
 */
export function draw(canvas, { picture, width, height, source }, map, mapSize) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  if (!map) return;
  const [x, y] = [picture.width / width, picture.height / height];
  const part = [source.x * x, source.y * y, source.width * x, source.height * y];
  context.fillStyle = "rgb(0 0 0 / 55%)"; // what the network did not see
  context.beginPath();
  context.rect(0, 0, picture.width, picture.height);
  context.rect(...part);
  context.fill("evenodd");
  context.globalAlpha = OPACITY;
  context.drawImage(heat(map, mapSize), ...part);
}

/** The model input, enlarged by the page's style. */
export function drawPixels(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  for (let at = 0; at < size * size; at++) {
    image.data.set(pixels.subarray(3 * at, 3 * at + 3), 4 * at);
    image.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Row and column of the maximum of the map, each 0, 1 or 2: start, middle, end. */
export function strongest(map, [rows, columns]) {
  const at = map.indexOf(map.reduce((a, b) => Math.max(a, b), 0));
  const third = (place, count) => Math.floor((3 * (place + 0.5)) / count);
  return [third(Math.floor(at / columns), rows), third(at % columns, columns)];
}

function heat(map, [rows, columns]) {
  const image = new ImageData(SMOOTH, SMOOTH);
  for (let y = 0; y < SMOOTH; y++) {
    for (let x = 0; x < SMOOTH; x++) {
      const value = bilinear(map, rows, columns, ((y + 0.5) / SMOOTH) * rows - 0.5, ((x + 0.5) / SMOOTH) * columns - 0.5);
      image.data.set([...color(value), 255], 4 * (SMOOTH * y + x));
    }
  }
  const canvas = new OffscreenCanvas(SMOOTH, SMOOTH);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function bilinear(map, rows, columns, y, x) {
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const at = (row, column) => map[clamp(row, rows - 1) * columns + clamp(column, columns - 1)];
  const mix = (row) => at(row, left) + (x - left) * (at(row, left + 1) - at(row, left));
  return mix(top) + (y - top) * (mix(top + 1) - mix(top));
}

function color(value) {
  const place = value * (INFERNO.length - 1);
  const low = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[low].map((channel, i) => channel + (place - low) * (INFERNO[low + 1][i] - channel));
}
