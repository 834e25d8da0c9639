"""Weights for sharing: safetensors with a JSON file of metadata; and the bundled ones.

    resnet18.safetensors     the tensors of the network
    resnet18.json            classes, preprocessing, dataset, settings, learning curves and results of a `Checkpoint`

Neither contains code, and every name, shape and type is checked before memory is allocated, so untrusted files may be
opened. A checkpoint (.pth) is for resuming; this is for evaluation and prediction.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cifar100.checkpoints.checkpoint import (
    Checkpoint,
    check_values,
    checked_content,
    from_tensors,
    load_checkpoint,
    matching_model,
    refuse_version,
)
from cifar100.checkpoints.hub import download_model, is_hub_address
from cifar100.checkpoints.validation import field_problem
from cifar100.config import RunConfig
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write, content_hint, not_a_file, read_start
from cifar100.support.settings import without_local_paths

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "resnet18.safetensors"
"""The bundled weights, "pretrained"; their model card is the README.md next to them."""

FORMAT, VERSION = "cifar100-weights", 2
MAX_JSON_BYTES = 10_000_000
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TRAINING_ONLY_FIELDS = {"weights", "training_weights", "optimizer", "scaler", "loop"}
"""The fields of a checkpoint that its JSON does not contain."""


def load_weights(
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> Checkpoint:
    """The checkpoint in a file of weights: .safetensors, with a .json if it is ours, or a file for `load_checkpoint`.
    `mean`, `std` (per channel, in 0..1) and `classes` (names by id) are for foreign files, which do not contain them.

    "pretrained" are the bundled weights, "hf://user/model" is a model on the Hugging Face Hub. Raises UserError if the
    file is missing, damaged, unknown or malicious.
    """
    if str(path) == "pretrained":
        path = PRETRAINED
    if is_hub_address(path):
        path = download_model(path)
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        raise UserError("weights.onnx", f"{path} is an ONNX file; this needs the .pth or .safetensors that it is from.")
    checkpoint = _read(path) if path.suffix.lower() == ".safetensors" else load_checkpoint(path)
    given = {"mean": mean, "std": std, "classes": classes}
    for name, values in given.items():
        if values is None:
            continue
        if name not in checkpoint.assumed:
            raise UserError("weights.known", f"--{name}: {path} contains its own; omit --{name}.")
        if name == "classes" and len(values) != len(checkpoint.classes):
            raise UserError(
                "weights.classes",
                f"--classes names {len(values):,} classes; {path} has {len(checkpoint.classes):,}.",
            )
        setattr(checkpoint, name, list(values))
        checkpoint.assumed.remove(name)
    if classes is not None:
        published = list(classes) == list(CLASSES)
        checkpoint.superclasses = list(SUPERCLASSES) if published else []
        checkpoint.superclass_of = list(SUPERCLASS_OF) if published else []
    problem = field_problem(checkpoint.to_dict()) if any(values is not None for values in given.values()) else ""
    if problem:
        raise UserError("weights.given", f"--mean, --std or --classes: {problem}.")
    return checkpoint


def save_weights(checkpoint: Checkpoint, path: Path, precision: str = "fp32") -> None:
    """Write `path`, a .safetensors file, and its .json, without the state for resuming.

    `precision` is "fp32", or "fp16" or "bf16" for half the size. Raises UserError if a weight exceeds the range of
    fp16, RunFailed if a file cannot be written.
    """
    dtype = DTYPES[precision]
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in checkpoint.weights.items()
    }
    unfit = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    if unfit is not None:
        raise UserError("weights.precision", f"{unfit} exceeds the range of {precision}; choose fp32 or bf16.")
    content = save(tensors)
    metadata: dict[str, Any] = {"format": FORMAT, "version": VERSION, "sha256": hashlib.sha256(content).hexdigest()}
    metadata |= {name: value for name, value in checkpoint.to_dict().items() if name not in TRAINING_ONLY_FIELDS}
    run_settings = {item.name for item in fields(RunConfig)}
    shared = without_local_paths(checkpoint.config)
    metadata["config"] = {name: value for name, value in shared.items() if name not in run_settings}
    atomic_write(path, content)
    atomic_write(path.with_suffix(".json"), json.dumps(metadata, indent=2) + "\n")


def state_dict_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict on the CPU: the same for the same numbers, whatever kind of file they came from."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def load_pretrained(path: Path, model: nn.Module, classes: Sequence[str]) -> str:
    """Load all weights of a file that fit `model`, which has these classes, and describe them as text.

    The classifier, "fc", is loaded only if the classes are equal. Raises UserError if the file cannot be used or
    nothing fits.
    """
    checkpoint, own = load_weights(path), model.state_dict()
    same_head = checkpoint.matches_classes(classes)
    fitting = {
        name: tensor
        for name, tensor in checkpoint.weights.items()
        if name in own and tensor.shape == own[name].shape and (same_head or not name.startswith("fc."))
    }
    if not any(name.startswith("layer") and tensor.ndim > 0 for name, tensor in fitting.items()):
        raise UserError("weights.init_from", f"--init-from {path}: none of its layers fits this network.")
    model.load_state_dict(fitting, strict=False)
    left = "" if same_head else "; the classifier is re-initialized for other classes"
    return f"{path}: {len(fitting)} of {len(own)} tensors loaded{left}"


def _read(path: Path) -> Checkpoint:
    metadata = _read_json(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            if metadata is None:
                return from_tensors(shapes, file.get_tensor)
            matching_model(metadata["model"], len(metadata["classes"]), shapes)
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if digest != metadata.get("sha256"):
                raise UserError(
                    "weights.digest", f"it is not the file that {path.with_suffix('.json').name} describes."
                )
            weights = {name: file.get_tensor(name) for name in slices}
        check_values(weights)
    except UserError as error:
        raise UserError(error.code, f"{path}: {error}") from None
    except (OSError, SafetensorError) as error:
        hint = content_hint(read_start(path))
        raise UserError("weights.unreadable", f"{path} cannot be read as safetensors ({error}).{hint}") from None
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    kept = {name: value for name, value in metadata.items() if name not in TRAINING_ONLY_FIELDS}
    return Checkpoint.from_dict(kept | {"weights": weights})


def _read_json(path: Path) -> dict[str, Any] | None:
    """The metadata in the JSON file of the weights in `path`; None if there is none, as for foreign weights."""
    json_path = path.with_suffix(".json")
    if not os.path.isfile(path):
        raise UserError("weights.missing", f"There are no weights {path}.{not_a_file(path)}")
    if not os.path.exists(json_path):
        return None
    try:
        if json_path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is larger than any of ours")
        metadata = json.loads(json_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("weights.json", f"{json_path} cannot be read ({error}).") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise UserError("weights.json", f"{json_path} does not describe weights of cifar100.")
    refuse_version(json_path, metadata.get("version"), VERSION)
    metadata, problem = checked_content(metadata)
    if problem:
        raise UserError("weights.json", f"{json_path} is damaged: {problem}.")
    return metadata
