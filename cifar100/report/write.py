"""Write a report: one self-contained HTML page, its plots as PNG files, its numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100.checkpoints.checkpoint import versions
from cifar100.evaluation import metrics
from cifar100.evaluation.calibration import (
    Calibration,
    RiskCoverage,
    calibrate,
    cross_fit_temperature,
    reliability_diagram,
    risk_coverage_curve,
)
from cifar100.prediction.model_info import ModelInfo
from cifar100.prediction.torch_backend import TorchBackend
from cifar100.report import figures, sections
from cifar100.report.curves import PANELS, History, curve_panel, curves_figure
from cifar100.report.galleries import galleries
from cifar100.report.page import MARK, render
from cifar100.report.sections import ReportInput
from cifar100.report.style import data_uri, to_png, to_svg
from cifar100.report.verdict import verdict
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import TemperatureFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"


def write_report(
    subject: ReportInput,
    out: Path,
    *,
    runs: Mapping[str, History] | None = None,
    temperature: TemperatureFit | None = None,
) -> Path:
    """Write the report on a finished evaluation; returns the path of the page.

    `runs` are histories by name, drawn in one plot instead of the subject's own; `temperature` was fitted on other
    images. Raises UserError if `out` cannot be written, or the model's outputs are not finite.
    """
    prepare_folder(out)
    evaluation = subject.evaluation
    logits, labels = evaluation.logits, evaluation.labels
    num_bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if num_bad:
        raise UserError(
            "report.not_finite",
            f"{subject.name} cannot be reported on: its outputs for {num_bad:,} of {evaluation.images:,} images are "
            "not finite.",
        )
    calibration, scaled = _calibration(logits, labels, evaluation.split, temperature)
    backend = TorchBackend(subject.checkpoint, subject.compute, subject.name)
    curve = risk_coverage_curve(logits / backend.info.temperature, labels)  # of the probabilities of `predict`
    ece = reliability_diagram(logits, labels).ece
    plots = _PlotWriter(out)
    page = _text(subject, calibration, curve, ece, backend.info)
    page |= _plots(subject, runs or {}, calibration, scaled, plots)
    page |= galleries(subject, backend, metrics.confusion_matrix(logits, labels))
    page["contents"] = _contents(page)
    atomic_write(out / PAGE, render("page.html", page))

    numbers = evaluation.to_json() | {"checkpoint": subject.name, "sha256": backend.info.digest}
    numbers |= {"versions": versions(), "ece": ece, "coverage": page["coverage_rows"]}
    numbers["calibration"] = None if calibration is None else asdict(calibration)
    numbers["robustness"] = None if subject.robustness is None else subject.robustness.to_json()
    atomic_write(out / "report.json", json.dumps(numbers, indent=2) + "\n")
    return out / PAGE


def _text(
    subject: ReportInput, calibration: Calibration | None, curve: RiskCoverage, ece: float, info: ModelInfo
) -> dict[str, Any]:
    """The content of the page that is text, tables and bars."""
    evaluation = subject.evaluation
    return {
        "title": subject.title,
        "subtitle": sections.subtitle(subject),
        "verdict": verdict(evaluation),
        "synthetic": subject.dataset.is_synthetic,
        "notes": sections.notes(subject),
        "headline_metrics": sections.headline_metrics(subject, calibration, curve, ece),
        "details": [("weights", f"{info.name}, SHA-256 {info.digest}"), *sections.details(subject)],
        "settings": sections.settings(subject.checkpoint),
        "class_bars": sections.ranked(evaluation.per_class),
        "class_about": sections.class_about(subject),
        "score_rows": sections.score_rows(evaluation),
        "superclass_bars": sections.ranked(evaluation.per_superclass),
        "superclass_top1": evaluation.superclass_top1,
        "calibration_about": sections.calibration_about(ece, calibration),
        "coverage_rows": sections.coverage_rows(curve),
        "terms": sections.TERMS.items(),
        "footer": sections.footer(),
    }


def _plots(
    subject: ReportInput,
    runs: Mapping[str, History],
    calibration: Calibration | None,
    scaled: np.ndarray | None,
    plots: _PlotWriter,
) -> dict[str, Any]:
    """The plots of the page. `scaled` are the logits divided by the temperature."""
    logits, labels = subject.evaluation.logits, subject.evaluation.labels
    page = _curves(subject, runs, plots)
    page |= _matrices(subject, metrics.confusion_matrix(logits, labels), plots)
    page["reliability"] = _reliability(logits, scaled, labels, calibration, plots)
    after = None if scaled is None else risk_coverage_curve(scaled, labels)
    figure = figures.coverage_figure(risk_coverage_curve(logits, labels), after)
    page["coverage"] = plots.both("coverage", figure, "selective accuracy by coverage")
    page["robustness"] = _robustness(subject, plots)
    return page


def prepare_folder(out: Path) -> Path:
    """Create the output directory. Raises UserError if that fails, or it contains a page that is not a report."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = out / PAGE
        foreign = page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError as error:
        raise UserError("report.out", f"--out {out} cannot be used ({error.strerror or error}).") from None
    if foreign:
        raise UserError("report.out", f"--out {out} contains an {PAGE} that is not a report; choose another directory.")
    return out


class _PlotWriter:
    """Encodes plots: `svg` for the page, as a data URI; `png` writes a file into the directory; `both` does both."""

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


def _curves(subject: ReportInput, runs: Mapping[str, History], plots: _PlotWriter) -> dict[str, Any]:
    runs = runs or ({"": subject.history} if subject.history else {})
    if runs:
        plots.png("curves", curves_figure(runs, title=subject.title))
    return {
        "curves": [plots.svg(curve_panel(panel, runs), text) for panel, text in PANELS.items()] if runs else [],
        "runs": sections.run_rows(runs) if len(runs) > 1 else [],
    }


def _matrices(subject: ReportInput, confusion: np.ndarray, plots: _PlotWriter) -> dict[str, Any]:
    """The confusion matrices of classes and superclasses, and the accuracies of the classes."""
    data, evaluation = subject.dataset, subject.evaluation
    ranking = {row["name"]: row["value"] for row in sections.ranked(evaluation.per_class)}
    ordered, names, groups = figures.by_superclass(confusion, data)
    columns = 1 if len(ranking) <= 25 else 2 if len(ranking) <= 60 else 4
    plots.png("classes", figures.accuracy_figure(ranking, columns=columns))
    matrix, text = figures.confusion_figure(ordered, names, groups), "confusion matrix of the classes"
    plots.png("confusion", matrix)
    # the page draws these names as HTML, so that they stay visible when the matrix is scrolled
    has_html_labels = figures.MAX_UNZOOMED < len(names) <= figures.MAX_LABELS
    found: dict[str, Any] = {
        "confusion": plots.svg(figures.cells_figure(ordered, groups) if has_html_labels else matrix, text),
        "confusion_names": names if has_html_labels else [],
        "num_classes": len(names),
        "zoomable": len(names) > figures.MAX_UNZOOMED,
    }
    if data.superclass_of:
        folded = figures.confusion_figure(metrics.aggregate_confusion(confusion, data.superclass_of), data.superclasses)
        found["superclass_confusion"] = plots.both("superclass_confusion", folded, "confusion of the superclasses")
    return found


def _reliability(
    logits: np.ndarray,
    scaled: np.ndarray | None,
    labels: np.ndarray,
    calibration: Calibration | None,
    plots: _PlotWriter,
) -> list[dict[str, str]]:
    before = reliability_diagram(logits, labels)
    title = f"uncalibrated: ECE {before.ece:.2%}"
    panels = [plots.both("reliability", figures.reliability_figure(before, title=title), f"reliability, {title}")]
    if scaled is not None and calibration is not None:
        after = reliability_diagram(scaled, labels)
        title = f"temperature {calibration.temperature:.3f}: ECE {calibration.ece_after:.2%}"
        figure = figures.reliability_figure(after, title=title)
        panels.append(plots.both("reliability_after", figure, f"reliability, {title}"))
    return panels


def _robustness(subject: ReportInput, plots: _PlotWriter) -> dict[str, Any] | None:
    known = subject.robustness
    if known is None:
        return None
    plots.png("corruptions", figures.corruption_figure(known))
    return {"about": sections.robustness_about(known), "families": sections.robustness_rows(known)}


def _contents(page: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has: their ids and names."""
    known = [
        ("metrics", "Metrics", True),
        ("curves", "Curves", page["curves"]),
        ("superclasses", "Superclasses", page["superclass_bars"]),
        ("classes", "Classes", True),
        ("pairs", "Confused pairs", page["pairs"]),
        ("mistakes", "Confident errors", page["mistakes"]),
        ("hits", "Least confident", page["hits"]),
        ("calibration", "Calibration", True),
        ("coverage", "Coverage", True),
        ("robustness", "Robustness", page["robustness"]),
        ("about", "How to read", True),
    ]
    return [(id_, name) for id_, name, content in known if content]
