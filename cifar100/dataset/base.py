"""Datasets in memory: splits, their canonical order, and the fingerprint that identifies their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cifar100.dataset.tree import File, read_file
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo


def spread_rows(total: int, count: int) -> np.ndarray:
    """`count` of `total` rows at even distances, from the first to the last, int64; all rows if there are fewer."""
    return np.linspace(0, total - 1, min(max(count, 0), total)).round().astype(np.int64)


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, H, W, 3] and class ids int64 [N], in canonical order: by label, then by hash of the pixels.

    So a seed gives the same run whatever the format of the files.
    """

    images: np.ndarray
    labels: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def class_range(self, num_classes: int) -> tuple[int, int]:
        """Number of images of the smallest and of the largest class."""
        counts = np.bincount(self.labels, minlength=num_classes)
        return int(counts.min()), int(counts.max())

    def spread(self, count: int) -> np.ndarray:
        """`spread_rows` of this split; as rows are sorted by label, all classes are represented equally."""
        return spread_rows(len(self), count)

    def take(self, rows: np.ndarray) -> Split:
        """These rows (indices in ascending order, or a mask) as a split without a fingerprint."""
        return Split(self.images[rows], self.labels[rows], "")


@dataclass(frozen=True)
class DatasetSpec:
    """Name and classes of a dataset, and the fingerprints of a published one."""

    name: str
    classes: tuple[str, ...]
    superclasses: tuple[str, ...] = ()
    superclass_of: tuple[int, ...] = ()
    fingerprints: dict[str, str] = field(default_factory=dict)
    """`Split.fingerprint` of "train" and "test" in the official files; empty if it is not a published dataset."""
    synthetic: bool = False
    """Whether the images are generated, so that accuracies on them are meaningless."""


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and their origin."""

    spec: DatasetSpec
    train: Split
    test: Split
    source: str
    original_sizes: str = ""
    """Human-readable sizes of custom images before resizing."""
    notes: tuple[str, ...] = ()
    """Human-readable lines about how the files were read."""
    unreadable: tuple[str, ...] = ()
    """A message for each file that was skipped because it is not a readable image."""
    test_name: str = "test"
    """Name of the test split: "all" if it contains every image of a folder, and none is for training."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the class id is the position."""
        return self.spec.classes

    @property
    def superclasses(self) -> tuple[str, ...]:
        """Superclass names by superclass id; empty if there are none."""
        return self.spec.superclasses

    @property
    def superclass_of(self) -> tuple[int, ...]:
        """The superclass id of each class id; empty if there are none."""
        return self.spec.superclass_of

    @property
    def image_size(self) -> int:
        """Width and height of the images, in pixels."""
        return self.train.images.shape[1]

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are generated, so that accuracies on them are meaningless."""
        return self.spec.synthetic

    @property
    def is_verified(self) -> bool:
        """Whether both splits contain exactly the published images, whatever the order and format of their files."""
        proof = self.spec.fingerprints
        return bool(proof) and all(getattr(self, name).fingerprint == proof[name] for name in ("train", "test"))

    @property
    def info(self) -> DatasetInfo:
        """Its identity, as stored in checkpoints."""
        return DatasetInfo(
            name=self.spec.name,
            verified=self.is_verified if self.spec.fingerprints else None,
            synthetic=self.is_synthetic,
            num_train=len(self.train),
            num_test=len(self.test),
            num_classes=len(self.classes),
            image_size=self.image_size,
            fingerprint=self.train.fingerprint,
        )

    def __str__(self) -> str:
        return f"{self.info} from {self.source}"


MAX_FILE_BYTES = 1 << 30  # six times the largest published file


def read_published(file: File) -> bytes:
    """The content of a file of a published dataset. Raises UserError if it cannot be read or is implausibly large."""
    try:
        return read_file(file, MAX_FILE_BYTES)
    except OSError as error:
        raise UserError("dataset.unreadable", f"{file} cannot be read ({error.strerror}).") from None


def split_of_files(
    files: Sequence[File | Path], parts: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int
) -> Split:
    """The images and labels of these files as one split. Raises UserError, naming the files, as `canonical_split`."""
    images, labels = zip(*parts, strict=True)
    try:
        return canonical_split(join(images), join(labels), num_classes)
    except UserError as error:
        raise UserError(error.code, f"{', '.join(map(str, files))}: {error}") from None


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The parts of a split as one array; not copied if there is only one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def canonical_split(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Split:
    """Rows in any order -> the split in canonical order, with its fingerprint.

    `images` is uint8 [N, H, W, 3] and `labels` integers [N]. The fingerprint is a SHA-256 over the sorted rows'
    labels and hashes, including duplicates, so it depends on content and not on order, file or format.
    Raises UserError if shapes do not match or a label is outside 0..num_classes-1.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise UserError(
            "dataset.shape", f"Images are {images.dtype} {list(images.shape)}; they must be uint8 [N, size, size, 3]."
        )
    if len(images) != len(labels):
        raise UserError("dataset.labels", f"There are {len(images):,} images but {len(labels):,} labels.")
    if len(labels) == 0:
        raise UserError("dataset.empty", "It contains no images.")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < num_classes:
            raise UserError("dataset.labels", f"A label is {label}; it must be from 0 to {num_classes - 1}.")
    labels = labels.astype(np.int64)
    images, digests = _digest_rows(images)  # digests: [N, 2]
    order = np.lexsort((digests[:, 1], digests[:, 0], labels))
    keys = np.concatenate([labels.astype(">u8")[:, None], digests.astype(">u8")], axis=1)[order]
    fingerprint = hashlib.sha256(repr(images.shape[1:]).encode() + keys.tobytes()).hexdigest()
    return Split(images[order], labels[order], fingerprint)


def _digest_rows(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images as a contiguous array, and the first 128 bits of the SHA-256 of each as uint64 [N, 2]."""

    def digest(block: np.ndarray) -> tuple[np.ndarray, bytes]:
        rows = np.ascontiguousarray(block)
        return rows, b"".join(hashlib.sha256(row).digest()[:16] for row in rows)

    with ThreadPoolExecutor() as pool:  # copying and hashing release the GIL
        blocks, digests = zip(*pool.map(digest, np.array_split(images, 16)), strict=True)
    laid_out = images if images.flags.c_contiguous else np.concatenate(blocks)
    return laid_out, np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)


def train_val_split(dataset: Dataset, fraction: float) -> tuple[Split, Split | None]:
    """The training split without `fraction` of each class, and the validation split of those (None for 0).

    The first rows of each class are held out: rows are sorted by hash, so the choice is random, and the same for
    every seed; a class too small for the fraction has none. Raises UserError if that is so for all, or if a class would
    have no training images.
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
            "config.val_fraction",
            f"--val-fraction {fraction} of classes of {counts[counts > 0].min()} to {counts.max()} images leaves "
            "some class without validation or training images: choose another fraction, or 0.",
        )
    return dataset.train.take(~held), dataset.train.take(held)
