"""An exported file held against its checkpoint: the same logits, the same answers, how fast, how large."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset import Split
from cifar100.evaluation.metrics import top_k_accuracy
from cifar100.support.errors import RunFailed

Forward = Callable[[np.ndarray], np.ndarray]
"""uint8 [B, S, S, 3] -> logits float32 [B, C]."""

PARITY_BATCHES = (1, 2, 7, 64)
SPEED_BATCHES = (1, 64)
BATCH_SIZE = 250
TURNS = 3

MAX_DIFFERENCE = 1e-3
"""Of a logit in fp32, as a share of the largest logit: a hundred times what rounding does."""
MIN_AGREEMENT = 0.9
"""Share of images that int8 must put into the same class; 0.98 to 0.99 is usual."""


class Reference:
    """The checkpoint itself, in eager PyTorch, fp32, batch norms as they are; and the images to ask it and a file of.

    `test` None: random pixels. Of more images than `count`, so many are taken, spread evenly over the classes.
    """

    def __init__(self, checkpoint: Checkpoint, test: Split | None, count: int) -> None:
        self.model = checkpoint.build().eval()
        self.mean, self.std = tuple(checkpoint.mean), tuple(checkpoint.std)
        self.labels: np.ndarray | None = None
        if test is None:
            shape = (max(PARITY_BATCHES), checkpoint.image_size, checkpoint.image_size, 3)
            self.images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            self.on = "random pixels only: no images of its dataset were found (--data-dir names them)"
        else:
            rows = test.spread(count)
            self.images, self.labels = test.images[rows], test.labels[rows]
            made_up = "made-up " if checkpoint.dataset.synthetic else ""
            self.on = f"{len(rows):,} of {len(test):,} {made_up}test images"

    def forward(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [B, S, S, 3] -> logits float32 [B, C]."""
        with torch.inference_mode():
            return self.model(normalize(torch.from_numpy(pixels), self.mean, self.std)).numpy()

    @cached_property
    def logits(self) -> np.ndarray:
        """Of all its images, float32 [N, C]."""
        return _in_batches(self.forward, self.images)


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found. Accuracies are shares in 0..1, speeds images a second (median of the passes) by batch size."""

    file: str
    format: str
    bytes: int
    on: str
    """The images of the check, in words."""
    images: int
    difference: dict[int, float]
    """The largest difference of any logit, by batch size."""
    largest_logit: float
    agreement: float
    """Share of images whose likeliest class is the checkpoint's."""
    top1: float | None
    """None without real images."""
    checkpoint_top1: float | None
    images_per_second: dict[int, float]
    checkpoint_images_per_second: dict[int, float]

    def raise_on_mismatch(self) -> None:
        """Raise RunFailed where the file does something else than the checkpoint."""
        exact = self.format != "onnx-int8"
        worst = max(self.difference.values())
        if exact and not worst <= MAX_DIFFERENCE * max(1.0, self.largest_logit):  # a NaN fails too
            raise RunFailed(
                f"{self.file} was not written: its logits differ from the checkpoint's by up to {worst:.2g}, which "
                "rounding does not explain."
            )
        if not exact and self.top1 is not None and not self.agreement >= MIN_AGREEMENT:
            raise RunFailed(
                f"{self.file} was not written: int8 names the checkpoint's class for only {self.agreement:.1%} of "
                f"{self.images:,} images."
            )

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.format}, {self.bytes / 2**20:.1f} MiB", f"checked on {self.on}", ""]
        lines.append(f"{'':<28}{'this file':>12}{'checkpoint':>12}")
        if self.top1 is not None and self.checkpoint_top1 is not None:
            change = 100 * (self.top1 - self.checkpoint_top1)
            lines.append(f"{'top-1':<28}{self.top1:>12.2%}{self.checkpoint_top1:>12.2%}  {change:+.2f} points")
        lines.append(f"{'the same likeliest class':<28}{self.agreement:>12.2%}")
        for size, speed in self.images_per_second.items():
            before = self.checkpoint_images_per_second[size]
            lines.append(f"{f'images/s, batch {size}':<28}{speed:>12,.0f}{before:>12,.0f}  {speed / before:.1f}x")
        for size, value in self.difference.items():
            lines.append(f"{f'logits differ by, batch {size}':<28}{value:>12.1e}")
        lines.append(f"{'largest logit':<28}{self.largest_logit:>12.1f}")
        return "\n".join(lines)


def check(
    forward: Forward,
    yardstick: Reference,
    *,
    format: str,
    file: Path,
    seconds: float = 1.0,
    speed_batches: Sequence[int] = SPEED_BATCHES,
) -> Check:
    """Hold the forward pass of a file against the yardstick; `seconds` is how long each speed is measured."""
    images, labels, expected = yardstick.images, yardstick.labels, yardstick.logits
    filled = images[np.arange(max(*PARITY_BATCHES, *speed_batches)) % len(images)]  # a small dataset, gone round
    difference = {}
    for size in PARITY_BATCHES:
        batch = filled[:size]
        difference[size] = float(np.abs(forward(batch) - yardstick.forward(batch)).max())
    found = _in_batches(forward, images)
    speeds = {size: _speeds((forward, yardstick.forward), filled[:size], seconds) for size in speed_batches}
    return Check(
        file=file.name,
        format=format,
        bytes=file.stat().st_size,
        on=yardstick.on,
        images=len(images),
        difference=difference,
        largest_logit=float(np.abs(expected).max()),
        agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        top1=None if labels is None else top_k_accuracy(found, labels),
        checkpoint_top1=None if labels is None else top_k_accuracy(expected, labels),
        images_per_second={size: pair[0] for size, pair in speeds.items()},
        checkpoint_images_per_second={size: pair[1] for size, pair in speeds.items()},
    )


def _in_batches(forward: Forward, images: np.ndarray) -> np.ndarray:
    return np.concatenate([forward(images[i : i + BATCH_SIZE]) for i in range(0, len(images), BATCH_SIZE)])


def _speeds(forwards: Sequence[Forward], batch: np.ndarray, seconds: float) -> list[float]:
    """Images a second of each, by turns of several passes, so that what else the machine does meets all alike."""
    times: list[list[float]] = [[] for _ in forwards]
    for _ in range(TURNS):
        for forward, taken in zip(forwards, times, strict=True):
            time.sleep(0.05)  # the threads of the other one still spin for a while
            forward(batch)  # the first pass also prepares
            until = time.perf_counter() + seconds / TURNS
            while not taken or time.perf_counter() < until:
                start = time.perf_counter()
                forward(batch)
                taken.append(time.perf_counter() - start)
    return [round(len(batch) / float(np.median(taken)), 1) for taken in times]
