"""Origin of weights as structured fields of files; only this module formats them as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

MAX_COUNT = 2**63


class Record:
    """A frozen dataclass of plain values, stored in files as {field: value}."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """The record in these values of a file; fields that it does not know are ignored.

        Raises ValueError if it is not a dict, or a value has the wrong type.
        """
        if not isinstance(values, dict):
            raise ValueError(f"is a {type(values).__name__}")
        kinds = get_type_hints(cls)
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}  # pyright: ignore
        wrong = next((name for name, value in known.items() if not _fits(value, kinds[name])), None)
        if wrong is not None:
            raise ValueError(f"has a wrong {wrong}")
        try:
            return cls(**known)
        except TypeError:
            raise ValueError("lacks a field") from None

    def to_dict(self) -> dict[str, Any]:
        """{field: value}."""
        return dict(vars(self))


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    return isinstance(value, kind)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo(Record):
    """The identity of a dataset, without its images or the folder that it was read from."""

    name: str = ""
    """"CIFAR-100" or "custom images", for example; "" if unknown."""
    verified: bool | None = None
    """Whether both splits are exactly the published images of that name; None if there are no published ones."""
    synthetic: bool = False
    """Whether the images are generated, so that accuracies on them are meaningless."""
    num_train: int = 0
    """Images of the train split, before any are held out; 0 if unknown."""
    num_test: int = 0
    num_classes: int = 0
    image_size: int = 0
    """Width and height in pixels; 0 if unknown."""
    fingerprint: str = ""
    """`Split.fingerprint` of the train split; "" if unknown."""

    @property
    def title(self) -> str:
        """Name and status, without the number of images."""
        if self.verified is not None:
            return f"{self.name} (verified)" if self.verified else f"{self.name} layout, but NOT the published images"
        if self.synthetic or not self.num_classes:
            return self.name or "unknown dataset"
        return f"{self.name} ({self.num_classes:,} classes, {self.image_size}x{self.image_size})"

    @property
    def train_description(self) -> str:
        """Title and number of train images, as text: "CIFAR-100 (verified): 50,000 train images"."""
        return f"{self.title}: {self.num_train:,} train images" if self.num_train else self.title

    def __str__(self) -> str:
        if not self.num_train:
            return self.title
        return f"{self.title}: {self.num_train:,} train and {self.num_test:,} test images"


@dataclass(frozen=True, kw_only=True)
class Selection(Record):
    """Why these weights of a run were saved."""

    rule: Literal["best", "last", "periodic", "step"]
    """"best": the highest top-1 so far on `split`; "last": the end of the latest epoch; "periodic": due every
    `checkpoint_every` epochs; "step": in mid-epoch, to resume from."""
    split: Literal["", "test", "val"] = ""
    """The images that "best" was selected on."""

    def __str__(self) -> str:
        if self.rule == "best":
            return f"best top-1 on {self.split or 'an unknown split'}"
        return {"last": "last epoch", "periodic": "periodic checkpoint", "step": "latest step"}[self.rule]


FittedOn = Literal["", "val", "sibling-val", "test-crossfit", "val-crossfit", "train-crossfit", "all-crossfit"]


@dataclass(frozen=True, kw_only=True)
class TemperatureFit(Record):
    """A temperature for calibrated probabilities, and the images that it was fitted on."""

    temperature: float
    """What logits are divided by; above 0."""
    fitted_on: FittedOn = ""
    """"val": train images that the run held out; "sibling-val": train images that another run with the same settings
    held out; "SPLIT-crossfit": two-fold cross-fitting on that split ("all": on all images of a folder), each half
    evaluated with the temperature of the other; "": unknown."""
    num_images: int = 0
    """0 if unknown."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError("has a wrong temperature")

    @property
    def origin(self) -> str:
        """How it was fitted, as text."""
        if not self.fitted_on:
            return "of unknown origin"
        images = f"{self.num_images:,} images" if self.num_images else "images"
        if self.fitted_on == "val":
            return f"fitted on {images} that were held out of the train split"
        if self.fitted_on == "sibling-val":
            return f"fitted on {images} held out of the train split by a training with the same settings"
        split = self.fitted_on.removesuffix("-crossfit")
        return f"fitted by two-fold cross-fitting on {images}" + ("" if split == "all" else f" of the {split} split")


PLACEHOLDER = "class {}"
"""The name of a class in third-party files, which contain no names."""


def assumptions(assumed: Collection[str], classes: Sequence[str], superclasses: Sequence[str]) -> list[str]:
    """What was assumed about a third-party file, which does not contain the fields `assumed`, as lines of text."""
    lines = []
    missing = [f"--{name}" for name in ("mean", "std") if name in assumed]
    if missing:
        lines.append(f"normalized as CIFAR-100, at 32x32 pixels: the file does not say how ({', '.join(missing)})")
    if "classes" in assumed:
        names = "CIFAR-100's, in alphabetical order" if superclasses else "the dataset's, in its order"
        what = "numbered" if classes[0] == PLACEHOLDER.format(0) else names
        lines.append(f"classes are {what}: the file does not name them (--classes)")
    return lines


RECORDS: dict[str, type[Record]] = {"dataset": DatasetInfo, "selection": Selection, "calibration": TemperatureFit}


def read_records(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file that are records; those that are absent or None are left out.

    Raises ValueError, which names the field, if one is not valid.
    """
    found = {}
    for name, record in RECORDS.items():
        try:
            if content.get(name) is not None:
                found[name] = record.from_dict(content[name])
        except ValueError as error:
            raise ValueError(f"its {name} {error}") from None
    return found


def recipe_title(recipe: str, modified: bool) -> str:
    """A recipe's name, and whether settings differ from it."""
    return f"{recipe} (modified)" if modified else recipe
