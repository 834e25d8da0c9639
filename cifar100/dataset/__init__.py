"""Datasets: finding one and reading it into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cifar100.config import Config
from cifar100.dataset import folder, official, parquet, synthetic
from cifar100.dataset.archive import open_directory
from cifar100.dataset.base import Dataset, Split, train_val_split
from cifar100.dataset.class_folders import find_layout, hint_for
from cifar100.dataset.download import ARCHIVE, HOMES, download_cifar100
from cifar100.dataset.layout import Layout
from cifar100.dataset.published import check_image_size
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, read_start
from cifar100.support.terminal import Say, emit

__all__ = [
    "Dataset",
    "Split",
    "find_class_folders",
    "load_dataset",
    "read",
    "resolve_data_dir",
    "train_val_split",
]

ENVIRONMENT = "CIFAR100_DATA_DIR"
DEFAULT_FOLDER = Path("data")
"""Relative to the working directory; the only directory that is downloaded to unless one is named."""


def load_dataset(config: Config | None = None, *, say: Say = emit) -> Dataset:
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
    return DEFAULT_FOLDER if find(DEFAULT_FOLDER) else None


def read(place: Path, config: Config | None = None, *, say: Say = emit) -> Dataset:
    """The dataset in a directory or an archive, in any of the known formats. Raises UserError if there is none."""
    config = config or Config()
    found = _found(place)
    if isinstance(found, Layout):
        return folder.read(found, config=config, say=say)
    dataset = found()
    check_image_size(config.data.image_size)
    return dataset


def find_class_folders(config: Config) -> Layout | None:
    """The layout of the configured custom images; None for a published or the synthetic dataset, or if there is none.
    Raises UserError as `read` does."""
    place = None if config.data.dataset == "synthetic" else resolve_data_dir(config.run.data_dir)
    found = None if place is None else _found(place)
    return found if isinstance(found, Layout) else None


def _found(place: Path) -> Callable[[], Dataset] | Layout:
    """As `find`. Raises UserError if there is nothing."""
    found = find(place)
    if found is not None:
        return found
    directory = open_directory(place)
    hint = "" if directory is None else hint_for(directory)
    if os.path.isfile(place):
        raise UserError(
            "dataset.format",
            f"{place} is not a known dataset file. It must be a .zip or .tar archive, also compressed, of CIFAR-100, "
            f"CIFAR-10 or class folders, or a .csv of labels; unpack other archives, and name the directory."
            f"{hint or content_hint(read_start(place))}",
        )
    if hint:
        raise UserError("dataset.format", f"{place} contains no known dataset.{hint}")
    folders = ", ".join(fmt.folder for _, fmt in official.FORMATS)
    raise UserError(
        "dataset.format",
        f"{place} contains no known dataset. It must contain {folders} (from {HOMES[0]}), the files of one of these, "
        "its .tar.gz, train*.parquet and test*.parquet, or a directory of images for each class.",
    )


def find(place: Path) -> Callable[[], Dataset] | Layout | None:
    """A function that reads the published dataset in a directory or file, or the layout of its custom images; None if
    there is neither. Raises UserError if something cannot be read or is ambiguous."""
    try:
        if os.path.isfile(place) and place.suffix.lower() in (".csv", ".tsv"):
            return folder.find_labels(place)
        directory = open_directory(place)
        if directory is None:
            return None
        published = official.find(directory) or parquet.find(place) or official.find_archive(directory)
        return published or find_layout(directory)
    except OSError as error:
        name = str(error.filename or place)
        raise UserError(
            "dataset.unreadable", f"{name} cannot be read ({error.strerror or type(error).__name__})."
        ) from None
