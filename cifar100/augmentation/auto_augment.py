"""TrivialAugment and RandAugment on whole batches, on the device: each image with an operation and a level of its own.

An operation takes three passes over the batch, each of which leaves alone the images that it does not concern: `warp`
moves pixels, `blend` mixes each image with a paler form of itself, `map_values` looks each value up in a table. What an
operation means at a level is looked up too, in a `Space` that was worked out on the CPU; no pass waits for the device,
and all but the blend count in whole numbers. So every device gives the same pixels, those that Pillow gives.

Shapes: B images a batch, N an epoch, K operations an image, S the side of an image in pixels.
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

LEVELS = 30
"""The highest level; the lowest, 0, is the mildest."""


class Op(IntEnum):
    """The operations of both policies, each as likely as the others."""

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
class Reach:
    """What the operations do at the highest level; at level n it is n/30 of that, with either sign.

    Two have no sign: posterize, and solarize, which inverts the values from 256 - 256 n/30 on. Identity, autocontrast
    and equalize have no levels. Pixels that come from outside the image are black.
    """

    shear: float  # columns a row, or rows a column; the topmost row, or the leftmost column, stays
    translate: float  # pixels, rounded towards 0
    rotate: float  # degrees about the centre
    enhance: float  # of brightness, colour, contrast, sharpness: added to the factor, which is 1 at level 0
    posterize: int  # bits of the eight that are cleared, after rounding


def reach(policy: PolicyName, size: int) -> Reach:
    """The reach of a policy for images of side `size`.

    "trivial" is TrivialAugment's wide space (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158). It moves images
    of any size by up to 32 pixels, so at the highest level nothing is left of a 32x32 image. "rand" is RandAugment's
    (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719), which moves by a share of the side, up to 14 of 32 pixels.
    Both are torchvision's, which TrivialAugment's authors recommend, except that theirs inverts from 255 - 255 n/30 on
    when it solarizes.
    """
    if policy == "trivial":
        return Reach(shear=0.99, translate=32, rotate=135, enhance=0.99, posterize=6)
    return Reach(shear=0.3, translate=150 / 331 * size, rotate=30, enhance=0.9, posterize=4)


def draw(config: AugmentConfig, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """The operations int64 [N, K], as in `Op`, and their levels int64 [N, K] in -30..30.

    K is 0 without a policy; 1 with TrivialAugment, which draws each level; `rand_ops` with RandAugment, whose levels
    all are `rand_magnitude`. Both draw signs.
    """
    shape = count, {"none": 0, "trivial": 1, "rand": config.rand_ops}[config.policy]
    ops, signs = rng.integers(0, len(Op), shape), rng.choice((-1, 1), shape)
    levels = rng.integers(0, LEVELS, shape, endpoint=True) if config.policy == "trivial" else config.rand_magnitude
    return torch.from_numpy(ops), torch.from_numpy(signs * levels)


def apply(images: Tensor, ops: Tensor, levels: Tensor, policy: PolicyName) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape, each image after its own operations, in order; int64 [B, K] each.

    Equals Pillow's operations, but that autocontrast may be 1 of 255 brighter where Pillow's arithmetic in floating
    point falls just short of a whole number.
    """
    space = _space(policy, images.shape[1], images.device)
    for op, level in zip(ops.unbind(1), levels.unbind(1), strict=True):
        entry = op, level + LEVELS
        images = warp(images, space.maps[entry])
        images = blend(images, op, space.factors[entry])
        images = map_values(images, op, space.curves[entry])
    return images


@dataclass(frozen=True)
class Space:
    """What each operation does at each level, -30..30, as the parameters of the three passes."""

    maps: Tensor  # int32 [14, 61, 6]: a pixel's source, in 65,536ths of a pixel
    factors: Tensor  # float32 [14, 61]: the image's share in the blend
    curves: Tensor  # uint8 [14, 61, 256]: the new value of each


@lru_cache(maxsize=8)  # made once a device: a copy to a GPU in every step would make the CPU wait for it
def _space(policy: PolicyName, size: int, device: torch.device) -> Space:
    most, values = reach(policy, size), np.arange(256)
    maps = np.zeros((len(Op), 2 * LEVELS + 1, 6))
    maps[..., 0] = maps[..., 4] = 1
    factors = np.ones(maps.shape[:2])
    curves = np.tile(values, (*maps.shape[:2], 1))
    for level in range(-LEVELS, LEVELS + 1):
        entry, strength = level + LEVELS, level / LEVELS
        maps[Op.SHEAR_X, entry, 1] = maps[Op.SHEAR_Y, entry, 3] = most.shear * strength
        maps[Op.TRANSLATE_X, entry, 2] = maps[Op.TRANSLATE_Y, entry, 5] = int(most.translate * strength)
        maps[Op.ROTATE, entry] = _rotation(most.rotate * strength, size)
        factors[Op.BRIGHTNESS : Op.SHARPNESS + 1, entry] = 1 + most.enhance * strength
        cleared, threshold = round(most.posterize * abs(strength)), 256 - 256 * abs(level) // LEVELS
        curves[Op.POSTERIZE, entry] = values >> cleared << cleared
        curves[Op.SOLARIZE, entry] = np.where(values < threshold, values, 255 - values)
    maps[..., 2] += (maps[..., 0] + maps[..., 1]) / 2  # a pixel's place is its centre's
    maps[..., 5] += (maps[..., 3] + maps[..., 4]) / 2
    return Space(
        torch.from_numpy(np.floor(maps * 65536 + 0.5).astype(np.int32)).to(device),
        torch.from_numpy(factors.astype(np.float32)).to(device),
        torch.from_numpy(curves.astype(np.uint8)).to(device),
    )


def _rotation(degrees: float, size: int) -> tuple[float, ...]:
    """Where the pixels of an image come from that is turned about its centre, counter-clockwise, as Pillow has it."""
    cosine, sine = round(math.cos(math.radians(degrees)), 15), round(math.sin(math.radians(degrees)), 15)
    middle = size / 2
    return cosine, -sine, middle - (cosine - sine) * middle, sine, cosine, middle - (sine + cosine) * middle


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: the pixel (x, y) comes from (a x + b y + c, d x + e y + f), or is black.

    The maps are int32 [B, 6], a to f, in 65,536ths of a pixel; the nearest pixel is taken.
    """
    size = images.shape[1]
    a, b, c, d, e, f = maps[:, :, None, None].unbind(1)
    x = torch.arange(size, dtype=torch.int32, device=images.device)
    y = x[:, None]
    columns, rows = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16  # [B, S, S]
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images[image, rows.clamp(0, size - 1), columns.clamp(0, size - 1)] * inside[..., None]


def blend(images: Tensor, op: Tensor, factor: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: `factor` of the image and 1 - `factor` of a paler one, rounded down.

    Float32 [B]; above 1 it leads away from the paler image. That is black for brightness, the image's mean grey for
    contrast, its grey version for colour, a smoothed one for sharpness, and for all other operations the factor is 1.
    """
    pixels, kind = images.float(), op[:, None, None, None]
    red, green, blue = pixels.split(1, dim=3)
    grey = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()  # whole numbers below 2^24: exact
    count = grey[0].numel()
    mean = (2 * grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64) + count) // (2 * count)
    paler = torch.where(kind == Op.CONTRAST, mean, torch.where(kind == Op.COLOR, grey, 0))
    paler = torch.where(kind == Op.SHARPNESS, smooth(pixels), paler)
    return (paler + factor[:, None, None, None] * (pixels - paler)).clamp(0, 255).to(torch.uint8)


def smooth(pixels: Tensor) -> Tensor:
    """Float32 [B, S, S, 3] of whole numbers -> the same: the mean of a pixel, counted five times, and its neighbours,
    rounded; at the border the image as it is. Pillow's SMOOTH."""
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smoothed = pixels.clone()
    smoothed[:, 1:-1, 1:-1] = ((square + 4 * pixels[:, 1:-1, 1:-1]) / 13 + 0.5).floor()
    return smoothed


def map_values(images: Tensor, op: Tensor, curves: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: each value looked up in its image's curve, uint8 [B, 256].

    For autocontrast and equalize the curves are each channel's own instead, and come from the image.
    """
    channels = 256 * torch.arange(3, device=images.device)
    places = (images.long() + channels).flatten(1)  # of each value in the image's three tables, [B, S*S*3]
    one = torch.ones((), dtype=torch.int64, device=images.device)
    counts = one.new_zeros(len(images), 3 * 256).scatter_add_(1, places, one.expand_as(places)).unflatten(1, (3, 256))
    least, most = images.amin(dim=(1, 2)).long()[..., None], images.amax(dim=(1, 2)).long()[..., None]  # [B, 3, 1]
    kind = op[:, None, None]
    tables = torch.where(kind == Op.EQUALIZE, equalizing(counts, most), curves[:, None])
    tables = torch.where(kind == Op.AUTOCONTRAST, stretching(least, most), tables)
    return tables.flatten(1).to(torch.uint8).gather(1, places).view_as(images)


def stretching(least: Tensor, most: Tensor) -> Tensor:
    """The tables int64 [B, 3, 256] that spread the values of a channel, int64 [B, 3, 1] each, over 0..255, rounded
    down; a channel of one value stays. Autocontrast."""
    values = torch.arange(256, device=least.device)
    spread = (255 * (values - least) // (most - least).clamp(min=1)).clamp(0, 255)
    return torch.where(most > least, spread, values)


def equalizing(counts: Tensor, most: Tensor) -> Tensor:
    """The tables int64 [B, 3, 256] that make all values of a channel about as frequent, from how often each occurs.

    `most` is the greatest that occurs, int64 [B, 3, 1]. Where fewer than 255 pixels lie below it, the channel stays.
    """
    values = torch.arange(256, device=counts.device)
    step = (counts.sum(dim=2, keepdim=True) - counts.gather(2, most)) // 255
    below = counts.cumsum(dim=2) - counts
    equal = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, equal, values)
