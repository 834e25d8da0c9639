"""Reads the Python pickles of CIFAR-100 (train, test, meta) and of CIFAR-10 (five batches, a test batch, batches.meta).

Nothing is unpickled, as that can run any code that a file names: the opcodes are scanned for the values of a few keys.
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np

from cifar100.dataset.base import Dataset, Split, read_published, split_of_files
from cifar100.dataset.published import CIFAR10, CIFAR100, IMAGE_BYTES, PublishedFormat
from cifar100.dataset.tree import Directory, File
from cifar100.support.errors import UserError

FORMATS = (
    PublishedFormat(
        CIFAR100,
        archive="cifar-100-python.tar.gz",
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        names="meta",
    ),
    PublishedFormat(
        CIFAR10,
        archive="cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        names="batches.meta",
    ),
)

KEYS = {
    *("data", "labels", "fine_labels", "coarse_labels", "filenames", "batch_label"),
    *("label_names", "fine_label_names", "coarse_label_names", "num_cases_per_batch", "num_vis"),
}
"""The keys of the dictionaries in the official files."""


def read(directory: Directory, fmt: PublishedFormat) -> Dataset:
    """The dataset in this directory. Raises UserError, naming the file, if one is damaged or not CIFAR."""
    spec, files = fmt.spec, directory.listing.files
    meta = _scan(files[fmt.names])
    names = [name for key in ("fine_label_names", "label_names") for name in meta.get(key, [])]
    if tuple(name for name in names if name in spec.classes) != spec.classes:
        raise UserError("dataset.names", f"{files[fmt.names]}: its class names are not those of {spec.name}.")
    key = "fine_labels" if spec.superclasses else "labels"

    def split(names: tuple[str, ...]) -> Split:
        of_split = [files[name] for name in names]
        return split_of_files(of_split, [_read_rows(file, key) for file in of_split], len(spec.classes))

    return Dataset(spec, split(fmt.train), split(fmt.test), source=directory.name)


def _read_rows(file: File, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and class ids int64 [M] of one file."""
    values = _scan(file)
    labels = [value for value in values.get(key, []) if isinstance(value, int)]
    pixels = max((value for value in values.get("data", []) if isinstance(value, str)), key=len, default="")
    try:
        content = pixels.encode("latin1")
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3, 32, 32)
        return rows.transpose(0, 2, 3, 1), np.array(labels, np.int64)
    except (ValueError, OverflowError):  # not bytes, not whole images, or labels beyond 64 bits
        raise UserError(
            "dataset.damaged", f"{file}: its data are not rows of {IMAGE_BYTES} bytes, one 32x32 RGB image each."
        ) from None


def _scan(file: File) -> dict[str, list[Any]]:
    """The integers and strings (bytes as Latin-1) that follow each of KEYS in a pickle, in order."""
    values: dict[str, list[Any]] = {}
    found: list[Any] = []
    try:
        for opcode, value, _ in pickletools.genops(read_published(file)):
            text = value.decode("latin1") if isinstance(value, bytes | bytearray) else value
            if isinstance(text, str) and text in KEYS:
                found = values.setdefault(text, [])
            elif isinstance(text, str) or "INT" in opcode.name:
                found.append(text)
    except ValueError:
        raise UserError("dataset.damaged", f"{file}: damaged, or not a pickle: download it again.") from None
    return values
