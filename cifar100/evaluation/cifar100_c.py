"""The published files of CIFAR-100-C (https://zenodo.org/records/3555552)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from cifar100.support.errors import UserError

NUM_IMAGES = 10_000
"""Number of images of each corruption and severity."""


@dataclass(frozen=True)
class Cifar100C:
    """`<corruption>.npy`, uint8 [50000, 32, 32, 3], the five severities in turn, and `labels.npy`, integers [50000].

    Nothing in the files is executed.
    """

    directory: Path
    corruptions: tuple[str, ...]
    """The corruptions whose files exist."""
    labels: np.ndarray

    @staticmethod
    def find(directory: Path, num_classes: int) -> Cifar100C:
        """The files in a directory. Raises UserError if there are none, or the labels are not valid."""
        corruptions = tuple(name for name in CORRUPTIONS if (directory / f"{name}.npy").is_file())
        if not corruptions:
            raise UserError(
                "robustness.files",
                f"--corruptions-dir {directory} contains none of the files of CIFAR-100-C, such as fog.npy.",
            )
        path = directory / "labels.npy"
        labels, count = _load(path), len(SEVERITIES) * NUM_IMAGES
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                "robustness.files", f"{path} is {labels.dtype} {list(labels.shape)}, not {count:,} class ids."
            )
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError("robustness.files", f"{path} contains class ids outside 0..{num_classes - 1}.")
        return Cifar100C(directory, corruptions, np.asarray(labels).astype(np.int64))

    def cell(self, corruption: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """The images uint8 [10000, 32, 32, 3], memory-mapped, and the labels int64 [10000]."""
        path = self.directory / f"{corruption}.npy"
        images, count = _load(path), len(SEVERITIES) * NUM_IMAGES
        if images.dtype != np.uint8 or images.shape != (count, 32, 32, 3):
            raise UserError(
                "robustness.files",
                f"{path} is {images.dtype} {list(images.shape)}; CIFAR-100-C has uint8 [{count}, 32, 32, 3].",
            )
        rows = slice((severity - 1) * NUM_IMAGES, severity * NUM_IMAGES)
        return images[rows], self.labels[rows]


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError("robustness.files", f"There is no {path}.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError("robustness.files", f"{path} cannot be read as a numpy array ({error}).") from None
