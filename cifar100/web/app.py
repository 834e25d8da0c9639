"""The page itself, in gradio: what visitors send goes to an `InferenceService`; its answers come back as HTML.

It listens where it is told, this machine alone if nowhere; never shares; fetches nothing from anywhere, server
or browser; and keeps no picture: uploads lie in a temporary folder for a minute or two, and go with it at the end.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # before gradio looks

import gradio as gr
from gradio.themes import Base
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar100.prediction.cam import Model
from cifar100.support.errors import UserError
from cifar100.web import html
from cifar100.web.examples import example_files
from cifar100.web.service import MOST_BYTES, MOST_PICTURES, Answer, InferenceService, Refusal

LONGEST_QUEUE = 64
"""Visitors that may wait; a further one is told that the page is busy."""

SECONDS = 15.0
"""For a picture, once it is its turn."""

KEEP_SECONDS = 60
"""For which an upload stays: the same file, sent twice, is one file to gradio."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:"
)
"""What the browser may load: nothing from elsewhere, whatever gradio comes to ask for."""

Result = TypeVar("Result")


class _Desk:
    """What the events of the page call: takes paths of uploads, gives HTML or JSON, each within its time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.recognizer = InferenceService(model)
        self.recognizer.warm_up()
        self.workers = ThreadPoolExecutor(2, thread_name_prefix="recognizer")

    def show(self, path: str | None) -> str:
        """The answer for a picture, as HTML."""
        if path is None:
            return html.NOTHING
        try:
            return html.answer(self._recognize(path), self.model)
        except UserError as error:
            return html.refusal(Refusal("", str(error)))

    def show_several(self, paths: Sequence[str] | None) -> str:
        """The answers for pictures, as HTML."""
        paths = paths or []
        if len(paths) > MOST_PICTURES:
            return html.refusal(Refusal("", f"{len(paths)} pictures are too many; send {MOST_PICTURES} at once."))
        files = [(Path(path).name, lambda path=path: _read(path)) for path in paths]
        try:
            return html.several(self._in_time(lambda: self.recognizer.several(files), len(files)), self.model)
        except UserError as error:
            return html.refusal(Refusal("", str(error)))

    def predict(self, image: str | None, top_k: float = 5) -> dict[str, Any]:
        """The likeliest classes of a picture, for the API."""
        count = len(self.model.classes)
        if image is None or not 1 <= top_k <= count:
            raise gr.Error(f"Send an image, and a top_k from 1 to {count}.", print_exception=False)
        try:
            return as_json(self._recognize(image, int(top_k)), self.model)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def _recognize(self, path: str, top_k: int = 5) -> Answer:
        return self._in_time(lambda: self.recognizer(Path(path).name, _read(path), top_k=top_k))

    def _in_time(self, work: Callable[[], Result], pictures: int = 1) -> Result:
        answer = self.workers.submit(work)
        try:
            return answer.result(SECONDS * (1 + pictures / 10))
        except TimeoutError:
            answer.cancel()  # where it has not begun: nobody waits for it any more
            raise UserError("That took too long, and was given up; send a smaller picture, or try again.") from None


def build(model: Model, folder: Path, *, keep_seconds: int = KEEP_SECONDS) -> gr.Blocks:
    """The page of this model; its example pictures are put into `folder`, which is to outlive it."""
    desk = _Desk(model)
    examples = _write(example_files(), folder)
    with gr.Blocks(
        title="CIFAR-100: what is in a picture?", analytics_enabled=False, delete_cache=(20, keep_seconds)
    ) as page:
        gr.HTML(_HEAD.format(count=len(model.classes)), elem_classes=["cifar", "page-head"])
        with gr.Tabs():
            with gr.Tab("Picture"), gr.Row():
                with gr.Column(min_width=300):
                    picture = _takes_files(
                        gr.Image(
                            sources=["upload", "clipboard", "webcam"],
                            type="filepath",
                            label="Your picture",
                            height=320,
                            buttons=[],
                            elem_id="picture",
                            alt_text="Your picture",
                        )
                    )
                    gr.Examples(examples, picture, label="Or one of these, drawn for this page", elem_id="examples")
                with gr.Column(min_width=300):
                    shown = _live("answer")
            with gr.Tab("Several"), gr.Column():
                files = _takes_files(
                    gr.File(
                        file_count="multiple",
                        label=f"Up to {MOST_PICTURES} pictures",
                        elem_id="files",
                        height=160,
                    )
                )
                all_shown = _live("answers")
            with gr.Tab("Model"):
                gr.HTML(html.about_model(model), elem_classes="cifar")
            with gr.Tab("Classes"):
                gr.HTML(html.classes(model), elem_classes="cifar")
            with gr.Tab("API"):
                gr.Markdown(_API)
                sent = _takes_files(gr.Image(type="filepath", visible=False, label="image"))
                top_k, said = gr.Number(5, visible=False, label="top_k"), gr.JSON(visible=False, label="answer")
                gr.Button(visible=False).click(
                    desk.predict, [sent, top_k], said, api_name="predict", concurrency_id="network"
                )
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "network", "show_progress": "minimal"}
        picture.change(desk.show, picture, shown, **private)
        files.change(desk.show_several, files, all_shown, **private)
    page.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=4, api_open=False)
    return page


@contextmanager
def serving(
    model: Model,
    *,
    host: str | None = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    keep_seconds: int = KEEP_SECONDS,
) -> Iterator[str]:
    """A context in which the page is served; gives its address.

    `host` None is gradio's own choice: $GRADIO_SERVER_NAME, which a Space sets. `port` None is any that is free from
    7860 on. Raises UserError where neither can be had.
    """
    with tempfile.TemporaryDirectory(prefix="cifar100-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(model, Path(folder, "examples"), keep_seconds=keep_seconds)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=open_browser,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MOST_BYTES,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=html.STYLE,
                head=html.HEAD,
                app_kwargs={"middleware": [Middleware(_Policy)]},
            )
        except OSError as error:
            raise UserError(f"The page cannot be served there: {error}") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(model: Model, *, host: str | None = "127.0.0.1", port: int | None = None, open_browser: bool = False) -> None:
    """Serve the page until interrupted; as `serving`."""
    with serving(model, host=host, port=port, open_browser=open_browser) as address:
        print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def as_json(of: Answer, model: Model) -> dict[str, Any]:
    """An answer as JSON types."""
    return {
        "predictions": [
            {**prediction._asdict(), "superclass": model.superclass_of.get(prediction.class_name, "")}
            for prediction in of.predictions
        ],
        "unsure": bool(of.doubt),
        "reason": of.doubt,
        "milliseconds": round(of.milliseconds, 1),
    }


class _Policy:
    """Adds what the browser may do to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        await self.app(scope, receive, send_with_policy)


Taker = TypeVar("Taker", gr.Image, gr.File)


def _takes_files(component: Taker) -> Taker:
    """The component, made to hand over the paths of uploads unopened (gradio would decode a picture before anything
    counted its pixels), and to take no addresses (gradio would fetch what a client names)."""
    move = component.async_move_resource_to_block_cache

    def paths(payload: Any) -> Any:
        if payload is None:
            return None
        return payload.path if hasattr(payload, "path") else [file.path for file in payload.root]

    async def move_file(path: Any) -> str | None:
        if isinstance(path, str) and "://" in path:
            raise gr.Error("This page takes files, not addresses.", print_exception=False)
        return await move(path)

    vars(component).update(preprocess=paths, async_move_resource_to_block_cache=move_file)
    return component


def _live(name: str) -> gr.HTML:
    """Where answers appear; screen readers tell of what comes."""
    return gr.HTML(
        html.NOTHING,
        elem_id=name,
        elem_classes="cifar",
        js_on_load="element.setAttribute('aria-live', 'polite');",
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError:
        raise UserError("The picture is no longer here: uploads are kept for a minute only. Send it again.") from None


def _write(files: dict[str, bytes], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in files]


_HEAD = f"""<header><h1>What is in a picture?</h1>
<p>A ResNet-18, trained on CIFAR-100 alone, names one of {{count}} things. Upload a picture (up to
{MOST_BYTES // 1_000_000} MB), paste one, or take one. It is looked at here, and not kept.</p></header>"""

_API = """
### From Python

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # the address of this page
answer = client.predict(handle_file("photo.jpg"), 5, api_name="/predict")
print(answer["predictions"][0]["class_name"], answer["unsure"])
```

### What comes back

`predictions`: the likeliest classes (`top_k`, 5 unless you say otherwise), each with `class_name`, `class_id`,
`probability` and `superclass`; `unsure`, and the `reason` for it; `milliseconds`. What cannot be read comes back as an
error with a sentence. Send files: addresses are not fetched.
"""
