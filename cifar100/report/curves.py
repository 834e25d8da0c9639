"""Learning curves: loss, accuracy, learning rate and speed by epoch, of one run or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100.report.style import FAINT, INK, LINES, SERIES, escape_mathtext, new_figure, style_axes, to_png
from cifar100.support.errors import RunFailed
from cifar100.support.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = list[dict[str, Any]]
"""Rows of `cifar100.training.logger.COLUMNS`; missing values are not drawn."""

PANELS = {
    "loss": "loss (train: augmented, smoothed)",
    "top1": "top-1 accuracy",
    "learning_rate": "learning rate at the epoch's end",
    "images_per_second": "training images per second",
}
"""{column: title}"""

LOG_RATIO = 1000
"""Ratio of the largest loss to the smallest from which the axis is logarithmic."""


def draw_curves(history: History, path: Path, *, title: str = "") -> str:
    """Write a PNG file of these rows; a line with its path, or why it was not written."""
    try:
        atomic_write(path, _png(history, title))
    except RunFailed as error:  # a plot that fails does not end a run
        return f"Curves    not written: {error}"
    return f"Curves    {path}"


def _png(history: History, title: str) -> bytes:
    return to_png(curves_figure({"": history}, title=title), dpi=120)


def curves_figure(runs: Mapping[str, History], *, title: str = "") -> Figure:
    """The four panels in one figure."""
    figure = new_figure(9, 6)
    for axes, panel in zip(figure.subplots(2, 2, sharex=True).flat, PANELS, strict=True):
        _draw(axes, panel, runs)
        axes.set_xlabel("epoch" if panel in ("learning_rate", "images_per_second") else "")
    figure.suptitle(escape_mathtext(title), fontsize=11, color=INK)
    return figure


def curve_panel(panel: str, runs: Mapping[str, History]) -> Figure:
    """One of PANELS, at the width of a phone."""
    figure = new_figure(4.4, 3.0)
    _draw(figure.subplots(), panel, runs)
    return figure


def column(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs that have a number in this column, and the numbers: float64 [E] each."""
    known = [(row["epoch"], row[name]) for row in history if _is_number(row.get("epoch")) and _is_number(row.get(name))]
    return np.array([epoch for epoch, _ in known], float), np.array([value for _, value in known], float)


def last_split(history: History) -> str:
    """The split of the latest evaluation, "test" or "val"; "" if unknown."""
    return next((str(row["split"]) for row in reversed(history) if row.get("split")), "")


def _draw(axes: Axes, panel: str, runs: Mapping[str, History]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    alone = len(runs) == 1
    for number, (name, history) in enumerate(runs.items()):
        color, line = SERIES[number % len(SERIES)], LINES[(number + number // len(SERIES)) % len(LINES)]
        style: dict[str, Any] = {"color": color, "linestyle": line, "linewidth": 1.6}
        num_values = len(column(history, panel)[0])  # fewer than rows, if not every epoch is evaluated
        style |= {"marker": "o" if num_values < 30 else "", "markersize": 3}
        if panel in ("loss", "top1"):
            split = last_split(history)
            faint: dict[str, Any] = style | ({"color": INK, "alpha": 0.55} if alone else {"alpha": 0.35})
            axes.plot(*column(history, f"train_{panel}"), label="train" if alone else None, **faint)
            epochs, values = column(history, panel)
            if len(epochs):
                last = f", last {values[-1]:.2%}" if panel == "top1" and alone else ""
                axes.plot(epochs, values, **style, label=escape_mathtext(split if alone else name) + last)
            elif not alone:
                axes.plot([], [], **style, label=f"{escape_mathtext(name)} (train)")
        else:
            axes.plot(*column(history, panel), **style, label=None if alone else escape_mathtext(name))
    if panel == "top1":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if panel == "images_per_second":
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    if panel == "loss" and _spans_decades(runs.values()):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8, edgecolor=FAINT)
    title = f"{PANELS[panel]}; lighter: train" if panel in ("loss", "top1") and not alone else PANELS[panel]
    style_axes(axes, title=title, x="epoch")


def _spans_decades(histories: Iterable[History]) -> bool:
    """Whether the losses, as those of a run that diverged, would make a linear axis illegible."""
    losses = [np.concatenate([column(rows, name)[1] for name in ("train_loss", "loss")]) for rows in histories]
    known = np.concatenate(losses) if losses else np.zeros(0)
    return len(known) > 0 and known.min() > 0 and known.max() > LOG_RATIO * known.min()


def _is_number(value: Any) -> bool:
    """Whether it can be drawn; a file may contain integers that are too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
