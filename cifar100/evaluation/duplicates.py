"""Images that occur more than once in a dataset, as they are or nearly, within a split and across the two.

Exact: the same pixels. Near: pictures that a person would call the same one, scaled, mirrored or stored otherwise. They
are found in two steps. Each picture, and its mirror image, is averaged to 8x8 pixels, its mean is taken away and the
rest scaled to length 1; the products of all pairs, in blocks, are their correlations. Pairs above COARSE are looked at
again, at full size: of each picture the mean of the 5x5 around every pixel is taken away, so that skies and meadows do
not all look alike, and these details are correlated, one picture shifted by up to SHIFT pixels, as fits best. Pairs
above NEAR are near duplicates.

It is a method of pixels: a photo cut otherwise by more than some pixels, or another photo of the same thing, is not
found. Barz & Denzler 2020 (https://arxiv.org/abs/1902.00423), with a network and by eye, found near duplicates for
nearly 10 % of the test images of CIFAR-100.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cifar100.dataset import Dataset
from cifar100.evaluation import metrics
from cifar100.support.errors import UserError

COARSE, NEAR = 0.93, 0.8
"""Correlations, of 8x8 pixels and of details; set by looking at pairs of CIFAR-100 (docs/results.md)."""

BLOCK = 2000
"""Images that are compared with all later ones at once."""

SHIFT = 2
"""Pixels."""


@dataclass(frozen=True)
class Without:
    """The accuracy on the test images that are left when some are left out, beside that on all."""

    what: str
    left_out: int
    images: int
    """That are left."""
    top1: float
    top5: float
    top1_of_all: float
    top1_of_left_out: float | None
    """None where nothing is left out."""

    def __str__(self) -> str:
        """One line for people."""
        own = "" if self.top1_of_left_out is None else f"; {self.top1_of_left_out:.1%} of those"
        change = 100 * (self.top1 - self.top1_of_all)
        return f"  {self.what:<18}{self.left_out:>5,} left out: top-1 {self.top1:7.2%} ({change:+.2f} points{own})"


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, or nearly. Rows count through the train split and on through the test split."""

    first: int
    second: int
    """Above `first`."""
    correlation: float
    """Of the details; 1 where the pixels are the same."""
    mirrored: bool = False
    """Whether one is the mirror image of the other."""
    exact: bool = False


class Rows:
    """Both splits of a dataset as one list of images, the train split first."""

    def __init__(self, dataset: Dataset) -> None:
        self.trained_on = len(dataset.train)
        self.images = np.concatenate([dataset.train.images, dataset.test.images])
        self.labels = np.concatenate([dataset.train.labels, dataset.test.labels])

    def place(self, pair: Pair) -> str:
        """Where the two images are: "train", "test" or "across"."""
        if pair.second < self.trained_on:
            return "train"
        return "test" if pair.first >= self.trained_on else "across"

    def conflicts(self, pair: Pair) -> bool:
        """Whether the two images have different labels."""
        return bool(self.labels[pair.first] != self.labels[pair.second])


def exact_duplicates(images: np.ndarray) -> list[Pair]:
    """Each image of uint8 [N, S, S, 3] that occurs again, with the first one of the same pixels."""
    firsts: dict[bytes, int] = {}
    pairs = []
    for row, image in enumerate(images):
        first = firsts.setdefault(hashlib.sha256(image.tobytes()).digest(), row)
        if first != row:
            pairs.append(Pair(first, row, 1.0, exact=True))
    return pairs


def near_duplicates(images: np.ndarray, *, tell: Callable[[int], None] = lambda _done: None) -> list[Pair]:
    """The pairs of uint8 [N, S, S, 3] that are nearly the same, those of equal pixels left out, the most alike first.

    `tell` is told how many more images are done. A plain picture, without any contrast, is like no other.
    """
    candidates: set[tuple[int, int, bool]] = set()
    small = torch.cat([_fingerprints(torch.from_numpy(block)) for block in _blocks(images)])
    mirrored = small.view(-1, 3, 8, 8).flip(3).reshape(len(small), -1)
    for start in range(0, len(small), BLOCK):
        later = small[start:]
        for is_mirrored, here in ((False, small), (True, mirrored)):
            found = (here[start : start + BLOCK] @ later.T > COARSE).nonzero().numpy() + start
            candidates |= {(int(a), int(b), is_mirrored) for a, b in found if a < b}
        tell(min(BLOCK, len(small) - start))
    best: dict[tuple[int, int], Pair] = {}
    ordered = sorted(candidates)
    for begin in range(0, len(ordered), BLOCK):
        some = ordered[begin : begin + BLOCK]
        first, second, flips = (np.array(column) for column in zip(*some, strict=True))
        correlations = _correlations(images[first], images[second], flips)
        for (a, b, is_mirrored), correlation in zip(some, correlations.tolist(), strict=True):
            known = best.get((a, b))
            better = correlation > (NEAR if known is None else known.correlation)
            if better and not np.array_equal(images[a], images[b]):
                best[a, b] = Pair(a, b, correlation, is_mirrored)
    return sorted(best.values(), key=lambda pair: -pair.correlation)


def rows_in_train(pairs: list[Pair], rows: Rows) -> np.ndarray:
    """Which test images, by row of the test split, have a partner in train: int64, ascending."""
    found = {pair.second - rows.trained_on for pair in pairs if rows.place(pair) == "across"}
    return np.array(sorted(found), np.int64)


def without_duplicates(
    logits: np.ndarray, labels: np.ndarray, dataset: Dataset, *, tell: Callable[[int], None] = lambda _done: None
) -> list[Without]:
    """What leaving out the test images that occur in train changes: those of the same pixels, then the near ones too.

    `logits` [N, C] and `labels` [N] are those of the test split, in its order.
    """
    rows = Rows(dataset)
    exact = exact_duplicates(rows.images)
    near = near_duplicates(rows.images, tell=tell)
    of_all, results = metrics.top_k_accuracy(logits, labels), []
    for what, pairs in (("exactly in train", exact), ("or nearly", [*exact, *near])):
        gone = np.zeros(len(labels), bool)
        gone[rows_in_train(pairs, rows)] = True
        if gone.all():
            raise UserError("Every test image occurs in train, so without these nothing is left to evaluate.")
        results.append(
            Without(
                what=what,
                left_out=int(gone.sum()),
                images=int((~gone).sum()),
                top1=metrics.top_k_accuracy(logits[~gone], labels[~gone], 1),
                top5=metrics.top_k_accuracy(logits[~gone], labels[~gone], 5),
                top1_of_all=of_all,
                top1_of_left_out=metrics.top_k_accuracy(logits[gone], labels[gone], 1) if gone.any() else None,
            )
        )
    return results


def _blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BLOCK):
        yield images[start : start + BLOCK]


def _fingerprints(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 192]: averaged to 8x8, the mean taken away, of length 1; 0 for plain ones."""
    small = F.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float(), 8).flatten(1)
    small -= small.mean(dim=1, keepdim=True)
    return torch.where(small.square().mean(dim=1, keepdim=True) > 1, F.normalize(small, dim=1), 0)


def _correlations(first: np.ndarray, second: np.ndarray, mirrored: np.ndarray) -> Tensor:
    """float32 [B]: the correlation of the pictures' middles, the best over all shifts of the second."""
    one, other = _details(first), _details(second)
    one = torch.where(torch.from_numpy(mirrored)[:, None, None, None], one.flip(3), one)
    inner = one.shape[2] - 2 * SHIFT
    middle = _standardised(one[:, :, SHIFT : SHIFT + inner, SHIFT : SHIFT + inner])
    shifted = (
        _standardised(other[:, :, down : down + inner, right : right + inner])
        for down in range(2 * SHIFT + 1)
        for right in range(2 * SHIFT + 1)
    )
    return torch.stack([(middle * part).sum(dim=1) for part in shifted]).amax(dim=0)


def _details(images: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S]: what each pixel differs from the mean of the 5x5 around it by."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return x - F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)


def _standardised(images: Tensor) -> Tensor:
    flat = images.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
