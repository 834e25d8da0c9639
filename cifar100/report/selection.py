"""The images and class pairs that a report shows: plain numpy.

N images, C classes; probabilities float64 [N, C], labels int [N].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def superclass_order(superclass_of: Sequence[int], classes: int) -> np.ndarray:
    """The class ids int64 [C] grouped by superclass; in order if there are no superclasses."""
    return np.argsort(superclass_of, kind="stable") if superclass_of else np.arange(classes)


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are confused."""

    class_a: int
    class_b: int
    """Class ids."""
    num_a_as_b: int
    """Images of `class_a` predicted as `class_b`; at least `num_b_as_a`."""
    num_b_as_a: int
    """Images of `class_b` predicted as `class_a`."""
    rows: tuple[int, ...]
    """Some of these images: the most confident errors, in both directions if there are both."""


def confused_pairs(
    confusion: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, *, pairs: int, examples: int
) -> list[ConfusedPair]:
    """The pairs of classes with the most errors, in both directions together; `confusion` is int [C, C]."""
    wrong = confusion - np.diag(np.diag(confusion))
    both = np.triu(wrong + wrong.T)
    ranked = np.argsort(-both, axis=None, kind="stable")[:pairs]
    found = []
    for cell in ranked[both.flat[ranked] > 0].tolist():
        a, b = divmod(cell, len(confusion))
        if wrong[b, a] > wrong[a, b]:
            a, b = b, a
        a_as_b = _most_confident(probabilities, labels, a, b)
        b_as_a = _most_confident(probabilities, labels, b, a)
        num_reverse = min(len(b_as_a), examples // 2)
        rows = (*a_as_b[: examples - num_reverse], *b_as_a[:num_reverse])
        found.append(ConfusedPair(a, b, int(wrong[a, b]), int(wrong[b, a]), rows))
    return found


def _most_confident(probabilities: np.ndarray, labels: np.ndarray, label: int, predicted: int) -> list[int]:
    """The rows of this label with this prediction, the most confident first."""
    rows = np.flatnonzero((labels == label) & (probabilities.argmax(axis=1) == predicted))
    return rows[np.argsort(-probabilities[rows, predicted], kind="stable")].tolist()


def most_confident_errors(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose prediction is wrong, the most confident first."""
    rows = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return rows[np.argsort(-probabilities[rows].max(axis=1), kind="stable")][:count].tolist()


def least_confident_correct(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """The rows whose prediction is correct, the least confident first."""
    rows = np.flatnonzero(probabilities.argmax(axis=1) == labels)
    return rows[np.argsort(probabilities[rows].max(axis=1), kind="stable")][:count].tolist()
