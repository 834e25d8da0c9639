"""Sample test images as PNG files."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from cifar100.dataset.base import Dataset
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write

_UNFIT_FOR_FILE_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')
"""Separators, and characters that Windows does not allow; classes of a file of labels may contain them."""


def write_samples(dataset: Dataset, directory: Path, count: int) -> list[Path]:
    """Write test images, evenly spaced in the split, as PNG files named by class; returns their paths.

    Raises UserError if the count is not in 1..size of the split or the directory cannot be created, RunFailed if a file
    cannot be written.
    """
    split = dataset.test
    if not 1 <= count <= len(split):
        raise UserError("data.count", f"--count is {count}; it must be from 1 to {len(split):,}, the test images.")
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for row in split.spread(count).tolist():
            name = _UNFIT_FOR_FILE_NAMES.sub("_", dataset.classes[split.labels[row]])[:100]
            paths.append(directory / f"{name}_{row}.png")
            content = io.BytesIO()
            Image.fromarray(split.images[row]).save(content, "PNG")
            atomic_write(paths[-1], content.getbuffer())
    except OSError as error:
        raise UserError("data.write", f"{directory} cannot be written ({error.strerror}).") from None
    return paths
