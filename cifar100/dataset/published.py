"""The datasets that are known by name, the proof of each, and the files that they are published in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cifar100.dataset.base import DatasetSpec
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.support.errors import UserError

CIFAR100 = DatasetSpec(
    name="CIFAR-100",
    classes=CLASSES,
    superclasses=SUPERCLASSES,
    superclass_of=SUPERCLASS_OF,
    fingerprints={
        "train": "8c7ae522997207fdaf9af4ef8fe36f9653e47923424d9c422064c60ab5d6101b",
        "test": "23c1bcf7fca0b082d27a2af92685d8ae34777c53c88a6207308a77a3203057cc",
    },
)

CIFAR10 = DatasetSpec(
    name="CIFAR-10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    fingerprints={
        "train": "e23896bf5b20af12a6da56f37d98f8591c0a2f5da2f03dc95cb8a054346d27b5",
        "test": "4df098adab5835c4401d3c25e76993158ef6fb82241323d1d4a6d37baec4e7dc",
    },
)

PUBLISHED = {dataset.name: dataset for dataset in (CIFAR100, CIFAR10)}

SYNTHETIC = DatasetSpec(
    name="SYNTHETIC images, not CIFAR-100",
    classes=CLASSES,
    superclasses=SUPERCLASSES,
    superclass_of=SUPERCLASS_OF,
    synthetic=True,
)

SIZE = 32
"""Side in pixels of the images of all of these."""


def check_image_size(image_size: int) -> None:
    """Raise UserError where images of another size are asked for: the pixels of these are taken as they are."""
    if image_size != SIZE:
        raise UserError(
            "dataset.image_size",
            f"--image-size, or that of the checkpoint, is {image_size}x{image_size}; the images of this dataset are "
            f"{SIZE}x{SIZE}, and only custom images are resized.",
        )


@dataclass(frozen=True)
class PublishedFormat:
    """The files of a published dataset in one format."""

    published: DatasetSpec
    archive: str
    """What it is published as."""
    folder: str
    """What that unpacks to."""
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    """The file that says what the classes are called."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all its files."""
        return (*self.train, *self.test, self.names)

    @property
    def members(self) -> tuple[str, ...]:
        """What its archive calls them."""
        return tuple(f"{self.folder}/{name}" for name in self.files)

    def is_in(self, folder: Path) -> bool:
        """Whether all its files are in a folder."""
        return all((folder / name).is_file() for name in self.files)


def find_format(folder: Path, layouts: tuple[PublishedFormat, ...]) -> tuple[Path, PublishedFormat] | None:
    """The first layout that is in this folder or in its own folder below it, and where; None where none is."""
    for layout in layouts:
        for candidate in (folder, folder / layout.folder):
            if layout.is_in(candidate):
                return candidate, layout
    return None
