"""How an image that is not square becomes the square input of a network (`images.square.to_square`)."""

from __future__ import annotations

from typing import Literal, get_args

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)

DEFAULT_FIT: Fit = "crop"
"""The default of every interface: no other was more accurate on photos beyond noise (docs/results.md)."""
