"""The page of the web app, in gradio: uploads go to an `InferenceService`, and its answers come back as HTML."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}  # before gradio is imported

import gradio as gr

from cifar100.dataset.classes import CLASSES
from cifar100.images.fit import Fit
from cifar100.images.sources import example_photos
from cifar100.inference import Predictor
from cifar100.prediction.model_info import ModelInfo
from cifar100.prediction.output import to_json
from cifar100.support.errors import UserError
from cifar100.web import html
from cifar100.web.decoding import DecodedImage, decode
from cifar100.web.service import MAX_BYTES, MAX_IMAGES, Classified, InferenceService

MAX_QUEUE = 256
"""Requests that may wait; further ones are refused."""

MAX_CONCURRENT = 32
"""Requests handled at the same time. Most only wait for a decoder or a forward pass, so images that are expensive to
decode cannot occupy all of them."""

TIMEOUT = 15.0
"""Seconds for an image, once it is its turn."""

KEEP_SECONDS = 60
"""How long an upload is kept: gradio treats the same file, sent twice, as one."""

SOURCE = "https://github.com/cifar100/cifar100"

EXAMPLE = "raccoon"
"""The example photo whose answer is shown first."""

T = TypeVar("T")
Decoder = Callable[[bytes, str, int, Fit], DecodedImage]


class _Handlers:
    """The event handlers: paths of uploads -> HTML or JSON, each within a time limit."""

    def __init__(self, predictor: Predictor, decoder: Decoder = decode) -> None:
        self.predictor = predictor
        self.service = InferenceService(predictor, decoder)
        self.service.warm_up()
        self.workers = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="inference")

    def show(self, path: str | None) -> str:
        """The answer for an image, as HTML."""
        if path is None:
            return html.PLACEHOLDER
        try:
            return html.answer(self._classify(path), self.predictor.info)
        except UserError as error:
            return html.failure(error)

    def example(self, paths: Sequence[str]) -> str:
        """The answer for one of these files, as HTML."""
        path = next((path for path in paths if Path(path).stem == EXAMPLE), paths[0])
        return html.example(self._classify(path), self.predictor.info)

    def show_all(self, paths: Sequence[str] | None) -> str:
        """The answers for several images, as HTML."""
        paths = paths or []
        if len(paths) > MAX_IMAGES:
            return html.failure(f"{len(paths)} images are too many; send {MAX_IMAGES} at once.")
        files = [(Path(path).name, lambda path=path: _read(path)) for path in paths]
        try:
            classified = self._with_timeout(lambda: self.service.classify_all(files), len(files))
            return html.answers(classified, self.predictor.info)
        except UserError as error:
            return html.failure(error)

    def predict(self, image: str | None, top_k: float | None = 5) -> dict[str, Any]:
        """The API: the fields of `cifar100 predict --json`, and the time."""
        count = max(5, len(self.predictor.classes))  # the default is for models of fewer classes too
        if image is None or top_k is None or not 1 <= top_k <= count:
            raise gr.Error(f"Send an image, and a top_k from 1 to {count}.", print_exception=False)
        try:
            classified = self._classify(image, int(top_k))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return to_json(classified.result, self.predictor) | {"milliseconds": round(classified.milliseconds, 1)}

    def _classify(self, path: str, top_k: int = 5) -> Classified:
        return self._with_timeout(lambda: self.service(Path(path).name, _read(path), top_k=top_k))

    def _with_timeout(self, work: Callable[[], T], num_images: int = 1) -> T:
        future = self.workers.submit(work)
        try:
            return future.result(TIMEOUT * (1 + num_images / 10))
        except TimeoutError:
            future.cancel()  # if it has not started
            raise UserError("app.timeout", "That took too long; send a smaller image, or try again.") from None


def build(predictor: Predictor, decoder: Decoder, folder: Path) -> gr.Blocks:
    """The app for this model. The example images are copied to `folder`, which must outlive it."""
    handlers = _Handlers(predictor, decoder)
    folder.mkdir(parents=True, exist_ok=True)
    info = predictor.info
    is_cifar100 = info.classes == CLASSES
    examples = [str(shutil.copy(path, folder)) for path in example_photos()] if is_cifar100 else []
    name = "CIFAR-100 image classifier" if is_cifar100 else "Image classifier"
    with gr.Blocks(title=name, analytics_enabled=False) as blocks:
        gr.HTML(_head(info), elem_classes=["cifar", "page-head"])
        with gr.Tabs():
            with gr.Tab("Image"):
                with gr.Row():
                    with gr.Column(min_width=300):
                        upload = _file_paths(
                            gr.Image(
                                sources=["upload", "clipboard", "webcam"],
                                type="filepath",
                                label="Your image",
                                height=320,
                                buttons=[],
                                elem_id="image",
                                alt_text="Your image",
                            )
                        )
                    with gr.Column(min_width=300):
                        shown = _live_region("answer", handlers.example(examples) if examples else html.PLACEHOLDER)
                if examples:
                    gr.Examples(examples, upload, label="Examples", examples_per_page=len(examples), elem_id="examples")
            with gr.Tab("Several"), gr.Column():
                files = _file_paths(
                    gr.File(
                        file_count="multiple",
                        label=f"Up to {MAX_IMAGES} images",
                        elem_id="files",
                        height=160,
                    )
                )
                all_shown = _live_region("answers")
            with gr.Tab("Model"):
                gr.HTML(html.about_model(predictor), elem_classes="cifar")
            with gr.Tab("Classes"):
                gr.HTML(html.classes(info), elem_classes="cifar")
            with gr.Tab("API"):
                gr.Markdown(_API)
                image = _file_paths(gr.Image(type="filepath", visible=False, label="image"))
                top_k, output = gr.Number(5, visible=False, label="top_k"), gr.JSON(visible=False, label="answer")
                gr.Button(visible=False).click(
                    handlers.predict, [image, top_k], output, api_name="predict", concurrency_id="network"
                )
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "network", "show_progress": "minimal"}
        upload.change(handlers.show, upload, shown, **private)
        files.change(handlers.show_all, files, all_shown, **private)
    blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=MAX_CONCURRENT, api_open=False)
    return blocks


FileComponent = TypeVar("FileComponent", gr.Image, gr.File)


def _file_paths(component: FileComponent) -> FileComponent:
    """Make a component pass on the paths of uploads, unopened, and refuse URLs.

    gradio would decode an image before its size is checked, and fetch a URL that a client names.
    """
    move = component.async_move_resource_to_block_cache

    def paths(payload: Any) -> Any:
        if payload is None:
            return None
        return payload.path if hasattr(payload, "path") else [file.path for file in payload.root]

    async def move_file(path: Any) -> str | None:
        if isinstance(path, str) and "://" in path:
            raise gr.Error("Send files; URLs are not fetched.", print_exception=False)
        return await move(path)

    vars(component).update(preprocess=paths, async_move_resource_to_block_cache=move_file)
    return component


def _live_region(name: str, content: str = html.PLACEHOLDER) -> gr.HTML:
    """The place of the answers, which screen readers announce."""
    return gr.HTML(
        content,
        elem_id=name,
        elem_classes="cifar",
        js_on_load="element.setAttribute('aria-live', 'polite');",
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError:
        raise UserError(
            "app.expired", "The image is no longer here: uploads are kept for a minute only. Send it again."
        ) from None


def _head(info: ModelInfo) -> str:
    """The heading, and what the page does."""
    trained = f", trained on {html.escaped(info.dataset.name)}," if info.dataset.name else ""
    return f"""<header><h1>What is in this image?</h1>
<p>A ResNet{trained} predicts one of {len(info.classes)} classes. Upload an image (up to {MAX_BYTES // 1_000_000} MB),
paste one, or take a photo. It is processed on this server and not kept. <a href="{SOURCE}" target="_blank"
rel="noopener">Source and results</a></p></header>"""


_API = """
### From Python

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # the address of this page
answer = client.predict(handle_file("photo.jpg"), 5, api_name="/predict")
print(answer["predictions"][0]["class_name"], answer["unsure"])
```

### Response

The fields of `cifar100 predict --json`: `predictions` (the `top_k` most likely classes, 5 by default, each with
`class_name`, `class_id`, `probability` and `superclass`), `unsure`, its `reason` (`uniform`, `noise`,
`low_confidence` or empty), `model` (name and SHA-256 of the weights), `temperature`, `fit` and `views`; and
`milliseconds`. If an image cannot be read, the response is an error with a message. Send files; URLs are not fetched.
"""
