"""cifar100/evaluation/calibration.py compared with torchmetrics, scipy and slow references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torchmetrics.functional.classification import multiclass_calibration_error

from cifar100.evaluation import calibration
from cifar100.evaluation.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    cross_fit_temperature,
    fit_temperature,
    reliability_diagram,
    risk_coverage_curve,
)
from cifar100.evaluation.metrics import cross_entropy, softmax

Case = Callable[[], tuple[np.ndarray, np.ndarray]]


def calibrated(count: int = 2000, classes: int = 10, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels sampled from the softmax of the logits, and the logits times `scale`."""
    rng = np.random.default_rng(count)
    logits = 2 * rng.normal(size=(count, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits)])
    return logits * scale, labels


def overconfident() -> tuple[np.ndarray, np.ndarray]:
    return calibrated(scale=3)


def missing_class() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = calibrated()
    return logits[labels != 4], labels[labels != 4]


def ties() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, (500, 7)).astype(np.float64), rng.integers(0, 7, 500)


def all_wrong() -> tuple[np.ndarray, np.ndarray]:
    logits, _ = calibrated()
    return logits, logits.argmin(axis=1)


def all_correct() -> tuple[np.ndarray, np.ndarray]:
    logits, _ = calibrated()
    return logits, logits.argmax(axis=1)


def one_image() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = calibrated()
    return logits[:1], labels[:1]


CASES = [calibrated, overconfident, missing_class, ties, all_wrong, all_correct, one_image]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


@each_case
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_agrees_with_torchmetrics(case: Case, bins: int) -> None:
    logits, labels = case()
    probabilities = torch.from_numpy(softmax(logits))
    expected = multiclass_calibration_error(
        probabilities, torch.from_numpy(labels), num_classes=logits.shape[1], n_bins=bins
    )
    assert reliability_diagram(logits, labels, bins).ece == pytest.approx(float(expected), abs=1e-6)


@each_case
@pytest.mark.filterwarnings("error")
def test_the_reliability_diagram_equals_the_slow_reference(case: Case) -> None:
    logits, labels = case()
    table = reliability_diagram(logits, labels, 15)
    assert table.counts.sum() == len(labels)
    rows = [(max(row), row.argmax() == label) for row, label in zip(softmax(logits), labels, strict=True)]
    for number in range(15):
        inside = [row for row in rows if table.edges[number] < row[0] <= table.edges[number + 1]]
        assert table.counts[number] == len(inside)
        expected = np.mean(inside, axis=0) if inside else [np.nan, np.nan]
        np.testing.assert_allclose([table.confidence[number], table.accuracy[number]], expected, atol=1e-12)


def test_bins_include_their_upper_edge() -> None:
    """The bins of Guo et al. are (low, high]: a confidence of exactly 1/2 is in the lower of two bins."""
    assert reliability_diagram(np.zeros((3, 2)), np.array([0, 0, 1]), 2).counts.tolist() == [3, 0]
    certain = np.array([[0.0, 1e4], [1e4, 0.0]])  # a confidence of exactly 1 is in the last bin
    assert reliability_diagram(certain, np.array([1, 1]), 10).counts.tolist() == [0] * 9 + [2]
    assert reliability_diagram(certain, np.array([1, 1]), 10).ece == pytest.approx(0.5)


@each_case
def test_the_temperature_minimizes_the_loss(case: Case) -> None:
    logits, labels = case()
    found: Any = minimize_scalar(
        lambda power: cross_entropy(logits / np.exp(power), labels),
        bounds=np.log([MIN_TEMPERATURE, MAX_TEMPERATURE]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    ours = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= ours <= MAX_TEMPERATURE
    assert cross_entropy(logits / ours, labels) <= found.fun + 1e-9
    if case in (calibrated, overconfident, missing_class):
        assert ours == pytest.approx(np.exp(found.x), rel=1e-4)


def test_the_temperature_of_scaled_logits() -> None:
    temperature = fit_temperature(*overconfident())
    assert temperature == pytest.approx(3 * fit_temperature(*calibrated()), rel=1e-6)
    assert temperature == pytest.approx(3, rel=0.1)
    assert fit_temperature(*all_correct()) == MIN_TEMPERATURE
    assert fit_temperature(*all_wrong()) == MAX_TEMPERATURE


def test_huge_logits_do_not_overflow() -> None:
    logits, labels = calibrated()
    huge = (logits * 1e30).astype(np.float32)
    assert fit_temperature(huge, labels) == MAX_TEMPERATURE
    assert np.isfinite(reliability_diagram(huge, labels).ece)


@each_case
def test_cross_fitting_equals_the_slow_reference(case: Case) -> None:
    logits, labels = case()
    if case is one_image:
        with pytest.raises(ValueError, match="two images"):
            cross_fit_temperature(logits, labels, "test")
        return
    found, scaled = cross_fit_temperature(logits, labels, "test")
    halves: tuple[list[int], list[int]] = ([], [])
    for place, row in enumerate(sorted(range(len(labels)), key=lambda row: (labels[row], row))):
        halves[place % 2].append(row)
    expected = np.empty_like(scaled)
    for mine, other in (halves, halves[::-1]):
        expected[mine] = logits[mine] / fit_temperature(logits[other], labels[other])
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all(), "a temperature does not change the predicted classes"
    assert found.temperature == fit_temperature(logits, labels)
    assert found.ece_before == reliability_diagram(logits, labels).ece
    assert found.ece_after == reliability_diagram(scaled, labels).ece
    assert found.loss_after == cross_entropy(scaled, labels)


def test_cross_fitting_corrects_overconfidence() -> None:
    found, _ = cross_fit_temperature(*overconfident(), "test")
    assert (found.fitted_on, found.num_images) == ("test-crossfit", 2000)
    assert found.ece_after < 0.3 * found.ece_before
    assert found.loss_after < found.loss_before


@each_case
def test_accuracy_against_coverage_equals_the_slow_reference(case: Case) -> None:
    logits, labels = case()
    curve = risk_coverage_curve(logits, labels)
    confidence, right = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    thresholds = sorted(set(confidence), reverse=True)
    np.testing.assert_array_equal(curve.threshold, thresholds)
    for row in range(0, len(thresholds), 97):
        answered = confidence >= thresholds[row]
        assert curve.coverage[row] == pytest.approx(answered.mean())
        assert curve.accuracy[row] == pytest.approx(right[answered].mean())
    assert curve.coverage[-1] == 1
    assert curve.accuracy[-1] == pytest.approx(right.mean())


def test_the_operating_point_at_a_coverage() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]))
    curve = risk_coverage_curve(logits, np.array([0, 0, 1, 0]))
    assert curve.at_coverage(0.5) == pytest.approx((0.5, 1.0, 0.8))
    assert curve.at_coverage(0.6) == pytest.approx((0.75, 2 / 3, 0.7)), "the smallest coverage of at least 0.6"
    assert curve.at_coverage(1) == pytest.approx((1, 0.75, 0.6))


MEASURES: list[Callable[[np.ndarray, np.ndarray], object]] = [
    calibration.reliability_diagram,
    calibration.fit_temperature,
    calibration.risk_coverage_curve,
]


@pytest.mark.parametrize("measure", MEASURES)
def test_invalid_logits_and_labels_are_refused(measure: Callable[[np.ndarray, np.ndarray], object]) -> None:
    with pytest.raises(ValueError, match="N at least 1"):
        measure(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="N at least 1"):
        measure(np.zeros((2, 3)), np.zeros(3, np.int64))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            measure(np.array([[0.0, bad]]), np.array([0]))


@pytest.mark.parametrize("split", ["test", "val", "train", "all"])
def test_the_origin_of_a_cross_fitted_temperature_is_known(split: str) -> None:
    logits = np.random.default_rng(0).normal(size=(60, 5))
    calibration, _ = cross_fit_temperature(logits, np.arange(60) % 5, split)
    assert calibration.fitted_on == f"{split}-crossfit"
    assert "unknown" not in calibration.origin
