// Reads an image file before it is decoded: its format, size in pixels and orientation, and whether it is truncated
// (browsers show half of such an image, Pillow refuses it). Metadata are removed before the browser decodes the file,
// so that it neither rotates the image nor converts colors; Pillow does not either.

/** Formats that either `images.convert.to_rgb` in Python or most browsers do not read. */
const UNUSUAL = new Set(["tiff", "jpeg2000", "heic"]);

/**
 * `bytes` is a whole file. Returns { format, unusual, width, height, orientation, truncated, parts }: sizes are undefined
 * if the header does not contain them, `orientation` is EXIF's 1..8, `parts` is for a Blob of the pixels alone.
 * `format` is "" if the file is not an image.
 */
export function inspect(bytes) {
  const format = sniff(bytes);
  const found = { format, unusual: UNUSUAL.has(format), orientation: 1, truncated: false, parts: [bytes] };
  const reader = { png, jpeg, gif, webp, bmp, avif }[format];
  if (reader) {
    try {
      reader(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), found);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      found.truncated = true; // a field lies beyond the end
    }
  }
  return found;
}

function sniff(bytes) {
  const head = latin1(bytes, 0, 256);
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  if (/^GIF8[79]a/.test(head)) return "gif";
  if (/^RIFF....WEBP/s.test(head)) return "webp";
  if (/^BM/.test(head) && bytes.length > 26) return "bmp";
  if (head.startsWith("\0\0\x01\0")) return "ico";
  if (/^(II\*\0|MM\0\*)/.test(head)) return "tiff";
  if (/^\0\0\0\x0cjP  |^\xff\x4f\xff\x51/.test(head)) return "jpeg2000";
  const brands = /^....ftyp(.{4})/s.exec(head)?.[1] ?? "";
  if (/^avi[fs]/.test(brands)) return "avif";
  if (/^(hei|hev|mif1|msf1)/.test(brands)) return head.includes("avif") ? "avif" : "heic";
  if (/^(\xef\xbb\xbf)?\s*<(\?xml|svg|!--|!DOCTYPE svg)/i.test(head)) return "svg";
  return "";
}

function latin1(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

function png(bytes, view, found) {
  const parts = [bytes.subarray(0, 8)];
  let orientation = 0, ended = false;
  for (let at = 8; at < bytes.length && !ended; ) {
    const length = view.getUint32(at), kind = latin1(bytes, at + 4, at + 8), end = at + 12 + length;
    if (end > bytes.length) break;
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "IHDR") [found.width, found.height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (kind === "eXIf") orientation ||= exifOrientation(data);
    if (kind === "iTXt") orientation ||= xmpOrientation(data);
    if (["IHDR", "PLTE", "tRNS", "IDAT", "IEND"].includes(kind)) parts.push(bytes.subarray(at, end));
    ended = kind === "IEND";
    at = end;
  }
  Object.assign(found, { parts, orientation: orientation || 1, truncated: !ended });
}

function jpeg(bytes, view, found) {
  const parts = [bytes.subarray(0, 2)];
  let exif = 0, xmp = 0, at = 2;
  while (at < bytes.length) {
    if (bytes[at] !== 0xff) { at += 1; continue; } // padding between segments
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }
    if (marker === 0xda || marker === 0xd9) break; // the scan
    if (marker === undefined || marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd7)) { at += 2; continue; }
    const end = at + 2 + view.getUint16(at + 2);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      [found.height, found.width] = [view.getUint16(at + 5), view.getUint16(at + 7)];
    }
    const data = bytes.subarray(at + 4, end);
    if (marker === 0xe1 && latin1(data, 0, 6) === "Exif\0\0") exif ||= exifOrientation(data.subarray(6));
    else if (marker === 0xe1) xmp ||= xmpOrientation(data);
    // APP0 (JFIF) and APP14 (Adobe) are kept: they specify the color encoding
    if (marker < 0xe0 || marker === 0xe0 || marker === 0xee || marker > 0xef) parts.push(bytes.subarray(at, end));
    at = end;
  }
  parts.push(bytes.subarray(at));
  Object.assign(found, { parts, orientation: exif || xmp || 1, truncated: !endOfJpeg(bytes, at) });
}

/** Whether the end-of-image marker follows the scans that begin at `at`. */
function endOfJpeg(bytes, at) {
  for (let next = bytes.indexOf(0xff, at); next >= 0; next = bytes.indexOf(0xff, next + 1)) {
    if (bytes[next + 1] === 0xd9) return true;
  }
  return false;
}

function gif(bytes, view, found) {
  [found.width, found.height] = [view.getUint16(6, true), view.getUint16(8, true)];
  const table = (flags) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let at = 13 + table(bytes[10]);
  const skipBlocks = () => {
    while (view.getUint8(at) !== 0) at += view.getUint8(at) + 1;
    at += 1;
  };
  while (view.getUint8(at) === 0x21) { // extensions
    at += 2;
    skipBlocks();
  }
  at += 10 + table(view.getUint8(at + 9)) + 1; // the first frame, all that is looked at
  skipBlocks();
}

function webp(bytes, view, found) {
  const copy = bytes.slice();
  let orientation = 0;
  found.truncated = 8 + view.getUint32(4, true) > bytes.length;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const kind = latin1(bytes, at, at + 4), length = view.getUint32(at + 4, true), data = at + 8;
    if (kind === "VP8X") {
      [found.width, found.height] = [1 + (view.getUint32(data + 4, true) & 0xffffff), 1 + (view.getUint32(data + 6, true) >>> 8)];
    } else if (kind === "VP8L") {
      const bits = view.getUint32(data + 1, true);
      [found.width, found.height] = [1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)];
    } else if (kind === "VP8 ") {
      [found.width, found.height] = [view.getUint16(data + 6, true) & 0x3fff, view.getUint16(data + 8, true) & 0x3fff];
    }
    const content = bytes.subarray(data, data + length);
    if (kind === "EXIF") orientation ||= exifOrientation(latin1(content, 0, 4) === "Exif" ? content.subarray(6) : content);
    if (kind === "XMP ") orientation ||= xmpOrientation(content);
    if (["EXIF", "XMP ", "ICCP"].includes(kind)) copy.set([0x4a, 0x55, 0x4e, 0x4b], at); // "JUNK": skipped by decoders
    at = data + length + (length & 1);
  }
  Object.assign(found, { parts: [copy], orientation: orientation || 1 });
}

function bmp(bytes, view, found) {
  const core = view.getUint32(14, true) === 12;
  found.width = core ? view.getUint16(18, true) : view.getInt32(18, true);
  found.height = core ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true));
  const bits = view.getUint16(core ? 24 : 28, true), compressed = !core && [1, 2, 4, 5].includes(view.getUint32(30, true));
  const line = 4 * Math.ceil((found.width * bits) / 32);
  found.truncated = !compressed && view.getUint32(10, true) + line * found.height > bytes.length;
}

function avif(bytes, view, found) {
  // Decoders of this format apply the orientation, in browsers and in Pillow. The size is that of the largest "ispe"
  // box: a grid of tiles has several.
  const head = latin1(bytes, 0, 4096);
  for (let at = head.indexOf("ispe"); at >= 0 && at + 16 <= bytes.length; at = head.indexOf("ispe", at + 4)) {
    found.width = Math.max(found.width ?? 0, view.getUint32(at + 8));
    found.height = Math.max(found.height ?? 0, view.getUint32(at + 12));
  }
}

/** Tag 0x112 of the first directory of a TIFF structure, 1..8; 0 if there is none. */
function exifOrientation(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    const directory = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, little) !== 0x112) continue;
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 0;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 0;
}

function xmpOrientation(data) {
  const text = new TextDecoder("latin1").decode(data);
  return Number(/tiff:Orientation(?:="|>)([1-8])/.exec(text)?.[1] ?? 0);
}
