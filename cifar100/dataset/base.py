"""What a dataset is once it is in memory, the order of its rows, and the fingerprint that says what it is."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cifar100.errors import UserError
from cifar100.text import printable

FINGERPRINTS = {
    "train": "8c7ae522997207fdaf9af4ef8fe36f9653e47923424d9c422064c60ab5d6101b",
    "test": "23c1bcf7fca0b082d27a2af92685d8ae34777c53c88a6207308a77a3203057cc",
}
"""`Split.fingerprint` of the 50,000 train and 10,000 test images of CIFAR-100, from the real files."""


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, H, W, 3] and class ids int64 [N], in canonical order: by label, then by digest of the pixels.

    The order makes a seed mean the same run whatever kind of file the rows came from.
    """

    images: np.ndarray
    labels: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Split:
        """These rows (ids or a mask, kept in order) as a split without a fingerprint: it is no published set."""
        return Split(self.images[rows], self.labels[rows], "")


@dataclass(frozen=True)
class Dataset:
    """A train and a test split, the names that their labels stand for, and where they came from."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    superclasses: tuple[str, ...] = ()
    superclass_of: tuple[int, ...] = ()
    source: str = ""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.train.images.shape[1]

    @property
    def is_cifar100(self) -> bool:
        """Whether both splits hold exactly the published CIFAR-100, in whatever order its files had."""
        return self.train.fingerprint == FINGERPRINTS["train"] and self.test.fingerprint == FINGERPRINTS["test"]

    def __str__(self) -> str:
        known = {"cifar100": "CIFAR-100", "synthetic": "SYNTHETIC images, not CIFAR-100"}[self.name]
        if self.name == "cifar100":
            known += " (verified)" if self.is_cifar100 else " layout, but NOT the published images"
        return f"{known}: {len(self.train):,} train and {len(self.test):,} test images from {printable(self.source)}"


def canonical_split(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Split:
    """Rows in any order -> the split in canonical order, with its fingerprint.

    `images` is uint8 [N, H, W, 3] and `labels` integers [N]. The fingerprint is a SHA-256 over the sorted rows'
    labels and digests, repeats counted, so it depends on content and not on order, file or format.
    Raises UserError where shapes disagree or a label is outside 0..num_classes-1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise UserError(f"Images are {images.dtype} {list(images.shape)}; they must be uint8 [N, size, size, 3].")
    if len(images) != len(labels):
        raise UserError(f"There are {len(images):,} images but {len(labels):,} labels.")
    if len(labels) == 0:
        raise UserError("There is not one image.")
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"A label is {labels.min() if labels.min() < 0 else labels.max()}; with {num_classes} classes "
                        f"labels run from 0 to {num_classes - 1}.")  # fmt: skip
    images, digests = _digest_rows(images)  # digests: [N, 2]
    order = np.lexsort((digests[:, 1], digests[:, 0], labels))
    keys = np.concatenate([labels.astype(">u8")[:, None], digests.astype(">u8")], axis=1)[order]
    fingerprint = hashlib.sha256(repr(images.shape[1:]).encode() + keys.tobytes()).hexdigest()
    return Split(images[order], labels[order], fingerprint)


def _digest_rows(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images laid out contiguously, and the first 128 bits of each one's SHA-256 as uint64 [N, 2]."""

    def digest(block: np.ndarray) -> tuple[np.ndarray, bytes]:
        rows = np.ascontiguousarray(block)
        return rows, b"".join(hashlib.sha256(row).digest()[:16] for row in rows)

    with ThreadPoolExecutor() as pool:  # both copying and hashing let the other threads run
        blocks, digests = zip(*pool.map(digest, np.array_split(images, 16)), strict=True)
    return np.concatenate(blocks), np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)


def hold_out(dataset: Dataset, fraction: float) -> tuple[Split, Split | None]:
    """The train split without `fraction` of each class, and what was taken out (None for 0).

    The first rows of each class go: their order is by digest, so this is a random choice, and the same one for
    every seed. Raises UserError where the fraction leaves some class nothing to hold out or nothing to train on.
    """
    if fraction == 0:
        return dataset.train, None
    labels = dataset.train.labels
    counts = np.bincount(labels, minlength=len(dataset.classes))
    taken = np.round(counts * fraction).astype(np.int64)
    place_in_class = np.arange(len(labels)) - np.searchsorted(labels, labels)
    held = place_in_class < taken[labels]
    if not held.any() or (taken >= counts)[counts > 0].any():
        raise UserError(
            f"--val-fraction {fraction} of classes of {counts[counts > 0].min()} to {counts.max()} train images leaves "
            "nothing to validate on, or nothing to train on; choose another."
        )
    return dataset.train.take(~held), dataset.train.take(held)
