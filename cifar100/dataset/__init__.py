"""Finding a dataset and reading it into memory.

A source is one module with two functions: `find(path)` says whether, where and what a folder (or file) holds of its
format, or None, and `read(*found)` reads that. `READERS` lists them in the order they are asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cifar100.dataset import archive, binary, parquet, pickles, synthetic
from cifar100.dataset.base import Dataset, Split, hold_out
from cifar100.dataset.download import ARCHIVE, HOMES, fetch
from cifar100.errors import UserError
from cifar100.text import printable

__all__ = ["Dataset", "Split", "find_folder", "hold_out", "load_dataset", "read"]

READERS = (pickles, binary, parquet, archive)

ENVIRONMENT = "CIFAR100_DATA_DIR"
DEFAULT_FOLDER = Path("data")
"""Relative to the working directory; the only folder that is filled without having been named."""


def load_dataset(
    name: str = "cifar100", data_dir: Path | None = None, *, say: Callable[[str], None] = print
) -> Dataset:
    """The dataset in memory: what the folder that `find_folder` names holds, or for "synthetic" the made-up set.

    Where no folder was named and ./data holds nothing, CIFAR-100 is downloaded into ./data, and `say` is told how it
    goes. Raises UserError where that fails, or what is found is damaged or foreign.
    """
    if name == "synthetic":
        return synthetic.make()
    folder = find_folder(data_dir)
    if folder is not None:
        return read(folder)
    try:
        return fetch(DEFAULT_FOLDER, say)
    except UserError as error:
        raise UserError(
            f"{error}\nThree ways on:\n"
            f"  1. download {HOMES[0]}{ARCHIVE} by other means and put it into {DEFAULT_FOLDER}/\n"
            f"  2. name it, or the folder that holds the data: --data-dir PATH, or export {ENVIRONMENT}=PATH\n"
            "  3. try things out on made-up images: --dataset synthetic"
        ) from None


def find_folder(data_dir: Path | None = None) -> Path | None:
    """The folder (or archive) to read: `data_dir`, else $CIFAR100_DATA_DIR, else ./data where it holds a dataset, else
    None.

    Raises UserError where one was named that does not exist: a name is never a reason to download.
    """
    for origin, value in (("--data-dir", data_dir), (f"${ENVIRONMENT}", os.environ.get(ENVIRONMENT))):
        if value:
            try:
                folder = Path(value).expanduser()
            except RuntimeError:  # ~somebody who has no home here
                folder = Path(value)
            # os.path's, unlike Path's, raise nothing for a name that is too long or a folder that is closed to us
            if not (os.path.isdir(folder) or os.path.isfile(folder)):
                raise UserError(f"{origin} is {printable(folder)}, and there is no such folder or archive.")
            return folder
    return DEFAULT_FOLDER if any(reader.find(DEFAULT_FOLDER) for reader in READERS) else None


def read(folder: Path) -> Dataset:
    """The dataset that a folder or an archive holds, in whichever of the known formats.

    Raises UserError where it holds none.
    """
    for reader in READERS:
        found = reader.find(folder)
        if found is not None:
            return reader.read(*found)
    folders = ", ".join(layout.folder for layout in (*pickles.LAYOUTS, *binary.LAYOUTS))
    raise UserError(
        f"{printable(folder)} holds no dataset that is understood: expected {folders} (from {HOMES[0]}), "
        "the files of one of these themselves, its .tar.gz, or train*.parquet and test*.parquet."
    )
