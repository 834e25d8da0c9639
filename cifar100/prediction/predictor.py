"""`Predictor`: the most likely classes of images, by a `Backend`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar100.evaluation.metrics import softmax
from cifar100.images.convert import to_model_input
from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.images.square import without_padding
from cifar100.prediction.backend import Backend
from cifar100.prediction.cam import top1_heatmaps
from cifar100.prediction.rejection import Reason, rejection_reason
from cifar100.support.errors import UserError

BATCH_SIZE = 128
"""Default number of images per forward pass, and so the most that are held at once."""


class Prediction(NamedTuple):
    """A class and its probability; unpacks as (class_name, class_id, probability)."""

    class_name: str
    class_id: int
    probability: float
    """In 0..1, over all classes."""


@dataclass(frozen=True)
class Result:
    """The answer for one image."""

    predictions: list[Prediction]
    """The top-k classes, the most likely first."""
    reason: Reason
    """Why the prediction is flagged as unsure; "" if it is not."""
    pixels: np.ndarray
    """The model input, uint8 [S, S, 3]."""
    heatmap: np.ndarray | None = None
    """Class activation map of the top-1 class, float32 [h, w] in 0..1; None unless requested."""

    @property
    def unsure(self) -> bool:
        return bool(self.reason)


class Predictor:
    """Classifies images of any kind.

    Probabilities are softmax(logits / temperature), with the temperature stored with the weights (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599), or 1 if there is none or `calibrated` is false. `info` describes the model.
    `fit` is how images become square (`images.square.to_square`). With 2 `views`, the logits are the mean of those of
    the image and of its horizontal flip. Raises UserError for another number of views.
    """

    def __init__(self, backend: Backend, *, calibrated: bool = True, fit: Fit = DEFAULT_FIT, views: int = 1) -> None:
        if views not in (1, 2):
            raise UserError("predict.views", f"views is {views!r}; it must be 1 or 2 (the image and its flip).")
        self.fit: Fit = fit
        self.views = views
        self.backend = backend
        self.info = backend.info
        self.classes, self.image_size = self.info.classes, self.info.image_size
        self.temperature = self.info.temperature if calibrated else 1.0

    def __repr__(self) -> str:
        size = self.image_size
        return f"Predictor({len(self.classes)} classes, {size}x{size} pixels, from {self.info.source or 'memory'})"

    def predict(self, image: Any, top_k: int = 5) -> list[Prediction]:
        """The `top_k` most likely classes of one image, the most likely first.

        `image` is whatever `to_model_input` accepts: a path, a PIL image, an array or a tensor of any size.
        Raises UserError if it is not an image, or `top_k` is not in 1..number of classes (up to 5 are accepted for a
        model of fewer classes, and all its classes returned).
        """
        return self.predict_batch([image], top_k)[0]

    def predict_batch(self, images: Iterable[Any], top_k: int = 5) -> list[list[Prediction]]:
        """`predict` for each of several images."""
        return list(self.predict_stream(images, top_k))

    def predict_stream(
        self, images: Iterable[Any], top_k: int = 5, batch_size: int = BATCH_SIZE
    ) -> Iterator[list[Prediction]]:
        """`predict` lazily: a generator of images is consumed batch by batch."""
        return (result.predictions for result in self.classify(images, top_k, batch_size))

    def classify(
        self, images: Iterable[Any], top_k: int = 5, batch_size: int = BATCH_SIZE, *, explain: bool = False
    ) -> Iterator[Result]:
        """Like `predict_stream`, with everything that is known about each image; `explain` adds heatmaps."""
        count = len(self.classes)
        is_integer = isinstance(top_k, int | np.integer) and not isinstance(top_k, bool)
        if not is_integer or not 1 <= top_k <= max(5, count):
            raise UserError(
                "predict.top_k", f"top_k is {top_k!r}; it must be an integer from 1 to {count}, the number of classes."
            )
        return self._classify(images, int(top_k), batch_size, explain=explain)

    def _classify(self, images: Iterable[Any], top_k: int, batch_size: int, *, explain: bool) -> Iterator[Result]:
        for pixels in self._batches(images, batch_size):
            if explain:
                logits, cams = self.backend.logits_and_cams(pixels)
                logits = self._mean_over_views(logits, pixels)
                heatmaps = list(top1_heatmaps(logits, cams))
            else:
                logits, heatmaps = self._logits(pixels), [None] * len(pixels)
            probabilities = softmax(logits / self.temperature)
            for image, row, heatmap in zip(pixels, probabilities, heatmaps, strict=True):
                reason = rejection_reason(row, without_padding(image) if self.fit == "pad" else image)
                yield Result(self._top(row, top_k), reason, image, heatmap)

    def _top(self, probabilities: np.ndarray, top_k: int) -> list[Prediction]:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return [Prediction(self.classes[i], int(i), float(probabilities[i])) for i in order]

    def probabilities(self, images: Iterable[Any], batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
        """The probabilities of all classes, float64 [C], for each image, lazily."""
        for batch in self._batches(images, batch_size):
            yield from softmax(self._logits(batch) / self.temperature)

    def _logits(self, pixels: np.ndarray) -> np.ndarray:
        return self._mean_over_views(self.backend.logits(pixels), pixels)

    def _mean_over_views(self, logits: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """The mean over the views, given the logits of the first one."""
        if self.views == 1:
            return logits
        return (logits + self.backend.logits(np.ascontiguousarray(pixels[:, :, ::-1]))) / 2

    def embed(self, images: Iterable[Any], batch_size: int = BATCH_SIZE) -> np.ndarray:
        """The features that the classifier takes, float32 [N, D], each of length 1.

        The dot product of two is their cosine similarity, high for images of similar content.
        `images` are as `predict_batch` takes them. Raises UserError for an ONNX file, which has no features output.
        """
        found = [self.backend.features(batch) for batch in self._batches(images, batch_size)]
        features = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    def _batches(self, images: Iterable[Any], batch_size: int) -> Iterator[np.ndarray]:
        """Model input, uint8 [B, S, S, 3] each, `batch_size` images at a time."""
        is_one_image = isinstance(images, str | Path) or not isinstance(images, Iterable)
        if is_one_image or getattr(images, "ndim", 4) < 4:  # an array or tensor of fewer axes is one image
            raise UserError(
                "predict.not_a_batch", "A batch is a list or another iterable of images; for one image use predict."
            )
        remaining = iter(images)
        while batch := [to_model_input(image, self.image_size, self.fit) for image in islice(remaining, batch_size)]:
            yield np.stack(batch)
