"""Batches. The whole uint8 split lives on the training device; a batch is a slice of the epoch's draws.

With `--pipeline albumentations` the images stay on the CPU, and only the order of an epoch comes from its draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from cifar100.augmentation.albumentations_pipeline import Pipeline, Workers, load_albumentations
from cifar100.augmentation.batched import (
    AugmentParams,
    augment,
    normalize,
    resize_for_epoch,
    resolution_at_epoch,
    sample_epoch_params,
)
from cifar100.augmentation.class_balance import balanced_order
from cifar100.augmentation.mixing import mix
from cifar100.compute.device import memory_format
from cifar100.compute.distributed import DistContext
from cifar100.config import AugmentConfig
from cifar100.dataset import Split
from cifar100.support.errors import UserError

SMALLEST_SIDE = 8
"""Images of this side are a single pixel in the networks' last layers: batch norm cannot be trained on one of them."""


class TrainLoader:
    """Augmented batches of a split: images float32 [B, 3, S, S] and labels int64 [B], on the device.

    Where images are mixed, the labels are what each image shows of each class, float32 [B, classes].
    `len()` is the steps of an epoch; every image is served once an epoch (with `sampler` "balanced", as many images,
    the same number of each class), so the last batch may be smaller. With
    `train_sizes` of 8 pixels, which need two images per process, a last batch of fewer joins the one before it.
    Plain iteration (`for images, labels in loader`) serves epochs 0, 1, 2, … in turn.
    Of several processes each serves its part of every batch: `batch_size` is what all have together.
    Raises UserError where the cutout square is larger than the images, albumentations is asked for and missing, or a
    batch has fewer images than the processes need.
    """

    def __init__(
        self,
        split: Split,
        config: AugmentConfig,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
        num_classes: int | None = None,
        processes: DistContext | None = None,
    ) -> None:
        """`num_classes` is that of the labels where it is not given."""
        size = split.images.shape[1]
        self.processes = processes or DistContext()
        self.min_batch = self._checked_min_batch(batch_size, len(split), config)
        if config.cutout_size > size:
            raise UserError(f"--cutout-size is {config.cutout_size}, larger than the images, which are {size}x{size}.")
        self.workers = None
        if config.pipeline == "albumentations":
            load_albumentations()
            pipeline = Pipeline(config, seed, size)
            self.workers = Workers(pipeline, num_workers=num_workers, pinned=device.type == "cuda")
        self.images = torch.from_numpy(split.images).to("cpu" if self.workers else device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.num_classes = num_classes or int(split.labels.max()) + 1
        self.config = config
        self.batch_size = batch_size
        self.seed = seed
        self.next_epoch = 0
        self._host_labels = split.labels
        self._executor = ThreadPoolExecutor(max_workers=1)  # its thread ends with `close`, or with the loader
        self._sampled: dict[int, Future[AugmentParams]] = {}

    def _checked_min_batch(self, batch_size: int, num_images: int, config: AugmentConfig) -> int:
        """The fewest images that all processes together can take a step on."""
        processes = self.processes.size
        if batch_size < processes:
            raise UserError(
                "train.batch_size",
                f"--batch-size is {batch_size}, and each of the {processes} processes needs an image of it: start "
                "fewer processes, or give larger batches.",
            )
        if min(config.train_sizes, default=SMALLEST_SIDE + 1) > SMALLEST_SIDE:
            return 1
        if min(batch_size, num_images) < 2 * processes:
            raise UserError(
                "train.batch_size",
                f"--train-sizes {SMALLEST_SIDE} needs batches of at least {2 * processes} images (two per process, for "
                f"batch norm); --batch-size is {batch_size} and there are {num_images} train images.",
            )
        return 2 * processes

    def _batch(self, step: int) -> tuple[int, int]:
        """The first place of a batch in the order of an epoch, and the place after its last."""
        last = step == len(self) - 1
        return step * self.batch_size, len(self.labels) if last else (step + 1) * self.batch_size

    def __len__(self) -> int:
        full, left = divmod(len(self.labels), self.batch_size)
        return max(1, full + (left >= self.min_batch))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.next_epoch += 1
        return self.epoch(self.next_epoch - 1)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch from a step on; the same (seed, epoch, step), the same batch."""
        places = [self.processes.part(*self._batch(step)) for step in range(first_step, len(self))]
        if self.config.mixes:  # each with the image that is served after it
            places = [slice(place.start, place.stop + 1) for place in places]
        draws = self._draws(epoch).to(self.labels.device)
        for place, images in zip(places, self._augmented(draws, epoch, places), strict=True):
            batch = draws.take(place)
            served = images, self.labels[batch.order]
            mixed, labels = mix(*served, batch, self.num_classes) if self.config.mixes else served
            yield resize_for_epoch(mixed, self.config, epoch), labels

    def _draws(self, epoch: int) -> AugmentParams:
        """An epoch's draws, on the CPU. Those of the next one are sampled in a thread while this one is served."""
        epochs = (epoch, epoch + 1)
        self._sampled = {
            number: self._sampled.get(number) or self._executor.submit(self._sample, number) for number in epochs
        }
        return self._sampled[epoch].result()

    def _sample(self, epoch: int) -> AugmentParams:
        count, size = len(self.labels), self.images.shape[1]
        balanced = self.config.sampler == "balanced"
        order = balanced_order(self._host_labels, seed=self.seed, epoch=epoch) if balanced else None
        draws = sample_epoch_params(self.config, seed=self.seed, epoch=epoch, count=count, size=size, order=order)
        if self.config.mixes:  # the last image is mixed with the first
            draws = draws.around()
        return draws.pinned() if self.labels.device.type == "cuda" else draws

    def _augmented(self, draws: AugmentParams, epoch: int, places: list[slice]) -> Iterator[Tensor]:
        """The images at these places of the epoch, each augmented by itself: float32 [B, 3, S, S]."""
        if self.workers is None:
            for place in places:
                batch = draws.take(place)
                yield augment(self.images[batch.order], batch, self.config)
        else:
            order, pixels = draws.order.cpu().numpy(), self.images.numpy()
            tasks = ((epoch, order[place].tolist(), pixels[order[place]]) for place in places)
            for images in self.workers.batches(tasks):
                device = self.labels.device
                yield images.to(device, non_blocking=True, memory_format=memory_format(device))

    def shapes(self, epochs: int) -> list[tuple[int, int]]:
        """(images, side) of each kind of batch that so many epochs serve to this process, in order of first use."""
        size = self.images.shape[1]
        parts = [self.processes.part(*self._batch(step)) for step in range(len(self))]
        counts = dict.fromkeys(part.stop - part.start for part in parts)
        sides = dict.fromkeys(resolution_at_epoch(self.config, epoch, size) for epoch in range(epochs))
        return [(count, side) for side in sides for count in counts]

    def close(self) -> None:
        """End the thread and the worker processes."""
        self._executor.shutdown(cancel_futures=True)
        if self.workers is not None:
            self.workers.close()

    def weight(self, number: int) -> float:
        """What this process's mean over its images weighs in the mean of all processes' means, in a step counted over
        the whole run, so that every image of the batch counts alike: 1 where all have as many."""
        start, stop = self._batch(number % len(self))
        mine = self.processes.part(start, stop)
        return self.processes.size * (mine.stop - mine.start) / (stop - start)


class EvalLoader:
    """A split's images in order, only normalised: images float32 [B, 3, S, S] and labels int64 [B], on the device."""

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
