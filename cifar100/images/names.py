"""Names of image files: which are images, which are hidden, and their order."""

from __future__ import annotations

import re
from pathlib import Path

MAX_DIGITS = 4000
"""Digits of a number that are compared; Python converts no more than 4300."""

HEIF_SUFFIXES = (".heic", ".heif", ".hif")

SYSTEM_FILES = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "lost+found",
    "system volume information",
)
"""Files and directories that operating systems create, besides those whose names begin with a dot. Lower case."""


def is_hidden(name: str) -> bool:
    """Whether a file or directory of this name is hidden or created by the operating system; ".." is not."""
    return (name.startswith(".") and name != "..") or name.casefold() in SYSTEM_FILES


def has_image_suffix(path: str | Path) -> bool:
    """Whether a name ends with the suffix of a supported format, or of HEIC (not supported, but named in the error).

    A class folder contains at least one such file; then every file in it is read.
    """
    from cifar100.images.convert import image_suffixes

    return str(path).lower().endswith((*image_suffixes(), *HEIF_SUFFIXES))


def natural_sort_key(name: str) -> tuple[list[str | int], str]:
    """Sort key of names with numbers by value: 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [int(part[:MAX_DIGITS]) if place % 2 else part for place, part in enumerate(parts)], name
