"""Test-time augmentation (TTA): the accuracy of the mean of several views, and how often the views agree.

Two views are the image and its horizontal flip; six add both shifted by a pixel up and left, and down and right, as
airbench does for CIFAR-10 (https://github.com/KellerJordan/cifar10-airbench). The headline stays the single view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.augmentation.loader import EvalLoader
from cifar100.compute.device import Compute, memory_format
from cifar100.config import AugmentConfig
from cifar100.dataset import Split
from cifar100.evaluation import metrics
from cifar100.evaluation.evaluate import eval_batch_size, predict_logits

VIEWS = ((0, False), (0, True), (1, False), (1, True), (-1, False), (-1, True))
"""Pixels that the image is shifted up and left, and whether it is flipped; the first two are the two views."""

WEIGHTS = {1: (1.0,), 2: (0.5, 0.5), 6: (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)}
"""Weights of the views in the mean, as in airbench: the unshifted ones have half the weight in total."""


@dataclass(frozen=True)
class TTAResult:
    """The result of `views` views. Fractions in 0..1."""

    views: int
    top1: float
    """Of the weighted mean of the logits."""
    top5: float
    agreement: float
    """Fraction of images for which all views predict the same class; 1 for one view."""


def evaluate_tta(
    model: nn.Module,
    split: Split,
    config: AugmentConfig,
    compute: Compute,
    *,
    single_view_logits: np.ndarray,
    num_views: int,
) -> list[TTAResult]:
    """The results of 1, 2, … up to `num_views` views; `num_views` is 1, 2 or 6.

    `single_view_logits` [N, C] are known; each other view costs a forward pass.
    """
    batch_size = eval_batch_size(split.images.shape[1])
    loader = EvalLoader(split, config, batch_size=batch_size, device=compute.device)
    others = (predict_logits(model, _transformed(loader, *view), compute) for view in VIEWS[1:num_views])
    logits = [single_view_logits, *others]
    return [_combine(np.stack(logits[:number]), split.labels) for number in WEIGHTS if number <= num_views]


def _transformed(loader: EvalLoader, shift: int, flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        yield shift_and_flip(images, shift, flip).contiguous(memory_format=memory_format(images.device)), labels


def shift_and_flip(images: Tensor, shift: int, flip: bool) -> Tensor:
    """Images [B, 3, S, S], shifted up and left by -1, 0 or 1 pixels with reflected borders, then flipped
    horizontally."""
    if shift:
        start, size = 1 + shift, images.shape[2]
        images = F.pad(images, (1, 1, 1, 1), mode="reflect")[:, :, start : start + size, start : start + size]
    return images.flip(3) if flip else images


def _combine(logits: np.ndarray, labels: np.ndarray) -> TTAResult:
    """The result of logits [V, N, C]."""
    mean = np.tensordot(WEIGHTS[len(logits)], logits, axes=1)
    predicted = logits.argmax(axis=2)
    return TTAResult(
        views=len(logits),
        top1=metrics.top_k_accuracy(mean, labels, 1),
        top5=metrics.top_k_accuracy(mean, labels, 5),
        agreement=float((predicted == predicted[0]).all(axis=0).mean()),
    )


def format_table(results: list[TTAResult]) -> str:
    """The results as plain text."""
    lines = ["Test-time augmentation (the headline is one view)"]
    lines.append(f"  {'views':<8}{'top-1':>8}{'top-5':>9}{'agreement':>11}")
    lines += [f"  {one.views:<8}{one.top1:8.2%}{one.top5:9.2%}{one.agreement:11.2%}" for one in results]
    return "\n".join(lines)
