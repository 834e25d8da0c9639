"""Names of image files: which are images, which belong to the system, and their order."""

from __future__ import annotations

import re
from pathlib import Path

NO_DATA = ("thumbs.db", "desktop.ini", "__macosx")
"""What systems leave in folders, beside files whose names begin with a dot. Lower case."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's rather than the user's."""
    return name.startswith(".") or name.casefold() in NO_DATA


def is_image(path: str | Path) -> bool:
    """Whether a file's name ends as those of the formats that are read, or of HEIC, whose error says what to do.

    A class folder holds one of these at least, and then every file in it is tried.
    """
    from cifar100.images.convert import HEIF_SUFFIXES, image_suffixes

    return str(path).lower().endswith((*image_suffixes(), *HEIF_SUFFIXES))


def natural_sort_key(name: str) -> tuple[list[str | int], str]:
    """Sorts names as people do, numbers in them by value: 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
