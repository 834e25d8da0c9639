"""Serve a directory on http://127.0.0.1, for `cifar100 export --format web --serve`."""

from __future__ import annotations

import hashlib
import os
import threading
import webbrowser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cifar100.support.terminal import emit

POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}  # Windows may say otherwise

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log requests."""


class _Server(ThreadingHTTPServer):
    allow_reuse_address = os.name != "nt"  # Windows would let two servers share a port


def make_server(folder: Path) -> ThreadingHTTPServer:
    """A server of this directory on the loopback address.

    The port is derived from the site's sw.js: at the same address, the service worker of another site would answer. If
    that port is taken, any free one is used.
    """
    handler = partial(_Handler, directory=str(folder))
    port = 20_000 + int.from_bytes(hashlib.sha256((folder / "sw.js").read_bytes()).digest()) % 10_000
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError:
        return _Server(("127.0.0.1", 0), handler)


def serve(folder: Path) -> None:
    """Serve the directory until interrupted, and open it in a browser."""
    with make_server(folder) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        emit(f"The site is at {address} (Ctrl-C stops it).", flush=True)
        # in a thread: a browser in the terminal waits for an answer
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()
