"""Class activation maps (Zhou et al. 2016, https://arxiv.org/abs/1512.04150) as heatmaps over images.

A network that ends in global average pooling and one linear layer needs no gradients for this: Grad-CAM (Selvaraju et
al. 2017, https://arxiv.org/abs/1610.02391) of the last stage is the class activation map, up to scale. The map has an
eighth of the image's resolution, 4x4 cells for 32x32 pixels: it shows which part of an image counted, not which edge.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

OVERLAY_SIZE = 256
"""Minimum height and width of an overlay, in pixels."""


def normalize_cams(cams: np.ndarray) -> np.ndarray:
    """Class activation maps [..., h, w] -> float32 in 0..1: negative evidence is 0, the highest value of a map 1.

    A map without positive evidence is 0 everywhere.
    """
    positive = np.maximum(cams, 0).astype(np.float32)
    highest = positive.max(axis=(-2, -1), keepdims=True)
    return positive / np.where(highest > 0, highest, 1)


def top1_heatmaps(logits: np.ndarray, cams: np.ndarray) -> np.ndarray:
    """Logits [B, C], maps [B, C, h, w] -> the normalized map of each image's top-1 class, float32 [B, h, w]."""
    return normalize_cams(cams[np.arange(len(cams)), logits.argmax(axis=1)])


def overlay(pixels: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """An image uint8 [S, S, 3], enlarged, under a heatmap in 0..1 [h, w]: uint8 [S', S', 3].

    S' is the smallest multiple of S that is at least 256. The image is shown in gray; all color is the heatmap's.
    """
    zoom = -(-OVERLAY_SIZE // min(pixels.shape[:2]))
    large = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1).astype(np.float32)
    small = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    smooth = np.asarray(small.resize((large.shape[1], large.shape[0]), Image.Resampling.BILINEAR))
    gray = large @ np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
    blended = 16 + 0.28 * gray[:, :, None] + 0.6 * apply_colormap(smooth)  # low contrast, so that the colors stand out
    return blended.round().clip(0, 255).astype(np.uint8)


def apply_colormap(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape [...] -> RGB float32 [..., 3] in 0..255.

    The colors are those of matplotlib's "inferno", whose lightness rises evenly, so it also works in grayscale and for
    color-blind readers.
    """
    positions = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(values, positions, channel) for channel in _INFERNO.T], axis=-1).astype(np.float32)


_INFERNO = np.array(  # every eighth of its range
    [
        *((0, 0, 4), (32, 12, 74), (88, 15, 109), (136, 34, 106), (187, 55, 84)),
        *((227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)),
    ],
    np.float64,
)
