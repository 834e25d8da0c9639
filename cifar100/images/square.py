"""Make an image square, at the size of a network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cifar100.images.fit import DEFAULT_FIT, FITS, Fit
from cifar100.support.errors import UserError

PADDING_COLOR = (128, 128, 128)
"""Close to the mean color of CIFAR-100."""


def to_square(rgb: Image.Image, size: int, fit: Fit = DEFAULT_FIT, *, name: str | Path = "") -> np.ndarray:
    """An upright RGB image -> uint8 [size, size, 3]; `name` is for error messages.

    "crop" resizes the shorter side to `size` and takes the center; "pad" resizes the longer side and fills the rest
    with gray; "stretch" changes the aspect ratio. Raises UserError for an unknown `fit`, or if the image
    is too elongated for "crop".
    """
    if fit not in FITS:
        raise UserError("image.fit", f"There is no fit {fit!r}; choose one of {', '.join(FITS)}.")
    width, height = rgb.size
    if fit == "crop":
        if (width, height) == (size, size):
            return np.asarray(rgb)
        scale = size / min(width, height)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        if max(wide, high) > 100 * size:
            prefix = f"{name}: " if name else ""
            raise UserError(
                "image.aspect_ratio", f"{prefix}The image is {width}x{height}, too long and thin for a square crop."
            )
        left, top = (wide - size) // 2, (high - size) // 2
        resized = rgb.resize((wide, high), Image.Resampling.BICUBIC)  # Pillow's filters antialias
        return np.asarray(resized.crop((left, top, left + size, top + size)))
    wide, high = size, size
    if fit == "pad":
        scale = size / max(rgb.size)
        wide, high = (max(1, round(side * scale)) for side in rgb.size)
    resized = rgb.resize((wide, high), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), PADDING_COLOR)
    square.paste(resized, ((size - wide) // 2, (size - high) // 2))
    return np.asarray(square)


def without_padding(square: np.ndarray) -> np.ndarray:
    """The part of `to_square`'s result for "pad" that shows the image; all of it if that is a line or nothing."""
    shown = (square != PADDING_COLOR).any(axis=2)
    inside = square[shown.any(axis=1)][:, shown.any(axis=0)]
    return inside if min(inside.shape) > 1 else square


def visible_fraction(width: int, height: int, fit: Fit) -> float:
    """The fraction of an image's area that `to_square` keeps, in 0..1."""
    return min(width, height) / max(width, height) if fit == "crop" else 1.0
