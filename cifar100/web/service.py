"""A picture as a visitor sent it -> all that the page shows of it. Knows its bounds, and nothing of the web."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cifar100.evaluation.metrics import softmax
from cifar100.images.convert import resize_center_crop, to_rgb
from cifar100.inference import Prediction
from cifar100.prediction.cam import Model
from cifar100.prediction.overlay import overlay
from cifar100.prediction.rejection import doubt
from cifar100.support.errors import UserError

MOST_BYTES = 30_000_000
"""Of a file: photos of 48 megapixels have 10 to 25 MB."""

MOST_PICTURES = 24
"""At once."""

THUMBNAIL = 96


@dataclass(frozen=True)
class Answer:
    """What was seen in a picture."""

    name: str
    """The picture's, as the visitor called it."""
    predictions: list[Prediction]
    """The likeliest classes, the likeliest first."""
    doubt: str
    """Why they should not be believed, in words; "" where nothing speaks against it."""
    seen: np.ndarray
    """What the network was shown, uint8 [S, S, 3]."""
    overlay: np.ndarray
    """Where the likeliest class was seen, uint8 [L, L, 3]."""
    thumbnail: np.ndarray
    """uint8 [T, T, 3]"""
    milliseconds: float
    """From the file's bytes to the answer."""


@dataclass(frozen=True)
class Refusal:
    """Why a picture has no answer."""

    name: str
    reason: str


class InferenceService:
    """Answers visitors, one at a time: the network has all cores then."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._turn = threading.Lock()

    def warm_up(self) -> None:
        """Answer once for nobody, so that the first visitor does not wait for what loads late."""
        self._see(np.zeros((1, self.model.image_size, self.model.image_size, 3), np.uint8))

    def __call__(self, name: str, content: bytes, *, top_k: int = 5) -> Answer:
        """The answer for a file of these bytes. Raises UserError where it is no picture within the bounds."""
        start = time.perf_counter()
        if len(content) > MOST_BYTES:
            raise UserError(f"{name} has more than {MOST_BYTES // 1_000_000} MB; send a smaller copy of it.")
        rgb = to_rgb(content, name=name)
        pixels = resize_center_crop(rgb, self.model.image_size, name=name)
        logits, heat = self._see(np.stack([pixels]))
        likely = softmax(logits / self.model.temperature)[0]
        order = np.argsort(-likely, kind="stable")[:top_k].tolist()
        return Answer(
            name,
            [Prediction(self.model.classes[i], i, float(likely[i])) for i in order],
            doubt(logits[0], pixels),
            pixels,
            overlay(pixels, heat[0]),
            resize_center_crop(rgb, THUMBNAIL),
            1000 * (time.perf_counter() - start),
        )

    def several(self, files: Sequence[tuple[str, Callable[[], bytes]]]) -> list[Answer | Refusal]:
        """An answer for each of these names and contents, or the reason why there is none; in order."""
        answers: list[Answer | Refusal] = []
        for name, content in files:
            try:
                answers.append(self(name, content()))
            except UserError as error:
                answers.append(Refusal(name, str(error)))
        return answers

    def _see(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._turn:
            return self.model.see(pixels)
