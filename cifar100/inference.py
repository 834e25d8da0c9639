"""A trained model, ready to classify images.

predictor = load_predictor()             # the bundled weights; or load_predictor("best_model.pth")
for class_name, class_id, probability in predictor.predict("photo.jpg"):
    print(f"{class_name}: {probability:.2%}")

python inference.py logs/cifar100/best_model.pth      accuracy, speed and a few sample predictions
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

from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.prediction.backend import open_backend
from cifar100.prediction.predictor import BATCH_SIZE, Prediction, Predictor, Result

__all__ = ["BATCH_SIZE", "Prediction", "Predictor", "Result", "load_predictor"]


def load_predictor(
    path: str | Path = "pretrained",
    *,
    device: str = "auto",
    precision: str = "auto",
    calibrated: bool = True,
    fit: Fit = DEFAULT_FIT,
    views: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Predictor:
    """A Predictor from a model file, with its own class names, image size and normalization.

    `path` is a checkpoint (.pth), a .safetensors file with its .json, or an .onnx file of `cifar100 export`, for which
    PyTorch is not needed; "pretrained" are the bundled weights, "hf://user/model" what `cifar100 push` uploaded to the
    Hugging Face Hub. `device` is "auto", "cpu", "cuda" or "mps"; `precision` is "auto" (the best of the device),
    "fp32", "bf16" or "fp16", for an .onnx file only "auto". Probabilities are calibrated with the temperature stored in
    the file, if there is one, unless `calibrated` is false. `fit` and `views` are those of `Predictor`. `mean`, `std`
    and `classes` are for files from elsewhere that do not contain them (`load_weights`). Raises UserError if the file
    cannot be used, or there is no such device.
    """
    backend = open_backend(path, device=device, precision=precision, mean=mean, std=std, classes=classes)
    return Predictor(backend, calibrated=calibrated, fit=fit, views=views)
