"""Serve the web app, on this machine only by default.

It never creates a public link and fetches nothing from elsewhere, neither on the server nor in the browser. Uploads
are kept in a temporary directory for a minute or two, and deleted with it at the end.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import gradio as gr
from gradio.themes import Base
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import WS_PROTOCOLS

from cifar100.inference import Predictor
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit
from cifar100.web.app import KEEP_SECONDS, MAX_CONCURRENT, build
from cifar100.web.decoding import DecoderPool
from cifar100.web.request_validation import RequestValidation
from cifar100.web.service import MAX_BYTES
from cifar100.web.style import HEAD, STYLE
from cifar100.web.uploads import deleting_uploads

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The Host headers that are answered on a loopback address. Others are a sign of DNS rebinding."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:"
)
"""Content-Security-Policy: the browser loads nothing from elsewhere, whatever gradio asks for."""


@contextmanager
def serving(
    predictor: Predictor,
    *,
    host: str | None = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    keep_seconds: int = KEEP_SECONDS,
) -> Iterator[str]:
    """A context in which the app is served; yields its address.

    `host` None means $GRADIO_SERVER_NAME, which a Space sets. `port` None means the first free port from 7860 on.
    The environment variables that it sets, such as $NO_PROXY, stay.
    Raises UserError if it cannot listen there.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cifar100-page-", ignore_cleanup_errors=True) as folder,
        closing(DecoderPool()) as decoder,
    ):
        decoder.warm_up()
        examples = Path(folder, "examples")
        os.environ["GRADIO_TEMP_DIR"] = folder
        names = ("no_proxy", "NO_PROXY")  # gradio sends requests to its own server when it starts
        hosts = ",".join(filter(None, (*map(os.environ.get, names), "127.0.0.1", "localhost", "::1", host)))
        os.environ |= dict.fromkeys(names, hosts)
        WS_PROTOCOLS["auto"] = None  # uvicorn never answers a POST with `Upgrade: websocket`; gradio needs none
        blocks = build(predictor, decoder, examples)
        address = _launch(blocks, Path(folder), host, port, open_browser)
        try:
            with deleting_uploads(Path(folder), max_age=keep_seconds, keep=examples):
                yield address
        finally:
            blocks.close(verbose=False)


def _launch(blocks: gr.Blocks, uploads: Path, host: str | None, port: int | None, open_browser: bool) -> str:
    """Start the server in a thread; its address."""
    host = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # gradio's default, too
    middleware = [Middleware(_Policy), Middleware(RequestValidation, blocks=blocks, uploads=uploads)]
    if host in LOOPBACK or host == "::1":
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False))
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=open_browser,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_BYTES,
            max_threads=2 * MAX_CONCURRENT,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,  # it uses the Hugging Face token of whoever runs the server
            footer_links=[],
            theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
            head=HEAD,
            app_kwargs={"middleware": middleware},
        )
    except Exception as error:  # gradio raises many kinds, among them plain Exception
        if isinstance(error, OSError) and port is not None:
            raise UserError(
                "app.address", f"Port {port} of {host} cannot be used; give another --port or --host."
            ) from None
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError("app.address", f"The app cannot listen on {host}, port {port}: {reason}") from None
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a client could fill the log with its warnings
    return address


def serve(
    predictor: Predictor, *, host: str | None = "127.0.0.1", port: int | None = None, open_browser: bool = False
) -> None:
    """Serve the app until SIGINT or SIGTERM; the arguments are those of `serving`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), serving(predictor, host=host, port=port, open_browser=open_browser) as address:
        emit(f"The app is at {address} (Ctrl-C stops it).", flush=True)
        while True:
            time.sleep(1)  # on Windows Ctrl-C does not interrupt the wait for a lock


class _Policy:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        await self.app(scope, receive, send_with_policy)
