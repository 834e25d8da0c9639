"""cifar100/policy.py against Pillow, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from cifar100.augment import Draws, augment, describe, draw_epoch
from cifar100.config import AugmentConfig, PolicyName
from cifar100.errors import UserError
from cifar100.policy import LEVELS, Op, apply, draw, reach

TRIVIAL, RAND = AugmentConfig(policy="trivial"), AugmentConfig(policy="rand")
ALL_LEVELS = range(-LEVELS, LEVELS + 1)


def some_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Pictures of every contrast: noise on a slope, of a few values, of one, of much white."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 1, size)[:, None, None]
    images = []
    for number in range(count):
        low, high = np.sort(rng.integers(0, 256, (2, 3)), axis=0)
        image = low + (high - low) * (slope + rng.random((size, size, 3))) / 2
        images.append([image, image // 64 * 64, low + 0 * image, np.where(image < high - 9, image, 255)][number % 4])
    return np.stack(images).astype(np.uint8)


def by_pillow(image: np.ndarray, op: Op, level: int, policy: PolicyName) -> np.ndarray:
    """The paper's operations, each by the function of Pillow that it was defined by."""
    picture, most, share = Image.fromarray(image), reach(policy, len(image)), level / 30

    def move(*source: float) -> Image.Image:
        return picture.transform(picture.size, Image.Transform.AFFINE, source)

    pixels, factor = int(most.translate * share), 1 + most.enhance * share
    done = {
        Op.IDENTITY: lambda: picture,
        Op.SHEAR_X: lambda: move(1, most.shear * share, 0, 0, 1, 0),
        Op.SHEAR_Y: lambda: move(1, 0, 0, most.shear * share, 1, 0),
        Op.TRANSLATE_X: lambda: move(1, 0, pixels, 0, 1, 0),
        Op.TRANSLATE_Y: lambda: move(1, 0, 0, 0, 1, pixels),
        Op.ROTATE: lambda: picture.rotate(most.rotate * share),
        Op.BRIGHTNESS: lambda: ImageEnhance.Brightness(picture).enhance(factor),
        Op.COLOR: lambda: ImageEnhance.Color(picture).enhance(factor),
        Op.CONTRAST: lambda: ImageEnhance.Contrast(picture).enhance(factor),
        Op.SHARPNESS: lambda: ImageEnhance.Sharpness(picture).enhance(factor),
        Op.POSTERIZE: lambda: ImageOps.posterize(picture, 8 - round(most.posterize * abs(share))),
        Op.SOLARIZE: lambda: ImageOps.solarize(picture, 256 - int(256 * abs(level) / 30)),
        Op.AUTOCONTRAST: lambda: ImageOps.autocontrast(picture),
        Op.EQUALIZE: lambda: ImageOps.equalize(picture),
    }
    return np.asarray(done[op]())


def applied(images: np.ndarray, ops: list[int], levels: list[int], policy: PolicyName = "trivial") -> np.ndarray:
    """One operation an image."""
    return apply(torch.from_numpy(images), torch.tensor(ops)[:, None], torch.tensor(levels)[:, None], policy).numpy()


@pytest.mark.parametrize("size", [32, 17])
@pytest.mark.parametrize("policy", ["trivial", "rand"])
@pytest.mark.parametrize("op", [op for op in Op if op != Op.AUTOCONTRAST], ids=lambda op: op.name.lower())
def test_each_operation_is_pillows_at_every_level(op: Op, policy: PolicyName, size: int) -> None:
    images = some_images(len(ALL_LEVELS), size, seed=op)
    result = applied(images, [op] * len(images), list(ALL_LEVELS), policy)
    for image, got, level in zip(images, result, ALL_LEVELS, strict=True):
        np.testing.assert_array_equal(got, by_pillow(image, op, level, policy), err_msg=f"level {level}")
