"""A map of evidence laid over a picture, in colours that also read in grey. Needs numpy and Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

OVERLAY_SIZE = 256
"""Pixels that the shorter side of an overlay has at least, where its image is smaller."""


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture uint8 [S, S, 3], enlarged, with a map in 0..1 [h, w] laid over it: uint8 [S', S', 3].

    S' is the least multiple of S that is at least 256. The picture's pixels stay visible as squares, in grey; colour is
    the map's alone, `apply_colormap`.
    """
    zoom = -(-OVERLAY_SIZE // min(pixels.shape[:2]))
    large = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1).astype(np.float32)
    map_ = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    smooth = np.asarray(map_.resize((large.shape[1], large.shape[0]), Image.Resampling.BILINEAR))
    grey = large @ np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
    laid = 16 + 0.28 * grey[:, :, None] + 0.6 * apply_colormap(smooth)  # little contrast for the picture's lights
    return laid.round().clip(0, 255).astype(np.uint8)


def apply_colormap(values: np.ndarray) -> np.ndarray:
    """Numbers in 0..1, of any shape [...] -> RGB float32 [..., 3] in 0..255, dark violet to bright yellow.

    The colours are those of matplotlib's "inferno", whose lightness rises evenly: it reads in grey and by eyes that
    confuse colours.
    """
    places = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(values, places, channel) for channel in _INFERNO.T], axis=-1).astype(np.float32)


_INFERNO = np.array(  # every eighth of its range
    [
        *((0, 0, 4), (32, 12, 74), (88, 15, 109), (136, 34, 106), (187, 55, 84)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ],
    np.float64,
)
