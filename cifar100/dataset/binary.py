"""Reads the binary version of CIFAR-100 (train.bin, test.bin) and of CIFAR-10 (five batches and a test batch).

A row is the labels, a byte each (CIFAR-100: superclass, then class; CIFAR-10: class), then 3,072 bytes of pixels: the
red plane, the green and the blue (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cifar100.dataset.base import Dataset, DatasetSpec, Split, read_published, split_of_files
from cifar100.dataset.published import CIFAR10, CIFAR100, IMAGE_BYTES, PublishedFormat
from cifar100.dataset.tree import Directory, File
from cifar100.support.errors import UserError

FORMATS = (
    PublishedFormat(
        CIFAR100,
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        names="fine_label_names.txt",
    ),
    PublishedFormat(
        CIFAR10,
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
        names="batches.meta.txt",
    ),
)


def read(directory: Directory, fmt: PublishedFormat) -> Dataset:
    """The dataset in this directory. Raises UserError, naming the file, if one is damaged or not CIFAR."""
    spec, files = fmt.spec, directory.listing.files
    names = read_published(files[fmt.names]).decode("utf-8", "replace").split()
    if tuple(names) != spec.classes:
        raise UserError("dataset.names", f"{files[fmt.names]}: its names are not the classes of {spec.name}.")

    def split(names: tuple[str, ...]) -> Split:
        of_split = [files[name] for name in names]
        return split_of_files(of_split, [_read_rows(file, spec) for file in of_split], len(spec.classes))

    return Dataset(spec, split(fmt.train), split(fmt.test), source=directory.name)


def _read_rows(file: File, spec: DatasetSpec) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and class ids uint8 [N] of one file."""
    label_bytes = 2 if spec.superclasses else 1
    row_bytes, content = label_bytes + IMAGE_BYTES, read_published(file)
    if len(content) % row_bytes:
        raise UserError(
            "dataset.damaged",
            f"{file}: {len(content):,} bytes are not whole rows of {row_bytes:,}; it is truncated or damaged: "
            "download it again.",
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row_bytes)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, label_bytes - 1]


def write(dataset: Dataset, folder: Path) -> Path:
    """Write CIFAR-100 as its binary version, in canonical order, into `folder`; the directory of its files."""
    fmt = FORMATS[0]
    target = folder / fmt.folder
    target.mkdir(parents=True, exist_ok=True)
    for (name,), split in ((fmt.train, dataset.train), (fmt.test, dataset.test)):
        labels = split.labels.astype(np.uint8)[:, None]
        coarse = np.array(dataset.superclass_of, np.uint8)[split.labels][:, None]
        pixels = split.images.transpose(0, 3, 1, 2).reshape(len(split), IMAGE_BYTES)
        (target / name).write_bytes(np.concatenate([coarse, labels, pixels], axis=1).tobytes())
    (target / fmt.names).write_text("\n".join(dataset.classes) + "\n", encoding="utf-8")
    return target
