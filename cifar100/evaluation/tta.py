"""Several looks at each image: how much their mean improves on one, and how far they agree.

Two views are the image and its mirror image; six are these as they are, a pixel up and left, and a pixel down and
right, as airbench looks at CIFAR-10 (https://github.com/KellerJordan/cifar10-airbench). The headline stays the single
view; this is an extra column that names itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.augmentation.loader import EvalLoader
from cifar100.compute.device import Compute, memory_format
from cifar100.config import AugmentConfig
from cifar100.dataset import Split
from cifar100.evaluation import metrics
from cifar100.evaluation.evaluate import BATCH_SIZE, predict_logits

View = Callable[[Tensor], Tensor]
"""Normalised images [B, 3, S, S] -> the same, seen otherwise."""


def as_it_is(images: Tensor) -> Tensor:
    """The single view of the headline."""
    return images


def mirror(images: Tensor) -> Tensor:
    """Left for right."""
    return images.flip(3)


def up_left(images: Tensor) -> Tensor:
    """What lies a pixel down and right, the edge mirrored."""
    return F.pad(images, (0, 1, 0, 1), mode="reflect")[:, :, 1:, 1:]


def down_right(images: Tensor) -> Tensor:
    """What lies a pixel up and left, the edge mirrored."""
    return F.pad(images, (1, 0, 1, 0), mode="reflect")[:, :, :-1, :-1]


VIEWS: tuple[tuple[View, ...], ...] = (
    (as_it_is,),
    (mirror,),
    *((shift, flip) for shift in (up_left, down_right) for flip in (as_it_is, mirror)),
)
"""Each a chain of functions; the first two are the two views."""

WEIGHTS = {1: (1.0,), 2: (0.5, 0.5), 6: (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)}
"""What each view's logits count for in the mean, as in airbench: those that are not shifted count for half."""


@dataclass(frozen=True)
class TTAResult:
    """What so many views give together. Shares in 0..1."""

    views: int
    top1: float
    """Of the weighted mean of the views' logits."""
    top5: float
    consistency: float
    """Share of images to which all views give the same class; 1 for one view."""


def evaluate_views(
    model: nn.Module,
    split: Split,
    config: AugmentConfig,
    compute: Compute,
    *,
    single: np.ndarray,
    count: int,
) -> list[TTAResult]:
    """What 1, 2, … up to `count` views give; `count` is 1, 2 or 6.

    `single` are the logits [N, C] of the single view, known already; each other view costs a forward pass.
    """
    loader = EvalLoader(split, config, batch_size=BATCH_SIZE, device=compute.device)
    logits = [single, *(predict_logits(model, _seen(loader, view), compute) for view in VIEWS[1:count])]
    return [_combine(np.stack(logits[:number]), split.labels) for number in WEIGHTS if number <= count]


def _seen(loader: EvalLoader, view: tuple[View, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        for change in view:
            images = change(images)  # noqa: PLW2901
        yield images.contiguous(memory_format=memory_format(images.device)), labels


def _combine(logits: np.ndarray, labels: np.ndarray) -> TTAResult:
    """Of logits [V, N, C]."""
    mean = np.tensordot(WEIGHTS[len(logits)], logits, axes=1)
    named = logits.argmax(axis=2)
    return TTAResult(
        views=len(logits),
        top1=metrics.top_k_accuracy(mean, labels, 1),
        top5=metrics.top_k_accuracy(mean, labels, 5),
        consistency=float((named == named[0]).all(axis=0).mean()),
    )


def table(results: list[TTAResult]) -> str:
    """The figures as plain text."""
    lines = ["Test-time views (the headline above is one view)", f"  {'views':<8}{'top-1':>8}{'top-5':>9}{'agree':>9}"]
    lines += [f"  {one.views:<8}{one.top1:8.2%}{one.top5:9.2%}{one.consistency:9.2%}" for one in results]
    return "\n".join(lines)


def to_json(results: list[TTAResult]) -> list[dict[str, Any]]:
    """The figures as JSON types."""
    return [asdict(one) for one in results]
