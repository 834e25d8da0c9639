"""For classes of unequal size: an order of the epoch, or loss weights, that give all classes equal weight.

Shapes: labels int64 [N] in 0..C-1.
"""

from __future__ import annotations

import zlib

import numpy as np


def balanced_order(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch, rows int64 [N] of the split, in which the class counts differ by at most 1.

    A pure function of its arguments. Images of a small class are repeated, their numbers of repeats differing by at
    most 1; a large class is subsampled at random.
    """
    rng = np.random.default_rng((seed, epoch, zlib.crc32(b"balanced order")))
    ids = rng.permutation(np.unique(labels))
    quota, rest = divmod(len(labels), len(ids))
    chosen = []
    for index, id_ in enumerate(ids):
        rows, wanted = rng.permutation(np.flatnonzero(labels == id_)), quota + (index < rest)
        chosen.append(np.resize(rows, wanted))  # repeats the rows cyclically
    return rng.permutation(np.concatenate(chosen))


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [C]: the loss weight of each class, inverse to its number of images; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
