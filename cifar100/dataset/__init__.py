"""Finding a dataset and reading it into memory.

A source is one module with two functions: `find(folder)` says whether, where and what a folder holds of its format, or
None, and `read(*found)` reads that. `READERS` lists them in the order they are asked.
"""

from __future__ import annotations

import os
from pathlib import Path

from cifar100.dataset import binary, parquet, pickles, synthetic
from cifar100.dataset.base import Dataset, Split, hold_out
from cifar100.errors import UserError
from cifar100.text import printable

__all__ = ["Dataset", "Split", "find_folder", "hold_out", "load_dataset", "read"]

READERS = (pickles, binary, parquet)

ENVIRONMENT = "CIFAR100_DATA_DIR"
HOME = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"


def load_dataset(name: str = "cifar100", data_dir: Path | None = None) -> Dataset:
    """The dataset in memory: what the folder that `find_folder` names holds, or for "synthetic" the made-up set.

    Raises UserError where it is not found, or what is found is damaged or foreign.
    """
    return synthetic.make() if name == "synthetic" else read(find_folder(data_dir))


def find_folder(data_dir: Path | None = None) -> Path:
    """The folder to read: `data_dir`, else $CIFAR100_DATA_DIR, else ./data.

    A folder that was named must hold the data; only where none was named may there be nothing, and then the
    UserError lists the ways on.
    """
    named = [("--data-dir", data_dir), (f"${ENVIRONMENT}", os.environ.get(ENVIRONMENT))]
    for origin, value in named:
        if value:
            try:
                folder = Path(value).expanduser()
            except RuntimeError:  # ~somebody who has no home here
                folder = Path(value)
            if not folder.is_dir():
                raise UserError(f"{origin} is {printable(folder)}, which is not a folder.")
            return folder
    if Path("data").is_dir():
        return Path("data")
    raise UserError(
        "CIFAR-100 was not found: no --data-dir was given, $CIFAR100_DATA_DIR is not set and there is no data/ here. "
        "Three ways on:\n"
        f"  1. download {HOME} and unpack it into data/\n"
        "  2. name the folder that holds it: --data-dir DIR, or export CIFAR100_DATA_DIR=DIR\n"
        "  3. try things out on made-up images: --dataset synthetic"
    )


def read(folder: Path) -> Dataset:
    """The dataset that a folder holds, in whichever of the known formats. Raises UserError where it holds none."""
    for reader in READERS:
        found = reader.find(folder)
        if found is not None:
            return reader.read(*found)
    folders = ", ".join(layout.folder for layout in (*pickles.LAYOUTS, *binary.LAYOUTS))
    raise UserError(
        f"{printable(folder)} holds no dataset that is understood: expected {folders} (from {HOME}), "
        "or the files of one of these themselves, or train*.parquet and test*.parquet."
    )
