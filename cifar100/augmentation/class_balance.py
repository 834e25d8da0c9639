"""For classes of unequal size: an order of an epoch and weights of the loss that give each class the same share.

Shapes: labels int64 [N] in 0..C-1.
"""

from __future__ import annotations

import zlib

import numpy as np


def balanced_order(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """The rows int64 [N] of one epoch, each class as often as any other, up to one: a pure function of the arguments.

    Images of a small class are repeated, equally often up to one; of a large class a random part is served.
    """
    rng = np.random.default_rng((seed, epoch, zlib.crc32(b"balanced order")))
    ids = rng.permutation(np.unique(labels))
    quota, rest = divmod(len(labels), len(ids))
    served = []
    for place, id_ in enumerate(ids):
        rows, wanted = rng.permutation(np.flatnonzero(labels == id_)), quota + (place < rest)
        served.append(np.resize(rows, wanted))  # repeats the rows, in turn, as often as it takes
    return rng.permutation(np.concatenate(served))


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [C]: the loss weight of each class, inverse to its number of images; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
