"""Export a checkpoint: safetensors, ONNX in fp32 or int8, or PyTorch's .pt2.

A file is written to a temporary directory and compared with the checkpoint on test images before it is put into place;
the result is written next to it, as FILE.check.json.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.checkpoints.hub import is_hub_address
from cifar100.checkpoints.weights import PRETRAINED, load_weights, save_weights
from cifar100.config import Config
from cifar100.dataset import ENVIRONMENT, Split, load_dataset, resolve_data_dir, train_val_split
from cifar100.evaluation.eval_split import data_settings, set_class_names
from cifar100.export.check import Forward, ParityReport, Reference, compare
from cifar100.export.graph import ExportModule, save_onnx, save_pt2
from cifar100.export.int8 import quantize
from cifar100.prediction.backend import open_backend
from cifar100.prediction.onnx_backend import model_input
from cifar100.prediction.onnx_format import FORMAT, VERSION
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.files import atomic_write, check_writable
from cifar100.support.terminal import Say, emit

Format = Literal["safetensors", "onnx", "onnx-int8", "pt2"]
InputFormat = Literal["uint8", "float"]
SUFFIXES: dict[str, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "onnx-int8": ".onnx", "pt2": ".pt2"}

CALIBRATION_IMAGES = 512
"""Train images, evenly spread over the classes, to determine the ranges of int8 activations."""

MEASURES = ("split", "top1", "top5", "superclass_top1")
"""Metrics of the weights' epoch that an exported file contains."""


def export(
    path: Path,
    format: Format,
    out: Path | None = None,
    *,
    input_format: InputFormat = "uint8",
    data_dir: Path | None = None,
    images: int = 1000,
    options: Mapping[str, Any] | None = None,
    say: Say = emit,
) -> ParityReport:
    """Export the weights at `path` to `out`, by default next to them, and compare the file on `images` test images.

    `path` is whatever `load_weights` takes, `options` its options for third-party files. The dataset is found as in
    training, but never downloaded; without it, random pixels are used, except for int8, which needs train images.
    Raises UserError if something cannot be read, found or written, RunFailed if the file does not compute what the
    weights do; a file that was at `out` is then left as it was.
    """
    out = output_path(path, format, out)
    if images < 1:
        raise UserError("export.images", f"--images is {images}; it must be 1 or more.")
    checkpoint = load_weights(path, **options or {})
    train, test = own_images(checkpoint, data_dir, say)
    for note in checkpoint.notes:
        say(note)
    reference = Reference(checkpoint, test, images)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / out.name
            write_unchecked(checkpoint, format, made, input_format=input_format, train=train, say=say)
            result = compare(open_forward(made, input_format), reference, format=format, file=made)
            result.raise_on_mismatch()
            for part in sorted(Path(folder).iterdir(), reverse=True):  # safetensors before their JSON
                atomic_write(out.parent / part.name, part.read_bytes())
    except OSError as error:
        raise RunFailed("export.unwritable", f"{out} could not be written ({error.strerror or error}).") from None
    kept = asdict(result) | {"checkpoint": path.name, "versions": versions(), "assumed": checkpoint.assumed}
    atomic_write(out.with_name(f"{out.name}.check.json"), json.dumps(kept, indent=2) + "\n")
    return result


def write_unchecked(
    checkpoint: Checkpoint,
    format: Format,
    path: Path,
    *,
    input_format: InputFormat = "uint8",
    train: Split | None = None,
    say: Say = emit,
) -> None:
    """Write the checkpoint to `path`, without comparing the file with it.

    Raises UserError if there are no train images for int8, or a library for the format is missing.
    """
    if format == "safetensors":
        save_weights(checkpoint, path)
        return
    graph, metadata = ExportModule(checkpoint, input_format), build_metadata(checkpoint, input_format)
    if format == "pt2":
        save_pt2(graph, path, metadata)
        return
    require_onnx(*(("onnxruntime", "onnx") if format == "onnx-int8" else ("onnxruntime",)))
    if format == "onnx":
        save_onnx(graph, path, metadata)
        return
    if train is None:
        raise UserError(
            "export.calibration_images",
            "int8 is calibrated on train images of the checkpoint's dataset, which were not found: name their "
            "directory with --data-dir.",
        )
    rows = train.spread(CALIBRATION_IMAGES)
    say(f"Calibrating on {len(rows):,} train images")
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "fp32.onnx"
        save_onnx(graph, exact, metadata)
        quantize(exact, path, model_input(train.images[rows], input_format), metadata)


def require_onnx(*libraries: str) -> None:
    """Raise UserError if one of these libraries is missing."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise UserError("export.library", f"Writing ONNX needs {library}: pip install 'cifar100[onnx]'.")


def build_metadata(checkpoint: Checkpoint, input_format: str) -> dict[str, Any]:
    """The metadata of an exported file: JSON under the key "cifar100"."""
    size = checkpoint.image_size
    layouts = {"uint8": f"uint8 [B, {size}, {size}, 3], RGB", "float": f"float32 [B, 3, {size}, {size}], RGB in 0..1"}
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": checkpoint.model,
        "classes": checkpoint.classes,
        "superclasses": checkpoint.superclasses,
        "superclass_of": checkpoint.superclass_of,
        "image_size": size,
        "takes": input_format,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "preprocessing": f"{layouts[input_format]}; the shorter side resized to {size} (bicubic, antialiased), "
        "center-cropped; normalization is part of the graph",
        "outputs": "logits [B, C]; maps [B, C, h, w], the class activation maps",
        "dataset": checkpoint.dataset.to_dict(),
        "recipe": checkpoint.recipe,
        "modified": checkpoint.modified,
        "selection": checkpoint.selection.to_dict() if checkpoint.selection else None,
        "evaluation": checkpoint.evaluation,
        "assumed": checkpoint.assumed,
        "metrics": {name: checkpoint.metrics[name] for name in MEASURES if name in checkpoint.metrics},
        "calibration": checkpoint.calibration.to_dict() if checkpoint.calibration else None,
        "versions": checkpoint.versions,
    }


def open_forward(path: Path, input_format: str) -> Forward:
    """The forward pass of an exported file, on the CPU: uint8 [B, S, S, 3] -> logits [B, C]."""
    if path.suffix != ".pt2":
        return open_backend(path, device="cpu", precision="auto" if path.suffix == ".onnx" else "fp32").logits
    import torch

    module = torch.export.load(path).module()

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(model_input(pixels, input_format)))[0].numpy()

    return forward


def output_path(path: Path, format: str, out: Path | None) -> Path:
    """`out`, or the default: next to the checkpoint, in the working directory for bundled weights and those of the hub.

    Raises UserError if it has another suffix, is the checkpoint, or cannot be written.
    """
    suffix = SUFFIXES[format]
    if out is None and (str(path) == "pretrained" or is_hub_address(path)):
        out = Path(PRETRAINED.stem + (".int8" if format == "onnx-int8" else "") + suffix)
    if out is None:
        out = path.with_name(path.stem + (".int8" if format == "onnx-int8" else "") + suffix)
    if out.suffix != suffix:
        raise UserError("export.suffix", f"--out {out}: the name of a file of this format must end in {suffix}.")
    check_writable("--out", out)
    if out.resolve() == path.resolve():
        raise UserError("export.out", f"--out {out} is the checkpoint itself.")
    return out


def own_images(checkpoint: Checkpoint, data_dir: Path | None, say: Say) -> tuple[Split | None, Split | None]:
    """The train and test images of the checkpoint's dataset; None each if they are not found, or if a default dataset
    cannot be read."""
    config = Config().replace(**data_settings(checkpoint) | {"data_dir": data_dir, "image_size": checkpoint.image_size})
    try:
        if config.data.dataset != "synthetic":
            place = resolve_data_dir(data_dir)
            if place is None:
                return None, None
            config = config.replace(data_dir=place)
        data = load_dataset(config, say=say)
        is_known = checkpoint.matches_classes(data.classes)
        train = train_val_split(data, config.data.val_fraction)[0] if is_known else None
    except UserError as error:
        is_other = error.code == "dataset.image_size" or not (os.environ.get(ENVIRONMENT) or Config().run.data_dir)
        if data_dir is not None or not is_other:
            raise
        say(f"Without images: {error}")  # it is not known whether they are those of the checkpoint
        return None, None
    if train is not None:
        set_class_names(checkpoint, data)
        return train, data.test
    if data_dir is not None:
        raise UserError("export.classes", f"The dataset in {data_dir} has other classes than the checkpoint.")
    return None, None
