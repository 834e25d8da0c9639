"""Finding a dataset and reading it into memory.

A source is one module with two functions: `find(path)` says whether, where and what a folder (or file) holds of its
format, or None, and `read(*found)` reads that. `READERS` lists them in the order they are asked. The published formats
are taken as they are; the last, `folder`, reads images of your own, and is also told the settings and whom to tell how
it goes.
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
from cifar100.support.terminal import emit

__all__ = [
    "Dataset",
    "Split",
    "find_class_folders",
    "load_dataset",
    "read",
    "read_class_folders",
    "read_labeled",
    "resolve_data_dir",
    "train_val_split",
]

Say = Callable[[str], None]

READERS = (pickles, binary, parquet, archive, folder)

ENVIRONMENT = "CIFAR100_DATA_DIR"
DEFAULT_FOLDER = Path("data")
"""Relative to the working directory; the only folder that is filled without having been named."""


def load_dataset(config: Config | None = None, *, say: Callable[[str], None] = emit) -> Dataset:
    """The dataset that the settings name, in memory: what `resolve_data_dir`'s folder holds, or the made-up set.

    Where no folder was named and ./data holds nothing, CIFAR-100 is downloaded into ./data; `say` is told how that, or
    the decoding of many images, goes. Raises UserError where that fails, or what is found is damaged or foreign.
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
                "Three ways on:",
                f"  1. download {HOMES[0]}{ARCHIVE} by other means and put it into {DEFAULT_FOLDER}/",
                f"  2. name it, or the folder that holds the data: --data-dir PATH, or export {ENVIRONMENT}=PATH",
                "  3. try things out on synthetic images: --dataset synthetic",
            ),
        ) from None


def resolve_data_dir(data_dir: Path | None = None) -> Path | None:
    """The folder (or archive) to read: `data_dir`, else $CIFAR100_DATA_DIR, else ./data where it holds a dataset, else
    None.

    Raises UserError where one was named that does not exist: a name is never a reason to download.
    """
    for origin, value in (("--data-dir", data_dir), (f"${ENVIRONMENT}", os.environ.get(ENVIRONMENT))):
        if value:
            try:
                place = Path(value).expanduser()
            except RuntimeError:  # ~somebody who has no home here
                place = Path(value)
            # os.path's, unlike Path's, raise nothing for a name that is too long or a folder that is closed to us
            if not (os.path.isdir(place) or os.path.isfile(place)):
                raise UserError("dataset.not_found", f"{origin} is {place}, which does not exist.")
            return place
    return DEFAULT_FOLDER if _find(DEFAULT_FOLDER) else None


def read(place: Path, config: Config | None = None, *, say: Callable[[str], None] = emit) -> Dataset:
    """The dataset that a folder or an archive holds, in whichever of the known formats.

    Raises UserError where it holds none.
    """
    config = config or Config()
    reader, found = _found(place)
    if reader is folder:
        return folder.read(*found, config=config, say=say)
    check_image_size(config.data.image_size)
    return reader.read(*found)


def find_class_folders(config: Config) -> Layout | None:
    """The layout of your own images that the settings name; None if they name a published or the synthetic dataset, or
    if there is none. Raises UserError as `read` does."""
    place = None if config.data.dataset == "synthetic" else resolve_data_dir(config.run.data_dir)
    if place is None:
        return None
    reader, found = _found(place)
    return found[0] if reader is folder else None


def read_class_folders(layout: Layout, config: Config, *, say: Say = emit) -> Dataset:
    """The images of a layout, to train on and to test with; see `folder.read`."""
    return folder.read(layout, config=config, say=say)


def read_labeled(
    layout: Layout, spec: DatasetSpec, config: Config, *, everything: bool = False, say: Say = emit
) -> Dataset:
    """The images of a layout as test images, of any of the classes of `spec`: those of its test split if it has one,
    unless `everything` is asked for. Raises UserError if there are other classes, or no readable image."""
    splits = ["test"] if "test" in layout.splits and not everything else list(layout.splits)
    return folder.read_labeled(layout, spec, splits, config=config, say=say)


def _found(place: Path) -> tuple[Any, Any]:
    """The reader that knows what this folder or file holds, and what it found. Raises UserError if none does."""
    known = _find(place)
    if known is not None:
        return known
    if os.path.isfile(place):
        raise UserError(
            "dataset.format",
            f"{place} holds no dataset that is understood: expected a published archive of CIFAR-100 or "
            "CIFAR-10 (.tar.gz), a .zip or .tar of class folders, or a .csv of labels; or name a "
            f"folder.{folder.hint(place)}",
        )
    hint = folder.hint(place)
    if hint:
        raise UserError("dataset.format", f"{place} holds no dataset that is understood.{hint}")
    folders = ", ".join(layout.folder for layout in (*pickles.LAYOUTS, *binary.LAYOUTS))
    raise UserError(
        "dataset.format",
        f"{place} holds no dataset that is understood: expected {folders} (from {HOMES[0]}), the files of "
        "one of these themselves, its .tar.gz, train*.parquet and test*.parquet, or a folder of images for each class.",
    )


def _find(place: Path) -> tuple[Any, Any] | None:
    """The reader that knows what this folder holds, and what it found; None where none does."""
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
