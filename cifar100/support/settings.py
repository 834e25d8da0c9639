"""The base of the dataclasses of config.py: every value is checked against its field's type and range."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cifar100.support.errors import UserError

MAX_SEED = 2**32 - 1

RANGES: dict[str, tuple[float, float]] = {
    "image_size": (16, 1024),
    "split_seed": (0, MAX_SEED),
    "crop_padding": (0, math.inf),
    "flip_probability": (0, 1),
    "cutout_size": (0, math.inf),
    "cutout_probability": (0, 1),
    "rand_ops": (1, math.inf),
    "rand_magnitude": (0, 30),
    "mixup_probability": (0, 1),
    "cutmix_probability": (0, 1),
    "epochs": (1, 100_000),
    "batch_size": (1, math.inf),
    "weight_decay": (0, math.inf),
    "warmup_epochs": (0, math.inf),
    "seed": (0, MAX_SEED),
    "num_workers": (0, math.inf),
    "eval_every": (1, math.inf),
    "checkpoint_every": (0, math.inf),
    "save_seconds": (0, math.inf),
    "dist_timeout": (1, 10**7),
    "stop_after": (0, math.inf),
}
"""{setting: (minimum, maximum)}, both allowed."""

POSITIVE = {"test_fraction", "mixup_alpha", "cutmix_alpha", "lr", "muon_lr"}
"""Settings that must be above 0."""

BELOW_ONE = {"test_fraction", "val_fraction", "momentum", "label_smoothing", "ema_decay"}
"""Settings that must be at least 0 and below 1."""


def check(holds: bool, setting: str, message: str) -> None:
    """Raise UserError with the code "config.<setting>" unless the condition holds."""
    if not holds:
        raise UserError(f"config.{setting}", message)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def without_local_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without directories, and with the name only of the file in `init_from`: for others to read."""
    shared = {name: value for name, value in settings.items() if not name.endswith("_dir")}
    source = shared.get("init_from")
    if source is not None and not str(source).startswith(("hf:/", "hf:\\")):  # a Path changes the slashes of hf://
        shared["init_from"] = re.split(r"[/\\]", str(source))[-1]
    return shared


class ConfigSection:
    """A section of the settings; each value has its field's type and range, and is one of its choices."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = _without_numpy(getattr(self, name))
            object.__setattr__(self, name, value)  # the sections are frozen
            requirement = _type_requirement(value, kind) or _range_requirement(value, name)
            check(not requirement, name, f"{flag(name)} is {reprlib.repr(value)}; it must be {requirement}.")


def _without_numpy(value: Any) -> Any:
    """The value with Python's types in place of NumPy's, which a checkpoint does not hold; float64 is also a float."""
    if isinstance(value, tuple):
        return tuple(map(_without_numpy, value))
    return value.item() if getattr(value, "shape", None) == () else value


def _range_requirement(value: Any, name: str) -> str:
    """The range that the value of this setting must lie in, "" if it does."""
    if name in POSITIVE and value <= 0:
        return "above 0"
    if name in BELOW_ONE and not 0 <= value < 1:
        return "at least 0 and below 1"
    if name not in RANGES:
        return ""
    minimum, maximum = RANGES[name]
    if minimum <= value <= maximum:
        return ""
    return f"{minimum} or more" if maximum == math.inf else f"between {minimum} and {maximum}"


def _type_requirement(value: Any, kind: Any) -> str:
    """What a value of a field of this type must be, "" if it is."""
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return "" if value in choices else f"one of {', '.join(choices)}"
    if kind is float:
        return "" if is_number(value) else "a number"
    if kind is int:
        return "" if type(value) is int else "a whole number"
    if kind is bool:
        return "" if isinstance(value, bool) else "True or False"
    if get_origin(kind) is tuple and choices[-1] is Ellipsis:  # whole numbers, or text
        is_valid = isinstance(value, tuple) and all(type(item) in (int, str) for item in value)
        return "" if is_valid else "whole numbers"
    if get_origin(kind) is tuple:
        is_valid = isinstance(value, tuple) and len(value) == len(choices) and all(map(is_number, value))
        return "" if is_valid else f"{len(choices)} numbers"
    is_valid = isinstance(value, Path) or (value is None and None.__class__ in choices)
    return "" if is_valid else "a path"


def is_number(value: Any) -> bool:
    """Whether this is a finite int or float that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # a NaN is not


def plain(value: Any) -> Any:
    """A setting's value in a type that JSON has."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
