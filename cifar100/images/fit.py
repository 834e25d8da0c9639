"""How an image that is not square becomes the square input of a network (`images.square.to_square`)."""

from __future__ import annotations

from typing import Literal, get_args

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)

DEFAULT_FIT: Fit = "crop"
"""Of every interface: no other was more accurate on photos (docs/results.md)."""
