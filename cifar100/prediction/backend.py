"""A loaded model, whatever file it came from: one protocol, implemented with PyTorch and with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cifar100.checkpoints.hub import download_model, is_hub_address
from cifar100.prediction.model_info import ModelInfo
from cifar100.support.errors import UserError


class Backend(Protocol):
    """A loaded model. Images are uint8 [B, S, S, 3], S being `info.image_size`."""

    info: ModelInfo

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Logits, float32 [B, C]."""
        ...

    def logits_and_cams(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and class activation maps float32 [B, C, h, w].

        The mean of a map plus the bias of the class is the logit. Before its ReLU and up to scale this is Grad-CAM.
        """
        ...

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """The pooled features that the classifier takes, float32 [B, D].

        Raises UserError if the file does not provide them.
        """
        ...


def open_backend(
    path: str | Path = "pretrained",
    *,
    device: str = "auto",
    precision: str = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Backend:
    """Open a model file; the arguments and errors are those of `cifar100.inference.load_predictor`."""
    local = download_model(path) if is_hub_address(path) else path
    if Path(local).suffix.lower() == ".onnx":
        from cifar100.prediction.onnx_backend import OnnxBackend

        if any(value is not None for value in (mean, std, classes)):
            raise UserError("weights.known", f"{path} contains its own mean, std and classes; leave them out.")
        if device not in ("auto", "cpu") or precision != "auto":
            message = f"{path} runs on the CPU, in its own precision: give --device cpu, and no precision."
            raise UserError("predict.onnx_device", message)
        return OnnxBackend(local, source=path)
    from cifar100.checkpoints.weights import load_weights
    from cifar100.compute.device import select_device
    from cifar100.prediction.torch_backend import TorchBackend

    compute = select_device(device, precision)
    checkpoint = load_weights(local, mean=mean, std=std, classes=classes)
    try:
        return TorchBackend(checkpoint, compute, source=path)
    except UserError as error:
        raise UserError(error.code, f"{path}: {error}") from None
