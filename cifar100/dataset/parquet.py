"""Reads the parquet files of the Hugging Face datasets uoft-cs/cifar100 and uoft-cs/cifar10.

A row contains an image as an encoded file (`img`: a struct with `bytes`) and its class id (`fine_label`, or `label`).
Requires pyarrow, which is imported only if there are such files.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from cifar100.dataset.base import Dataset, DatasetSpec, Split, read_published, split_of_files
from cifar100.dataset.published import CIFAR10, CIFAR100, IMAGE_SIZE
from cifar100.support.errors import UserError

FOLDERS = ("cifar100", "plain_text")
"""The directories of the files in the two datasets."""

_LABELS = {"fine_label": CIFAR100, "label": CIFAR10}


def find(folder: Path) -> Callable[[], Dataset] | None:
    """A function that reads train*.parquet and test*.parquet in this directory, or in its subdirectory cifar100/ or
    plain_text/; None unless both are in the same one."""
    for candidate in (folder, *(folder / name for name in FOLDERS)):
        if all(any(candidate.glob(f"{split}*.parquet")) for split in ("train", "test")):
            return partial(read, candidate)
    return None


def read(folder: Path) -> Dataset:
    """The dataset in this directory. Raises UserError, naming the file, if one is damaged or not CIFAR."""
    train, spec = _read_split(sorted(folder.glob("train*.parquet")))
    test, test_spec = _read_split(sorted(folder.glob("test*.parquet")))
    if spec is not test_spec:
        raise UserError("dataset.mixed", f"{folder}: train is {spec.name} and test is {test_spec.name}.")
    return Dataset(spec, train, test, source=str(folder))


def _read_split(paths: list[Path]) -> tuple[Split, DatasetSpec]:
    images, labels, specs = zip(*map(_read_rows, paths), strict=True)
    if len({spec.name for spec in specs}) > 1:
        raise UserError("dataset.mixed", f"{', '.join(map(str, paths))}: both CIFAR-100 and CIFAR-10.")
    return split_of_files(paths, zip(images, labels, strict=True), len(specs[0].classes)), specs[0]


def _read_rows(path: Path) -> tuple[np.ndarray, np.ndarray, DatasetSpec]:
    """Images uint8 [N, 32, 32, 3], class ids [N], and the dataset that the label column belongs to."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "dataset.pyarrow", f"{path}: reading parquet requires pyarrow: pip install 'cifar100[hub]'."
        ) from None
    content = io.BytesIO(read_published(str(path)))
    try:
        names = parquet.read_schema(content).names
        column = next((name for name in _LABELS if name in names), None)
        if column is None or "img" not in names:
            raise UserError(
                "dataset.columns",
                f"{path} must have the columns img and fine_label (or label); it has {', '.join(names[:8]) or 'none'}.",
            )
        table = parquet.read_table(content, columns=["img", column])
        encoded = table.column("img").combine_chunks().field("bytes").to_pylist()
        labels = table.column(column).to_numpy()
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many types for damaged files
        raise UserError(
            "dataset.damaged", f"{path} is damaged, or its columns have other types ({type(error).__name__})."
        ) from None
    if labels.dtype.kind not in "iu":
        raise UserError("dataset.labels", f"{path}: its {column} is {labels.dtype}; it must be integers.")
    try:
        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(_decode, encoded, chunksize=256))
    except UserError as error:
        raise UserError(error.code, f"{path}: {error}") from None
    images = np.array(decoded, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)  # also if there are no rows
    return images, labels, _LABELS[column]


def _decode(encoded: object) -> np.ndarray:
    """The content of an image file -> uint8 [32, 32, 3]."""
    from PIL import Image

    if not isinstance(encoded, bytes):
        raise UserError("dataset.damaged", "a row has no image.")
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            if image.size != (IMAGE_SIZE, IMAGE_SIZE):
                size = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
                raise UserError("dataset.shape", f"an image is {image.width}x{image.height}; it must be {size}.")
            return np.asarray(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged data
        raise UserError("dataset.damaged", f"an image cannot be decoded ({type(error).__name__}).") from None
