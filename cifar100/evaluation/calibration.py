"""Whether a classifier's probabilities can be believed, and what it gains by keeping silent: plain numpy, float64.

Shapes: logits float [N, C], finite; labels int [N] in 0..C-1; N at least 1. The confidence of a row is its largest
probability, its answer that class, the lowest id where several share it. Functions raise ValueError for anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cifar100.evaluation.metrics import check_shapes, cross_entropy, softmax
from cifar100.support.provenance import FittedOn, TemperatureFit

NUM_BINS = 15
"""Of a reliability table, as Guo et al. take."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Temperatures are looked for between these. A model that is never wrong would have 0, one that is worse than chance
infinity."""

CROSS_FITTED: dict[str, FittedOn] = {"test": "test-crossfit", "val": "val-crossfit", "train": "train-crossfit"}
"""`TemperatureFit.fitted_on` by split."""


@dataclass(frozen=True)
class Reliability:
    """How right a model is where it says that it is so sure: a row a bin of confidence, bin b holding (edges[b],
    edges[b + 1]] (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

    edges: np.ndarray
    """float64 [B + 1], from 0 to 1."""
    counts: np.ndarray
    """int64 [B]: images."""
    confidence: np.ndarray
    """float64 [B]: their mean confidence, NaN in an empty bin."""
    accuracy: np.ndarray
    """float64 [B]: the share of them that is right, NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error, in 0..1: |accuracy - confidence|, its mean over the images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def reliability_diagram(logits: np.ndarray, labels: np.ndarray, bins: int = NUM_BINS) -> Reliability:
    """The reliability table over `bins` bins of equal width."""
    confidence, right = _answers(logits, labels)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, confidence, side="left").clip(1, bins) - 1
    counts = np.bincount(place, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, weights=values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(edges, counts, mean(confidence), mean(right.astype(np.float64)))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in MIN_TEMPERATURE..MAX_TEMPERATURE with the lowest negative log-likelihood.

    Temperature scaling, softmax(logits / T) (Guo et al. 2017, section 4.2), changes confidences, but no prediction.
    """
    _answers(logits, labels)
    exact = logits.astype(np.float64)
    said = exact[np.arange(len(labels)), labels]

    def slope(inverse: float) -> tuple[float, float]:
        """The first and second derivative of the loss by 1/T, in which it is convex."""
        probabilities = softmax(exact * inverse)
        mean = (probabilities * exact).sum(axis=1)
        variance = (probabilities * (exact - mean[:, None]) ** 2).sum(axis=1)
        return float((mean - said).mean()), float(variance.mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low)[0] >= 0:
        return MAX_TEMPERATURE
    if slope(high)[0] <= 0:
        return MIN_TEMPERATURE
    inverse = 1.0
    for _ in range(60):  # Newton's steps, halved intervals where one leaves them
        first, second = slope(inverse)
        low, high = (inverse, high) if first < 0 else (low, inverse)
        step = inverse - first / second if second > 0 else np.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse


@dataclass(frozen=True, kw_only=True)
class Calibration(TemperatureFit):
    """A temperature, and what it does on the images that are reported on."""

    ece_before: float
    ece_after: float
    """Expected calibration error in 0..1, NUM_BINS bins, on images that had no part in what each was divided by."""
    loss_before: float
    loss_after: float
    """Cross-entropy in nats of the same."""


def calibrate(logits: np.ndarray, labels: np.ndarray, fit: TemperatureFit) -> tuple[Calibration, np.ndarray]:
    """What a temperature that was fitted elsewhere does on these images, and their logits [N, C] divided by it."""
    return _judge(logits, labels, logits / fit.temperature, fit)


def cross_fit_temperature(logits: np.ndarray, labels: np.ndarray, split: str) -> tuple[Calibration, np.ndarray]:
    """A temperature where there are no other images to fit it on than those of `split` itself, which are judged fairly
    all the same: each half of them is divided by the temperature of the other half (two-fold cross-fitting).

    The halves have the same number of each class, give or take one. `Calibration.temperature` is of all images; the
    logits [N, C] are those that were judged. At least two images are needed.
    """
    if len(labels) < 2:
        raise ValueError("cross-fitting needs two images or more")
    half = np.empty(len(labels), np.int64)
    half[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % 2
    scaled = logits.astype(np.float64)
    for mine in (half == 0, half == 1):
        scaled[mine] /= fit_temperature(logits[~mine], labels[~mine])
    temperature = fit_temperature(logits, labels)
    fit = TemperatureFit(temperature=temperature, fitted_on=CROSS_FITTED.get(split, ""), num_images=len(labels))
    return _judge(logits, labels, scaled, fit)


def _judge(
    before: np.ndarray, labels: np.ndarray, after: np.ndarray, fit: TemperatureFit
) -> tuple[Calibration, np.ndarray]:
    calibration = Calibration(
        **fit.to_dict(),
        ece_before=reliability_diagram(before, labels).ece,
        ece_after=reliability_diagram(after, labels).ece,
        loss_before=cross_entropy(before, labels),
        loss_after=cross_entropy(after, labels),
    )
    return calibration, after


class OperatingPoint(NamedTuple):
    """One way of keeping silent: answer where the confidence is at least `threshold`."""

    coverage: float
    """The share of the images that is answered."""
    accuracy: float
    """The share of these that is right."""
    threshold: float


@dataclass(frozen=True)
class RiskCoverage:
    """What accuracy a model has on the images that it is surest of, for every share of them (risk and coverage,
    Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500). Rows go from the surest image alone, or the several
    that it is equally sure of, to all of them."""

    coverage: np.ndarray
    """float64 [M]: the share of the images that are answered, rising to 1."""
    accuracy: np.ndarray
    """float64 [M]: the share of these that is right."""
    threshold: np.ndarray
    """float64 [M]: the lowest confidence among these."""

    def at_coverage(self, share: float) -> OperatingPoint:
        """The least coverage that is at least this share of the images, which lies above 0 and up to 1."""
        return self._point(min(int(np.searchsorted(self.coverage, share - 1e-9)), len(self.coverage) - 1))

    def at_accuracy(self, accuracy: float) -> OperatingPoint | None:
        """The most coverage whose accuracy is at least this; None where there is none."""
        rows = np.flatnonzero(self.accuracy >= accuracy)
        return self._point(int(rows[-1])) if len(rows) else None

    def _point(self, row: int) -> OperatingPoint:
        return OperatingPoint(float(self.coverage[row]), float(self.accuracy[row]), float(self.threshold[row]))


def risk_coverage_curve(logits: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Accuracy against coverage, the images ranked by confidence; those equally sure come together or not at all."""
    confidence, right = _answers(logits, labels)
    order = np.argsort(-confidence, kind="stable")
    confidence, hits = confidence[order], np.cumsum(right[order])
    last = np.append(confidence[1:] != confidence[:-1], True)  # of those equally sure
    answered = np.flatnonzero(last) + 1
    return RiskCoverage(answered / len(labels), hits[last] / answered, confidence[last])


def _answers(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's confidence, float64 [N] in 0..1, and whether its answer is right, bool [N]."""
    check_shapes(logits, labels)
    if not np.isfinite(logits).all():
        raise ValueError("logits that are no finite numbers say nothing about how sure a model is")
    return softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
