"""Checkpoints: whole, atomic to write, safe to read.

A checkpoint holds everything that going on, evaluating or predicting needs. It is written to a temporary file,
flushed to the disk and renamed, so a file under its own name is never half of one. It is read with
`weights_only=True`, which runs no code from the file.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, of which torch.optim is made, take one launch on a GPU for all weights

from __future__ import annotations

import errno
import io
import math
import os
import platform
import re
import zipfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cifar100.checkpoints.key_mapping import remap_keys, unwrap
from cifar100.checkpoints.version1 import upgrade
from cifar100.config import AugmentConfig
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.dataset.published import PUBLISHED
from cifar100.model import ResNet, build_model
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import RECORDS, DatasetInfo, Record, Selection, TemperatureFit, read_records
from cifar100.version import __version__

FORMAT, VERSION = "cifar100-checkpoint", 2


def versions() -> dict[str, str]:
    """What the figures of a run depend on, beside its settings."""
    return {"cifar100": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


@dataclass(kw_only=True)
class Checkpoint:
    """A model and all that belongs to it; the training fields are empty in one that only predicts."""

    model: str
    """The network, as `--model` names it."""
    weights: dict[str, Tensor]
    """Its state dict, fp32, without the prefixes that wrappers add to names."""
    classes: list[str]
    superclasses: list[str] = field(default_factory=list)
    superclass_of: list[int] = field(default_factory=list)
    image_size: int = 32
    """Side in pixels of the images that the model was trained on."""
    mean: list[float]
    std: list[float]
    """What normalises the channels of an image in 0..1."""
    dataset: DatasetInfo = field(default_factory=DatasetInfo)
    """What it was trained on."""
    selection: Selection | None = None
    """Why these weights of the run were saved; None if unknown."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The latest row of `history`."""
    config: dict[str, Any] = field(default_factory=dict)
    """The run's settings, flat."""
    recipe: str = ""
    modified: bool = False
    """Whether settings differ from the recipe's."""
    compute: str = ""
    """Device, threads and precision of the run, in words."""
    training_weights: dict[str, Tensor] = field(default_factory=dict)
    """Where `weights` are an average, those that it is of, which training goes on with; else empty."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    """Where the run stands, `cifar100.training.run.LoopState`; empty where there is nothing to go on from."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row of metrics for each epoch so far."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """Of weights to share: their figures on the test set, as `Evaluation.to_json` gives them."""
    calibration: TemperatureFit | None = None
    """The temperature for calibrated probabilities; None if none was fitted."""
    versions: dict[str, str] = field(default_factory=versions)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for content that `problem` found nothing wrong with. Unknown keys are ignored.

        A dataset that claims to be verified is not, unless its fingerprint is the published one.
        """
        names = {item.name for item in fields(cls)} - RECORDS.keys()
        checkpoint = cls(**{name: content[name] for name in names & content.keys()}, **read_records(content))
        info = checkpoint.dataset
        published = PUBLISHED.get(info.name)
        if info.verified and (published is None or published.fingerprints["train"] != info.fingerprint):
            checkpoint.dataset = replace(info, verified=False)
        return checkpoint

    def to_dict(self) -> dict[str, Any]:
        """{field: value}, of tensors and plain types only."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value.to_dict() if isinstance(value, Record) else value for name, value in values.items()}

    def save(self, path: Path) -> None:
        """Write to `path`, atomically. Raises RunFailed where the disk refuses; what was at `path` is then intact."""
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION} | self.to_dict()
        buffer = io.BytesIO()  # torch.save to a full disk says nothing that a user understands
        torch.save(content, buffer)
        atomic_write(path, buffer.getbuffer())

    def build(self) -> ResNet:
        """The network with a copy of these weights, in fp32. Raises UserError where they do not fit it."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        model = matching_model(self.model, len(self.classes), shapes)
        kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        copies = {name: tensor.to(kinds[name], copy=True) for name, tensor in self.weights.items()}
        model.load_state_dict(copies, assign=True)
        return model

    def is_finite(self) -> bool:
        """Whether every weight is a finite number. Waits for the device once."""
        tensors = [*self.weights.values(), *self.training_weights.values()]
        numbers = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
        if not numbers:
            return True
        largest = torch._foreach_norm(numbers, math.inf)  # the largest magnitude of each, which a NaN or inf becomes
        return bool(torch.isfinite(torch.stack(largest)).all())


def matching_model(name: str, num_classes: int, shapes: dict[str, tuple[int, ...]]) -> ResNet:
    """The network that `name` names, on the meta device (no memory is taken), if its weights have these names and
    shapes. Raises UserError where they have not."""
    with torch.device("meta"):
        model = build_model(name, num_classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if expected != shapes:
        names = expected.keys() | shapes.keys()
        wrong = min(name for name in names if expected.get(name) != shapes.get(name))
        raise UserError(
            f"These are not the weights of a {name} of {num_classes} classes: "
            f"{wrong} is {shapes.get(wrong, 'missing')} and should be {expected.get(wrong, 'absent')}."
        )
    return model


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a file: one of ours, or a state dict of the same networks by others (see `foreign_names`).

    Raises UserError, in one sentence, where there is no such file, or it is damaged, foreign or hostile.
    """
    path = Path(path)
    content = _read(path)
    if content.get("format") == FORMAT:
        version = content.get("version")
        if version not in (1, VERSION):
            raise UserError(f"{path} is of version {version}; this cifar100 reads versions up to {VERSION}: update it.")
        content = upgrade(content) if version == 1 else content
        why = problem(content)
        if why:
            raise UserError(f"{path} is damaged, or not a checkpoint of cifar100: {why}.")
        checkpoint = Checkpoint.from_dict(content)
        checkpoint.weights = strip_prefixes(checkpoint.weights)
        return checkpoint
    weights = unwrap(content)
    if not _is_state_dict(weights):
        raise UserError(f"{path} is a PyTorch file, but neither a checkpoint of cifar100 nor a state dict.")
    try:
        return _from_state_dict(remap_keys(weights))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def problem(content: dict[str, Any]) -> str | None:
    """What is wrong with its fields, None where nothing is."""

    def is_list(name: str, kind: type | tuple[type, ...]) -> bool:
        return isinstance(content.get(name), list) and all(isinstance(item, kind) for item in content[name])

    if not _is_state_dict(content.get("weights")):
        return "its weights are no state dict"
    if not _is_state_dict(content.get("training_weights", {})):
        return "its training_weights are no state dict"
    if not isinstance(content.get("model"), str):
        return "it names no model"
    if not is_list("classes", str) or not content["classes"]:
        return "its classes are no list of names"
    if any(not is_list(name, (int, float)) or len(content[name]) != 3 for name in ("mean", "std")):
        return "its mean and std are not three numbers each"
    if min(content["std"]) <= 0:
        return "its std is not above 0"
    kinds: dict[str, type] = {"config": dict, "optimizer": dict, "scaler": dict, "loop": dict, "metrics": dict}
    kinds |= {"evaluation": dict, "modified": bool}
    kinds |= {"history": list, "superclasses": list, "superclass_of": list, "versions": dict}
    kinds |= dict.fromkeys(("recipe", "compute"), str)
    wrong = next((name for name, kind in kinds.items() if not isinstance(content.get(name, kind()), kind)), None)
    if wrong is not None:
        return f"its {wrong} is a {type(content[wrong]).__name__}"
    if not all(isinstance(row, dict) for row in content.get("history", [])):
        return "its history is not a list of rows"
    try:
        read_records(content)
    except ValueError as error:
        return str(error)
    size = content.get("image_size", 32)
    return None if isinstance(size, int) and 1 <= size <= 1024 else "its image_size is no size in pixels"


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _read(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):  # os.path's, unlike Path's, raises nothing for a name that is too long
        folder = " It is a folder." if os.path.isdir(path) else ""
        raise UserError(f"There is no checkpoint {path}.{folder}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise UserError(f"{path} is refused: its parts are compressed, which torch.save never does.")
            broken = archive.testzip()
        if broken is not None:
            raise UserError(f"{path} is damaged: its part {broken} does not match its checksum.")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # zipfile's for an offset before the start
            raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None
        raise UserError(f"{path} is damaged, or not a checkpoint: it is no zip archive as torch.save writes.") from None
    except Exception as error:  # torch.load raises many kinds for a file that is cut short or carries code
        hostile = "Unsupported" in str(error) or "GLOBAL" in str(error)
        why = "it names code to run, and is refused" if hostile else f"it does not load ({type(error).__name__})"
        raise UserError(f"{path} is damaged, or not a checkpoint of cifar100: {why}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint of cifar100.")
    return content


def _from_state_dict(weights: dict[str, Tensor]) -> Checkpoint:
    head = weights.get("fc.weight")
    if head is None or head.ndim != 2:
        raise UserError("no fc.weight in it: these are not the weights of a resnet18 or resnet34.")
    count = len(head)
    if count > 100_000:
        raise UserError(f"its fc.weight says that there are {count:,} classes; more than 100,000 are not believed.")
    is_cifar100, defaults = count == len(CLASSES), AugmentConfig()
    checkpoint = Checkpoint(
        model="resnet34" if "layer1.2.conv1.weight" in weights else "resnet18",
        weights=weights,
        classes=list(CLASSES) if is_cifar100 else [f"class {i}" for i in range(count)],
        superclasses=list(SUPERCLASSES) if is_cifar100 else [],
        superclass_of=list(SUPERCLASS_OF) if is_cifar100 else [],
        mean=list(defaults.mean),
        std=list(defaults.std),
    )
    checkpoint.build()  # refuses what does not fit
    return checkpoint


def strip_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the `module.` of DataParallel and the `_orig_mod.` of torch.compile in their names."""
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): tensor for name, tensor in weights.items()}
