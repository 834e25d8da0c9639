"""cifar100/augmentation/auto_augment.py compared with Pillow, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from cifar100.augmentation.auto_augment import (
    MAX_LEVEL,
    MaxMagnitudes,
    Op,
    apply_policy,
    max_magnitudes,
    sample_ops,
)
from cifar100.augmentation.batched import AugmentParams, augment, describe_transforms, sample_epoch_params
from cifar100.config import AugmentConfig, PolicyName

TRIVIAL, RAND = AugmentConfig(policy="trivial"), AugmentConfig(policy="rand")
ALL_LEVELS = range(-MAX_LEVEL, MAX_LEVEL + 1)


def some_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Images of varied contrast: a noisy gradient, few distinct values, uniform color, and mostly white."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 1, size)[:, None, None]
    images = []
    for number in range(count):
        low, high = np.sort(rng.integers(0, 256, (2, 3)), axis=0)
        image = low + (high - low) * (slope + rng.random((size, size, 3))) / 2
        images.append([image, image // 64 * 64, low + 0 * image, np.where(image < high - 9, image, 255)][number % 4])
    return np.stack(images).astype(np.uint8)


def by_pillow(image: np.ndarray, op: Op, level: int, policy: PolicyName) -> np.ndarray:
    """The operations of the papers, which define them by functions of Pillow."""
    pil_image, most, scale = Image.fromarray(image), max_magnitudes(policy, len(image)), level / 30

    def move(*source: float) -> Image.Image:
        return pil_image.transform(pil_image.size, Image.Transform.AFFINE, source)

    pixels, factor = int(most.translate * scale), 1 + most.enhance * scale
    done = {
        Op.IDENTITY: lambda: pil_image,
        Op.SHEAR_X: lambda: move(1, most.shear * scale, 0, 0, 1, 0),
        Op.SHEAR_Y: lambda: move(1, 0, 0, most.shear * scale, 1, 0),
        Op.TRANSLATE_X: lambda: move(1, 0, pixels, 0, 1, 0),
        Op.TRANSLATE_Y: lambda: move(1, 0, 0, 0, 1, pixels),
        Op.ROTATE: lambda: pil_image.rotate(most.rotate * scale),
        Op.BRIGHTNESS: lambda: ImageEnhance.Brightness(pil_image).enhance(factor),
        Op.COLOR: lambda: ImageEnhance.Color(pil_image).enhance(factor),
        Op.CONTRAST: lambda: ImageEnhance.Contrast(pil_image).enhance(factor),
        Op.SHARPNESS: lambda: ImageEnhance.Sharpness(pil_image).enhance(factor),
        Op.POSTERIZE: lambda: ImageOps.posterize(pil_image, 8 - round(most.posterize * abs(scale))),
        Op.SOLARIZE: lambda: ImageOps.solarize(pil_image, 256 - int(256 * abs(level) / 30)),
        Op.AUTOCONTRAST: lambda: ImageOps.autocontrast(pil_image),
        Op.EQUALIZE: lambda: ImageOps.equalize(pil_image),
    }
    return np.asarray(done[op]())


def applied(images: np.ndarray, ops: list[int], levels: list[int], policy: PolicyName = "trivial") -> np.ndarray:
    """Apply one operation per image."""
    return apply_policy(
        torch.from_numpy(images), torch.tensor(ops)[:, None], torch.tensor(levels)[:, None], policy
    ).numpy()


@pytest.mark.parametrize("size", [32, 17])
@pytest.mark.parametrize("policy", ["trivial", "rand"])
@pytest.mark.parametrize("op", [op for op in Op if op != Op.AUTOCONTRAST], ids=lambda op: op.name.lower())
def test_each_operation_equals_pillow_at_every_level(op: Op, policy: PolicyName, size: int) -> None:
    images = some_images(len(ALL_LEVELS), size, seed=op)
    result = applied(images, [op] * len(images), list(ALL_LEVELS), policy)
    for image, got, level in zip(images, result, ALL_LEVELS, strict=True):
        np.testing.assert_array_equal(got, by_pillow(image, op, level, policy), err_msg=f"level {level}")


def test_autocontrast_equals_pillow_except_for_pillows_rounding_down_by_1() -> None:
    images = some_images(200)
    result = applied(images, [Op.AUTOCONTRAST] * 200, [0] * 200)
    for image, got in zip(images, result, strict=True):
        above = got.astype(int) - by_pillow(image, Op.AUTOCONTRAST, 0, "trivial")
        least, most = image.min(axis=(0, 1)).astype(int), image.max(axis=(0, 1)).astype(int)
        whole = (255 * (image - least)) % np.maximum(most - least, 1) == 0
        assert ((above == 0) | ((above == 1) & whole)).all()


def test_the_highest_level_has_the_magnitude_of_the_paper() -> None:
    """The papers' magnitudes repeated here, because `by_pillow` takes them from the code under test."""
    assert max_magnitudes("trivial", 32) == MaxMagnitudes(
        shear=0.99, translate=32, rotate=135, enhance=0.99, posterize=6
    )
    assert max_magnitudes("rand", 331) == MaxMagnitudes(shear=0.3, translate=150, rotate=30, enhance=0.9, posterize=4)
    images = some_images(1, 40)

    def wide(op: Op) -> np.ndarray:
        return applied(images, [op], [30], "trivial")[0]

    def narrow(op: Op) -> np.ndarray:
        return applied(images, [op], [30], "rand")[0]

    np.testing.assert_array_equal(wide(Op.TRANSLATE_X)[:, :8], images[0, :, 32:])
    assert not wide(Op.TRANSLATE_X)[:, 8:].any()
    np.testing.assert_array_equal(narrow(Op.TRANSLATE_Y)[: 40 - 18], images[0, 18:])  # 40 * 150 / 331 = 18.1
    np.testing.assert_array_equal(wide(Op.POSTERIZE), images[0] // 64 * 64)
    np.testing.assert_array_equal(narrow(Op.POSTERIZE), images[0] // 16 * 16)
    np.testing.assert_array_equal(wide(Op.SOLARIZE), 255 - images[0])
    pil_image = Image.fromarray(images[0])
    np.testing.assert_array_equal(wide(Op.ROTATE), pil_image.rotate(135))
    np.testing.assert_array_equal(narrow(Op.ROTATE), pil_image.rotate(30))
    np.testing.assert_array_equal(wide(Op.COLOR), ImageEnhance.Color(pil_image).enhance(1.99))
    np.testing.assert_array_equal(narrow(Op.SHARPNESS), ImageEnhance.Sharpness(pil_image).enhance(1.9))
    for sheared in applied(np.full((2, 40, 40, 3), 255, np.uint8), [Op.SHEAR_X] * 2, [30, -30]):
        assert [(row[:, 0] > 0).sum() for row in sheared] == [40 - int(0.99 * y + 0.995) for y in range(40)]


@pytest.mark.parametrize("config", [RAND, replace(RAND, rand_ops=3, rand_magnitude=24)], ids=["2 of 9", "3 of 24"])
def test_several_operations_are_applied_in_order(config: AugmentConfig) -> None:
    images = some_images(60)
    ops, levels = sample_ops(config, np.random.default_rng(0), len(images))
    ops[ops == Op.AUTOCONTRAST] = Op.EQUALIZE  # autocontrast may differ from Pillow by 1
    result = apply_policy(torch.from_numpy(images), ops, levels, "rand").numpy()
    for image, got, own_ops, own_levels in zip(images, result, ops.tolist(), levels.tolist(), strict=True):
        for op, level in zip(own_ops, own_levels, strict=True):
            image = by_pillow(image, Op(op), level, "rand")  # noqa: PLW2901
        np.testing.assert_array_equal(got, image)


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    images = torch.from_numpy(some_images(32))
    ops, levels = sample_ops(RAND, np.random.default_rng(1), len(images))
    together = apply_policy(images, ops, levels, "rand")
    for number in range(len(images)):
        alone = slice(number, number + 1)
        assert torch.equal(apply_policy(images[alone], ops[alone], levels[alone], "rand"), together[alone])


def columns(config: AugmentConfig, count: int = 20_000) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    ops, levels = sample_ops(config, np.random.default_rng(0), count)
    return zip(ops.unbind(1), levels.unbind(1), strict=True)


@pytest.mark.parametrize("config", [TRIVIAL, RAND, replace(RAND, rand_ops=3)], ids=["trivial", "rand", "rand 3"])
def test_operations_and_signs_are_uniform(config: AugmentConfig) -> None:
    pairs = list(columns(config))
    assert len(pairs) == {TRIVIAL: 1, RAND: 2}.get(config, 3)
    for ops, levels in pairs:
        for op in Op:
            chosen = ops == op
            fraction, expected = chosen.float().mean().item(), 1 / len(Op)
            assert abs(fraction - expected) < 4 * np.sqrt(expected / 20_000)
            signs = levels[chosen].sign().float()
            assert abs(signs.mean()) < 4 / np.sqrt(20_000 * expected)


def test_trivialaugment_samples_levels_uniformly_and_randaugment_has_one() -> None:
    ((ops, levels),) = columns(TRIVIAL)
    frequency = torch.bincount(levels.abs(), minlength=MAX_LEVEL + 1) / len(levels)
    assert len(frequency) == MAX_LEVEL + 1
    assert (frequency - 1 / 31).abs().max() < 4 * np.sqrt(1 / 31 / len(levels))
    assert abs(np.corrcoef(ops, levels.abs())[0, 1]) < 0.03
    for _, levels in columns(replace(RAND, rand_magnitude=17)):
        assert set(levels.tolist()) == {-17, 17}


def test_operations_of_one_image_are_independent() -> None:
    (first, _), (second, _) = columns(RAND)
    assert abs((first == second).float().mean() - 1 / len(Op)) < 0.01


def some_draws(config: AugmentConfig, *, count: int = 64) -> AugmentParams:
    return sample_epoch_params(config, seed=0, epoch=0, count=count, size=32)


def test_a_policy_changes_neither_other_parameters_nor_the_baseline() -> None:
    """The checksums of the baseline's parameters were computed before policies were added."""
    plain, changed = some_draws(AugmentConfig()), some_draws(RAND)
    assert plain.ops.shape == (64, 0)
    for name in ("order", "crop_top", "crop_left", "flipped", "cutout_mask", "cutout_top", "cutout_left"):
        assert torch.equal(getattr(plain, name), getattr(changed, name))
    sums = [
        int((getattr(plain, name) * torch.arange(64)).sum()) for name in ("order", "crop_top", "flipped", "cutout_left")
    ]
    assert sums == [62753, 8222, 1171, 17808]


def test_the_policy_is_independent_of_other_parameters() -> None:
    draws = some_draws(TRIVIAL, count=20_000)
    sampled = [draws.ops[:, 0], draws.levels[:, 0], draws.crop_top, draws.crop_left]
    sampled += [draws.flipped, draws.cutout_mask, draws.cutout_top, draws.cutout_left]
    together = np.corrcoef(torch.stack([one.double() for one in sampled]).numpy())
    assert abs(together - np.eye(len(sampled))).max() < 0.03


def test_the_policy_precedes_flip_and_cutout() -> None:
    images = some_images(16)
    config = replace(TRIVIAL, crop_padding=0, flip_probability=1.0, cutout_probability=1.0, cutout_size=8)
    draws = some_draws(config, count=16)
    draws = replace(draws, ops=torch.full_like(draws.ops, Op.SHEAR_X), levels=torch.full_like(draws.levels, 20))
    got = augment(torch.from_numpy(images), draws, config).permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(images):
        sheared = by_pillow(image, Op.SHEAR_X, 20, "trivial")[:, ::-1]
        expected = (sheared / 255 - np.array(config.mean)) / np.array(config.std)
        top, left = int(draws.cutout_top[number]), int(draws.cutout_left[number])
        expected[top : top + 8, left : left + 8] = 0
        np.testing.assert_allclose(got[number], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (TRIVIAL, ["TrivialAugment"]),
        (replace(RAND, rand_ops=3, rand_magnitude=17), ["RandAugment", "3 per image", "17 of 30"]),
    ],
    ids=["trivial", "rand"],
)
def test_describe_transforms_lists_what_is_enabled(config: AugmentConfig, named: list[str]) -> None:
    assert all(words in str(describe_transforms(config)) for words in named)
    assert not any(words in str(describe_transforms(AugmentConfig())) for words in named)
