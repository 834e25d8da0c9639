// Large files (the model, the runtime): from the cache of this site, else from the server with progress; verified by
// SHA-256 in both cases, and cached for the next visit.

const CACHE = `cifar100 ${new URL("./", self.location).pathname}`; // as in sw.js

/** A file could not be loaded; `code` is a key of `problems` in strings.js. */
export class LoadError extends Error {
  constructor(code, detail = "") {
    super(`${code} ${detail}`);
    this.code = code;
    this.detail = detail;
  }
}

/**
 * `file` is { path, sha256, content_sha256 }: the second digest is for servers that decompress .gz files.
 * `onBytes(count)` is called as bytes arrive. Returns { bytes, verified, stored }. Throws LoadError.
 */
export async function download(file, onBytes) {
  const url = new URL(`${file.path}?sha256=${file.sha256.slice(0, 16)}`, self.location);
  const cache = await openCache();
  const kept = await cache?.match(url).catch(() => undefined);
  if (kept !== undefined) {
    const bytes = await read(kept, onBytes);
    if ((await isVerified(bytes, file)) !== false) return { bytes, verified: true, stored: true };
    await cache.delete(url);
    onBytes(-bytes.length);
  }
  for (const mode of ["default", "reload"]) { // the browser's own cache may hold another version
    const response = await fetch(url, { cache: mode }).catch(() => null);
    if (response === null) throw new LoadError("offline", file.path);
    if (!response.ok) throw new LoadError("missing", `${file.path}, ${response.status}`);
    let bytes;
    try {
      bytes = await read(response, onBytes);
    } catch {
      throw new LoadError("offline", file.path);
    }
    const verified = await isVerified(bytes, file);
    if (verified !== false) {
      const stored = await store(cache, url, bytes);
      return { bytes, verified: verified === true, stored };
    }
    onBytes(-bytes.length);
  }
  throw new LoadError("modified", file.path);
}

/** The decompressed content of a .gz file, or the bytes themselves if the server has decompressed them. */
export async function unpack(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function read(response, onBytes) {
  const chunks = [];
  let length = 0;
  const reader = response.body.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    chunks.push(next.value);
    length += next.value.length;
    onBytes(next.value.length);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** Whether the SHA-256 is correct; null without crypto.subtle, which browsers offer only on https and localhost. */
async function isVerified(bytes, { sha256, content_sha256 }) {
  if (!self.crypto?.subtle) return null;
  const digest = [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))];
  const text = digest.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text === sha256 || text === content_sha256;
}

/** The cache; null if the browser grants no storage: private windows, frames of other sites, no https. */
async function openCache() {
  try {
    return await caches.open(CACHE);
  } catch {
    return null;
  }
}

async function store(cache, url, bytes) {
  try {
    await cache.put(url, new Response(bytes));
    return true;
  } catch {
    return false; // no storage, or it is full
  }
}
