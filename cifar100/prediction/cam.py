"""What a network says of pixels and where it saw it, whatever kind of file it is in: PyTorch weights or an ONNX export.

For these networks Grad-CAM (`cifar100.prediction.grad_cam`) is the class activation map (Zhou et al. 2016,
https://arxiv.org/abs/1512.04150), which an export gives as its second output: so that needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.support.errors import UserError
from cifar100.support.provenance import TemperatureFit

See = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 [B, S, S, 3] -> logits float32 [B, C], and where the likeliest class was seen, float32 [B, h, w] in 0..1."""


@dataclass(frozen=True)
class Model:
    """A network that is ready, and what is known of it."""

    see: See
    classes: tuple[str, ...]
    superclass_of: dict[str, str]
    """The superclass of each class; empty where there are none."""
    image_size: int
    temperature: float
    """Logits are divided by it for calibrated probabilities; 1 where none was measured."""
    evaluation: dict[str, Any]
    """`Evaluation.to_json` on the test set; empty where it was never measured."""
    about: dict[str, str]
    """What it is, in words: name -> value."""


def open_model(weights: str | Path = "pretrained", *, device: str = "auto", **facts: Any) -> Model:
    """The network in a file that `load_predictor` takes, whose errors it raises. Not for several threads at once.

    `facts` are the options of `load_weights` for files of others.
    """
    from cifar100.checkpoints.hub import is_hub_address, pull

    path = pull(weights) if is_hub_address(weights) else weights
    return _open_onnx(path, device) if Path(path).suffix.lower() == ".onnx" else _open_weights(path, device, facts)


def _open_onnx(path: str | Path, device: str) -> Model:
    from cifar100.prediction.onnx_backend import open_onnx

    if device not in ("auto", "cpu"):
        raise UserError(f"{path} runs on the CPU.")
    forward, facts = open_onnx(path)

    def see(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, maps = forward.with_maps(pixels)
        speaking_for = np.maximum(maps[np.arange(len(maps)), logits.argmax(axis=1)], 0)  # [B, h, w]
        highest = speaking_for.max(axis=(1, 2), keepdims=True)
        return logits, speaking_for / np.where(highest > 0, highest, 1)

    return _model(see, facts, f"{facts['model']}, ONNX ({Path(path).name})", "CPU, by onnxruntime")


def _open_weights(path: str | Path, device: str, facts: dict[str, Any]) -> Model:
    import torch

    from cifar100.augmentation.batched import normalize
    from cifar100.checkpoints.weights import load_weights
    from cifar100.compute.device import select_device
    from cifar100.model import fold_batch_norms
    from cifar100.prediction.grad_cam import grad_cam

    compute = select_device(device)
    checkpoint = load_weights(path, **facts)
    try:
        built = checkpoint.build()
        parameters = sum(parameter.numel() for parameter in built.parameters())
        network = compute.place(fold_batch_norms(built)).to(compute.dtype)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    mean, std = tuple(checkpoint.mean), tuple(checkpoint.std)

    def see(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with compute.autocast():
            images = normalize(torch.from_numpy(pixels).to(compute.device), mean, std)
            logits, maps = grad_cam(network, images)
        return logits.cpu().numpy(), maps.cpu().numpy()

    return _model(see, vars(checkpoint), f"{checkpoint.model}, {parameters:,} parameters", str(compute))


def _model(see: See, facts: dict[str, Any], network: str, computes_on: str) -> Model:
    """`facts` are a checkpoint's, or those in the metadata of an export, whose names are the same."""
    names = facts["superclasses"]
    superclass_of = {
        name: names[place] for name, place in zip(facts["classes"], facts["superclass_of"], strict=bool(names))
    }
    fit: TemperatureFit | None = facts["calibration"]
    calibrated = "not calibrated" if fit is None else f"calibrated, temperature {fit.temperature:.3g} {fit.origin}"
    about = {
        "network": network,
        "trained on": facts["dataset"].train_split,
        "selection": str(facts["selection"] or "unknown"),
        "probabilities": calibrated,
        "computes on": computes_on,
    }
    return Model(
        see,
        tuple(facts["classes"]),
        superclass_of,
        facts["image_size"],
        1.0 if fit is None else fit.temperature,
        facts["evaluation"],
        about,
    )
