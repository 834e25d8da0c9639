// Serves this site from the browser's cache, so that it loads quickly and works offline. The export writes the line
// above, FILES: path -> SHA-256. After a new export sw.js differs, so browsers update the cache.

const BASE = new URL("./", self.location);
const CACHE = `cifar100 ${BASE.pathname}`; // one per site: several may share a host
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'";

const key = (path) => new URL(`${path}?sha256=${FILES[path].slice(0, 16)}`, BASE).href;

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const path = url.pathname.slice(BASE.pathname.length) || "index.html";
  if (event.request.method === "GET" && url.href.startsWith(BASE.href) && Object.hasOwn(FILES, path)) {
    event.respondWith(serve(event.request, path));
  }
});

/** Fetches missing files into the cache; the page has cached the large ones already. */
async function install() {
  const cache = await caches.open(CACHE);
  for (const path of Object.keys(FILES)) {
    if ((await cache.match(key(path))) !== undefined) continue;
    const response = await fetch(key(path), { cache: "no-cache" });
    const bytes = await response.arrayBuffer();
    // a wrong digest: a new version is being uploaded; .gz and .html are not checked, servers may decompress or extend them
    if (!response.ok || (!/[.](gz|html)$/.test(path) && (await sha256(bytes)) !== FILES[path])) throw new Error(path);
    await cache.put(key(path), new Response(bytes, { headers: response.headers }));
  }
  await self.skipWaiting();
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function activate() {
  const cache = await caches.open(CACHE);
  const wanted = new Set(Object.keys(FILES).map(key));
  for (const request of await cache.keys()) {
    if (!wanted.has(request.url)) await cache.delete(request);
  }
  await self.clients.claim();
}

async function serve(request, path) {
  const kept = await caches.open(CACHE).then((cache) => cache.match(key(path))).catch(() => undefined);
  if (kept === undefined) return fetch(request);
  const headers = new Headers(kept.headers);
  headers.set("Content-Security-Policy", POLICY); // workers obey a header only, which static hosts do not send
  return new Response(kept.body, { status: 200, headers });
}
