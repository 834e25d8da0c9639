"""A report on paper: one HTML page that holds all that it shows, its figures as PNG files, its figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100.checkpoints.checkpoint import versions
from cifar100.evaluation import metrics
from cifar100.evaluation.calibration import (
    Calibration,
    Reliability,
    calibrate,
    cross_fit_temperature,
    reliability,
    selective,
)
from cifar100.prediction.grad_cam import Explainer
from cifar100.prediction.torch_backend import torch_forward
from cifar100.report import figures, sections
from cifar100.report.curves import PANELS, History, curve_panel, curves_figure
from cifar100.report.page import MARK, render
from cifar100.report.sections import ReportInput
from cifar100.report.selection import confused_pairs, least_confident_correct, most_confident_errors
from cifar100.report.style import data_uri, thumbnail, to_png, to_svg
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import TemperatureFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
GALLERY, PAIRS, EXAMPLES, NEIGHBORS = 24, 8, 4, 3
"""Images of a gallery, pairs of classes, images of a pair, similar train images of a mistake."""


def write_report(
    subject: ReportInput,
    out: Path,
    *,
    runs: Mapping[str, History] | None = None,
    temperature: TemperatureFit | None = None,
) -> Path:
    """Write the report on an evaluation that was made; the page's path.

    `runs` are histories by name, to be drawn over one another in place of the subject's own; `temperature` is one
    that was fitted elsewhere. Raises UserError where `out` cannot be written, or the model's outputs are no numbers.
    """
    prepare_folder(out)
    evaluation, data = subject.evaluation, subject.dataset
    logits, labels = evaluation.logits, evaluation.labels
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise UserError(f"There is nothing to report: for {bad:,} of {evaluation.images:,} images it gives no numbers.")
    calibration, scaled = _calibration(logits, labels, evaluation.split, temperature)
    before, after = reliability(logits, labels), None if scaled is None else reliability(scaled, labels)
    curve = selective(logits, labels)
    confusion = metrics.confusion_matrix(logits, labels)
    draw = _Draw(out)
    page: dict[str, Any] = {
        "title": subject.title,
        "lead": sections.lead(subject),
        "made_up": data.is_synthetic,
        "notes": sections.notes(subject),
        "tiles": sections.tiles(subject, calibration, curve, before.ece),
        "facts": sections.facts(subject),
        "settings": sections.settings(subject.checkpoint),
        "class_bars": sections.ranked(evaluation.per_class),
        "class_about": sections.class_about(subject),
        "score_rows": sections.score_rows(evaluation),
        "superclass_bars": sections.ranked(evaluation.per_superclass),
        "superclass_top1": evaluation.superclass_top1,
        "calibration_about": sections.calibration_about(before.ece, calibration),
        "coverage_rows": sections.coverage_rows(curve),
        "robustness": _robustness(subject, draw),
        "terms": sections.TERMS.items(),
        "made": sections.made(),
    }
    page |= _curves(subject, runs or {}, draw)
    page |= _matrices(subject, confusion, draw)
    page |= _galleries(subject, confusion)
    page["reliability"] = _reliability(before, after, calibration, draw)
    quieter = None if scaled is None else selective(scaled, labels)
    text = "accuracy over the share of images that is answered"
    page["coverage"] = draw.both("coverage", figures.coverage_figure(curve, quieter), text)
    page["contents"] = _contents(page)
    atomic_write(out / PAGE, render(page))

    numbers = evaluation.to_json() | {"checkpoint": subject.name, "versions": versions(), "ece": before.ece}
    numbers |= {"calibration": None if calibration is None else asdict(calibration), "coverage": page["coverage_rows"]}
    numbers["robustness"] = None if subject.robustness is None else subject.robustness.to_json()
    atomic_write(out / "report.json", json.dumps(numbers, indent=2) + "\n")
    return out / PAGE


def prepare_folder(out: Path) -> Path:
    """The folder, made; UserError where that cannot be, or it holds a page that is no report."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = out / PAGE
        foreign = page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError as error:
        raise UserError(f"--out {out}: it cannot be used ({error.strerror or error}).") from None
    if foreign:
        raise UserError(f"--out {out}: there is an {PAGE} that is no report; choose another folder.")
    return out


class _Draw:
    """Figures for the page, as SVG, and for the folder, as PNG."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def svg(self, figure: Figure, alt: str) -> dict[str, str]:
        return {"src": data_uri(to_svg(figure), "svg+xml"), "alt": alt}

    def png(self, name: str, figure: Figure) -> None:
        atomic_write(self.out / f"{name}.png", to_png(figure))

    def both(self, name: str, figure: Figure, alt: str) -> dict[str, str]:
        self.png(name, figure)
        return self.svg(figure, alt)


def _calibration(
    logits: np.ndarray, labels: np.ndarray, split: str, temperature: TemperatureFit | None
) -> tuple[Calibration | None, np.ndarray | None]:
    if temperature is not None:
        return calibrate(logits, labels, temperature)
    return cross_fit_temperature(logits, labels, split) if len(labels) > 1 else (None, None)


def _curves(subject: ReportInput, runs: Mapping[str, History], draw: _Draw) -> dict[str, Any]:
    runs = runs or ({"": subject.history} if subject.history else {})
    if runs:
        draw.png("curves", curves_figure(runs, title=subject.title))
    return {
        "curves": [draw.svg(curve_panel(panel, runs), text) for panel, text in PANELS.items()] if runs else [],
        "runs": sections.run_rows(runs) if len(runs) > 1 else [],
    }


def _matrices(subject: ReportInput, confusion: np.ndarray, draw: _Draw) -> dict[str, Any]:
    """The confusion of the classes and of the superclasses; the classes' accuracies as a picture."""
    data, evaluation = subject.dataset, subject.evaluation
    ranking = {row["name"]: row["value"] for row in sections.ranked(evaluation.per_class)}
    ordered, names, groups = figures.by_superclass(confusion, data)
    columns = 1 if len(ranking) <= 25 else 2 if len(ranking) <= 60 else 4
    draw.png("classes", figures.accuracy_figure(ranking, columns=columns))
    matrix, text = figures.confusion_figure(ordered, names, groups), "confusion matrix of the classes"
    draw.png("confusion", matrix)
    named_beside = figures.FEW < len(names) <= figures.MOST_LABELS  # by the page, so that names stay while one scrolls
    found: dict[str, Any] = {
        "confusion": draw.svg(figures.cells_figure(ordered, groups) if named_beside else matrix, text),
        "confusion_names": names if named_beside else [],
        "zoomable": len(names) > figures.FEW,
    }
    if data.superclass_of:
        folded = figures.confusion_figure(metrics.fold(confusion, data.superclass_of), data.superclasses)
        found["superclass_confusion"] = draw.both("superclass_confusion", folded, "confusion of the superclasses")
    return found


def _reliability(
    before: Reliability, after: Reliability | None, calibration: Calibration | None, draw: _Draw
) -> list[dict[str, str]]:
    title = f"as it is: ECE {before.ece:.2%}"
    panels = [draw.both("reliability", figures.reliability_figure(before, title=title), f"reliability {title}")]
    if after is not None and calibration is not None:
        title = f"after temperature {calibration.temperature:.3f}: ECE {calibration.ece_after:.2%}"
        panels.append(draw.both("reliability_after", figures.reliability_figure(after, title=title), title))
    return panels


def _robustness(subject: ReportInput, draw: _Draw) -> dict[str, Any] | None:
    known = subject.robustness
    if known is None:
        return None
    draw.png("corruptions", figures.corruption_figure(known))
    return {"about": sections.robustness_about(known), "families": sections.robustness_rows(known)}


def _galleries(subject: ReportInput, confusion: np.ndarray) -> dict[str, Any]:
    """The pictures of the page: confused pairs, confident mistakes, uncertain hits."""
    labels, classes = subject.evaluation.labels, subject.dataset.classes
    probabilities = metrics.softmax(subject.evaluation.logits)
    pairs = confused_pairs(confusion, probabilities, labels, pairs=PAIRS, examples=EXAMPLES)
    mistakes = most_confident_errors(probabilities, labels, GALLERY)
    hits = least_confident_correct(probabilities, labels, GALLERY)
    shown = [*mistakes, *hits, *(row for pair in pairs for row in pair.rows)]
    overlays = _overlays(subject, shown)

    def cards(rows: Sequence[int]) -> list[dict[str, Any]]:
        return sections.cards(subject, rows, probabilities, overlays)

    told = [
        {
            "one": classes[pair.one],
            "other": classes[pair.other],
            "about": sections.pair_about(classes[pair.one], classes[pair.other], pair.there, pair.back),
            "images": cards(pair.rows),
        }
        for pair in pairs
    ]
    wrong = cards(mistakes)
    if subject.neighbors:
        for card, near in zip(wrong, _neighbors(subject, mistakes), strict=True):
            card["neighbors"] = near
    return {"pairs": told, "mistakes": wrong, "hits": cards(hits)}


def _neighbors(subject: ReportInput, rows: Sequence[int]) -> list[list[dict[str, str]]]:
    """For each of these images the train images with the most similar features, the nearest first."""
    features = torch_forward(subject.checkpoint, subject.compute, features=True)

    def embed(images: np.ndarray) -> np.ndarray:
        parts = [features(images[start : start + 500]) for start in range(0, len(images), 500)]
        found = np.concatenate(parts)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    if not rows:
        return []
    train, classes = subject.dataset.train, subject.dataset.classes
    similarity = embed(subject.images[list(rows)]) @ embed(train.images).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBORS]
    return [
        [{"src": thumbnail(train.images[place]), "label": classes[train.labels[place]]} for place in places]
        for places in nearest
    ]


def _overlays(subject: ReportInput, rows: Sequence[int]) -> dict[int, str]:
    """Where in each of these images the network saw what it called it: addresses of pictures, by row."""
    explain = Explainer(subject.checkpoint, subject.compute)
    explanations = explain(subject.images[row] for row in rows)
    return {row: thumbnail(found.overlay, largest=112) for row, found in zip(rows, explanations, strict=True)}


def _contents(page: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has: their ids and names."""
    sections = [
        ("figures", "Figures", True),
        ("curves", "Curves", True),
        ("superclasses", "Superclasses", page["superclass_bars"]),
        ("classes", "Classes", True),
        ("pairs", "Confused pairs", page["pairs"]),
        ("mistakes", "Mistakes", page["mistakes"]),
        ("hits", "Uncertain hits", page["hits"]),
        ("calibration", "Calibration", True),
        ("coverage", "Coverage", True),
        ("robustness", "Robustness", page["robustness"]),
        ("about", "How to read", True),
    ]
    return [(id_, name) for id_, name, there in sections if there]
