"""A trained model, ready to name what is in images.

predictor = load_predictor()             # the weights that come with the package; or load_predictor("best_model.pth")
for class_name, class_id, probability in predictor.predict("photo.jpg"):
    print(f"{class_name}: {probability:.2%}")

python inference.py logs/cifar100/best_model.pth      its accuracy, its speed and a few sample predictions
"""

from __future__ import annotations

if __name__ == "__main__":  # `python inference.py` is `cifar100 evaluate --samples 5`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["evaluate", "--samples", "5"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

from collections.abc import Sequence
from pathlib import Path

from cifar100.checkpoints.hub import is_hub_address, pull
from cifar100.prediction.predictor import BATCH_SIZE, Forward, Prediction, Predictor
from cifar100.support.errors import UserError
from cifar100.support.provenance import TemperatureFit

__all__ = ["BATCH_SIZE", "Forward", "Prediction", "Predictor", "load_predictor"]


def load_predictor(
    path: str | Path = "pretrained",
    *,
    device: str = "auto",
    precision: str = "auto",
    calibrated: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Predictor:
    """A Predictor from a file of weights, with its own class names, image size and normalisation.

    `path` is a checkpoint (.pth), a .safetensors file with its .json, or an .onnx file of `cifar100 export`, for which
    PyTorch is not needed; "hf://user/model" stands for what `cifar100 push` put on the Hugging Face hub, "pretrained"
    for the weights that come with the package. `device` is "auto", "cpu", "cuda" or "mps". `calibrated` divides the
    logits by the temperature that was measured for these weights. `mean`, `std` and `classes` are for files of others,
    which do not say them (`load_weights`). Raises UserError where the file cannot be used, there
    is no such device, or no temperature.
    """
    if is_hub_address(path):
        path = pull(path)
    if Path(path).suffix.lower() == ".onnx":
        if any(value is not None for value in (mean, std, classes)):
            raise UserError("weights.known", f"{path} says its own mean, std and classes; leave them out.")
        return _onnx_predictor(path, device, precision, calibrated)
    from cifar100.checkpoints.weights import load_weights
    from cifar100.compute.device import select_device
    from cifar100.prediction.torch_backend import torch_forward

    compute = select_device(device, precision)
    checkpoint = load_weights(path, mean=mean, std=std, classes=classes)
    temperature = _temperature(path, checkpoint.calibration, calibrated)
    try:
        forward = torch_forward(checkpoint, compute)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Predictor(
        forward,
        checkpoint.classes,
        checkpoint.image_size,
        source=str(path),
        trained_on=checkpoint.dataset,
        temperature=temperature,
        assumed=checkpoint.assumed,
        notes=checkpoint.notes,
        open_features=lambda: torch_forward(checkpoint, compute, features=True),
    )


def _onnx_predictor(path: str | Path, device: str, precision: str, calibrated: bool) -> Predictor:
    """A Predictor from an exported file; its `forward` also has `with_maps`. Raises UserError as `open_onnx` does."""
    from cifar100.prediction.onnx_backend import open_onnx

    if device not in ("auto", "cpu") or precision != "auto":
        raise UserError(f"{path} runs on the CPU, in the precision that it was exported in.")
    forward, facts = open_onnx(path)
    return Predictor(
        forward,
        facts["classes"],
        facts["image_size"],
        source=str(path),
        trained_on=facts["dataset"],
        temperature=_temperature(path, facts["calibration"], calibrated),
        assumed=facts["assumed"],
    )


def _temperature(path: str | Path, calibration: TemperatureFit | None, calibrated: bool) -> float:
    if not calibrated:
        return 1.0
    if calibration is None:
        raise UserError(f"{path}: no temperature was measured for these weights; leave calibrated out.")
    return calibration.temperature
