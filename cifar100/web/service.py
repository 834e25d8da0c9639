"""An uploaded file -> everything that the web app shows about it. Enforces the limits; knows nothing about the web."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cifar100.images.fit import Fit
from cifar100.inference import Predictor, Result
from cifar100.prediction.cam import overlay
from cifar100.support.errors import UserError
from cifar100.web.decoding import DecodedImage, decode

MAX_BYTES = 30_000_000
"""Of a file: photos of 48 megapixels have 10 to 25 MB."""

MAX_IMAGES = 24
"""Per request."""


@dataclass(frozen=True)
class Classified:
    """The answer for an image."""

    name: str
    """File name, as uploaded."""
    result: Result
    overlay: np.ndarray
    """The class activation map of the top-1 class over the image, uint8 [L, L, 3]."""
    thumbnail: np.ndarray
    """uint8 [H, W, 3], square unless a crop is outlined on it"""
    milliseconds: float
    """From the bytes of the file to the answer."""


class InferenceService:
    """Classifies uploads, one at a time, so that each forward pass has all cores."""

    def __init__(self, predictor: Predictor, decoder: Callable[[bytes, str, int, Fit], DecodedImage] = decode) -> None:
        """`decoder` decodes an image: a `DecoderPool`, or `decode` itself in this process."""
        self.predictor = predictor
        self._decode = decoder
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """One forward pass, so that the first visitor does not wait for what is loaded lazily."""
        size = self.predictor.image_size
        self._classify(np.zeros((size, size, 3), np.uint8), top_k=1)

    def __call__(self, name: str, content: bytes, *, top_k: int = 5) -> Classified:
        """The answer for a file with this content. Raises UserError if it is not an image within the limits."""
        start = time.perf_counter()
        if len(content) > MAX_BYTES:
            raise UserError("app.too_large", f"{name} is larger than {MAX_BYTES // 1_000_000} MB; use a smaller copy.")
        image = self._decode(content, name, self.predictor.image_size, self.predictor.fit)
        result = self._classify(image.pixels, top_k)
        assert result.heatmap is not None
        return Classified(
            name,
            result,
            overlay(result.pixels, result.heatmap),
            image.thumbnail,
            1000 * (time.perf_counter() - start),
        )

    def classify_all(self, files: Sequence[tuple[str, Callable[[], bytes]]]) -> list[Classified | UserError]:
        """The answer for each of these (name, function that reads the content), or why there is none; in order."""
        answers: list[Classified | UserError] = []
        for name, read in files:
            try:
                answers.append(self(name, read()))
            except UserError as error:
                answers.append(error)
        return answers

    def _classify(self, pixels: np.ndarray, top_k: int) -> Result:
        with self._lock:
            return next(self.predictor.classify([pixels], top_k, explain=True))
