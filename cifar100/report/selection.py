"""What is worth showing of an evaluation: plain numpy, no pictures.

N images, C classes; probabilities float64 [N, C], labels int [N].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def superclass_order(superclass_of: Sequence[int], classes: int) -> np.ndarray:
    """The class ids int64 [C] with each superclass's classes side by side; as they are where there are none."""
    return np.argsort(superclass_of, kind="stable") if superclass_of else np.arange(classes)


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are taken for one another."""

    one: int
    other: int
    """Class ids; more images of `one` are called `other` than the other way round."""
    there: int
    """How many of `one` were called `other`."""
    back: int
    """How many of `other` were called `one`."""
    rows: tuple[int, ...]
    """Some of these images: the surest mistakes, both ways where there are both."""


def confused_pairs(
    confusion: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, *, pairs: int, examples: int
) -> list[ConfusedPair]:
    """The pairs of classes with the most mistakes between them, both ways together, the most first; `confusion` is
    int [C, C], and the images that count are those of the rows given."""
    wrong = confusion - np.diag(np.diag(confusion))
    both = np.triu(wrong + wrong.T)
    ranked = np.argsort(-both, axis=None, kind="stable")[:pairs]
    found = []
    for place in ranked[both.flat[ranked] > 0].tolist():
        one, other = divmod(place, len(confusion))
        if wrong[other, one] > wrong[one, other]:
            one, other = other, one
        there = _surest(probabilities, labels, one, other)
        back = _surest(probabilities, labels, other, one)
        few = min(len(back), examples // 2)
        rows = (*there[: examples - few], *back[:few])
        found.append(ConfusedPair(one, other, int(wrong[one, other]), int(wrong[other, one]), rows))
    return found


def _surest(probabilities: np.ndarray, labels: np.ndarray, label: int, called: int) -> list[int]:
    """The rows of this label that were called that, the surest first."""
    rows = np.flatnonzero((labels == label) & (probabilities.argmax(axis=1) == called))
    return rows[np.argsort(-probabilities[rows, called], kind="stable")].tolist()


def most_confident_errors(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose answer is wrong, the surest first."""
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-confidence[rows], kind="stable")][:count].tolist()


def least_confident_correct(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose answer is right, the least sure first."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    rows = np.flatnonzero(right)
    return rows[np.argsort(confidence[rows], kind="stable")][:count].tolist()


def interval(share: float, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many images (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * float(np.sqrt(share * (1 - share) / images + z * z / (4 * images * images)))
    return max(0.0, middle - half), min(1.0, middle + half)
