"""The setting `train_sizes`: the training resolution of each epoch (progressive resizing)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from cifar100.support.settings import check

MIN_SIZE = 8

_WEIGHTED = re.compile(r"(\d{1,4}):(\d{1,6}(?:\.\d{1,6})?)")


def check_sizes(train_sizes: Sequence[int | str]) -> None:
    """Raise UserError unless these are resolutions of at least 8 pixels: integers, or "SIZE:WEIGHT"."""
    given = " ".join(map(str, train_sizes))
    message = f"--train-sizes is {given}; give sizes of {MIN_SIZE} or more, each as SIZE:WEIGHT or one per epoch."
    check(_are_valid(train_sizes), "train_sizes", message)


def _are_valid(train_sizes: Sequence[int | str]) -> bool:
    if all(isinstance(size, int) for size in train_sizes):
        return all(int(size) >= MIN_SIZE for size in train_sizes)
    pairs = [_WEIGHTED.fullmatch(str(size)) for size in train_sizes]
    return all(pair is not None and int(pair[1]) >= MIN_SIZE and Fraction(pair[2]) > 0 for pair in pairs)


def resolutions(train_sizes: Sequence[int | str], num_epochs: int) -> list[int]:
    """The training resolution of each epoch in pixels, for valid and non-empty `train_sizes`.

    Integers are one per epoch, the last of which is repeated. "SIZE:WEIGHT" divides the run in proportion to the
    weights; each part ends at the last whole epoch within its share, so that short runs train longer at the last sizes.
    """
    explicit = [size for size in train_sizes if isinstance(size, int)]
    if explicit:
        return [explicit[min(epoch, len(explicit) - 1)] for epoch in range(num_epochs)]
    sizes, weights = zip(*(str(size).split(":") for size in train_sizes), strict=True)
    sums = list(accumulate(map(Fraction, weights)))
    ends = [int(num_epochs * part / sums[-1]) for part in sums]
    starts = [0, *ends[:-1]]
    return [int(size) for size, start, end in zip(sizes, starts, ends, strict=True) for _ in range(start, end)]
