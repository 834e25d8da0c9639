"""Refuses malformed requests before gradio, which answers many of them with a traceback in the log."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.route_utils import get_request_origin
from httpx import InvalidURL
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar100.support.terminal import emit_error

API = "/gradio_api"
FUNCTIONS = tuple(f"{API}/{name}" for name in ("queue/join", "call", "run/", "api/", "component_server"))
"""Paths that run a function."""

FILES = f"{API}/file"
"""Paths of uploaded and static files; gradio would also relay URLs in their place."""

ALLOWED_FUNCTIONS = tuple(f"{API}/{name}" for name in ("call/predict", "queue/join", "run/predict"))
"""The only accepted ones: the first names the function in its path, the others give its "fn_index" in the body."""

MAX_HEADER_BYTES = 64_000
MAX_BODY_BYTES = 1_000_000
"""Of a request that is not an upload."""


class _Invalid(Exception):
    """A request that is refused: the status, and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestValidation:
    """ASGI middleware: a malformed request gets a 4xx status and at most one line in the log.

    `uploads` is the directory of the files that a request may name.
    """

    def __init__(self, app: ASGIApp, blocks: gr.Blocks, uploads: Path) -> None:
        self.app, self.blocks, self.uploads = app, blocks, uploads.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            receive = await self._checked(scope, receive)
            await self.app(scope, receive, send_noting)
        except ClientDisconnect:
            return
        except _Invalid as refusal:
            status, reason = refusal.status, str(refusal)
        except Exception as error:  # gradio and its libraries raise many kinds on malformed input
            emit_error(f"{scope['method']} {scope['path'][:100]} was refused ({type(error).__name__}).")
            status, reason = 400, "The request is malformed."
        else:
            return
        if not started:
            await JSONResponse({"detail": reason}, status)(scope, receive, send)
            return
        with suppress(Exception):  # an event stream ends here; a body of known length cannot
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Raises _Invalid for a malformed request; else `receive`, with the body to be read again."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise _Invalid(431, "The headers are too large.")
        request = Request(scope, receive)
        try:
            get_request_origin(request, "")  # gradio calls it outside of its error handling: a traceback
        except (ValueError, InvalidURL):
            raise _Invalid(400, "The address of the request is malformed.") from None
        path = scope["path"].rstrip("/")
        if path.startswith(FILES) and "://" in path:
            raise _Invalid(403, "URLs are not fetched.")
        if scope["method"] != "POST" or not path.startswith(FUNCTIONS):
            return receive
        if path not in ALLOWED_FUNCTIONS:
            raise _Invalid(404, "There is no such function.")
        content = await _read(request)
        body = _json_object(content)
        self._check_event(body, self._predict_index() if path == ALLOWED_FUNCTIONS[0] else body.get("fn_index"))
        waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        return receive_again

    def _predict_index(self) -> int:
        return next(index for index, fn in self.blocks.fns.items() if fn.api_name == "predict")

    def _check_event(self, body: dict[str, Any], index: object) -> None:
        """Check the number and the types of the inputs of an event."""
        fn = self.blocks.fns.get(index) if isinstance(index, int) else None
        if fn is None:
            raise _Invalid(404, "There is no such function.")
        data = body.get("data")
        if not isinstance(data, list) or len(data) != len(fn.inputs):
            raise _Invalid(422, f"data must be a list of {len(fn.inputs)}.")
        for component, value in zip(fn.inputs, data, strict=True):
            if not self._is_valid(component, value):
                raise _Invalid(422, f"A value of data is invalid for {type(component).__name__}.")

    def _is_valid(self, component: object, value: Any) -> bool:
        if isinstance(component, gr.Dataset):
            return _is_number(value) and isinstance(value, int) and 0 <= value < len(component.samples or [])
        if isinstance(component, gr.Number):
            return value is None or _is_number(value)
        if isinstance(component, gr.File):
            return value is None or (isinstance(value, list) and all(map(self._is_upload, value)))
        return value is None or self._is_upload(value)

    def _is_upload(self, value: Any) -> bool:
        """Whether a value names a file below the uploads, or a URL, which the page refuses with a message."""
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or "\0" in path or len(path) > 1000:
            return False
        try:
            return "://" in path or Path(path).resolve().is_relative_to(self.uploads)
        except (OSError, ValueError):
            return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


async def _read(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise _Invalid(413, "The request is too large.")
    return content


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _Invalid(400, "The request is not JSON.") from None
    if not isinstance(body, dict):
        raise _Invalid(422, "The request is not a JSON object.")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
