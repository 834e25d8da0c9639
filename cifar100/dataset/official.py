"""The official files of CIFAR-100 and CIFAR-10, in a directory or in an archive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cifar100.dataset import binary, pickles
from cifar100.dataset.archive import open_archive
from cifar100.dataset.base import Dataset
from cifar100.dataset.tree import Directory
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, read_start

FORMATS = [(reader, fmt) for reader in (pickles, binary) for fmt in reader.FORMATS]


def find(directory: Directory) -> Callable[[], Dataset] | None:
    """A function that reads the official files in this directory, or in its subdirectory named as in the archive; None
    if there are none."""
    for reader, fmt in FORMATS:
        for candidate in (directory, directory.directories.get(fmt.folder)):
            if candidate is not None and candidate.listing.files.keys() >= set(fmt.files):
                return partial(reader.read, candidate, fmt)
    return None


def find_archive(directory: Directory) -> Callable[[], Dataset] | None:
    """A function that reads the archive with an official name in this directory; None if there is none."""
    archives = (directory.listing.files.get(fmt.archive) for _, fmt in FORMATS)
    return next((partial(_read_archive, Path(path)) for path in archives if isinstance(path, str)), None)


def _read_archive(path: Path) -> Dataset:
    directory = open_archive(path)
    read = None if directory is None else find(directory)
    if read is None:
        folders = ", ".join(fmt.folder for _, fmt in FORMATS)
        raise UserError(
            "dataset.format", f"{path} must be an archive of all files of {folders}.{content_hint(read_start(path))}"
        )
    return read()
