"""Augmentation of whole batches on the device, with random parameters for each image: one function per transform.

All random parameters of an epoch are sampled on the CPU before it starts, as a pure function of (seed, epoch,
transform). So they are equal on every device, and exact resuming needs no generator state.

Shapes: B images per batch, N images per epoch, S the size of an image in pixels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cifar100.augmentation import auto_augment
from cifar100.compute.device import memory_format
from cifar100.config import AugmentConfig
from cifar100.support.train_sizes import resolutions


@dataclass(frozen=True)
class AugmentParams:
    """The random parameters of an epoch, or of a batch; entry i is for the i-th image of the epoch."""

    order: Tensor  # int64 [N]: row of the split
    crop_top: Tensor  # int64 [N], in 0..2*padding
    crop_left: Tensor  # int64 [N], in 0..2*padding
    flipped: Tensor  # bool [N]
    cutout_mask: Tensor  # bool [N]
    cutout_top: Tensor  # int64 [N], in 0..S-cutout_size: the square lies inside the image
    cutout_left: Tensor  # int64 [N], likewise
    ops: Tensor  # int64 [N, K]: operations of the policy (`auto_augment.Op`); K is 0 without one
    levels: Tensor  # int64 [N, K], in -30..30: their signed magnitudes
    mixup_lambda: Tensor  # float32 [N], in 0..1: weight of the image itself; 1 without Mixup
    cutmix_box: Tensor  # int64 [N, 4]: top, left, bottom, right, in 0..S; all 0 without CutMix

    def __getitem__(self, positions: slice | Tensor) -> AugmentParams:
        """The parameters of the images at these positions of the epoch."""
        return AugmentParams(*(getattr(self, item.name)[positions] for item in fields(self)))

    def to(self, device: torch.device) -> AugmentParams:
        """A copy on a device."""
        return AugmentParams(*(getattr(self, item.name).to(device) for item in fields(self)))


def sample_epoch_params(
    config: AugmentConfig, *, seed: int, epoch: int, count: int, size: int, order: np.ndarray | None = None
) -> AugmentParams:
    """The random parameters of one pass over `count` images of this size: a pure function of its arguments.

    Each transform has its own generator, and those that `config` does not use are not sampled.
    """

    def rng(transform: str) -> np.random.Generator:
        return np.random.default_rng((seed, epoch, zlib.crc32(transform.encode())))

    order = rng("order").permutation(count) if order is None else order
    if config.alternating_flip and config.flip_probability > 0:
        flipped_first = np.random.default_rng((seed, zlib.crc32(b"flip"))).random(count) < 0.5  # by row of the split
        flipped = flipped_first[order] ^ (epoch % 2 == 1)
    else:
        flipped = rng("flip").random(count) < config.flip_probability
    sampled = {
        "order": order,
        "flipped": flipped,
        **_sample_crop(config, rng("crop"), count),
        **_sample_cutout(config, rng("cutout"), count, size),
        **_sample_mixing(config, rng("mixing"), count, size),
    }
    ops, levels = auto_augment.sample_ops(config, rng("policy"), count)
    return AugmentParams(ops=ops, levels=levels, **{name: torch.from_numpy(array) for name, array in sampled.items()})


def _sample_crop(config: AugmentConfig, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """`crop_top` and `crop_left`."""
    top, left = (rng.integers(0, 2 * config.crop_padding, count, endpoint=True) for _ in range(2))
    return {"crop_top": top, "crop_left": left}


def _sample_cutout(config: AugmentConfig, rng: np.random.Generator, count: int, size: int) -> dict[str, np.ndarray]:
    """`cutout_mask`, `cutout_top` and `cutout_left`."""
    if config.cutout_size == 0 or config.cutout_probability == 0:
        nowhere = np.zeros(count, np.int64)
        return {"cutout_mask": np.zeros(count, bool), "cutout_top": nowhere, "cutout_left": nowhere}
    cut, last = rng.random(count) < config.cutout_probability, size - config.cutout_size
    top, left = (rng.integers(0, last, count, endpoint=True) for _ in range(2))
    return {"cutout_mask": cut, "cutout_top": top, "cutout_left": left}


def _sample_mixing(config: AugmentConfig, rng: np.random.Generator, count: int, size: int) -> dict[str, np.ndarray]:
    """`mixup_lambda` and `cutmix_box`: Mixup, CutMix or neither for each image."""
    if not config.mixes:
        return {"mixup_lambda": np.ones(count, np.float32), "cutmix_box": np.zeros((count, 4), np.int64)}
    uniform = rng.random(count)
    by_mixup = uniform < config.mixup_probability
    by_cutmix = ~by_mixup & (uniform < config.mixup_probability + config.cutmix_probability)
    lam = np.where(by_mixup, rng.beta(config.mixup_alpha, config.mixup_alpha, count), 1.0)
    side = (size * np.sqrt(1 - rng.beta(config.cutmix_alpha, config.cutmix_alpha, count))).astype(np.int64)
    middle = rng.integers(0, size, (count, 2))  # as in the paper, the box may cross the edges and is clipped
    corners = np.concatenate([middle - side[:, None] // 2, middle + (side[:, None] + 1) // 2], axis=1).clip(0, size)
    box = np.where(by_cutmix[:, None], corners, 0)
    return {"mixup_lambda": lam.astype(np.float32), "cutmix_box": box}


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: the crop at (top, left) of each image after padding with 0."""
    if padding == 0:
        return images
    size = images.shape[1]
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    reach = torch.arange(size, device=images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    rows = (top[:, None] + reach)[:, :, None]  # [B, S, 1]
    columns = (left[:, None] + reach)[:, None, :]  # [B, 1, S]
    return padded[image, rows, columns]


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> the same shape: flipped horizontally if `flipped`."""
    return torch.where(flipped[:, None, None, None], images.flip(2), images)


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, S, S, 3] in 0..255 -> float32 [B, 3, S, S], in the device's memory format: (x/255 - mean) / std."""
    scale, shift = _scale_and_shift(mean, std, images.device)
    return (images * scale + shift).permute(0, 3, 1, 2).contiguous(memory_format=memory_format(images.device))


@lru_cache(maxsize=8)  # copying them to a GPU in every step would synchronize
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale, shift


def cutout(images: Tensor, cut: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Normalized [B, 3, S, S] -> the same: if `cut`, the square at (top, left) is set to 0, the mean color.

    DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552.
    """
    if size == 0:
        return images
    reach = torch.arange(images.shape[2], device=images.device)
    in_rows = (reach >= top[:, None]) & (reach < top[:, None] + size) & cut[:, None]  # [B, S]
    in_columns = (reach >= left[:, None]) & (reach < left[:, None] + size)  # [B, S]
    square = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(square, 0, images)  # masked_fill would not keep channels_last


def box_mask(boxes: Tensor, size: int) -> Tensor:
    """int64 [B, 4] of top, left, bottom, right -> bool [B, 1, size, size]: the pixels in each box."""
    reach = torch.arange(size, device=boxes.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # [B, 1] each
    in_rows, in_columns = (reach >= top) & (reach < bottom), (reach >= left) & (reach < right)  # [B, size]
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def resize(images: Tensor, size: int) -> Tensor:
    """[B, 3, S, S] -> [B, 3, size, size], bilinear with antialiasing; unchanged if it has that size."""
    if images.shape[2] == size:
        return images
    return torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def resolution_at_epoch(config: AugmentConfig, epoch: int, num_epochs: int, size: int) -> int:
    """The training resolution of an epoch of a run, in pixels: from `train_sizes`, or else the native `size`."""
    if not config.train_sizes:
        return size
    return resolutions(config.train_sizes, num_epochs)[min(epoch, num_epochs - 1)]


def augment(images: Tensor, params: AugmentParams, config: AugmentConfig) -> Tensor:
    """uint8 [B, S, S, 3] and their parameters -> float32 [B, 3, S, S]: all transforms of single images."""
    # The policy comes first, as in the paper: autocontrast and equalize would depend on the padding of the crop.
    images = auto_augment.apply_policy(images, params.ops, params.levels, config.policy)
    images = crop(images, params.crop_top, params.crop_left, config.crop_padding)
    images = flip(images, params.flipped)
    normalized = normalize(images, config.mean, config.std)
    return cutout(normalized, params.cutout_mask, params.cutout_top, params.cutout_left, config.cutout_size)


def describe_transforms(config: AugmentConfig) -> list[tuple[str, str]]:
    """(transform, its parameters as text), in the order of application."""
    padding, side = config.crop_padding, config.cutout_size
    several = f"{config.rand_ops} per image, of magnitude {config.rand_magnitude} of 30"
    policies = {
        "none": [],
        "trivial": [("TrivialAugment", "one of 14 geometric and color operations, of random magnitude")],
        "rand": [("RandAugment", f"14 geometric and color operations, {several}")],
    }
    mixing = [
        ("Mixup", f"with the next image, lambda ~ Beta({config.mixup_alpha}); p = {config.mixup_probability}"),
        (
            "CutMix",
            f"a box of the next image, area ~ Beta({config.cutmix_alpha}); p = {config.cutmix_probability}",
        ),
    ]
    return [
        *policies[config.policy],
        ("Random crop", f"{padding} px of zero padding on each side"),
        (
            "Random horizontal flip",
            "in alternate epochs"
            if config.alternating_flip and config.flip_probability
            else f"p = {config.flip_probability}",
        ),
        ("Normalize", f"mean {config.mean}, std {config.std} per channel in 0..1"),
        ("Cutout", f"a {side}x{side} square, filled with the mean; p = {config.cutout_probability}"),
        *(mixing if config.mixes else []),
    ]
