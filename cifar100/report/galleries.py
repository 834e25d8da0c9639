"""The images of a report: confused pairs, most confident errors, least confident correct predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cifar100.evaluation import metrics
from cifar100.evaluation.evaluate import eval_batch_size
from cifar100.prediction.cam import overlay, top1_heatmaps
from cifar100.prediction.predictor import BATCH_SIZE, Predictor
from cifar100.prediction.rejection import REASON_TEXT, rejection_reason
from cifar100.prediction.torch_backend import TorchBackend
from cifar100.report.sections import ReportInput
from cifar100.report.selection import ConfusedPair, confused_pairs, least_confident_correct, most_confident_errors
from cifar100.report.style import display_name, thumbnail

GALLERY_SIZE, NUM_PAIRS, PAIR_EXAMPLES, NUM_NEIGHBORS = 24, 8, 4, 3
"""Images of a gallery, confused pairs, images of a pair, similar train images of an error."""


def galleries(subject: ReportInput, backend: TorchBackend, confusion: np.ndarray) -> dict[str, Any]:
    """The content of the page's galleries. Probabilities are those that `cifar100 predict` prints."""
    labels, classes = subject.evaluation.labels, subject.dataset.classes
    probabilities = metrics.softmax(subject.evaluation.logits / backend.info.temperature)
    pairs = confused_pairs(confusion, probabilities, labels, pairs=NUM_PAIRS, examples=PAIR_EXAMPLES)
    errors = most_confident_errors(probabilities, labels, GALLERY_SIZE)
    correct = least_confident_correct(probabilities, labels, GALLERY_SIZE)
    shown = [*errors, *correct, *(row for pair in pairs for row in pair.rows)]
    overlays = _overlays(subject, backend, shown)

    def cards(rows: Sequence[int]) -> list[dict[str, Any]]:
        return [_card(subject, row, probabilities[row], overlays) for row in rows]

    error_cards = cards(errors)
    if subject.neighbors:
        for card, near in zip(error_cards, _neighbors(subject, backend, errors), strict=True):
            card["neighbors"] = near
    described = [
        {"one": classes[pair.class_a], "other": classes[pair.class_b], "about": _about(pair, classes)}
        | {"images": cards(pair.rows)}
        for pair in pairs
    ]
    return {"pairs": described, "mistakes": error_cards, "hits": cards(correct)}


def _about(pair: ConfusedPair, classes: Sequence[str]) -> str:
    """How often two classes are confused."""
    one, other = display_name(classes[pair.class_a]), display_name(classes[pair.class_b])
    reverse = f"; {pair.num_b_as_a:,} of {other} predicted as {one}" if pair.num_b_as_a else ""
    return f"{pair.num_a_as_b:,} images of {one} predicted as {other}{reverse}."


def _card(subject: ReportInput, row: int, probabilities: np.ndarray, overlays: Mapping[int, str]) -> dict[str, Any]:
    """An image with its class, the predicted class, and the top-5 classes."""
    classes, label = subject.dataset.classes, int(subject.evaluation.labels[row])
    top5 = np.argsort(-probabilities, kind="stable")[:5].tolist()
    reason = rejection_reason(probabilities, subject.images[row])
    return {
        "src": thumbnail(subject.images[row]),
        "overlay": overlays.get(row),
        "label": classes[label],
        "predicted": classes[top5[0]],
        "correct": top5[0] == label,
        "unsure": REASON_TEXT[reason] if reason else "",
        "top5": [{"name": classes[i], "probability": float(probabilities[i]), "is_label": i == label} for i in top5],
    }


def _overlays(subject: ReportInput, backend: TorchBackend, rows: Sequence[int]) -> dict[int, str]:
    """The class activation map of each image's predicted class, as data URIs by row."""
    found = {}
    batch_size = min(BATCH_SIZE, eval_batch_size(subject.images.shape[1]))
    for start in range(0, len(rows), batch_size):
        batch = list(rows[start : start + batch_size])
        heatmaps = top1_heatmaps(*backend.logits_and_cams(subject.images[batch]))
        for row, heatmap in zip(batch, heatmaps, strict=True):
            found[row] = thumbnail(overlay(subject.images[row], heatmap), largest=112)
    return found


def _neighbors(subject: ReportInput, backend: TorchBackend, rows: Sequence[int]) -> list[list[dict[str, str]]]:
    """For each of these images the train images with the most similar features, the nearest first."""
    if not rows:
        return []

    train, classes, predictor = subject.dataset.train, subject.dataset.classes, Predictor(backend)
    size = min(BATCH_SIZE, eval_batch_size(train.images.shape[1]))
    similarity = predictor.embed(subject.images[list(rows)], size) @ predictor.embed(train.images, size).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NUM_NEIGHBORS]
    return [
        [{"src": thumbnail(train.images[row]), "label": classes[train.labels[row]]} for row in found]
        for found in nearest
    ]
