"""The transforms of `batched.py` in albumentations: image by image, on the CPU, in worker processes if requested.

An optional extra (`--pipeline albumentations`). Each image is reseeded from (seed, epoch, row of the split), so the
result depends neither on the worker nor on earlier images: any number of workers gives the same batches, and resuming
is exact.

Shapes: B images per batch, S the size of an image in pixels.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cifar100.config import AugmentConfig
from cifar100.support.errors import RunFailed, UserError

VERSION = "2.0.8"
"""The supported release, the last one under the MIT license; the parameters of others differ."""

INSTALL = "pip install 'cifar100[albumentations]'"

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if os.name == "posix" else set()
"""The signals that stop a run; Windows cannot block them."""

Task = tuple[int, list[int], np.ndarray]
"""An epoch, some rows of the split, and their images uint8 [B, S, S, 3]."""


def load_albumentations() -> ModuleType:
    """The library, silent and single-threaded. Raises UserError if it is missing or of another version."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or importing it looks for a newer release online
    try:
        import albumentations
        import cv2
    except ImportError as error:
        message = f"--pipeline albumentations: {error}; install it with {INSTALL}."
        raise UserError("albumentations.not_installed", message) from None
    if albumentations.__version__ != VERSION:
        found = str(albumentations.__version__)
        message = f"--pipeline albumentations: found version {found}, not {VERSION}; install it with {INSTALL}."
        raise UserError("albumentations.version", message)
    cv2.setNumThreads(0)  # images are too small, and each worker would start threads
    return albumentations


def transform_parameters(config: AugmentConfig, size: int) -> list[tuple[str, dict[str, Any]]]:
    """(transform of albumentations, its parameters), in the order of application, for images of this size.

    Cutout comes after normalization and fills with 0, the mean color.
    """
    padding, square = config.crop_padding, (config.cutout_size, config.cutout_size)
    crop = [("Pad", {"padding": padding, "fill": 0}), ("RandomCrop", {"height": size, "width": size})]
    cutout = {"num_holes_range": (1, 1), "hole_height_range": square, "hole_width_range": square, "fill": 0}
    return [
        *(crop if padding else []),
        ("HorizontalFlip", {"p": config.flip_probability}),
        ("Normalize", {"mean": config.mean, "std": config.std}),
        *([("CoarseDropout", cutout | {"p": config.cutout_probability})] if config.cutout_size else []),
    ]


@dataclass(frozen=True)
class Pipeline(Dataset[Tensor]):
    """The transforms and the seed, without images: a `Dataset` of tasks that is cheap to pickle.

    Raises UserError with the first image if albumentations cannot be used.
    """

    config: AugmentConfig
    seed: int
    size: int

    @cached_property
    def transforms(self) -> Any:
        """The `albumentations.Compose`."""
        library = load_albumentations()
        steps = [
            getattr(library, name)(**parameters) for name, parameters in transform_parameters(self.config, self.size)
        ]
        return library.Compose(steps, is_check_shapes=False)  # there are no masks whose shapes could differ

    def __getitem__(self, task: Task) -> Tensor:
        """The augmented images, float32 [B, 3, S, S], channels_last."""
        epoch, rows, images = task
        augmented = np.empty(images.shape, np.float32)  # a rank may have no images of the last batch
        for place, (row, image) in enumerate(zip(rows, images, strict=True)):
            augmented[place] = self.augment(image, epoch, row)
        return torch.from_numpy(augmented).permute(0, 3, 1, 2)

    def augment(self, image: np.ndarray, epoch: int, row: int) -> np.ndarray:
        """An image uint8 [S, S, 3], with its row of the split, -> augmented and normalized, float32 [S, S, 3]."""
        rng = np.random.default_rng((self.seed, epoch, row, zlib.crc32(b"albumentations")))
        # One pair of generators for all transforms. `Compose.set_random_seed` gives each transform an equal pair, which
        # correlates them: Cutout would apply to exactly the flipped images.
        self.transforms.set_random_state(rng, random.Random(rng.bytes(16)))  # noqa: S311
        return self.transforms(image=image)["image"]


class BatchWorkers:
    """Batches of a pipeline, prefetched in `num_workers` processes; 0: computed in this process on demand.

    The processes start with the first batch and stop with `close`. They hold no images: each task contains its own.
    They are spawned: forked ones would share locks, among them that of the run directory, and the state of CUDA, NCCL
    and other threads.
    """

    def __init__(self, pipeline: Pipeline, *, num_workers: int, pinned: bool = False) -> None:
        self._tasks = _TaskSampler()
        self._loader = DataLoader(
            pipeline,
            sampler=self._tasks,
            batch_size=None,  # a task is a whole batch
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            multiprocessing_context="spawn" if num_workers else None,
            worker_init_fn=_init_worker,
            pin_memory=pinned,
            generator=torch.Generator(),  # unused; without it, every epoch would advance the global one
        )
        self._started = num_workers == 0

    def batches(self, tasks: Iterable[Task]) -> Iterator[Tensor]:
        """The results of the tasks, in order; tasks are consumed a few batches ahead."""
        self._tasks.current = tasks
        batches = iter(self._loader) if self._started else self._start_workers()
        yield from batches

    def _start_workers(self) -> Iterator[Tensor]:
        """Start the worker processes and return the iterator over their batches.

        They start with the stop signals blocked, and inherit the mask: a signal must not end a worker before it has run
        `_init_worker`.
        """
        self._started = True
        if not STOP_SIGNALS:
            return iter(self._loader)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            resource_tracker.ensure_running()  # Python's helper of spawned processes; some of its versions unblock
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            return iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the worker processes."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None:  # DataLoader has no public way to end processes that outlive an epoch
            iterator._shutdown_workers()  # type: ignore[attr-defined]


class _TaskSampler:
    """The sampler of a DataLoader that outlives epochs: the tasks of the current epoch."""

    def __init__(self) -> None:
        self.current: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.current)


def _init_worker(_number: int) -> None:
    """Initialize a worker process: it ignores the signals of the terminal and the process group, which the main process
    handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if STOP_SIGNALS:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # discards one that was sent to the group while it was blocked
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # one from the main process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    # Exit without cleanup, as forked processes do: Python's own may abort while a thread is still sending a batch.
    atexit.register(os._exit, 0)


def explain_worker_failure(error: Exception) -> RunFailed | None:
    """RunFailed if the error is PyTorch's for a worker process that was killed; None for any other.

    PyTorch raises it wherever the main process is at that time.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not text.startswith("DataLoader worker (pid"):
        return None
    return RunFailed(
        "train.worker",
        f"A worker process of --num-workers was killed ({text.splitlines()[0]}), most often because memory ran out. "
        "Resume with --resume, with fewer --num-workers if necessary.",
    )
