"""cifar100/evaluation/metrics.py compared with scikit-learn and slow references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cifar100.dataset.classes import SUPERCLASS_OF
from cifar100.evaluation import metrics

CLASSES = 100


def random_case(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    logits, labels = rng.normal(size=(count, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, count)
    logits[np.arange(count), labels] += 2  # so that some predictions are correct
    return logits, labels


def missing_class() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = random_case()
    return logits[labels != 42], labels[labels != 42]


def all_wrong() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = random_case()
    logits[np.arange(len(labels)), labels] = -10
    return logits, labels


def all_correct() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = random_case()
    logits[np.arange(len(labels)), labels] = 10
    return logits, labels


def one_image() -> tuple[np.ndarray, np.ndarray]:
    logits, labels = random_case()
    return logits[:1], labels[:1]


def tied() -> tuple[np.ndarray, np.ndarray]:
    """Integer logits, so that the maximum of most rows is tied."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 4, (400, CLASSES)).astype(np.float32), rng.integers(0, CLASSES, 400)


CASES = [random_case, missing_class, all_wrong, all_correct, one_image]
Case = Callable[[], tuple[np.ndarray, np.ndarray]]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


@each_case
@pytest.mark.parametrize("k", [1, 5, 99])
def test_top_k_agrees_with_sklearn(case: Case, k: int) -> None:
    logits, labels = case()
    expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(CLASSES))
    assert metrics.top_k_accuracy(logits, labels, k) == pytest.approx(expected, abs=1e-12)


@each_case
def test_cross_entropy_agrees_with_sklearn(case: Case) -> None:
    logits, labels = case()
    shifted = np.exp(logits.astype(np.float64))
    expected = sklearn_metrics.log_loss(labels, shifted / shifted.sum(axis=1, keepdims=True), labels=range(CLASSES))
    assert metrics.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-9)


@each_case
def test_confusion_matrix_agrees_with_sklearn(case: Case) -> None:
    logits, labels = case()
    expected = sklearn_metrics.confusion_matrix(labels, logits.argmax(axis=1), labels=range(CLASSES))
    result = metrics.confusion_matrix(logits, labels)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, expected)


@each_case
@pytest.mark.filterwarnings("error")
def test_per_class_accuracy_agrees_with_sklearn(case: Case) -> None:
    logits, labels = case()
    options: dict[str, Any] = {"labels": range(CLASSES), "average": None, "zero_division": np.nan}
    expected = sklearn_metrics.recall_score(labels, logits.argmax(axis=1), **options)
    result = metrics.per_class_accuracy(metrics.confusion_matrix(logits, labels))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12, equal_nan=True)


@each_case
def test_aggregate_confusion_equals_the_slow_reference(case: Case) -> None:
    confusion = metrics.confusion_matrix(*case())
    expected = np.zeros((20, 20), np.int64)
    for true in range(CLASSES):
        for predicted in range(CLASSES):
            expected[SUPERCLASS_OF[true], SUPERCLASS_OF[predicted]] += confusion[true, predicted]
    np.testing.assert_array_equal(metrics.aggregate_confusion(confusion, SUPERCLASS_OF), expected)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ties_go_to_the_lower_class_id(k: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 3, (200, 10)).astype(np.float32), rng.integers(0, 10, 200)
    hits = 0
    for row, label in zip(logits, labels, strict=True):
        ranked = sorted(range(10), key=lambda i: (-row[i], i))
        hits += label in ranked[:k]
    assert 0 < hits < 200
    assert metrics.top_k_accuracy(logits, labels, k) == hits / 200


def test_cross_entropy_does_not_overflow() -> None:
    logits = np.array([[0, 1e4], [1e4, 0]], np.float32)
    assert metrics.cross_entropy(logits, np.array([0, 0])) == pytest.approx(5e3)


def nan_rows() -> tuple[np.ndarray, np.ndarray]:
    """Four correct predictions, then set to NaN: the logit of the label in row 1, all logits in row 2, and the logit of
    another class in row 3."""
    logits, labels = np.eye(4, dtype=np.float32), np.arange(4)
    logits, labels = np.vstack([logits[1], logits[0], logits[0], logits[3]]), np.array([1, 0, 0, 3])
    logits[1, 0], logits[2, :], logits[3, 2] = np.nan, np.nan, np.nan
    return logits, labels


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_a_row_with_a_nan_is_wrong(k: int) -> None:
    assert metrics.top_k_accuracy(*nan_rows(), k) == 0.25


def test_a_row_with_a_nan_is_not_counted_in_the_confusion_matrix() -> None:
    assert np.trace(metrics.confusion_matrix(*nan_rows())) == 1


def test_a_nan_propagates_to_the_loss() -> None:
    assert np.isnan(metrics.cross_entropy(*nan_rows()))


MEASURES: list[Callable[[np.ndarray, np.ndarray], object]] = [
    metrics.top_k_accuracy,
    metrics.cross_entropy,
    metrics.confusion_matrix,
]


@pytest.mark.parametrize("measure", MEASURES, ids=["top_k", "cross_entropy", "confusion"])
@pytest.mark.parametrize(
    ("logits", "labels"),
    [((0, CLASSES), (0,)), ((3, CLASSES), (2,)), ((CLASSES,), (1,)), ((3, CLASSES), (3, 1))],
    ids=["empty", "counts differ", "one row without an axis", "labels with an axis"],
)
def test_empty_and_mismatched_shapes_are_refused(
    measure: Callable[[np.ndarray, np.ndarray], object], logits: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="with N at least 1"):
        measure(np.zeros(logits, np.float32), np.zeros(labels, np.int64))


@pytest.mark.parametrize("case", [*CASES[:-1], tied], ids=lambda case: case.__name__)
def test_the_scores_of_classes_agree_with_sklearn(case: Case) -> None:
    logits, labels = case()
    scores = metrics.class_scores(logits, labels)
    present = np.unique(labels)
    np.testing.assert_array_equal(scores.class_ids, present)
    predicted, probabilities = logits.argmax(axis=1), metrics.softmax(logits)
    means: dict[str, tuple[float, ...]] = {}
    no_warning: dict[str, Any] = {"zero_division": 0}
    for average in (None, "macro", "weighted"):
        precision, recall, f1, images = sklearn_metrics.precision_recall_fscore_support(
            labels, predicted, labels=present, average=average, **no_warning
        )
        areas = [sklearn_metrics.roc_auc_score(labels == id_, probabilities[:, id_]) for id_ in present]
        if average is None:
            found = (scores.precision, scores.recall, scores.f1, scores.roc_auc)
            for mine, expected in zip(found, (precision, recall, f1, areas), strict=True):
                np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(scores.images, images)
        else:
            weights = np.bincount(labels)[present] if average == "weighted" else None
            means[average] = (precision, recall, f1, float(np.average(areas, weights=weights)))
    assert tuple(scores.mean().values()) == pytest.approx(means["macro"], abs=1e-12)
    assert tuple(scores.mean(weighted=True).values()) == pytest.approx(means["weighted"], abs=1e-12)
    assert scores.mean(weighted=True)["recall"] == pytest.approx(metrics.top_k_accuracy(logits, labels))


def test_a_single_class_has_no_roc_auc() -> None:
    scores = metrics.class_scores(*one_image())
    assert (scores.recall.tolist(), scores.images.tolist()) in (([0.0], [1]), ([1.0], [1]))
    assert np.isnan(scores.roc_auc).all()


def test_class_scores_of_rows_with_a_nan() -> None:
    logits, labels = all_correct()
    damaged = np.flatnonzero(labels == labels[0])[0]
    logits[damaged] = np.nan
    scores = metrics.class_scores(logits, labels)
    place = scores.class_ids.tolist().index(labels[0])
    images = scores.images[place]
    assert scores.recall[place] == pytest.approx((images - 1) / images)
    assert scores.precision.min() == 1
    assert np.nanmin(scores.roc_auc) == 1
