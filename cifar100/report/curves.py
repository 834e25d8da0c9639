"""Learning curves of a run: loss, accuracy, learning rate and speed by epoch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from cifar100.errors import RunFailed
from cifar100.files import replace_file

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # of the Okabe-Ito palette: told apart by colour-blind readers


def draw_curves(history: list[dict[str, Any]], path: Path, *, title: str = "") -> str:
    """Write a PNG of these rows (`cifar100.journal.COLUMNS`); a line that says where it is, or why there is none."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, PercentFormatter
    except ImportError:
        return "Curves    not drawn: matplotlib is not installed"

    epochs = [row["epoch"] for row in history]
    evaluated = [row for row in history if row["split"]]
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    (loss, accuracy), (rate, speed) = figure.subplots(2, 2, sharex=True)
    figure.suptitle(title)
    mark = "o" if len(history) < 30 else ""

    for axes, column in ((loss, "loss"), (accuracy, "top1")):
        axes.plot(epochs, [row[f"train_{column}"] for row in history], color=GREY, marker=mark, ms=3, label="train")
        if evaluated:
            xs, ys = [row["epoch"] for row in evaluated], [row[column] for row in evaluated]
            axes.plot(xs, ys, color=BLUE, marker=mark, ms=3, label=evaluated[-1]["split"])
        axes.legend(frameon=False)
    if evaluated:
        last = evaluated[-1]
        text = f"{last['top1']:.2%}"
        accuracy.annotate(text, (last["epoch"], last["top1"]), xytext=(-4, 8), textcoords="offset points", ha="right")
    loss.set_title("loss (train: augmented, smoothed)", fontsize=10)
    accuracy.set_title("top-1 accuracy", fontsize=10)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    rate.plot(epochs, [row["learning_rate"] for row in history], color=ORANGE, marker=mark, ms=3)
    rate.set_title("learning rate at the epoch's end", fontsize=10)
    speed.plot(epochs, [row["images_per_second"] for row in history], color=ORANGE, marker=mark, ms=3)
    speed.set_title("training images a second", fontsize=10)
    speed.set_ylim(bottom=0)
    for axes in (loss, accuracy, rate, speed):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate.set_xlabel("epoch")
    speed.set_xlabel("epoch")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    try:
        replace_file(path, picture.getvalue())
    except RunFailed as error:  # a picture is not worth ending a run over
        return f"Curves    not drawn: {error}"
    return f"Curves    {path}"
