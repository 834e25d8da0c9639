// Grayscale PNG of 16 bits a pixel. Browsers drop the lower 8 bits; Python scales all 16 to 0..255 and rounds, or takes
// them unchanged if none exceeds 255. So these files, which are common in medicine and science, are decoded here.

const HEADER = 33; // signature and IHDR

/** Whether a PNG is 16-bit grayscale, not interlaced. */
export function isGray16(bytes) {
  return bytes[24] === 16 && bytes[25] === 0 && bytes[28] === 0;
}

/** Its pixels as opaque ImageData, transparent ones white. Rejects if the file is damaged. */
export async function decodeGray16(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const compressed = [];
  let transparent = -1;
  for (let at = HEADER; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const type = view.getUint32(at + 4);
    if (type === 0x49444154) compressed.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at))); // IDAT
    if (type === 0x74524e53) transparent = view.getUint16(at + 8); // tRNS
  }
  const stream = new Blob(compressed).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer());
  const stride = 2 * width;
  if (lines.length < (stride + 1) * height) throw new Error("truncated");
  const gray = new Uint16Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const line = lines.subarray((stride + 1) * y + 1, (stride + 1) * (y + 1));
    unfilter(lines[(stride + 1) * y], line, above);
    for (let x = 0; x < width; x++) gray[width * y + x] = 256 * line[2 * x] + line[2 * x + 1];
    above = line;
  }
  const divisor = gray.some((value) => value > 255) ? 257 : 1; // 65535 / 257 is 255
  const image = new ImageData(width, height);
  gray.forEach((value, at) => image.data.fill(value === transparent ? 255 : Math.round(value / divisor), 4 * at, 4 * at + 3));
  for (let at = 3; at < image.data.length; at += 4) image.data[at] = 255;
  return image;
}

/** Undoes a row's filter in place: each byte is stored as the difference from a prediction by its neighbors. */
function unfilter(kind, line, above) {
  for (let i = 0; i < line.length; i++) {
    const left = i < 2 ? 0 : line[i - 2], up = above[i], corner = i < 2 ? 0 : above[i - 2];
    line[i] += predictByte(kind, left, up, corner);
  }
}

function predictByte(kind, left, up, corner) {
  switch (kind) {
    case 0: return 0;
    case 1: return left;
    case 2: return up;
    case 3: return (left + up) >> 1;
    case 4: return paeth(left, up, corner);
    default: throw new Error("unknown filter");
  }
}

function paeth(left, up, corner) {
  const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
