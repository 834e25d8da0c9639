"""Exact and near duplicates in a dataset, within a split and across the two.

Exact duplicates have the same pixels. Near duplicates are rescaled, flipped or recompressed copies, found in two steps.
Each image and its horizontal flip is averaged to 8x8 pixels, centered and scaled to length 1; the products of all pairs
are their correlations. Pairs above COARSE_THRESHOLD are compared at full size: the mean of the 5x5 neighborhood of
every pixel is subtracted, so that skies and meadows do not all look alike, and these details are correlated, at the
best shift of up to MAX_SHIFT pixels. Pairs above NEAR_THRESHOLD are near duplicates.

The method compares pixels: it does not find crops that differ by more than a few pixels, or other photos of the same
object. Barz & Denzler 2020 (https://arxiv.org/abs/1902.00423), with a network and by eye, found near duplicates for
nearly 10 % of the test images of CIFAR-100.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cifar100.dataset import Dataset
from cifar100.evaluation import metrics
from cifar100.support.errors import UserError
from cifar100.support.progress import progress
from cifar100.support.terminal import emit_error

COARSE_THRESHOLD, NEAR_THRESHOLD = 0.93, 0.8
"""Correlations, of 8x8 pixels and of details; chosen by inspecting pairs of CIFAR-100 (docs/results.md)."""

BLOCK = 2000
"""Images that are compared with all later ones at a time."""

MAX_SHIFT = 2
"""Largest shift, in pixels, at which two images are compared."""

MAX_CANDIDATES = 2_000_000
"""Pairs that are compared at full size, in ten minutes; CIFAR-100 has 41,000 and 1,797 handwritten digits 10,000."""


@dataclass(frozen=True)
class FilteredAccuracy:
    """The accuracy without some of the test images."""

    criterion: str
    """Which images are excluded."""
    num_excluded: int
    num_images: int
    """Number of images that remain."""
    top1: float
    top5: float
    top1_of_all: float
    top1_of_excluded: float | None
    """None if nothing is excluded."""

    def __str__(self) -> str:
        """As one line of text."""
        excluded = "" if self.top1_of_excluded is None else f"; {self.top1_of_excluded:.1%} on the excluded"
        change = 100 * (self.top1 - self.top1_of_all)
        rest = f"top-1 on the rest {self.top1:7.2%} ({change:+.2f} points{excluded})"
        return f"  {self.criterion:<18}{self.num_excluded:>5,} excluded, {rest}"


@dataclass(frozen=True)
class DuplicatePair:
    """Two (nearly) equal images. Row numbers run through the train split and continue in the test split."""

    first: int
    second: int
    """Above `first`."""
    correlation: float
    """Correlation of the details (see above); 1 for equal pixels."""
    mirrored: bool = False
    """Whether one is the horizontal flip of the other."""
    exact: bool = False


class CombinedSplits:
    """Both splits of a dataset in one array, the train split first."""

    def __init__(self, dataset: Dataset) -> None:
        self.num_train = len(dataset.train)
        self.images = np.concatenate([dataset.train.images, dataset.test.images])
        self.labels = np.concatenate([dataset.train.labels, dataset.test.labels])

    def location(self, pair: DuplicatePair) -> str:
        """Where the two images are: "train", "test" or "across"."""
        if pair.second < self.num_train:
            return "train"
        return "test" if pair.first >= self.num_train else "across"

    def labels_conflict(self, pair: DuplicatePair) -> bool:
        """Whether the two images have different labels."""
        return bool(self.labels[pair.first] != self.labels[pair.second])


def exact_duplicates(images: np.ndarray) -> list[DuplicatePair]:
    """Each repeated image of uint8 [N, S, S, 3], paired with its first occurrence."""
    firsts: dict[bytes, int] = {}
    pairs = []
    for row, image in enumerate(images):
        first = firsts.setdefault(hashlib.sha256(image.tobytes()).digest(), row)
        if first != row:
            pairs.append(DuplicatePair(first, row, 1.0, exact=True))
    return pairs


def near_duplicates(images: np.ndarray, *, advance: Callable[[int], None] = lambda _done: None) -> list[DuplicatePair]:
    """Near duplicates in uint8 [N, S, S, 3], without exact ones, the most similar first.

    `advance` is called with the number of images finished since the last call. Uniform images have no duplicates.
    Raises UserError if more than `MAX_CANDIDATES` pairs look alike, such as those of handwritten digits.
    """
    candidates: set[tuple[int, int, bool]] = set()
    in_memory = max(1, min(BLOCK, BLOCK * 32**2 // images.shape[1] ** 2))  # as floating-point numbers
    small = torch.cat([_fingerprints(block) for block in torch.from_numpy(images).split(in_memory)])
    mirrored = small.view(-1, 3, 8, 8).flip(3).reshape(len(small), -1)
    for start in range(0, len(small), BLOCK):
        later = small[start:]
        for is_mirrored, here in ((False, small), (True, mirrored)):
            found = (here[start : start + BLOCK] @ later.T > COARSE_THRESHOLD).nonzero().numpy() + start
            found = found[found[:, 0] < found[:, 1]]
            if len(candidates) + len(found) > MAX_CANDIDATES:
                raise UserError(
                    "duplicates.too_similar",
                    f"Near duplicates cannot be distinguished here: {MAX_CANDIDATES:,} pairs of images look alike.",
                )
            candidates |= {(int(a), int(b), is_mirrored) for a, b in found}
        advance(min(BLOCK, len(small) - start))
    best: dict[tuple[int, int], DuplicatePair] = {}
    ordered = sorted(candidates)
    for begin in range(0, len(ordered), in_memory):
        some = ordered[begin : begin + in_memory]
        first, second, flips = (np.array(column) for column in zip(*some, strict=True))
        correlations = _correlations(images[first], images[second], flips)
        for (a, b, is_mirrored), correlation in zip(some, correlations.tolist(), strict=True):
            known = best.get((a, b))
            better = correlation > (NEAR_THRESHOLD if known is None else known.correlation)
            if better and not np.array_equal(images[a], images[b]):
                best[a, b] = DuplicatePair(a, b, correlation, is_mirrored)
    return sorted(best.values(), key=lambda pair: -pair.correlation)


def duplicated_test_rows(pairs: list[DuplicatePair], splits: CombinedSplits) -> np.ndarray:
    """The rows of the test split that have a duplicate in the train split: int64, ascending."""
    found = {pair.second - splits.num_train for pair in pairs if splits.location(pair) == "across"}
    return np.array(sorted(found), np.int64)


def accuracy_without_duplicates(logits: np.ndarray, labels: np.ndarray, dataset: Dataset) -> list[FilteredAccuracy]:
    """The accuracy without test images that are duplicated in train: exact duplicates, then exact and near ones.

    `logits` [N, C] and `labels` [N] are those of the test split, in its order.
    """
    rows = CombinedSplits(dataset)
    exact = exact_duplicates(rows.images)
    with progress("images compared", len(rows.images), emit_error, stream=sys.stderr) as advance:
        near = near_duplicates(rows.images, advance=advance)
    of_all, results = metrics.top_k_accuracy(logits, labels), []
    for criterion, pairs in (("exact", exact), ("exact or near", [*exact, *near])):
        gone = np.zeros(len(labels), bool)
        gone[duplicated_test_rows(pairs, rows)] = True
        if gone.all():
            raise UserError("evaluate.all_duplicates", "Every test image is duplicated in train; nothing remains.")
        results.append(
            FilteredAccuracy(
                criterion=criterion,
                num_excluded=int(gone.sum()),
                num_images=int((~gone).sum()),
                top1=metrics.top_k_accuracy(logits[~gone], labels[~gone], 1),
                top5=metrics.top_k_accuracy(logits[~gone], labels[~gone], 5),
                top1_of_all=of_all,
                top1_of_excluded=metrics.top_k_accuracy(logits[gone], labels[gone], 1) if gone.any() else None,
            )
        )
    return results


def _fingerprints(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 192]: averaged to 8x8, centered, of length 1; 0 for uniform images."""
    small = F.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float(), 8).flatten(1)
    small -= small.mean(dim=1, keepdim=True)
    return torch.where(small.square().mean(dim=1, keepdim=True) > 1, F.normalize(small, dim=1), 0)


def _correlations(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """float32 [B]: the correlation of the image centers, at the best shift of the second image."""
    one, other = _details(first), _details(second)
    one = torch.where(torch.from_numpy(mirrored)[:, None, None, None], one.flip(3), one)
    inner = one.shape[2] - 2 * MAX_SHIFT
    middle = _standardized(one[:, :, MAX_SHIFT : MAX_SHIFT + inner, MAX_SHIFT : MAX_SHIFT + inner])
    shifted = (
        _standardized(other[:, :, down : down + inner, right : right + inner])
        for down in range(2 * MAX_SHIFT + 1)
        for right in range(2 * MAX_SHIFT + 1)
    )
    return torch.stack([(middle * part).sum(dim=1) for part in shifted]).amax(dim=0)


def _details(images: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S]: each pixel minus the mean of its 5x5 neighborhood."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return x - F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)


def _standardized(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
