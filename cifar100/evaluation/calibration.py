"""Calibration and selective prediction: plain numpy, float64.

Shapes: logits float [N, C], finite; labels int [N] in 0..C-1; N at least 1. The prediction of a row is its most
probable class, the lowest id if several are equal; its confidence is the probability of that class. Other shapes, and
logits that are not finite, raise ValueError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from cifar100.evaluation.metrics import check_shapes, cross_entropy, softmax
from cifar100.support.provenance import FittedOn, TemperatureFit

NUM_BINS = 15
"""Number of bins of a reliability diagram, as in Guo et al. 2017."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""The range that is searched. The best temperature is 0 for a model without errors, infinity for one below chance."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram (Guo et al. 2017, https://arxiv.org/abs/1706.04599): accuracy by bin of confidence.

    Bin b is (edges[b], edges[b + 1]].
    """

    edges: np.ndarray
    """float64 [B + 1], from 0 to 1."""
    counts: np.ndarray
    """int64 [B]: images."""
    confidence: np.ndarray
    """float64 [B]: mean confidence, NaN in an empty bin."""
    accuracy: np.ndarray
    """float64 [B]: fraction of correct predictions, NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error, in 0..1: |accuracy - confidence|, averaged over the images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def reliability_diagram(logits: np.ndarray, labels: np.ndarray, bins: int = NUM_BINS) -> Reliability:
    """The reliability diagram with `bins` bins of equal width."""
    confidence, right = _answers(logits, labels)
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges, confidence, side="left").clip(1, bins) - 1
    counts = np.bincount(bin_of, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bin_of, weights=values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(edges, counts, mean(confidence), mean(right.astype(np.float64)))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in MIN_TEMPERATURE..MAX_TEMPERATURE with the lowest negative log-likelihood.

    Temperature scaling, softmax(logits / T) (Guo et al. 2017, section 4.2), changes confidences, but no prediction.
    """
    _answers(logits, labels)
    exact = logits.astype(np.float64)
    true_logits = exact[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """The derivative of the loss by 1/T, in which the loss is convex."""
        return float(((softmax(exact * inverse) * exact).sum(axis=1) - true_logits).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    while high > low * (1 + 1e-7):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


@dataclass(frozen=True, kw_only=True)
class Calibration(TemperatureFit):
    """A temperature, and its effect on the reported images."""

    ece_before: float
    ece_after: float
    """Expected calibration error in 0..1, NUM_BINS bins, on images that the temperature was not fitted on."""
    loss_before: float
    loss_after: float
    """Cross-entropy in nats of the same."""


def calibrate(logits: np.ndarray, labels: np.ndarray, fit: TemperatureFit) -> tuple[Calibration, np.ndarray]:
    """The effect of a temperature that was fitted on other images, and the logits [N, C] divided by it."""
    scaled = logits / fit.temperature
    return _judge(logits, labels, scaled, fit), scaled


def cross_fit_temperature(logits: np.ndarray, labels: np.ndarray, split: str) -> tuple[Calibration, np.ndarray]:
    """Two-fold cross-fitting on the images of `split`: each half is divided by the temperature of the other half.

    The halves are stratified by class. `Calibration.temperature` is fitted on all images; the returned logits [N, C]
    are the cross-fitted ones. At least two images are needed.
    """
    if len(labels) < 2:
        raise ValueError("cross-fitting needs two images or more")
    half = np.empty(len(labels), np.int64)
    half[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % 2
    scaled = logits.astype(np.float64)
    for mine in (half == 0, half == 1):
        scaled[mine] /= fit_temperature(logits[~mine], labels[~mine])
    temperature = fit_temperature(logits, labels)
    fit = TemperatureFit(
        temperature=temperature, fitted_on=cast("FittedOn", f"{split}-crossfit"), num_images=len(labels)
    )
    return _judge(logits, labels, scaled, fit), scaled


def _judge(before: np.ndarray, labels: np.ndarray, after: np.ndarray, fit: TemperatureFit) -> Calibration:
    return Calibration(
        **fit.to_dict(),
        ece_before=reliability_diagram(before, labels).ece,
        ece_after=reliability_diagram(after, labels).ece,
        loss_before=cross_entropy(before, labels),
        loss_after=cross_entropy(after, labels),
    )


class OperatingPoint(NamedTuple):
    """Answer only if the confidence is at least `threshold`."""

    coverage: float
    """Fraction of images that are answered."""
    accuracy: float
    """Fraction of these that are correct."""
    threshold: float


@dataclass(frozen=True)
class RiskCoverage:
    """Selective accuracy by coverage (Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500).

    Rows go from the most confident image (or several of equal confidence) to all images.
    """

    coverage: np.ndarray
    """float64 [M]: fraction of images that are answered, rising to 1."""
    accuracy: np.ndarray
    """float64 [M]: fraction of these that are correct."""
    threshold: np.ndarray
    """float64 [M]: the lowest confidence among these."""

    def at_coverage(self, coverage: float) -> OperatingPoint:
        """The point of the lowest coverage that is at least `coverage`, in (0, 1]."""
        row = min(int(np.searchsorted(self.coverage, coverage - 1e-9)), len(self.coverage) - 1)
        return OperatingPoint(float(self.coverage[row]), float(self.accuracy[row]), float(self.threshold[row]))


def risk_coverage_curve(logits: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Accuracy by coverage, images ranked by confidence; images of equal confidence are answered together."""
    confidence, right = _answers(logits, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, hits = confidence[order], np.cumsum(right[order])
    last = np.append(confidence[1:] != confidence[:-1], True)  # of equal confidence
    answered = np.flatnonzero(last) + 1
    return RiskCoverage(answered / len(labels), hits[last] / answered, confidence[last])


def _answers(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each row, float64 [N] in 0..1, and whether its prediction is correct, bool [N]."""
    check_shapes(logits, labels)
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    return softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
