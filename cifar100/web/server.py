"""Serve the web app, on this machine only by default.

It never creates a public link and fetches nothing from elsewhere, neither on the server nor in the browser. Uploads
are kept in a temporary directory for a minute or two, and deleted with it at the end.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradio.themes import Base
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar100.inference import Predictor
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit
from cifar100.web.app import KEEP_SECONDS, build
from cifar100.web.service import MAX_BYTES
from cifar100.web.style import HEAD, STYLE

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
    Raises UserError if it cannot listen there.
    """
    with tempfile.TemporaryDirectory(prefix="cifar100-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        blocks = build(predictor, Path(folder, "examples"), keep_seconds=keep_seconds)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=open_browser,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MAX_BYTES,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=STYLE,
                head=HEAD,
                app_kwargs={"middleware": [Middleware(_Policy)]},
            )
        except OSError as error:
            raise UserError(
                "app.address", f"The app cannot listen on {host or 'the default address'}, port {port}: {error}"
            ) from None
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def serve(
    predictor: Predictor, *, host: str | None = "127.0.0.1", port: int | None = None, open_browser: bool = False
) -> None:
    """Serve the app until interrupted; the arguments are those of `serving`."""
    with serving(predictor, host=host, port=port, open_browser=open_browser) as address:
        emit(f"The app is at {address} (Ctrl-C stops it).", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


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
