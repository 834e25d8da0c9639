"""When an answer should not be believed: the picture looks like none of the classes, or shows nothing at all.

The network names one of its classes whatever it is shown. Two questions are put beside its answer. Is its highest
probability as low as it seldom is on images of its classes (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136)?
And has the picture any structure? It has none when it is all one colour, or noise: of noise the network is surer than
of photos, so its own answer cannot tell.

`benchmarks/unsure.py` chose the score and the threshold on one half of CIFAR-100's test images, and says how often each
alarm is false on the other half and how much of CIFAR-10, noise and flat pictures it finds.
"""

from __future__ import annotations

import numpy as np

from cifar100.evaluation.metrics import softmax

LOWEST_PROBABILITY = 0.22
"""Of the likeliest class, at temperature 1. One in ten test images of CIFAR-100 is below."""

LOWEST_CONTRAST = 4.0
"""Standard deviation of the pixels of the liveliest channel, of 255."""

LOWEST_CORRELATION = 0.2
"""Of neighbouring pixels: 0 in noise, 0.9 and more in photos."""


def doubt(logits: np.ndarray, pixels: np.ndarray) -> str:
    """Why the answer `logits` [C] for `pixels`, uint8 [S, S, 3], is not to be believed; "" where it may be."""
    if contrast(pixels) < LOWEST_CONTRAST:
        return "The picture is all one colour."
    if correlation(pixels) < LOWEST_CORRELATION:
        return "The picture is noise."
    if softmax(logits[None])[0].max() < LOWEST_PROBABILITY:
        return "It looks like none of the classes."
    return ""


def contrast(pixels: np.ndarray) -> float:
    """The standard deviation of the pixels, uint8 [S, S, 3], in the channel where it is largest: 0..127.5."""
    return float(pixels.std(axis=(0, 1)).max())


def correlation(pixels: np.ndarray) -> float:
    """Of each pixel of [S, S, 3] with its right and its lower neighbour, -1..1; 1 where there is no contrast."""
    centred = pixels.astype(np.float64) - pixels.mean(axis=(0, 1))
    spread = (centred**2).mean()
    if spread == 0:
        return 1.0
    right, lower = (centred[:, 1:] * centred[:, :-1]).mean(), (centred[1:] * centred[:-1]).mean()
    return float((right + lower) / 2 / spread)
