"""The official files of CIFAR-100 and CIFAR-10, in a directory or in an archive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cifar100.dataset import binary, pickles
from cifar100.dataset.base import Dataset
from cifar100.dataset.class_archive import open_archive
from cifar100.dataset.tree import Directory
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, read_start

FORMATS = [(reader, layout) for reader in (pickles, binary) for layout in reader.LAYOUTS]


def find(directory: Directory) -> Callable[[], Dataset] | None:
    """What reads the files in this directory, or in the format's own directory in it; None if there are none."""
    for reader, layout in FORMATS:
        for candidate in (directory, directory.directories.get(layout.folder)):
            if candidate is not None and candidate.listing.files.keys() >= set(layout.files):
                return partial(reader.read, candidate, layout)
    return None


def find_archive(directory: Directory) -> Callable[[], Dataset] | None:
    """What reads the archive with an official name in this directory; None if there is none."""
    archives = (directory.listing.files.get(layout.archive) for _, layout in FORMATS)
    return next((partial(_read_archive, Path(path)) for path in archives if isinstance(path, str)), None)


def _read_archive(path: Path) -> Dataset:
    directory = open_archive(path)
    read = None if directory is None else find(directory)
    if read is None:
        folders = ", ".join(layout.folder for _, layout in FORMATS)
        raise UserError(
            "dataset.format", f"{path} must be an archive of all files of {folders}.{content_hint(read_start(path))}"
        )
    return read()
