"""A trained model, ready to name what is in images.

predictor = load_predictor()             # the weights that come with the package; or load_predictor("best_model.pth")
for class_name, class_id, probability in predictor.predict("photo.jpg"):
    print(f"{class_name}: {probability:.2%}")

python inference.py logs/cifar100/best_model.pth      its accuracy, its speed and a few sample predictions
"""

from __future__ import annotations

if __name__ == "__main__":  # run as a file: the package is one folder up, and its modules must shadow no others
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar100.errors import UserError
from cifar100.hub import is_hub_address, pull
from cifar100.images import to_pixels
from cifar100.metrics import softmax
from cifar100.text import printable

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
    `source` and `trained_on` say in words where it and its training images came from. Logits are divided by
    `temperature`: above 1, probabilities are less sure of themselves (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """

    def __init__(
        self,
        forward: Forward,
        classes: Sequence[str],
        image_size: int,
        *,
        source: str = "",
        trained_on: str = "",
        temperature: float = 1.0,
    ) -> None:
        self.forward = forward
        self.classes = tuple(classes)
        self.image_size = image_size
        self.source = source
        self.trained_on = trained_on
        self.temperature = temperature

    def __repr__(self) -> str:
        size = self.image_size
        return f"Predictor({len(self.classes)} classes, {size}x{size} pixels, from {self.source or 'memory'})"

    def predict(self, image: Any, top_k: int = 5) -> list[Prediction]:
        """The `top_k` likeliest classes of one image, the likeliest first.

        `image` is whatever `cifar100.images.to_pixels` takes: a path, a PIL image, an array, a tensor, of any size.
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
        one_image = isinstance(images, str | Path) or not isinstance(images, Iterable)
        if one_image or getattr(images, "ndim", 4) < 4:  # an array or tensor of fewer axes is one image
            raise UserError("A batch is a list or another iterable of images; for one image use predict.")
        remaining = iter(images)
        while batch := [to_pixels(image, self.image_size) for image in islice(remaining, batch_size)]:
            yield from softmax(self.forward(np.stack(batch)) / self.temperature)


def load_predictor(
    path: str | Path = "pretrained", *, device: str = "auto", precision: str = "auto", calibrated: bool = False
) -> Predictor:
    """A Predictor from a file of weights, with its own class names, image size and normalisation.

    `path` is a checkpoint (.pth), a .safetensors file with its .json, or an .onnx file of `cifar100 export`, for which
    PyTorch is not needed; "hf://user/model" stands for what `cifar100 push` put on the Hugging Face hub, "pretrained"
    for the weights that come with the package. `device` is "auto", "cpu", "cuda" or "mps". `calibrated` divides the
    logits by the temperature that was measured for these weights. Raises UserError where the file cannot be used, there
    is no such device, or no temperature.
    """
    if is_hub_address(path):
        path = pull(path)
    if Path(path).suffix.lower() == ".onnx":
        return _onnx_predictor(path, device, precision, calibrated)
    from cifar100.device import choose_compute
    from cifar100.torch_forward import torch_forward
    from cifar100.weights import load_weights

    compute = choose_compute(device, precision)
    checkpoint = load_weights(path)
    temperature = _temperature(path, checkpoint.calibration, calibrated)
    try:
        forward = torch_forward(checkpoint, compute)
    except UserError as error:
        raise UserError(f"{printable(path)}: {error}") from None
    return Predictor(
        forward,
        checkpoint.classes,
        checkpoint.image_size,
        source=str(path),
        trained_on=checkpoint.dataset,
        temperature=temperature,
    )


def _onnx_predictor(path: str | Path, device: str, precision: str, calibrated: bool) -> Predictor:
    """A Predictor from an exported file; its `forward` also has `with_maps`. Raises UserError as `open_onnx` does."""
    from cifar100.onnx_forward import open_onnx

    if device not in ("auto", "cpu") or precision != "auto":
        raise UserError(f"{printable(path)} runs on the CPU, in the precision that it was exported in.")
    forward, facts = open_onnx(path)
    return Predictor(
        forward,
        facts["classes"],
        facts["image_size"],
        source=str(path),
        trained_on=facts["dataset"],
        temperature=_temperature(path, facts["calibration"], calibrated),
    )


def _temperature(path: str | Path, calibration: dict[str, Any], calibrated: bool) -> float:
    if calibrated and "temperature" not in calibration:
        raise UserError(f"{printable(path)}: no temperature was measured for these weights; leave calibrated out.")
    return calibration["temperature"] if calibrated else 1.0


if __name__ == "__main__":
    from cifar100.cli import main

    sys.exit(main(["evaluate", "--samples", "5", *sys.argv[1:]]))
