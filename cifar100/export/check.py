"""Compare an exported file with its checkpoint: logits, predictions, speed, size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset import Split
from cifar100.evaluation.evaluate import eval_batch_size
from cifar100.evaluation.metrics import top_k_accuracy
from cifar100.support.errors import RunFailed

Forward = Callable[[np.ndarray], np.ndarray]
"""uint8 [B, S, S, 3] -> logits float32 [B, C]."""

PARITY_BATCHES = (1, 2, 7, 64)
SPEED_BATCHES = (1, 64)
BATCH_SIZE = 250
ROUNDS = 3
SPEED_SECONDS = 1.0
"""Per batch size and forward pass, unless `compare` gets another number."""

MAX_DIFFERENCE = 1e-3
"""Of an fp32 logit, relative to the largest logit: a hundred times the effect of rounding."""
MIN_AGREEMENT = 0.9
"""Fraction of images for which int8 must predict the same class; 0.98 to 0.99 is usual."""


class Reference:
    """The checkpoint in eager PyTorch, fp32, batch norms not folded; and the images for the comparison.

    The images are at most `count` of `test`, evenly spread over the classes, or random pixels if `test` is None.
    """

    def __init__(self, checkpoint: Checkpoint, test: Split | None, count: int) -> None:
        self.model = checkpoint.build().eval()
        self.mean, self.std = tuple(checkpoint.mean), tuple(checkpoint.std)
        self.labels: np.ndarray | None = None
        if test is None:
            shape = (max(PARITY_BATCHES), checkpoint.image_size, checkpoint.image_size, 3)
            self.images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            self.description = "random pixels only: no images of its dataset were found (--data-dir names them)"
        else:
            rows = test.spread(count)
            self.images, self.labels = test.images[rows], test.labels[rows]
            synthetic = "synthetic " if checkpoint.dataset.synthetic else ""
            self.description = f"{len(rows):,} of {len(test):,} {synthetic}test images"

    def forward(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [B, S, S, 3] -> logits float32 [B, C]."""
        with torch.inference_mode():
            return self.model(normalize(torch.from_numpy(pixels), self.mean, self.std)).numpy()

    @cached_property
    def logits(self) -> np.ndarray:
        """Of all images, float32 [N, C]."""
        return _in_batches(self.forward, self.images)


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The result of a comparison. Accuracies are in 0..1, speeds in images/s (median of the passes) by batch size."""

    file: str
    format: str
    bytes: int
    on: str
    """The images, as text."""
    images: int
    difference: dict[int, float]
    """The largest absolute difference of a logit, by batch size."""
    largest_logit: float
    agreement: float
    """Fraction of images whose predicted class is the checkpoint's."""
    top1: float | None
    """None without images of the dataset."""
    checkpoint_top1: float | None
    images_per_second: dict[int, float]
    checkpoint_images_per_second: dict[int, float]

    def raise_on_mismatch(self) -> None:
        """Raise RunFailed if the file does not compute what the checkpoint does."""
        exact = self.format != "onnx-int8"
        worst = max(self.difference.values())
        if exact and not worst <= MAX_DIFFERENCE * max(1.0, self.largest_logit):  # a NaN fails too
            raise RunFailed(
                "export.parity",
                f"{self.file} was not written: its logits differ from the checkpoint's by up to {worst:.2g}, more than "
                "rounding explains.",
            )
        if not exact and self.top1 is not None and not self.agreement >= MIN_AGREEMENT:
            raise RunFailed(
                "export.agreement",
                f"{self.file} was not written: int8 predicts the checkpoint's class for only {self.agreement:.1%} of "
                f"{self.images:,} images.",
            )

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.format}, {self.bytes / 2**20:.1f} MiB", f"checked on {self.on}", ""]
        lines.append(f"{'':<28}{'this file':>12}{'checkpoint':>12}")
        if self.top1 is not None and self.checkpoint_top1 is not None:
            change = 100 * (self.top1 - self.checkpoint_top1)
            lines.append(f"{'top-1':<28}{self.top1:>12.2%}{self.checkpoint_top1:>12.2%}  {change:+.2f} points")
        lines.append(f"{'same top-1 class':<28}{self.agreement:>12.2%}")
        for size, speed in self.images_per_second.items():
            before = self.checkpoint_images_per_second[size]
            lines.append(f"{f'images/s, batch {size}':<28}{speed:>12,.0f}{before:>12,.0f}  {speed / before:.1f}x")
        for size, value in self.difference.items():
            lines.append(f"{f'logits differ by, batch {size}':<28}{value:>12.1e}")
        lines.append(f"{'largest logit':<28}{self.largest_logit:>12.1f}")
        return "\n".join(lines)


def compare(
    forward: Forward,
    reference: Reference,
    *,
    format: str,
    file: Path,
    seconds: float | None = None,
) -> ParityReport:
    """Compare the forward pass of a file with the reference; each speed is measured for `seconds`."""
    seconds = SPEED_SECONDS if seconds is None else seconds
    images, labels, expected = reference.images, reference.labels, reference.logits
    most = eval_batch_size(images.shape[1])
    speed_sizes = [size for size in SPEED_BATCHES if size <= most]
    filled = images[np.arange(max(*PARITY_BATCHES, *SPEED_BATCHES)) % len(images)]  # a small dataset is repeated
    difference = {}
    for size in (size for size in PARITY_BATCHES if size <= most):
        batch = filled[:size]
        difference[size] = float(np.abs(forward(batch) - reference.forward(batch)).max())
    found = _in_batches(forward, images)
    speeds = {size: measure_speeds((forward, reference.forward), filled[:size], seconds) for size in speed_sizes}
    return ParityReport(
        file=file.name,
        format=format,
        bytes=file.stat().st_size,
        on=reference.description,
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
    size = min(BATCH_SIZE, eval_batch_size(images.shape[1]))
    return np.concatenate([forward(images[i : i + size]) for i in range(0, len(images), size)])


def measure_speeds(forwards: Sequence[Forward], batch: np.ndarray, seconds: float) -> list[float]:
    """Images/s of each, alternating in rounds, so that other load on the machine affects all alike."""
    times: list[list[float]] = [[] for _ in forwards]
    for _ in range(ROUNDS):
        for forward, durations in zip(forwards, times, strict=True):
            if seconds:
                time.sleep(0.05)  # the other one's threads spin for a while
            forward(batch)  # the first pass also prepares
            until = time.perf_counter() + seconds / ROUNDS
            while not durations or time.perf_counter() < until:
                start = time.perf_counter()
                forward(batch)
                durations.append(time.perf_counter() - start)
    return [round(len(batch) / float(np.median(durations)), 1) for durations in times]
