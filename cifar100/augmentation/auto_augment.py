"""TrivialAugment and RandAugment for whole batches on the device, with a different operation and level for each image.

An operation is three passes over the batch, which leave images of other operations unchanged: `warp` moves
pixels, `blend` blends each image with its degenerate image (Pillow's term), and `apply_lut` maps values. Their
parameters come from `OpTables`, which are computed on the CPU; no pass synchronizes, and all but the blend use integer
arithmetic. So every device yields the same pixels, which are Pillow's.

Shapes: B images per batch, N images per epoch, K operations per image, S the size of an image in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cifar100.config import AugmentConfig, PolicyName

MAX_LEVEL = 30
"""Levels are integers in -MAX_LEVEL..MAX_LEVEL; the sign is the direction of the operation."""


class Op(IntEnum):
    """The operations of both policies, which are equally likely."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTOCONTRAST = 12
    EQUALIZE = 13


@dataclass(frozen=True)
class MaxMagnitudes:
    """The magnitudes at the highest level; at level n they are n/30 of that, with a random sign.

    Posterize has no sign, nor has solarize, which inverts values of at least 256 - 256 n/30. Identity, autocontrast and
    equalize have no levels. Pixels from outside the image are black.
    """

    shear: float  # columns a row, or rows a column; the top row, or the left column, stays
    translate: float  # pixels, rounded towards 0
    rotate: float  # degrees about the center
    enhance: float  # of brightness, color, contrast and sharpness: the factor is 1 plus or minus this
    posterize: int  # bits of the eight that are cleared, after rounding


def max_magnitudes(policy: PolicyName, size: int) -> MaxMagnitudes:
    """The magnitudes of a policy for images of this size.

    "trivial" is the wide space of TrivialAugment (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158). It
    translates images of any size by up to 32 pixels, so at the highest level nothing is left of a 32x32 image. "rand"
    is that of RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719), which translates by a fraction of the
    size, up to 14 of 32 pixels. Both equal torchvision's, which the authors of TrivialAugment recommend, except that
    theirs solarizes values of at least 255 - 255 n/30.
    """
    if policy == "trivial":
        return MaxMagnitudes(shear=0.99, translate=32, rotate=135, enhance=0.99, posterize=6)
    return MaxMagnitudes(shear=0.3, translate=150 / 331 * size, rotate=30, enhance=0.9, posterize=4)


def sample_ops(config: AugmentConfig, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Random operations, int64 [N, K], as in `Op`, and levels, int64 [N, K], in -30..30.

    K is 0 without a policy; 1 with TrivialAugment, which samples levels; `rand_ops` with RandAugment, whose levels are
    `rand_magnitude`. Signs are random.
    """
    shape = count, {"none": 0, "trivial": 1, "rand": config.rand_ops}[config.policy]
    ops, signs = rng.integers(0, len(Op), shape), rng.choice((-1, 1), shape)
    levels = rng.integers(0, MAX_LEVEL, shape, endpoint=True) if config.policy == "trivial" else config.rand_magnitude
    return torch.from_numpy(ops), torch.from_numpy(signs * levels)


def apply_policy(images: Tensor, ops: Tensor, levels: Tensor, policy: PolicyName) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: the operations and levels of each image, int64 [B, K], applied in order.

    Equal to Pillow's, except that autocontrast may be brighter by 1 of 255 if Pillow's floating-point result is just
    below an integer.
    """
    op_tables = _tables(policy, images.shape[1], images.device)
    for op, level in zip(ops.unbind(1), levels.unbind(1), strict=True):
        entry = op, level + MAX_LEVEL
        images = warp(images, op_tables.affine[entry])
        images = blend(images, op, op_tables.blend_factor[entry])
        images = apply_lut(images, op, op_tables.lut[entry])
    return images


@dataclass(frozen=True)
class OpTables:
    """The parameters of the three passes for each operation and level (-30..30)."""

    affine: Tensor  # int32 [14, 61, 6]: the source of a pixel, in units of 1/65536 pixel
    blend_factor: Tensor  # float32 [14, 61]: the weight of the image
    lut: Tensor  # uint8 [14, 61, 256]: the new value of each


@lru_cache(maxsize=8)  # copying them to a GPU in every step would synchronize
def _tables(policy: PolicyName, size: int, device: torch.device) -> OpTables:
    most, values = max_magnitudes(policy, size), np.arange(256)
    affine = np.zeros((len(Op), 2 * MAX_LEVEL + 1, 6))
    affine[..., 0] = affine[..., 4] = 1
    blend_factor = np.ones(affine.shape[:2])
    lut = np.tile(values, (*affine.shape[:2], 1))
    for level in range(-MAX_LEVEL, MAX_LEVEL + 1):
        entry, strength = level + MAX_LEVEL, level / MAX_LEVEL
        affine[Op.SHEAR_X, entry, 1] = affine[Op.SHEAR_Y, entry, 3] = most.shear * strength
        affine[Op.TRANSLATE_X, entry, 2] = affine[Op.TRANSLATE_Y, entry, 5] = int(most.translate * strength)
        affine[Op.ROTATE, entry] = _rotation(most.rotate * strength, size)
        blend_factor[Op.BRIGHTNESS : Op.SHARPNESS + 1, entry] = 1 + most.enhance * strength
        cleared, threshold = round(most.posterize * abs(strength)), 256 - 256 * abs(level) // MAX_LEVEL
        lut[Op.POSTERIZE, entry] = values >> cleared << cleared
        lut[Op.SOLARIZE, entry] = np.where(values < threshold, values, 255 - values)
    affine[..., 2] += (affine[..., 0] + affine[..., 1]) / 2  # coordinates are those of pixel centers
    affine[..., 5] += (affine[..., 3] + affine[..., 4]) / 2
    return OpTables(
        torch.from_numpy(np.floor(affine * 65536 + 0.5).astype(np.int32)).to(device),
        torch.from_numpy(blend_factor.astype(np.float32)).to(device),
        torch.from_numpy(lut.astype(np.uint8)).to(device),
    )


def _rotation(degrees: float, size: int) -> tuple[float, ...]:
    """The affine map of a counter-clockwise rotation about the center, as in Pillow."""
    cosine, sine = round(math.cos(math.radians(degrees)), 15), round(math.sin(math.radians(degrees)), 15)
    middle = size / 2
    return cosine, -sine, middle - (cosine - sine) * middle, sine, cosine, middle - (sine + cosine) * middle


def warp(images: Tensor, affine: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: pixel (x, y) is the nearest to (a x + b y + c, d x + e y + f), or black.

    `affine`, int32 [B, 6], are a to f in units of 1/65536 pixel.
    """
    size = images.shape[1]
    a, b, c, d, e, f = affine[:, :, None, None].unbind(1)
    x = torch.arange(size, dtype=torch.int32, device=images.device)
    y = x[:, None]
    columns, rows = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16  # [B, S, S]
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images[image, rows.clamp(0, size - 1), columns.clamp(0, size - 1)] * inside[..., None]


def blend(images: Tensor, op: Tensor, factor: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: factor * image + (1 - factor) * degenerate image, rounded down.

    `factor` is float32 [B]. The degenerate image is black for brightness, the mean gray for contrast, the gray image
    for color, and a smoothed one for sharpness. For other operations the factor is 1.
    """
    pixels, kind = images.float(), op[:, None, None, None]
    red, green, blue = pixels.split(1, dim=3)
    gray = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()  # integers below 2^24: exact
    count = gray.shape[1:].numel()
    mean = (2 * gray.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) + count) // (2 * count)
    degenerate = torch.where(kind == Op.CONTRAST, mean, torch.where(kind == Op.COLOR, gray, 0))
    degenerate = torch.where(kind == Op.SHARPNESS, smooth_filter(pixels), degenerate)
    return (degenerate + factor[:, None, None, None] * (pixels - degenerate)).clamp(0, 255).to(torch.uint8)


def smooth_filter(pixels: Tensor) -> Tensor:
    """Float32 [B, S, S, 3] of integers -> the same: the rounded mean of a pixel, with weight 5, and its neighbors; the
    border is unchanged. Pillow's SMOOTH."""
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smoothed = pixels.clone()
    smoothed[:, 1:-1, 1:-1] = ((square + 4 * pixels[:, 1:-1, 1:-1]) / 13 + 0.5).floor()
    return smoothed


def apply_lut(images: Tensor, op: Tensor, lut: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: values mapped by the look-up table of each image, uint8 [B, 256].

    Autocontrast and equalize compute their tables from the image, one per channel.
    """
    channels = 256 * torch.arange(3, device=images.device)
    indices = (images.long() + channels).flatten(1)  # index of each value in the three tables, [B, S*S*3]
    one = torch.ones((), dtype=torch.int64, device=images.device)
    counts = one.new_zeros(len(images), 3 * 256).scatter_add_(1, indices, one.expand_as(indices)).unflatten(1, (3, 256))
    least, most = images.amin(dim=(1, 2)).long()[..., None], images.amax(dim=(1, 2)).long()[..., None]  # [B, 3, 1]
    kind = op[:, None, None]
    tables = torch.where(kind == Op.EQUALIZE, equalize_lut(counts, most), lut[:, None])
    tables = torch.where(kind == Op.AUTOCONTRAST, autocontrast_lut(least, most), tables)
    return tables.flatten(1).to(torch.uint8).gather(1, indices).view_as(images)


def autocontrast_lut(least: Tensor, most: Tensor) -> Tensor:
    """Tables int64 [B, 3, 256] that stretch the range of each channel, with minimum and maximum int64 [B, 3, 1], to
    0..255, rounded down; a constant channel is unchanged."""
    values = torch.arange(256, device=least.device)
    spread = (255 * (values - least) // (most - least).clamp(min=1)).clamp(0, 255)
    return torch.where(most > least, spread, values)


def equalize_lut(counts: Tensor, most: Tensor) -> Tensor:
    """Tables int64 [B, 3, 256] that equalize the histogram of each channel, `counts`.

    `most` is the maximum, int64 [B, 3, 1]. A channel with fewer than 255 pixels below it is unchanged.
    """
    values = torch.arange(256, device=counts.device)
    step = (counts.sum(dim=2, keepdim=True) - counts.gather(2, most)) // 255
    below = counts.cumsum(dim=2) - counts
    equal = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, equal, values)
