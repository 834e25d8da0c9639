"""Whether a prediction is flagged as unsure.

A network predicts one of its classes for any image. A prediction is flagged if its probability is low (Hendrycks &
Gimpel 2017, https://arxiv.org/abs/1610.02136), or if the image is uniform or noise, for which the network can be more
confident than for photos. This is a hint, not an out-of-distribution detector.

`benchmarks/unsure.py` chose the score and the threshold on one half of CIFAR-100's test images, and reports on the
other half how often a correct prediction is flagged, and how much of CIFAR-10, noise and uniform images is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

MIN_PROBABILITY = 0.40
"""Of the top-1 class, as displayed (calibrated, unless the user turns that off)."""

MIN_PIXEL_STD = 4.0
"""Standard deviation of the pixels, of 255, in the channel in which it is largest."""

MIN_AUTOCORRELATION = 0.2
"""Of neighboring pixels: 0 in noise, 0.9 and more in photos."""

Reason = Literal["", "uniform", "noise", "low_confidence"]

REASON_TEXT: dict[Reason, str] = {
    "uniform": "the image is a single color",
    "noise": "the image is noise",
    "low_confidence": f"no class reaches {MIN_PROBABILITY:.0%}",
}


def rejection_reason(probabilities: np.ndarray, pixels: np.ndarray) -> Reason:
    """Why the prediction `probabilities` [C] for `pixels`, uint8 [S, S, 3], is flagged; "" if it is not."""
    if pixel_std(pixels) < MIN_PIXEL_STD:
        return "uniform"
    if spatial_autocorrelation(pixels) < MIN_AUTOCORRELATION:
        return "noise"
    return "low_confidence" if probabilities.max() < MIN_PROBABILITY else ""


def pixel_std(pixels: np.ndarray) -> float:
    """The standard deviation of the pixels, uint8 [S, S, 3], in the channel in which it is largest: 0..127.5."""
    return float(pixels.std(axis=(0, 1)).max())


def spatial_autocorrelation(pixels: np.ndarray) -> float:
    """Correlation of each pixel of [S, S, 3] with its right and lower neighbors, -1..1; 1 for a uniform image."""
    centered = pixels.astype(np.float64) - pixels.mean(axis=(0, 1))
    variance = (centered**2).mean()
    if variance == 0:
        return 1.0
    right, lower = (centered[:, 1:] * centered[:, :-1]).mean(), (centered[1:] * centered[:-1]).mean()
    return float((right + lower) / 2 / variance)
