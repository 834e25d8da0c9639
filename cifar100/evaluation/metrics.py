"""Measures of a classifier from its logits: plain numpy, float64.

Shapes: logits float [N, C], labels int [N] in 0..C-1. N is at least 1 everywhere; each function raises ValueError
where it is not. Equal logits are ranked by class id, the lower first, so that a model that says the same of every
class scores no better than chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} must be [N, C] and [N] with N at least 1")


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share, in 0..1, of images whose label is among the k largest logits; a row with a NaN is a miss."""
    _check(logits, labels)
    ranked = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    hit = (ranked == labels[:, None]).any(axis=1) & ~np.isnan(logits).any(axis=1)
    return float(hit.mean())


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax(logits)[label], in nats, unsmoothed."""
    _check(logits, labels)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [N, C], each row summing to 1."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def superclass_accuracy(logits: np.ndarray, labels: np.ndarray, superclass_of: Sequence[int]) -> float:
    """Share of images whose largest logit lies in the label's superclass; a row with a NaN is a miss.

    `superclass_of` [C] maps the classes.
    """
    _check(logits, labels)
    coarse = np.asarray(superclass_of)
    hit = (coarse[logits.argmax(axis=1)] == coarse[labels]) & ~np.isnan(logits).any(axis=1)
    return float(hit.mean())


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [C, C]: how many images of class i were called class j; one whose logits hold a NaN was called nothing."""
    _check(logits, labels)
    matrix = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    named = ~np.isnan(logits).any(axis=1)
    np.add.at(matrix, (labels[named], logits[named].argmax(axis=1)), 1)
    return matrix


def per_class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """float64 [C]: each class's recall, from the confusion matrix; NaN for a class without images."""
    counts = confusion.sum(axis=1)
    return np.divide(np.diag(confusion), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def fold(confusion: np.ndarray, superclass_of: Sequence[int]) -> np.ndarray:
    """The confusion matrix [C, C] summed into the superclasses' [G, G]."""
    member = np.eye(max(superclass_of) + 1, dtype=np.int64)[np.asarray(superclass_of)]  # [C, G]
    return member.T @ confusion @ member
