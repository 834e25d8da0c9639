"""Building blocks of corruptions: row filters as matrices, motion blur, plasma fractals; on whole batches.

A filter of rows is a matrix [target, S]: M @ x @ M.T filters images x [B, C, S, S] by it in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@cache
def gaussian_matrix(size: int, sigma: float, edges: str, truncate: float = 4) -> Tensor:
    """[S, S]: filters a row like scipy.ndimage.gaussian_filter1d, with the `mode` "nearest" or "reflect"."""
    radius = int(truncate * sigma + 0.5)
    reach = np.arange(-radius, radius + 1)
    weights = np.exp(-(reach**2) / (2 * sigma**2)) if sigma > 0 else np.ones(1)
    source = np.arange(size)[:, None] + reach
    if edges == "nearest":
        source = source.clip(0, size - 1)
    else:  # d c b a | a b c d | d c b a
        source = source % (2 * size)
        source = np.minimum(source, 2 * size - 1 - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), weights / weights.sum())
    return torch.from_numpy(matrix.astype(np.float32))


@cache
def zoom_matrix(size: int, factor: float) -> Tensor:
    """[S, S]: the middle of a row enlarged by `factor`, as the authors cut it and scipy.ndimage.zoom interpolates."""
    cut = math.ceil(size / factor)
    top, large = (size - cut) // 2, round(cut * factor)
    positions = np.arange(large) * ((cut - 1) / max(1, large - 1))
    lower = np.minimum(positions.astype(int), max(0, cut - 2))
    matrix = np.zeros((large, size))
    matrix[np.arange(large), top + lower] = 1 - (positions - lower)
    matrix[np.arange(large), top + np.minimum(lower + 1, cut - 1)] += positions - lower
    trim = (large - size) // 2
    return torch.from_numpy(matrix[trim : trim + size].astype(np.float32))


@cache
def box_resize_matrix(size: int, target: int) -> Tensor:
    """[target, S]: Pillow's own weights for resizing a row with its box filter."""
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    return torch.from_numpy(np.asarray(identity.resize((target, size), Image.Resampling.BOX)).T.copy())


def motion_blur_filter(x: Tensor, degrees: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur images [B, C, S, S] by a one-sided Gaussian of standard deviation `sigma` over 2 * `radius` + 1 pixels.

    `degrees` [B] is the direction that each image is sampled in: 0 is right, 90 is down. Samples are at whole pixels;
    edge pixels are repeated. After the MotionBlurImage of ImageMagick.
    """
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(2 * radius + 1)]
    total = sum(weights)
    angle = torch.deg2rad(degrees.cpu().double())
    size = x.shape[2]
    positions = torch.arange(size, device=x.device)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    channels_last = x.permute(0, 2, 3, 1)
    result = torch.zeros_like(channels_last)
    for step, weight in enumerate(weights):
        if weight / total < 1e-5:
            break
        down = torch.ceil(step * angle.sin() - 0.5).long().to(x.device)[:, None, None]
        right = torch.ceil(step * angle.cos() - 0.5).long().to(x.device)[:, None, None]
        rows = (positions[:, None] + down).clamp(0, size - 1)  # [B, S, 1]
        columns = (positions + right).clamp(0, size - 1)  # [B, 1, S]
        result += weight / total * channels_last[image, rows, columns]
    return result.permute(0, 3, 1, 2)


def plasma_fractal(x: Tensor, uniform: Callable[..., Tensor], decay: float) -> Tensor:
    """Plasma fractals [B, 1, S, S] from 0 to 1, for images [B, C, S, S], by the diamond-square algorithm on a torus.

    `uniform(low, high, *shape)` draws float32 [B, *shape]. The range of the added noise shrinks by `decay` squared from
    step to step.
    """
    size = x.shape[2]
    side = 1 << (size - 1).bit_length()
    clouds = x.new_zeros(len(x), side, side)
    step, wobble = side, 100.0

    def midpoints(corner_sums: Tensor) -> Tensor:
        # the authors multiply by wobble twice, so the noise is within wobble ** 2
        return corner_sums / 4 + wobble * uniform(-wobble, wobble, *corner_sums.shape[1:])

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        sums = corners + corners.roll(-1, 1)
        centers = midpoints(sums + sums.roll(-1, 2))
        clouds[:, half::step, half::step] = centers
        beside = corners + corners.roll(-1, 2) + centers + centers.roll(1, 1)
        clouds[:, ::step, half::step] = midpoints(beside)
        below = corners + corners.roll(-1, 1) + centers + centers.roll(1, 2)
        clouds[:, half::step, ::step] = midpoints(below)
        step, wobble = half, wobble / decay
    clouds -= clouds.amin(dim=(1, 2), keepdim=True)
    clouds /= clouds.amax(dim=(1, 2), keepdim=True)
    return clouds[:, None, :size, :size]
