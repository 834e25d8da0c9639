"""Checkpoints: complete, written atomically, safe to read.

A checkpoint holds everything that resuming, evaluation and prediction need. It is written to a temporary file, flushed
and renamed, so it is never incomplete, and read with `weights_only=True`, which runs no code from the file.
"""

from __future__ import annotations

import io
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from cifar100.checkpoints.key_mapping import MAX_TENSORS, MODULES, candidate_networks, state_dicts
from cifar100.checkpoints.torch_file import read_torch_file
from cifar100.checkpoints.validation import MAX_CLASSES, field_problem, size_problem, tensor_problem
from cifar100.checkpoints.version1 import upgrade
from cifar100.config import AugmentConfig
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.dataset.published import PUBLISHED
from cifar100.model import ResNet, build_model
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import (
    PLACEHOLDER,
    RECORDS,
    DatasetInfo,
    Record,
    Selection,
    TemperatureFit,
    assumptions,
    read_records,
)
from cifar100.version import __version__

FORMAT, VERSION = "cifar100-checkpoint", 2

MAX_STATE_DICTS = 50
"""Dictionaries of a foreign file that are searched for a network."""

MAX_LEFT_ASIDE = 100


def versions() -> dict[str, str]:
    """The versions that the results of a run depend on."""
    return {"cifar100": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


@dataclass(kw_only=True)
class Checkpoint:
    """A model and its metadata; the training fields are empty if it is only for prediction."""

    model: str
    """The name of the network, as in `--model`."""
    weights: dict[str, Tensor]
    """Its state dict, fp32, without prefixes of wrappers."""
    classes: list[str]
    superclasses: list[str] = field(default_factory=list)
    superclass_of: list[int] = field(default_factory=list)
    image_size: int = 32
    """Resolution of the training images in pixels."""
    mean: list[float]
    std: list[float]
    """For the normalization of the channels, in 0..1."""
    dataset: DatasetInfo = field(default_factory=DatasetInfo)
    """The training data."""
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
    """Device, threads and precision of the run, as text."""
    training_weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights that training continues with if `weights` are the EMA; else empty."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    """The state of the loop, `cifar100.training.run.LoopState`; empty if training cannot be resumed."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row of metrics for each epoch so far."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """For shared weights: the results on the test set, as from `Evaluation.to_json`."""
    calibration: TemperatureFit | None = None
    """The temperature for calibrated probabilities; None if none was fitted."""
    versions: dict[str, str] = field(default_factory=versions)
    assumed: list[str] = field(default_factory=list)
    """The fields above that a foreign file does not contain: "classes", "image_size", "mean", "std"."""
    left_aside: list[str] = field(default_factory=list)
    """Names of tensors of a foreign file that are not used, "model.*" for a state dict; about 100 at most."""

    @property
    def notes(self) -> list[str]:
        """What was assumed and ignored of a third-party file, as lines of text."""
        lines = assumptions(self.assumed, self.classes, self.superclasses)
        if self.left_aside:
            more = f" and {len(self.left_aside) - 3} more" if len(self.left_aside) > 3 else ""
            names = ", ".join(name[:60] for name in self.left_aside[:3])
            lines.append(f"ignored tensors: {names}{more}")
        return lines

    def matches_classes(self, classes: Sequence[str]) -> bool:
        """Whether `classes` are those of the checkpoint, in the same order. If its file contains no names, only their
        number is compared."""
        return list(classes) == self.classes or ("classes" in self.assumed and len(classes) == len(self.classes))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of `to_dict`, for content in which `field_problem` finds nothing. Unknown keys are ignored.

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
        """Write to `path`, atomically. Raises RunFailed if that fails; an existing file is then intact."""
        content: dict[str, Any] = {"format": FORMAT, "version": VERSION} | self.to_dict()
        buffer = io.BytesIO()  # torch.save to a full disk says nothing that a user understands
        torch.save(content, buffer)
        atomic_write(path, buffer.getbuffer())

    def build(self) -> ResNet:
        """The network with a copy of these weights, in fp32. Raises UserError if they do not fit."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        model = matching_model(self.model, len(self.classes), shapes)
        kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        copies = {name: tensor.to(kinds[name], copy=True) for name, tensor in self.weights.items()}
        model.load_state_dict(copies, assign=True)
        return model

    def is_finite(self) -> bool:
        """Whether every weight is finite. Synchronizes once."""
        tensors = [*self.weights.values(), *self.training_weights.values()]
        numbers = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
        return bool(torch.isfinite(get_total_norm(numbers, math.inf)))  # the largest magnitude, or a NaN


def matching_model(model_name: str, num_classes: int, shapes: dict[str, tuple[int, ...]]) -> ResNet:
    """The network of this name on the meta device (without memory). Raises UserError unless its weights have these
    names and shapes."""
    with torch.device("meta"):
        model = build_model(model_name, num_classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if expected != shapes:
        names = expected.keys() | shapes.keys()
        wrong = min(name for name in names if expected.get(name) != shapes.get(name))
        raise UserError(
            "checkpoint.weights",
            f"These are not the weights of a {model_name} of {num_classes} classes: "
            f"{wrong} is {shapes.get(wrong, 'missing')} and should be {expected.get(wrong, 'absent')}.",
        )
    return model


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a file: one of ours, or a foreign state dict of the same networks (see `key_mapping`).

    Its weights fit its network and are finite. Raises UserError if the file is missing, damaged, unknown or malicious.
    """
    path = Path(path)
    content = read_torch_file(path)
    if content.get("format") == FORMAT:
        return _from_content(path, content)
    failure = UserError("checkpoint.content", "it is a PyTorch file without weights of a network.")
    found = list(islice(state_dicts(content), MAX_STATE_DICTS))
    for index, (_, tensors) in enumerate(found):
        try:
            result = from_tensors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)
            # state dicts with as many tensors are other copies of the network, such as the weights next to their EMA
            others = (prefix for prefix, other in found if len(other) == len(tensors) and other is not tensors)
            result.left_aside = [*(f"{prefix}*" for prefix in others), *result.left_aside]
            return result
        except UserError as error:
            failure = error if index == 0 else failure  # report the error of the most likely candidate
    raise UserError(failure.code, f"{path}: {failure}")


def _from_content(path: Path, content: dict[str, Any]) -> Checkpoint:
    """The checkpoint in the content of one of our files, everything in it checked."""
    refuse_version(path, content.get("version"), VERSION)
    content, problem = checked_content(content)
    problem = problem or ("" if "weights" in content else "it has no weights")
    if problem:
        raise UserError("checkpoint.field", f"{path} is damaged, or not a checkpoint of cifar100: {problem}.")
    checkpoint = Checkpoint.from_dict(content)
    for name in ("weights", "training_weights"):
        tensors = getattr(checkpoint, name)
        try:
            if tensors or name == "weights":
                check_weights(checkpoint.model, len(checkpoint.classes), tensors)
        except UserError as error:
            raise UserError(error.code, f"{path}: {error}") from None
        setattr(checkpoint, name, {key: tensor.detach() for key, tensor in tensors.items()})
    return checkpoint


def checked_content(content: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The content of a file of ours in the newest format, and what is wrong with it, "" if nothing."""
    problem = size_problem(content)
    content = upgrade(content) if not problem and content.get("version") == 1 else content
    return content, problem or field_problem(content)


def refuse_version(path: Path, version: object, newest: int) -> None:
    """Raise UserError if a file of ours is of a version that this program does not read."""
    if type(version) is not int or not 1 <= version <= newest:
        found = f"version {version}" if type(version) is int and abs(version) < 1 << 63 else "no version"
        raise UserError(
            "checkpoint.version", f"{path} is of {found}; this cifar100 reads versions up to {newest}: update it."
        )


def check_weights(model: str, num_classes: int, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError unless these are the weights of this network: names, shapes, then kinds and values."""
    matching_model(model, num_classes, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    check_values(weights)


def check_values(weights: Mapping[str, Tensor]) -> None:
    """Raise UserError if a weight is not a dense, finite tensor of a common type."""
    problem = tensor_problem(weights)
    if problem:
        raise UserError("checkpoint.values", f"These weights are not usable: {problem}.")


def from_tensors(shapes: Mapping[str, tuple[int, ...]], load: Callable[[str], Tensor]) -> Checkpoint:
    """The checkpoint of a third-party network with tensors of these shapes; `load` returns a tensor by name.

    Metadata that only our checkpoints contain are assumed, and listed in `Checkpoint.assumed`. Only the tensors of the
    network are loaded. Raises UserError if there is none of our networks.
    """
    failure = UserError(
        "checkpoint.content", "no fc.weight in it: these are not the weights of a resnet18 or resnet34."
    )
    if len(shapes) > MAX_TENSORS:
        raise UserError("checkpoint.content", f"it holds {len(shapes):,} tensors, more than any network of ours.")
    for index, names in enumerate(candidate_networks(shapes)):
        try:
            return _foreign_checkpoint(names, shapes, load)
        except UserError as error:
            failure = error if index == 0 else failure
    raise failure


def _foreign_checkpoint(
    names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], load: Callable[[str], Tensor]
) -> Checkpoint:
    """The network with tensors of these names, {our name: theirs}; tensors of other modules are not loaded."""
    own = {ours: theirs for ours, theirs in names.items() if ours.partition(".")[0] in MODULES}
    means = [name.removesuffix("running_mean") for name in own if name.endswith("running_mean")]
    counters = {f"{name}num_batches_tracked": () for name in means if f"{name}num_batches_tracked" not in own}
    head = shapes[own["fc.weight"]] if "fc.weight" in own else ()
    if len(head) != 2 or head[0] > MAX_CLASSES:
        found = f"its fc.weight is {head}" if head else "no fc.weight in it"
        raise UserError("checkpoint.content", f"{found}: these are not the weights of a resnet18 or resnet34.")
    model, count = "resnet34" if "layer1.2.conv1.weight" in own else "resnet18", head[0]
    matching_model(model, count, {ours: shapes[theirs] for ours, theirs in own.items()} | counters)
    weights = {ours: load(theirs).detach() for ours, theirs in own.items()}
    check_values(weights)
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    is_cifar100, defaults = count == len(CLASSES), AugmentConfig()
    return Checkpoint(
        model=model,
        weights=weights | {name: torch.zeros((), dtype=torch.int64) for name in counters},
        classes=list(CLASSES) if is_cifar100 else [PLACEHOLDER.format(i) for i in range(count)],
        superclasses=list(SUPERCLASSES) if is_cifar100 else [],
        superclass_of=list(SUPERCLASS_OF) if is_cifar100 else [],
        mean=list(defaults.mean),
        std=list(defaults.std),
        assumed=["classes", "image_size", "mean", "std"],
        left_aside=sorted(shapes.keys() - set(own.values()))[:MAX_LEFT_ASIDE],
    )
