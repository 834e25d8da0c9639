// An image file -> upright RGB rows, as in `images.convert.to_rgb` in Python: transparency on white, no color
// management, EXIF orientation applied, the first frame of an animation. The browser decodes; its pixels are read in
// strips, so that a photo of 48 megapixels needs no second copy.

import { inspect } from "./inspect.js";
import { decodeGray16, isGray16 } from "./png16.js";
import { plan, Resizer } from "./resize.js";

export const MAX_BYTES = 100_000_000;
export const MAX_PIXELS = 80_000_000;
const STRIP_PIXELS = 4_000_000, TILE = 8192; // what is read at once, and how wide a canvas may be anywhere

/** A file that cannot be classified; `code` is a key of `refusals` in strings.js, `detail` its argument. */
export class Refused extends Error {
  constructor(code, detail = "") {
    super(code);
    this.code = code;
    this.detail = detail;
  }
}

/** Opens a file: { bitmap, orientation, width, height } with the upright size. Throws Refused. */
export async function open(file) {
  if (file.size > MAX_BYTES) throw new Refused("tooManyBytes", MAX_BYTES / 1e6);
  if (file.size === 0) throw new Refused("empty");
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Refused("unreadable"); // a folder, or a file that is gone
  }
  const { format, unusual, width, height, orientation, truncated, parts } = inspect(bytes);
  if (format === "") throw new Refused("notAnImage");
  if (format === "svg") throw new Refused("unsupported", "SVG");
  if (truncated) throw new Refused("truncated");
  if (width * height > MAX_PIXELS) throw new Refused("tooManyPixels", MAX_PIXELS / 1e6);
  let bitmap;
  try {
    const gray16 = format === "png" && isGray16(bytes);
    bitmap = await createImageBitmap(gray16 ? await decodeGray16(bytes) : new Blob(parts, { type: `image/${format}` }), {
      imageOrientation: "none",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw unusual ? new Refused("unsupported", format.toUpperCase()) : new Refused("damaged");
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    bitmap.close();
    throw new Refused("tooManyPixels", MAX_PIXELS / 1e6);
  }
  const turned = orientation > 4;
  const size = { width: turned ? bitmap.height : bitmap.width, height: turned ? bitmap.width : bitmap.height };
  return { bitmap, orientation, ...size };
}

/** The model input from an opened image, [size, size, 3], and the part of the image that it shows. */
export function toPixels(image, size) {
  const { width, height } = image;
  const planned = plan(width, height, size);
  if (planned === null) throw new Refused("elongated", `${width}×${height}`);
  const resizer = new Resizer(planned);
  const columns = Math.min(width, TILE), rows = Math.min(height, Math.max(1, Math.floor(STRIP_PIXELS / width)));
  const context = new OffscreenCanvas(columns, rows).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.globalCompositeOperation = "copy";
  const rgb = new Uint8Array(3 * width * rows);
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    for (let left = 0; left < width; left += columns) {
      drawUpright(context, image, -left, -top);
      copyOnWhite(context.getImageData(0, 0, Math.min(columns, width - left), count), rgb, width, left);
    }
    for (let row = 0; row < count; row++) resizer.push(rgb.subarray(3 * width * row, 3 * width * (row + 1)));
  }
  return { pixels: resizer.pixels(), source: resizer.plan.source };
}

/** The upright image, its longer side at most `side`, for the page to show. */
export function picture(image, side) {
  const scale = Math.min(1, side / Math.max(image.width, image.height));
  const width = Math.max(1, Math.round(image.width * scale)), height = Math.max(1, Math.round(image.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.scale(width / image.width, height / image.height);
  drawUpright(context, image, 0, 0);
  return canvas.transferToImageBitmap();
}

/** Whether a canvas returns the pixels that were drawn; some browsers add noise against tracking. */
export function canvasIsExact() {
  const context = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const drawn = new ImageData(16, 16);
  drawn.data.forEach((_, at) => (drawn.data[at] = at % 4 === 3 ? 255 : (at * 37) % 256));
  context.putImageData(drawn, 0, 0);
  return context.getImageData(0, 0, 16, 16).data.every((value, at) => Math.abs(value - drawn.data[at]) <= 2);
}

/** Draws the bitmap so that the upright image's corner lies at (x, y), after the context's own scale. */
function drawUpright(context, { bitmap, orientation, width, height }, x, y) {
  const [a, b, c, d, e, f] = [
    [1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, width, 0],
    [-1, 0, 0, -1, width, height],
    [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, width, 0],
    [0, -1, -1, 0, width, height],
    [0, -1, 1, 0, 0, height],
  ][orientation - 1];
  context.save();
  context.translate(x, y);
  context.transform(a, b, c, d, e, f);
  context.drawImage(bitmap, 0, 0);
  context.restore();
}

/** Copies a tile, laid on white, into rows of `stride` RGB pixels, from column `left` on. */
function copyOnWhite({ data, width }, rgb, stride, left) {
  for (let from = 0, at = 0; from < data.length; from += 4, at++) {
    const alpha = data[from + 3];
    const to = 3 * (stride * Math.floor(at / width) + left + (at % width));
    for (let channel = 0; channel < 3; channel++) {
      const value = data[from + channel];
      rgb[to + channel] = alpha === 255 ? value : Math.round((value * alpha) / 255) + 255 - alpha;
    }
  }
}
