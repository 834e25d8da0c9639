"""Datasets: finding one and reading it into memory.

Each format is one module with two functions: `find(path)` returns what a directory (or file) contains of the format, or
None, and `read(*found)` reads it. `READERS` lists them in the order in which they are tried. The last, `folder`, reads
custom images; its `read` also takes the configuration and a function for progress messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar100.config import Config
from cifar100.dataset import archive, binary, folder, parquet, pickles, synthetic
from cifar100.dataset.base import Dataset, DatasetSpec, Split, train_val_split
from cifar100.dataset.download import ARCHIVE, HOMES, download_cifar100
from cifar100.dataset.layout import Layout
from cifar100.dataset.published import check_image_size
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, read_start
from cifar100.support.terminal import emit

__all__ = [
    "Dataset",
    "Split",
    "find_class_folders",
    "load_dataset",
    "read",
    "read_labeled",
    "resolve_data_dir",
    "train_val_split",
]

Say = Callable[[str], None]

READERS = (pickles, binary, parquet, archive, folder)

ENVIRONMENT = "CIFAR100_DATA_DIR"
DEFAULT_FOLDER = Path("data")
"""Relative to the working directory; the only directory that is downloaded to unless one is named."""


def load_dataset(config: Config | None = None, *, say: Callable[[str], None] = emit) -> Dataset:
    """The configured dataset: the content of the directory that `resolve_data_dir` returns, or the synthetic dataset.

    If no directory is configured and ./data contains no dataset, CIFAR-100 is downloaded into ./data. `say` receives
    progress messages. Raises UserError if the download fails, or if the files are damaged or not a dataset.
    """
    config = config or Config()
    if config.data.dataset == "synthetic":
        check_image_size(config.data.image_size)
        return synthetic.make()
    place = resolve_data_dir(config.run.data_dir)
    if place is not None:
        return read(place, config, say=say)
    check_image_size(config.data.image_size)
    try:
        return download_cifar100(DEFAULT_FOLDER, say)
    except UserError as error:
        raise UserError(
            "download.failed",
            str(error),
            steps=(
                "Alternatives:",
                f"  1. download {HOMES[0]}{ARCHIVE} yourself and move it into {DEFAULT_FOLDER}/",
                f"  2. name the archive or the directory of the data: --data-dir PATH, or export {ENVIRONMENT}=PATH",
                "  3. try it on synthetic images: --dataset synthetic",
            ),
        ) from None


def resolve_data_dir(data_dir: Path | None = None) -> Path | None:
    """The directory or archive to read: `data_dir`, else that of config.py, else $CIFAR100_DATA_DIR, else ./data if it
    contains a dataset, else None.

    Raises UserError if the one that is named does not exist; nothing is downloaded to it.
    """
    own = Config().run.data_dir
    named = {
        "--data-dir": data_dir if data_dir != own else None,
        "data_dir in config.py": own,
        f"${ENVIRONMENT}": os.environ.get(ENVIRONMENT),
    }
    for origin, value in named.items():
        if value:
            try:
                place = Path(value).expanduser()
            except RuntimeError:  # ~NAME of an unknown user
                place = Path(value)
            # unlike Path.is_dir, os.path.isdir raises nothing if the name is too long or the directory may not be read
            if not (os.path.isdir(place) or os.path.isfile(place)):
                what = "is neither a directory nor a file" if os.path.lexists(place) else "does not exist"
                raise UserError("dataset.not_found", f"{origin} is {place}, which {what}.")
            return place
    return DEFAULT_FOLDER if _find(DEFAULT_FOLDER) else None


def read(place: Path, config: Config | None = None, *, say: Callable[[str], None] = emit) -> Dataset:
    """The dataset in a directory or an archive, in any of the known formats. Raises UserError if there is none."""
    config = config or Config()
    reader, found = _found(place)
    if reader is folder:
        return folder.read(*found, config=config, say=say)
    dataset = reader.read(*found)
    check_image_size(config.data.image_size)
    return dataset


def find_class_folders(config: Config) -> Layout | None:
    """The layout of the configured custom images; None for a published or the synthetic dataset, or if there is none.
    Raises UserError as `read` does."""
    place = None if config.data.dataset == "synthetic" else resolve_data_dir(config.run.data_dir)
    if place is None:
        return None
    reader, found = _found(place)
    return found[0] if reader is folder else None


def read_labeled(
    layout: Layout, spec: DatasetSpec, config: Config, *, everything: bool = False, say: Say = emit
) -> Dataset:
    """The images of a layout as test images, of any of the classes of `spec`: those of its test split if it has one,
    unless `everything` is true. Raises UserError if there are other classes, or no readable image."""
    splits = ["test"] if "test" in layout.splits and not everything else list(layout.splits)
    return folder.read_labeled(layout, spec, splits, config=config, say=say)


def _found(place: Path) -> tuple[Any, Any]:
    """The reader whose format this directory or file has, and what it found. Raises UserError if none has."""
    known = _find(place)
    if known is not None:
        return known
    if os.path.isfile(place):
        raise UserError(
            "dataset.format",
            f"{place} is not a known dataset file. It must be an archive of CIFAR-100 or CIFAR-10 (.tar.gz), a .zip or "
            f".tar of class folders, or a .csv of labels; or name a directory."
            f"{folder.hint(place) or content_hint(read_start(place))}",
        )
    hint = folder.hint(place)
    if hint:
        raise UserError("dataset.format", f"{place} contains no known dataset.{hint}")
    folders = ", ".join(layout.folder for layout in (*pickles.LAYOUTS, *binary.LAYOUTS))
    raise UserError(
        "dataset.format",
        f"{place} contains no known dataset. It must contain {folders} (from {HOMES[0]}), the files of one of these, "
        "its .tar.gz, train*.parquet and test*.parquet, or a directory of images for each class.",
    )


def _find(place: Path) -> tuple[Any, Any] | None:
    """The reader whose format this directory or file has, and what it found; None if none has."""
    try:
        for reader in READERS:
            found = reader.find(place)
            if found is not None:
                return reader, found
    except OSError as error:
        name = str(error.filename or place)
        raise UserError(
            "dataset.unreadable", f"{name} cannot be read ({error.strerror or type(error).__name__})."
        ) from None
    return None
