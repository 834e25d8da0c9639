"""cifar100/augmentation/batched.py compared with slow per-image references, and cifar100/augmentation/loader.py."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from cifar100.augmentation.batched import (
    AugmentParams,
    augment,
    crop,
    cutout,
    describe_transforms,
    normalize,
    resize,
    resolution_at_epoch,
    sample_epoch_params,
)
from cifar100.augmentation.loader import EvalLoader, TrainLoader
from cifar100.compute.distributed import DistContext
from cifar100.config import AugmentConfig
from cifar100.dataset import Split
from cifar100.support.errors import UserError

CPU = torch.device("cpu")
CONFIG = AugmentConfig()
COUNT, SIZE = 64, 32
MEAN, STD = np.array(CONFIG.mean), np.array(CONFIG.std)
EVERYTHING = AugmentConfig(policy="trivial", mixup_probability=0.5, cutmix_probability=0.5)
NO_AUGMENTATION = AugmentConfig(crop_padding=0, flip_probability=0, cutout_size=0)


def some_images(count: int = COUNT, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def some_draws(config: AugmentConfig = CONFIG, *, seed: int = 0, epoch: int = 0, count: int = COUNT) -> AugmentParams:
    return sample_epoch_params(config, seed=seed, epoch=epoch, count=count, size=SIZE)


def slow_crop(image: np.ndarray, top: int, left: int, padding: int) -> np.ndarray:
    size = len(image)
    result = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            y, x = row + top - padding, column + left - padding
            if 0 <= y < size and 0 <= x < size:
                result[row, column] = image[y, x]
    return result


def slow_flip(image: np.ndarray, flipped: bool) -> np.ndarray:
    return image[:, ::-1] if flipped else image


def slow_normalize(image: np.ndarray) -> np.ndarray:
    return (image / 255 - MEAN) / STD


def slow_cutout(image: np.ndarray, cut: bool, top: int, left: int, size: int) -> np.ndarray:
    image = image.copy()
    if cut:
        image[top : top + size, left : left + size] = 0
    return image


def to_nhwc(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("padding", [0, 1, 4, 40])
def test_crop_equals_the_slow_reference(padding: int) -> None:
    images, draws = some_images(), some_draws(AugmentConfig(crop_padding=padding))
    result = crop(images, draws.crop_top, draws.crop_left, padding)
    expected = [
        slow_crop(image, int(top), int(left), padding)
        for image, top, left in zip(images.numpy(), draws.crop_top, draws.crop_left, strict=True)
    ]
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(result.numpy(), expected)


def test_normalize_equals_the_slow_reference_for_every_pixel_value() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    result = normalize(images, CONFIG.mean, CONFIG.std)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(to_nhwc(result)[0], slow_normalize(images[0].numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 16, 31, 32])
def test_cutout_equals_the_slow_reference(size: int) -> None:
    draws = some_draws(AugmentConfig(cutout_size=size))
    images = normalize(some_images(), CONFIG.mean, CONFIG.std)
    result = cutout(images, draws.cutout_mask, draws.cutout_top, draws.cutout_left, size)
    expected = [
        slow_cutout(image, bool(cut), int(top), int(left), size)
        for image, cut, top, left in zip(
            to_nhwc(images), draws.cutout_mask, draws.cutout_top, draws.cutout_left, strict=True
        )
    ]
    np.testing.assert_array_equal(to_nhwc(result), expected)


@pytest.mark.parametrize(
    "config",
    [CONFIG, NO_AUGMENTATION, AugmentConfig(crop_padding=2, cutout_size=8, cutout_probability=1, flip_probability=1)],
    ids=["baseline", "nothing", "always"],
)
def test_augment_equals_the_slow_reference(config: AugmentConfig) -> None:
    images, draws = some_images(), some_draws(config, epoch=3)
    result = augment(images, draws, config)
    for i, image in enumerate(images.numpy()):
        expected = slow_crop(image, int(draws.crop_top[i]), int(draws.crop_left[i]), config.crop_padding)
        expected = slow_normalize(slow_flip(expected, bool(draws.flipped[i])))
        top, left = int(draws.cutout_top[i]), int(draws.cutout_left[i])
        expected = slow_cutout(expected, bool(draws.cutout_mask[i]), top, left, config.cutout_size)
        np.testing.assert_allclose(to_nhwc(result)[i], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, NO_AUGMENTATION, EVERYTHING], ids=["baseline", "nothing", "everything"])
def test_augmented_batches_are_channels_last_in_memory(config: AugmentConfig) -> None:
    result = augment(some_images(), some_draws(config), config)
    assert result.shape == (COUNT, 3, SIZE, SIZE)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("setting", "value", "changed"),
    [
        ("crop_padding", 3, {"crop_top", "crop_left"}),
        ("crop_padding", 0, {"crop_top", "crop_left"}),
        ("flip_probability", 0.2, {"flipped"}),
        ("cutout_size", 8, {"cutout_top", "cutout_left"}),
        ("cutout_size", 32, {"cutout_top", "cutout_left"}),
        ("cutout_probability", 0.9, {"cutout_mask"}),
        ("policy", "trivial", {"ops", "levels"}),
        ("policy", "rand", {"ops", "levels"}),
        ("mixup_probability", 0.5, {"mixup_lambda"}),
        ("cutmix_probability", 0.5, {"cutmix_box"}),
        ("mean", (0.0, 0.0, 0.0), set()),
    ],
)
def test_one_setting_changes_only_its_own_parameters(setting: str, value: Any, changed: set[str]) -> None:
    before, after = some_draws(), some_draws(replace(CONFIG, **{setting: value}))
    different = {
        f.name for f in fields(AugmentParams) if not torch.equal(getattr(before, f.name), getattr(after, f.name))
    }
    assert different == changed


def test_parameters_are_a_pure_function_of_the_arguments() -> None:
    before = some_draws(EVERYTHING, seed=5, epoch=7)
    np.random.default_rng().random()
    torch.rand(3)
    after = some_draws(EVERYTHING, seed=5, epoch=7)
    assert all(torch.equal(getattr(before, f.name), getattr(after, f.name)) for f in fields(AugmentParams))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"seed": 2**32 - 1}])
def test_another_seed_or_epoch_changes_every_parameter(other: dict[str, Any]) -> None:
    before, after = some_draws(EVERYTHING), some_draws(EVERYTHING, **other)
    assert not any(torch.equal(getattr(before, f.name), getattr(after, f.name)) for f in fields(AugmentParams))


def test_seed_and_epoch_are_not_interchangeable() -> None:
    assert not torch.equal(some_draws(seed=1, epoch=2).order, some_draws(seed=2, epoch=1).order)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("setting", "name"), [("flip_probability", "flipped"), ("cutout_probability", "cutout_mask")])
def test_flip_and_cutout_have_the_given_probability(setting: str, name: str, probability: float) -> None:
    count = 20_000
    fraction = getattr(some_draws(replace(CONFIG, **{setting: probability}), count=count), name).float().mean().item()
    assert abs(fraction - probability) <= 4 * np.sqrt(probability * (1 - probability) / count)


def test_alternating_flip_flips_each_image_in_every_other_epoch() -> None:
    config = AugmentConfig(alternating_flip=True)
    by_row = []
    for epoch in range(4):
        draws = some_draws(config, epoch=epoch, count=1000)
        by_row.append(draws.flipped[draws.order.argsort()])
    assert torch.equal(by_row[0], ~by_row[1])
    assert torch.equal(by_row[0], by_row[2])
    assert 0.4 < by_row[0].float().mean() < 0.6
    assert not some_draws(AugmentConfig(alternating_flip=True, flip_probability=0)).flipped.any()


@pytest.mark.parametrize(("epoch", "size"), [(0, 16), (1, 16), (2, 24), (3, 32), (9, 32)])
def test_train_sizes_set_the_image_size_of_each_epoch(epoch: int, size: int) -> None:
    config = AugmentConfig(train_sizes=(16, 16, 24, 32))
    images, draws = some_images(), some_draws(epoch=epoch)
    result = resize(augment(images, draws, config), resolution_at_epoch(config, epoch, 20, SIZE))
    assert result.shape == (COUNT, 3, size, size)
    assert result.is_contiguous(memory_format=torch.channels_last)
    if size == SIZE:
        assert torch.equal(result, augment(images, draws, AugmentConfig()))


def test_resize_is_antialiased_bilinear() -> None:
    """A uniform image stays uniform, and a checkerboard, which would alias without antialiasing, becomes gray."""
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    images = board.float().expand(2, 3, 32, 32)
    assert (resize(images, 16)[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 1e-6
    torch.testing.assert_close(resize(torch.full((1, 3, 32, 32), 0.3), 20), torch.full((1, 3, 20, 20), 0.3))


def test_indexing_selects_the_parameters_of_a_batch() -> None:
    draws = some_draws()
    batch = draws[10:20]
    assert all(torch.equal(getattr(batch, f.name), getattr(draws, f.name)[10:20]) for f in fields(AugmentParams))


def test_describe_transforms_contains_the_settings() -> None:
    config = AugmentConfig(crop_padding=3, flip_probability=0.125, cutout_size=7, cutout_probability=0.375)
    text = str(describe_transforms(config))
    assert all(part in text for part in ("3 px", "0.125", "7x7", "0.375", str(config.mean)))


def numbered_split(count: int = 23, size: int = 8) -> Split:
    """Image i is filled with the value i and labeled i % 7, so that every pixel identifies its image."""
    values = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (count, size, size, 3)).copy()
    return Split(images, np.arange(count) % 7, "")


def train_loader(config: AugmentConfig, batch_size: int = 5, seed: int = 0) -> TrainLoader:
    return TrainLoader(numbered_split(), config, batch_size=batch_size, seed=seed, device=CPU)


def numbers(images: torch.Tensor) -> list[int]:
    """The indices of these normalized images."""
    pixels = (to_nhwc(images) * STD + MEAN) * 255
    assert (np.ptp(pixels, axis=(1, 2, 3)) < 1e-3).all()
    return [int(n) for n in pixels[:, 0, 0, 0].round()]


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (1, [1] * 23)])
def test_every_image_is_served_once_per_epoch(batch_size: int, sizes: list[int]) -> None:
    loader = train_loader(NO_AUGMENTATION, batch_size)
    batches = list(loader.epoch(0))
    served = [n for images, _ in batches for n in numbers(images)]
    labels = [int(label) for _, batch in batches for label in batch]
    assert [len(images) for images, _ in batches] == sizes
    assert len(loader) == len(sizes)
    assert sorted(served) == list(range(23))
    assert labels == [n % 7 for n in served]
    assert served != list(range(23))


@pytest.mark.parametrize(
    ("processes", "batch_size", "sizes"),
    [(1, 11, [11, 12]), (1, 22, [23]), (1, 7, [7, 7, 7, 2]), (1, 23, [23]), (1, 100, [23]), (2, 10, [10, 13])],
)
def test_no_rank_gets_a_batch_of_one_8_pixel_image(processes: int, batch_size: int, sizes: list[int]) -> None:
    """In the last layers a batch with one such image has one value per channel, which batch norm rejects."""
    config = replace(NO_AUGMENTATION, train_sizes=(8,))
    loaders = [
        TrainLoader(
            numbered_split(),
            config,
            batch_size=batch_size,
            seed=0,
            device=CPU,
            dist=DistContext(rank=rank, size=processes),
        )
        for rank in range(processes)
    ]
    parts = [[numbers(images) for images, _ in loader.epoch(0)] for loader in loaders]
    assert [sum(map(len, step)) for step in zip(*parts, strict=True)] == sizes
    assert min(len(part) for served in parts for part in served) > 1
    assert sorted(n for served in parts for part in served for n in part) == list(range(23))
    loader = loaders[0]
    assert len(loader) == len(sizes)
    assert {count for count, _ in loader.batch_shapes()} == {len(part) for part in parts[0]}
    weights = [[each.loss_weight(step) for each in loaders] for step in range(len(sizes))]
    assert all(sum(step) == pytest.approx(processes) for step in weights)
    assert [len(images) for images, _ in loader.epoch(0, first_step=1)] == [len(part) for part in parts[0][1:]]


@pytest.mark.parametrize("changed", [{"policy": "rand"}, {"policy": "trivial"}, {"pipeline": "albumentations"}])
def test_a_rank_may_have_no_image_of_the_last_batch(changed: dict[str, Any]) -> None:
    config, second = replace(NO_AUGMENTATION, **changed), DistContext(rank=1, size=2)
    loader = TrainLoader(numbered_split(), config, batch_size=22, seed=0, device=CPU, dist=second)
    assert [len(images) for images, _ in loader.epoch(0)] == [11, 0]
    loader.close()


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 20), (2, 12), (3, 7), (4, 8)])
def test_every_rank_has_as_many_batch_shapes_as_the_others(processes: int, batch_size: int) -> None:
    """Each is a step with an all-reduce, in which a rank would wait for the others."""
    counts = []
    for rank in range(processes):
        dist = DistContext(rank=rank, size=processes)
        loader = TrainLoader(numbered_split(), NO_AUGMENTATION, batch_size=batch_size, seed=0, device=CPU, dist=dist)
        shapes = loader.batch_shapes()
        assert {count for count, _ in shapes} == {len(images) for images, _ in loader.epoch(0)}
        counts.append(len(shapes))
    assert len(set(counts)) == 1


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 1), (2, 3)])
def test_batches_of_single_8_pixel_images_are_refused(processes: int, batch_size: int) -> None:
    config = replace(NO_AUGMENTATION, train_sizes=(16, 8))
    with pytest.raises(UserError) as caught:
        TrainLoader(
            numbered_split(),
            config,
            batch_size=batch_size,
            seed=0,
            device=CPU,
            dist=DistContext(size=processes),
        )
    assert caught.value.code == "config.batch_size"
    assert f"--batch-size is {batch_size}" in str(caught.value)


def same_batches(left: list[tuple[torch.Tensor, torch.Tensor]], right: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("first_step", [0, 1, 4, 5])
def test_an_epoch_can_start_at_any_step(first_step: int) -> None:
    loader = train_loader(AugmentConfig(crop_padding=2, cutout_size=4))
    whole = list(loader.epoch(2))
    assert same_batches(list(loader.epoch(2, first_step=first_step)), whole[first_step:])
    assert len(whole) == 5


def test_iteration_serves_successive_epochs() -> None:
    config = AugmentConfig(crop_padding=2, cutout_size=4)
    loader, other = train_loader(config), train_loader(config)
    first, second = list(loader), list(loader)
    assert same_batches(first, list(other.epoch(0)))
    assert same_batches(second, list(other.epoch(1)))
    assert not same_batches(first, second)


@pytest.mark.parametrize("size", [8, 9])
def test_a_cutout_square_that_covers_the_images_is_an_error(size: int) -> None:
    with pytest.raises(UserError, match="--cutout-size") as raised:
        train_loader(AugmentConfig(cutout_size=size))
    assert raised.value.code == "config.cutout_size"


def test_eval_loader_keeps_the_order_and_only_normalizes() -> None:
    split = numbered_split()
    loader = EvalLoader(split, CONFIG, batch_size=10, device=CPU)
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [10, 10, 3]
    assert len(loader) == 3
    assert [n for images, _ in batches for n in numbers(images)] == list(range(23))
    assert torch.cat([labels for _, labels in batches]).tolist() == split.labels.tolist()
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
