"""`Predictor`: the most likely classes of images, from a function that computes logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar100.evaluation.metrics import softmax
from cifar100.images.convert import to_model_input
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo

BATCH_SIZE = 128
"""Images a forward pass, and so the most that are held at once, unless told otherwise."""

Forward = Callable[[np.ndarray], np.ndarray]
"""uint8 [B, S, S, 3] -> logits float32 [B, C]: all that a Predictor needs of a model."""


class Prediction(NamedTuple):
    """One candidate for what an image shows; unpacks as (class_name, class_id, probability)."""

    class_name: str
    class_id: int
    probability: float
    """In 0..1, over all classes."""


class Predictor:
    """Names what is in images. `forward` is the model; `classes` are its names by id; `image_size` is what it takes;
    `source` is the file it came from, `trained_on` the dataset. Logits are divided by
    `temperature`: above 1, probabilities are less sure of themselves (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    `assumed` lists what a file of others did not say ("mean", "classes", ...); `notes` says it in lines for people.
    """

    def __init__(
        self,
        forward: Forward,
        classes: Sequence[str],
        image_size: int,
        *,
        source: str = "",
        trained_on: DatasetInfo | None = None,
        temperature: float = 1.0,
        assumed: Sequence[str] = (),
        notes: Sequence[str] = (),
        open_features: Callable[[], Forward] | None = None,
    ) -> None:
        """`open_features` gives a function uint8 [B, S, S, 3] -> features float32 [B, D], for `embed`."""
        self._open_features = open_features
        self._features: Forward | None = None
        self.forward = forward
        self.classes = tuple(classes)
        self.image_size = image_size
        self.source = source
        self.trained_on = trained_on or DatasetInfo()
        self.temperature = temperature
        self.assumed = tuple(assumed)
        self.notes = tuple(notes)

    def __repr__(self) -> str:
        size = self.image_size
        return f"Predictor({len(self.classes)} classes, {size}x{size} pixels, from {self.source or 'memory'})"

    def predict(self, image: Any, top_k: int = 5) -> list[Prediction]:
        """The `top_k` likeliest classes of one image, the likeliest first.

        `image` is whatever `to_model_input` accepts: a path, a PIL image, an array or a tensor of any size.
        Raises UserError where it is no image, or `top_k` is not in 1..number of classes; up to 5 are taken, and all
        classes given, where there are fewer.
        """
        return self.predict_batch([image], top_k)[0]

    def predict_batch(self, images: Iterable[Any], top_k: int = 5) -> list[list[Prediction]]:
        """`predict` for each of many images; see `predict_stream` for more than fit in memory as results."""
        return list(self.predict_stream(images, top_k))

    def predict_stream(
        self, images: Iterable[Any], top_k: int = 5, batch_size: int = BATCH_SIZE
    ) -> Iterator[list[Prediction]]:
        """`predict` for each image as it comes; a generator is drawn on a batch at a time, never held whole."""
        count = len(self.classes)
        whole = isinstance(top_k, int | np.integer) and not isinstance(top_k, bool)
        if not whole or not 1 <= top_k <= max(5, count):
            raise UserError(f"top_k is {top_k!r}; it must be a whole number from 1 to {count}, the number of classes.")
        return self._stream(images, int(top_k), batch_size)

    def _stream(self, images: Iterable[Any], top_k: int, batch_size: int) -> Iterator[list[Prediction]]:
        for probabilities in self.probabilities(images, batch_size):
            order = np.argsort(-probabilities, kind="stable")[:top_k]
            yield [Prediction(self.classes[i], int(i), float(probabilities[i])) for i in order]

    def probabilities(self, images: Iterable[Any], batch_size: int = BATCH_SIZE) -> Iterator[np.ndarray]:
        """The probabilities of all classes, float64 [C], for each image as it comes."""
        for batch in self._batches(images, batch_size):
            yield from softmax(self.forward(batch) / self.temperature)

    def embed(self, images: Iterable[Any], batch_size: int = BATCH_SIZE) -> np.ndarray:
        """The features that the last layer takes, float32 [B, 512], each of length 1.

        The dot product of two is their cosine similarity in -1..1, high for images of similar content.
        `images` are as `predict_batch` takes them. Raises UserError for a model that was exported without its features.
        """
        if self._open_features is None:
            raise UserError("predict.no_features", f"{self!r} gives no features; use a .pth or .safetensors file.")
        if self._features is None:
            self._features = self._open_features()
        found = [self._features(batch) for batch in self._batches(images, batch_size)]
        features = np.concatenate(found) if found else np.zeros((0, 0), np.float32)
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    def _batches(self, images: Iterable[Any], batch_size: int) -> Iterator[np.ndarray]:
        """Model input, uint8 [B, S, S, 3] each, `batch_size` images at a time."""
        one_image = isinstance(images, str | Path) or not isinstance(images, Iterable)
        if one_image or getattr(images, "ndim", 4) < 4:  # an array or tensor of fewer axes is one image
            raise UserError("A batch is a list or another iterable of images; for one image use predict.")
        remaining = iter(images)
        while batch := [to_model_input(image, self.image_size) for image in islice(remaining, batch_size)]:
            yield np.stack(batch)
