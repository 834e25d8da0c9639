"""Options that several subcommands have, and the model that they use if none is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar100.config import Config, DatasetName, DeviceName, PrecisionName
from cifar100.support.terminal import emit_error

if TYPE_CHECKING:
    from cifar100.inference import Predictor

DEFAULT_CHECKPOINT = Path("logs/cifar100/best_model.pth")


def default_model() -> Path:
    """`DEFAULT_CHECKPOINT` if it exists in the working directory, else "pretrained", the bundled weights."""
    return DEFAULT_CHECKPOINT if os.path.exists(DEFAULT_CHECKPOINT) else Path("pretrained")


def configured(section: str, name: str) -> Callable[[], Any]:
    """A `default_factory` that reads a setting of config.py when the command line is parsed, not at import, so that a
    value out of range is reported like that of a flag."""
    return lambda: getattr(getattr(Config(), section), name)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that predicts, and the device."""

    checkpoint: Path | None = None
    """Model. None: logs/cifar100/best_model.pth if it exists, else "pretrained", the bundled weights."""

    device: DeviceName = field(default_factory=configured("run", "device"))
    """Device to run on."""

    def load_predictor(self, **options: Any) -> Predictor:
        """The model, opened with these options of `load_predictor`; notes about its file are printed to stderr."""
        from cifar100.inference import load_predictor

        predictor = load_predictor(self.checkpoint or default_model(), device=self.device, **options)
        for note in predictor.info.notes:
            emit_error(note)
        return predictor


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The dataset that a checkpoint is evaluated on, and the device."""

    dataset: DatasetName | None = None
    """"synthetic" is the generated dataset. None: that of the training, or cifar100 with --data-dir."""

    data_dir: Path | None = None
    """Dataset directory or archive. None: that of config.py, $CIFAR100_DATA_DIR, ./data."""

    device: DeviceName = field(default_factory=configured("run", "device"))
    """Device to run on."""

    precision: PrecisionName = "fp32"
    """Compute precision; "auto" is what training would use."""


@dataclass(frozen=True, kw_only=True)
class SplitOptions(EvalOptions):
    """The options of an evaluation, and the split."""

    split: Literal["test", "val", "train", "all"] | None = None
    """Split; "val" is the validation split used in training, "all" every image of an image folder. None: test; for a
    folder without test/ that the checkpoint was not trained on, all."""


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """A dataset, as a training reads it."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the generated dataset."""

    data_dir: Path | None = None
    """Dataset directory or archive. None: that of config.py, $CIFAR100_DATA_DIR, ./data."""

    image_size: int = field(default_factory=configured("data", "image_size"))
    """Resolution, in pixels, that custom images are resized and center-cropped to."""

    def settings(self, **others: Any) -> Config:
        """The baseline with these options and `others`."""
        named = {"dataset": self.dataset, "data_dir": self.data_dir, "image_size": self.image_size}
        return Config().replace(**named, **others)
