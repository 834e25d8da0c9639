"""The known datasets: CIFAR-100, CIFAR-10 and the synthetic one, with fingerprints and published files."""

from __future__ import annotations

from dataclasses import dataclass

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

IMAGE_SIZE = 32
"""Width and height of the images of all of these, in pixels."""

IMAGE_BYTES = 3 * IMAGE_SIZE**2


def check_image_size(image_size: int) -> None:
    """Raise UserError unless this is the size of the published images, which are not resized."""
    if image_size != IMAGE_SIZE:
        raise UserError(
            "dataset.image_size",
            f"--image-size, or that of the checkpoint, is {image_size}x{image_size}; the images of this dataset are "
            f"{IMAGE_SIZE}x{IMAGE_SIZE}, and only custom images are resized.",
        )


@dataclass(frozen=True)
class PublishedFormat:
    """The files of a published dataset in one format."""

    spec: DatasetSpec
    archive: str
    """Name of the archive."""
    folder: str
    """The directory in the archive."""
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    """The file with the class names."""

    @property
    def files(self) -> tuple[str, ...]:
        """All file names."""
        return (*self.train, *self.test, self.names)
