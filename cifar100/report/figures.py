"""The figures of an evaluation: confusion, accuracies, reliability, coverage, corruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cifar100.dataset import Dataset
from cifar100.evaluation import metrics
from cifar100.evaluation.calibration import Reliability, RiskCoverage
from cifar100.evaluation.evaluate import Evaluation
from cifar100.report.selection import superclass_order
from cifar100.report.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    display_name,
    escape_mathtext,
    new_figure,
    style_axes,
    to_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cifar100.evaluation.corruption_results import Robustness

NUM_SAMPLES = 24
"""Images in the figure of sample predictions."""

MAX_UNZOOMED = 40
"""Classes up to which the numbers of a matrix can be read without zooming."""

MAX_LABELS, MAX_CELL_NUMBERS = 300, 8000
"""Maximum numbers of class names and of cell numbers; with more the plot would take megabytes."""


def confusion_figure(confusion: np.ndarray, names: Sequence[str], groups: Sequence[int] = ()) -> Figure:
    """A confusion matrix int [C, C], classes in display order: correct predictions blue, errors orange, with counts.

    `groups` [C], ascending, draws a line at the end of each group.
    """
    count = len(names)
    many = count > MAX_UNZOOMED
    cell = 0.17 if many else 0.34
    side = max(3.2, count * cell + 1.6)
    figure = new_figure(side, side)
    axes = figure.subplots()
    _draw_cells(axes, confusion, groups, cell)
    labels = [escape_mathtext(display_name(name)) for name in names] if count <= MAX_LABELS else []
    size = 5.5 if many else 8
    for axis, turned in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(len(labels)), labels, rotation=turned, fontsize=size)
    style_axes(axes, x="predicted class", y="true class", grid=False)
    axes.tick_params(labelsize=size, length=0, pad=2)
    axes.spines[:].set_visible(True)
    return figure


def cells_figure(confusion: np.ndarray, groups: Sequence[int] = ()) -> Figure:
    """The cells of `confusion_figure` without axes, filling the figure; the page adds the class names as HTML."""
    cell = 0.17
    figure = new_figure(len(confusion) * cell, len(confusion) * cell)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    _draw_cells(axes, confusion, groups, cell)
    axes.axis("off")
    return figure


def by_superclass(confusion: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, list[str], list[int]]:
    """The matrix int [C, C], the names [C] and the superclasses [C] of the classes, those of one side by side."""
    order = superclass_order(dataset.superclass_of, len(dataset.classes))
    groups = [dataset.superclass_of[i] for i in order] if dataset.superclass_of else []
    return confusion[np.ix_(order, order)], [dataset.classes[i] for i in order], groups


def _draw_cells(axes: Axes, confusion: np.ndarray, groups: Sequence[int], cell: float) -> None:
    """The cells, each `cell` inches wide, their counts, and a line at the end of each group."""
    axes.imshow(_cells(confusion), interpolation="none", aspect="equal")
    for edge in np.flatnonzero(np.diff(np.asarray(groups))) + 0.5 if len(groups) else ():
        axes.axhline(edge, color=FAINT, linewidth=0.6)
        axes.axvline(edge, color=FAINT, linewidth=0.6)
    filled = np.argwhere(confusion > 0)
    if len(filled) <= MAX_CELL_NUMBERS:
        digits = len(str(confusion.max()))
        small = min(7.5, 72 * cell * 1.15 / max(2, digits))
        for row, column in filled.tolist():
            text = f"{confusion[row, column]:d}"
            label = axes.text(column, row, text, ha="center", va="center_baseline", fontsize=small, color=INK)
            label.set_in_layout(False)  # thousands of them, each inside its cell


def _cells(confusion: np.ndarray) -> np.ndarray:
    """Colors float [C, C, 4]: blue on the diagonal, orange off it, more opaque for a larger fraction of the row, but
    transparent enough for the counts to be readable on light and dark backgrounds."""
    from matplotlib.colors import to_rgb

    fraction = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    cells = np.zeros((*confusion.shape, 4))
    cells[..., :3] = to_rgb(ORANGE)
    off = ~np.eye(len(confusion), dtype=bool)
    cells[..., 3] = np.where(fraction > 0, 0.12 + 0.63 * np.sqrt(np.minimum(fraction / 0.3, 1)), 0)
    cells[~off, :3] = to_rgb(BLUE)
    cells[~off, 3] = np.where(fraction[~off] > 0, 0.12 + 0.63 * fraction[~off], 0)
    return cells


def accuracy_figure(accuracies: Mapping[str, float], *, columns: int = 1) -> Figure:
    """A bar for each name, in the given order, in `columns` columns."""
    names, values = list(accuracies), np.array(list(accuracies.values()))
    rows = -(-len(names) // columns)
    figure = new_figure(4.6 * columns, 0.6 + 0.19 * rows)
    for number, axes in enumerate(figure.subplots(1, columns, squeeze=False).flat):
        part = slice(number * rows, (number + 1) * rows)
        positions = np.arange(len(values[part]))
        axes.barh(positions, values[part], color=BLUE, height=0.7)
        axes.set_yticks(positions, [escape_mathtext(display_name(name)) for name in names[part]])
        for position, value in zip(positions, values[part], strict=True):
            axes.text(value + 0.01, position, f"{value:.0%}", va="center", fontsize=7.5, color=INK)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(0, 1.1)
        axes.set_xticks([])
        style_axes(axes, grid=False)
        axes.spines["bottom"].set_visible(False)
    return figure


def reliability_figure(table: Reliability, *, title: str) -> Figure:
    """Reliability diagram: accuracy and fraction of the images by confidence bin, and the gap to the confidence."""
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(4.4, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    width, there = np.diff(table.edges), table.counts > 0
    positions, accuracy, confidence = (values[there] for values in (table.edges[:-1], table.accuracy, table.confidence))
    inside = {"width": width[there], "align": "edge", "linewidth": 0.8}
    upper.bar(positions, accuracy, color=BLUE, edgecolor=FAINT, label="accuracy", **inside)
    bottom, gap = np.minimum(accuracy, confidence), np.abs(confidence - accuracy)
    hatched = {"facecolor": "none", "edgecolor": ORANGE, "hatch": "////"}
    upper.bar(positions, gap, bottom=bottom, label="gap to confidence", **inside, **hatched)
    upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.bar(table.edges[:-1], table.counts / table.counts.sum(), width, align="edge", color=FAINT, edgecolor=INK)
    for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    style_axes(upper, title=escape_mathtext(title), y="accuracy")
    style_axes(lower, x="confidence", y="images")
    return figure


def coverage_figure(before: RiskCoverage, after: RiskCoverage | None = None) -> Figure:
    """Selective accuracy over coverage, the most confident images first."""
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(4.4, 3.4)
    axes = figure.subplots()
    for curve, color, line, label in (
        (before, BLUE, "-", "uncalibrated"),
        (after, ORANGE, "--", "temperature-scaled"),
    ):
        if curve is not None:
            at = np.unique(np.linspace(0, len(curve.coverage) - 1, 400).astype(int))
            axes.plot(curve.coverage[at], curve.accuracy[at], color=color, linestyle=line, linewidth=1.6, label=label)
    shown = before.accuracy[before.coverage >= 0.02]  # of fewer images it is noise
    axes.set_xlim(0, 1)
    bottom = max(0.0, float(shown.min()) - 0.05)
    axes.set_ylim(bottom, 1.01)
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick < 1.005])  # none above 100 %
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if after is not None:
        axes.legend(frameon=False, fontsize=8)
    style_axes(axes, x="coverage", y="selective accuracy")
    return figure


def corruption_figure(known: Robustness) -> Figure:
    """Heatmap of the error in percent: a row per corruption, a column per severity, their mean in the last column."""
    from matplotlib.colors import to_rgb

    from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES

    errors = np.column_stack([known.errors, known.errors.mean(axis=1)])
    figure = new_figure(7.2, 5.2)
    axes = figure.subplots()
    cells = np.zeros((*errors.shape, 4))
    cells[..., :3] = to_rgb(ORANGE)
    cells[..., 3] = np.nan_to_num(0.75 * errors)
    axes.imshow(cells, interpolation="none", aspect="auto")
    axes.set_xticks(range(len(SEVERITIES) + 1), [*(f"severity {level}" for level in SEVERITIES), "mean"])
    axes.set_yticks(range(len(CORRUPTIONS)), [display_name(kind) for kind in CORRUPTIONS])
    for row, column in np.argwhere(~np.isnan(errors)).tolist():
        text = f"{100 * errors[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=8.5, color=INK)
    style_axes(axes, grid=False)
    axes.tick_params(length=0)
    return figure


def evaluation_images(evaluation: Evaluation, dataset: Dataset) -> dict[str, Callable[[], bytes]]:
    """Functions that draw the confusion matrix and sample predictions of a test evaluation, as PNG files."""

    def confusion() -> bytes:
        matrix = metrics.confusion_matrix(evaluation.logits, evaluation.labels)
        return to_png(confusion_figure(*by_superclass(matrix, dataset)), dpi=100)

    return {"confusion": confusion, "samples": lambda: _samples(evaluation, dataset)}


def _samples(evaluation: Evaluation, dataset: Dataset) -> bytes:
    """Some test images, evenly spread over the split, with their predictions."""
    from cifar100.prediction.contact_sheet import Entry, contact_sheet  # imports Pillow

    chosen = dataset.test.spread(NUM_SAMPLES)
    entries = []
    for row, likely in zip(chosen, metrics.softmax(evaluation.logits[chosen]), strict=True):
        best, label = int(likely.argmax()), int(evaluation.labels[row])
        true = "" if best == label else f"true: {display_name(dataset.classes[label])}"
        predicted = display_name(dataset.classes[best])
        entries.append(Entry((dataset.test.images[row],), true, predicted, float(likely[best])))
    return contact_sheet(entries)
