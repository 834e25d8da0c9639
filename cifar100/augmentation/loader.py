"""Batches. The whole uint8 split is on the training device; a batch is a slice of the epoch's random parameters.

With `--pipeline albumentations` the images stay on the CPU, and of its random parameters only the order is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cifar100.augmentation.albumentations_pipeline import BatchWorkers, Pipeline, load_albumentations
from cifar100.augmentation.batched import (
    AugmentParams,
    augment,
    normalize,
    resize,
    resolution_at_epoch,
    sample_epoch_params,
)
from cifar100.augmentation.class_balance import balanced_order
from cifar100.augmentation.mixing import mix
from cifar100.compute.device import memory_format
from cifar100.compute.distributed import DistContext
from cifar100.config import AugmentConfig, Config
from cifar100.dataset import Split
from cifar100.support.errors import UserError
from cifar100.support.train_sizes import MIN_SIZE, resolutions


class TrainLoader:
    """Augmented batches of a split: images float32 [B, 3, S, S] and labels int64 [B], on the device.

    With Mixup or CutMix, the labels are soft labels, float32 [B, num_classes]. An epoch contains every image once (with
    `sampler` "balanced" as many images, equally many of each class, up to one); `len()` is its number of steps, and its
    last batch may be smaller. Batch norm needs two images per rank at a resolution of 8 pixels: in a run with that
    resolution a last batch with fewer is merged into the one before it. Iterating over the loader yields epochs 0, 1,
    2, … in turn.

    With several ranks, each yields its shard of every batch; `batch_size` is the global batch size. Raises UserError if
    the cutout square covers the images, albumentations is requested and missing, or a batch has fewer images than the
    ranks need.
    """

    def __init__(
        self,
        split: Split,
        config: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        num_epochs: int = 100,
        num_workers: int = 0,
        num_classes: int | None = None,
        dist: DistContext | None = None,
    ) -> None:
        """`num_epochs` is the length of the run (for `train_sizes`), `num_classes` by default that of the labels."""
        size = split.images.shape[1]
        self.dist = dist or DistContext()
        self.num_epochs = num_epochs
        self.min_batch = self._checked_min_batch(batch_size, len(split), config)
        if config.cutout_probability and config.cutout_size >= size:
            raise UserError(
                "config.cutout_size",
                f"--cutout-size is {config.cutout_size}, which covers the images of {size}x{size} pixels: give a "
                f"smaller one, such as {size // 2}.",
            )
        self.workers = None
        if config.pipeline == "albumentations":
            load_albumentations()
            pipeline = Pipeline(config, seed, size)
            self.workers = BatchWorkers(pipeline, num_workers=num_workers, pinned=device.type == "cuda")
        self.images = torch.from_numpy(split.images).to("cpu" if self.workers else device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.num_classes = num_classes or int(split.labels.max()) + 1
        self.config = config
        self.batch_size = batch_size
        self.seed = seed
        self.next_epoch = 0
        self._host_labels = split.labels

    @classmethod
    def from_config(cls, config: Config, split: Split, device: torch.device, **options: Any) -> TrainLoader:
        """The train loader of these settings; `options` are further parameters of `TrainLoader`."""
        return cls(
            split,
            config.augment,
            batch_size=config.optim.batch_size,
            seed=config.optim.seed,
            device=device,
            num_epochs=config.optim.epochs,
            num_workers=config.run.num_workers,
            **options,
        )

    def _checked_min_batch(self, batch_size: int, num_images: int, config: AugmentConfig) -> int:
        """The minimum number of images of a global batch."""
        processes = self.dist.size
        if batch_size < processes:
            raise UserError(
                "config.batch_size",
                f"--batch-size is {batch_size}, and each of the {processes} processes needs an image of it: start "
                "fewer processes, or give larger batches.",
            )
        if not config.train_sizes or min(resolutions(config.train_sizes, self.num_epochs)) > MIN_SIZE:
            return 1  # at 8 pixels the last layers have one pixel: batch norm needs two images
        if min(batch_size, num_images) < 2 * processes:
            raise UserError(
                "config.batch_size",
                f"--train-sizes {MIN_SIZE} needs batches of at least {2 * processes} images (two per process, for "
                f"batch norm); --batch-size is {batch_size} and there are {num_images} train images.",
            )
        return 2 * processes

    def _batch_bounds(self, step: int) -> tuple[int, int]:
        """Start and stop of a global batch in the order of an epoch."""
        is_last = step == len(self) - 1
        return step * self.batch_size, len(self.labels) if is_last else (step + 1) * self.batch_size

    def __len__(self) -> int:
        full, rest = divmod(len(self.labels), self.batch_size)
        return max(1, full + (rest >= self.min_batch))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.next_epoch += 1
        return self.epoch(self.next_epoch - 1)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch from `first_step` on, a pure function of seed, epoch and step."""
        slices = [self.dist.shard(*self._batch_bounds(step)) for step in range(first_step, len(self))]
        if self.config.mixes:  # each batch with the image after it
            slices = [slice(part.start, part.stop + 1) for part in slices]
        params = self._params(epoch).to(self.labels.device)
        resolution = self.resolution(epoch)
        for part, images in zip(slices, self._augmented(params, epoch, slices), strict=True):
            batch = params[part]
            served = images, self.labels[batch.order]
            mixed, labels = mix(*served, batch, self.num_classes) if self.config.mixes else served
            yield resize(mixed, resolution), labels

    def resolution(self, epoch: int) -> int:
        """The resolution of the images of an epoch, in pixels."""
        return resolution_at_epoch(self.config, epoch, self.num_epochs, self.images.shape[1])

    def _params(self, epoch: int) -> AugmentParams:
        """The random parameters of an epoch, on the CPU."""
        count, size = len(self.labels), self.images.shape[1]
        balanced = self.config.sampler == "balanced"
        order = balanced_order(self._host_labels, seed=self.seed, epoch=epoch) if balanced else None
        params = sample_epoch_params(self.config, seed=self.seed, epoch=epoch, count=count, size=size, order=order)
        if self.config.mixes:  # the last image is mixed with the first
            params = params[torch.arange(count + 1) % count]
        return params

    def _augmented(self, params: AugmentParams, epoch: int, slices: list[slice]) -> Iterator[Tensor]:
        """The augmented images at these positions of the epoch, before mixing: float32 [B, 3, S, S]."""
        if self.workers is None:
            for part in slices:
                batch = params[part]
                yield augment(self.images[batch.order], batch, self.config)
        else:
            order, pixels = params.order.cpu().numpy(), self.images.numpy()
            tasks = ((epoch, order[part].tolist(), pixels[order[part]]) for part in slices)
            for images in self.workers.batches(tasks):
                device = self.labels.device
                yield images.to(device, non_blocking=True, memory_format=memory_format(device))

    def batch_shapes(self) -> list[tuple[int, int]]:
        """The (number of images, resolution) of this rank's part of each different batch of the run, in order of first
        use: on every rank the same number, since each is a step with an all-reduce."""
        batches = {stop - start: (start, stop) for start, stop in map(self._batch_bounds, range(len(self)))}
        shards = [self.dist.shard(*batch) for batch in batches.values()]
        counts = [shard.stop - shard.start for shard in shards]
        sizes = dict.fromkeys(self.resolution(epoch) for epoch in range(self.num_epochs))
        return [(count, size) for size in sizes for count in counts]

    def close(self) -> None:
        """End the worker processes."""
        if self.workers is not None:
            self.workers.close()

    def loss_weight(self, global_step: int) -> float:
        """The factor of this rank's mean loss that gives every image of the global batch equal weight; 1 if all ranks
        have the same number of images."""
        start, stop = self._batch_bounds(global_step % len(self))
        shard = self.dist.shard(start, stop)
        return self.dist.size * (shard.stop - shard.start) / (stop - start)


class EvalLoader:
    """The normalized images of a split, in order: float32 [B, 3, S, S], and labels int64 [B], on the device."""

    def __init__(self, split: Split, config: AugmentConfig, *, batch_size: int, device: torch.device) -> None:
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.config = config
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield normalize(self.images[rows], self.config.mean, self.config.std), self.labels[rows]
