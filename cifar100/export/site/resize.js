// Pillow's Image.resize(..., BICUBIC) for 8-bit RGB, bit for bit (Resample.c of Pillow): the filter widens with the
// reduction, weights are fixed-point numbers of 22 bits, and the horizontal pass is rounded to 8 bits before the
// vertical one. A canvas uses another filter, so that the model input would differ from Python's.

const PRECISION_BITS = 22;
const SUPPORT = 2;

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** The input pixels of output pixel `out` of `outSize`: their first index, and their integer weights. */
function weights(inSize, outSize, out) {
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = SUPPORT * filterScale;
  const center = (out + 0.5) * scale;
  const first = Math.max(0, Math.trunc(center - support + 0.5));
  const end = Math.min(inSize, Math.trunc(center + support + 0.5));
  const exact = new Float64Array(end - first);
  let sum = 0;
  for (let i = 0; i < exact.length; i++) sum += exact[i] = bicubic((i + first - center + 0.5) * (1 / filterScale));
  const fixed = Int32Array.from(exact, (value) => {
    const scaled = (sum === 0 ? value : value / sum) * (1 << PRECISION_BITS);
    return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  });
  return { first, fixed };
}

/** Python's round(): halves go to the even neighbor. */
function roundHalfEven(x) {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * How an image of this size becomes the model input of `size` x `size` pixels: the size it is resized to, and the
 * position of the center crop in that. `source` is the corresponding part of the image, in its own pixels. The shorter
 * side is resized to `size`. Returns null for an image that is too long and thin, which `to_model_input` refuses too.
 */
export function plan(width, height, size) {
  const scale = size / Math.min(width, height);
  const wide = Math.max(size, roundHalfEven(width * scale));
  const high = Math.max(size, roundHalfEven(height * scale));
  if (Math.max(wide, high) > 100 * size) return null;
  const left = Math.floor((wide - size) / 2);
  const top = Math.floor((high - size) / 2);
  const source = {
    x: (left * width) / wide,
    y: (top * height) / high,
    width: (size * width) / wide,
    height: (size * height) / high,
  };
  return { width, height, size, wide, high, left, top, source };
}

/** RGB rows of an image, from the top down -> the model input; the whole image is never in memory. */
export class Resizer {
  constructor(plan) {
    this.plan = plan;
    const { width, height, size, wide, high, left, top } = plan;
    const places = [...Array(size).keys()];
    this.columns = wide === width ? null : places.map((x) => weights(width, wide, left + x));
    this.lines = high === height ? null : places.map((y) => weights(height, high, top + y));
    this.squeezed = new Uint8Array(3 * size * height); // after the horizontal pass
    this.row = 0;
  }

  /** `rgb` holds one row, 3 * width values in 0..255. */
  push(rgb) {
    const { size, left } = this.plan;
    const out = this.squeezed.subarray(3 * size * this.row, 3 * size * (this.row + 1));
    this.row += 1;
    if (this.columns === null) {
      out.set(rgb.subarray(3 * left, 3 * (left + size)));
      return;
    }
    for (let x = 0; x < size; x++) {
      const { first, fixed } = this.columns[x];
      let r = 1 << (PRECISION_BITS - 1), g = r, b = r;
      for (let i = 0, at = 3 * first; i < fixed.length; i++, at += 3) {
        const weight = fixed[i];
        r = (r + Math.imul(rgb[at], weight)) | 0;
        g = (g + Math.imul(rgb[at + 1], weight)) | 0;
        b = (b + Math.imul(rgb[at + 2], weight)) | 0;
      }
      out[3 * x] = clip(r);
      out[3 * x + 1] = clip(g);
      out[3 * x + 2] = clip(b);
    }
  }

  /** The model input, [size, size, 3], after all rows were pushed. */
  pixels() {
    const { size, top } = this.plan;
    const stride = 3 * size;
    if (this.lines === null) return this.squeezed.slice(stride * top, stride * (top + size));
    const out = new Uint8Array(stride * size);
    this.lines.forEach(({ first, fixed }, y) => {
      for (let at = 0; at < stride; at++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let i = 0; i < fixed.length; i++) {
          sum = (sum + Math.imul(this.squeezed[stride * (first + i) + at], fixed[i])) | 0;
        }
        out[stride * y + at] = clip(sum);
      }
    });
    return out;
  }
}

function clip(sum) {
  return Math.min(255, Math.max(0, sum >> PRECISION_BITS));
}
