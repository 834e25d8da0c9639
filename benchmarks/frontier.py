"""Accuracy over training time on two CPU cores: the table of docs/results.md and the figure of the README.

    python benchmarks/frontier.py

Runs of up to 60 epochs were trained and timed on the CPU, the others trained on a GPU. Times without a timed run are
estimates for two CPU cores with AMX-BF16: the number of epochs at each resolution times the median seconds of such an
epoch in the timed runs, plus those of RandAugment by results/augmentation_policies.json. Writes
docs/pictures/frontier.png.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from circumstances import RESULTS, ROOT

from cifar100.config import Config
from cifar100.report.style import BLUE, INK, ORANGE, new_figure, style_axes
from cifar100.support.train_sizes import resolutions

TIMED = RESULTS / "fast_9_epochs"
GPU = RESULTS / "h100"
RUNS = {
    "fast, 7 epochs": sorted((RESULTS / "fast_7_epochs").glob("seed*")),
    "fast, 8 epochs": sorted((RESULTS / "fast_8_epochs").glob("seed*")),
    "fast, 9 epochs": sorted(TIMED.glob("seed*")),
    "fast, 14 epochs": sorted((RESULTS / "fast_14_epochs").glob("seed*")),
    "fast, 30 epochs": [RESULTS / "fast_30_epochs" / "seed0"],
    "fast, 60 epochs": [RESULTS / "fast_60_epochs" / "seed0"],
    "best, 100 epochs": [GPU / "best_100"],
    "best, 200 epochs": [GPU / "best_200"],
    "baseline, 100 epochs": [GPU / "baseline_100"],
}
SAME_STEPS = {"fast, 8 epochs": sorted((RESULTS / "fast_8_epochs").glob("padding_2_seed*"))}
"""Runs of the same steps, whose times are used: those of `RUNS` ran on a day when the machine was a third slower."""

NUM_TRAIN = 50_000
RAND_SECONDS = NUM_TRAIN / 4873
"""Time of RandAugment per epoch, in one thread (results/augmentation_policies.json)."""

PUBLISHED = {
    "weiaicunzai/pytorch-cifar100, 200 epochs": (75.61, NUM_TRAIN * 200 / 65.5 / 60),
    "optim-nn-cifar, 100 epochs,\non an Apple GPU": (78.29, 87.0),
}
"""{name: (top-1 in %, minutes)}. The first ran at 65.5 images/s on the same two cores; the second is as published."""


LABELS = {
    "best, 100 epochs": ((-7, 5), "right"),
    "fast, 8 epochs": ((7, -17.5), "left"),
    "fast, 60 epochs": ((7, -26), "left"),
}
"""Offsets in points and alignment of the labels of our runs that would overlap others."""

OFFSETS = (((6, -18), "left"), ((-4, -22), "right"), ((-7, 4), "right"))
"""Of the labels of the baseline and of `PUBLISHED`, in points, and their alignment."""


@dataclass(frozen=True)
class Row:
    """One length of one recipe."""

    name: str
    top1: list[float]  # in %, by seed
    minutes: float

    def __str__(self) -> str:
        values = ", ".join(f"{value:.2f}" for value in self.top1)
        spread = f" ± {statistics.stdev(self.top1):.2f}" if len(self.top1) > 1 else ""
        return f"| {self.name} | **{statistics.mean(self.top1):.2f}**{spread} | {values} | {self.minutes:.1f} |"


def seconds_per_epoch() -> dict[int, float]:
    """{resolution: median seconds of the steps of an epoch} in the timed runs."""
    seconds: dict[int, list[float]] = {}
    for folder in TIMED.glob("*seed*"):
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        sizes = json.loads((folder / "config.json").read_text())["settings"]["train_sizes"]
        for row, size in zip(map(json.loads, rows), resolutions(sizes, len(rows)), strict=True):
            seconds.setdefault(size, []).append(row["train_seconds"])
    return {size: statistics.median(values) for size, values in seconds.items()}


def measured(name: str, folders: list[Path], seconds: dict[int, float]) -> Row:
    """The accuracies of some runs of the same settings, and the mean time of those on the CPU, or an estimate."""
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
    top1 = [100 * evaluation["top1"] for evaluation in evaluations]
    timed = [json.loads((folder / "evaluation.json").read_text()) for folder in SAME_STEPS.get(name, folders)]
    if clocks := [evaluation["clock"] for evaluation in timed if evaluation["compute"].startswith("cpu")]:
        minutes = [(clock["ready_seconds"] + clock["steps_seconds"]) / 60 for clock in clocks]
        return Row(name, top1, statistics.mean(minutes))
    config = Config.from_flat(evaluations[0]["settings"])
    epochs, sizes = config.optim.epochs, config.augment.train_sizes
    counts = Counter(resolutions(sizes, epochs)) if sizes else {32: epochs}
    total = sum(count * seconds[size] for size, count in counts.items())
    total += epochs * RAND_SECONDS if config.augment.policy == "rand" else 0
    return Row(name, top1, total / 60)


def draw(rows: list[Row]) -> None:
    """The figure."""
    figure = new_figure(7.2, 3.6)
    figure.set_facecolor("white")
    axes = figure.subplots()
    progressive, baseline = rows[:-1], rows[-1]
    minutes, means = [row.minutes for row in progressive], [statistics.mean(row.top1) for row in progressive]
    axes.plot(minutes, means, "o-", color=BLUE, markersize=5, linewidth=1.5)
    for row, mean in zip(progressive, means, strict=True):
        shift, align = LABELS.get(row.name, ((7, -10), "left"))
        axes.annotate(f"{row.name}: {mean:.1f} %", (row.minutes, mean), shift, textcoords="offset points",
                      fontsize=8, color=INK, ha=align)  # fmt: skip
    others = {"our baseline, 100 epochs": (statistics.mean(baseline.top1), baseline.minutes)} | PUBLISHED
    for (name, (top1, taken)), (shift, align) in zip(others.items(), OFFSETS, strict=True):
        axes.plot(taken, top1, "s", color=ORANGE, markersize=5)
        axes.annotate(f"{name}\n{top1:.1f} %", (taken, top1), shift, textcoords="offset points", fontsize=8,
                      color=INK, ha=align)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(9, 4000)
    axes.set_ylim(67, 83)
    ticks = {10: "10 min", 30: "30 min", 60: "1 h", 240: "4 h", 1440: "1 day"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    label = "training time on two CPU cores with AMX-BF16 (estimated for 100 and 200 epochs)"
    style_axes(axes, x=label, y="CIFAR-100 test top-1, %")
    target = ROOT / "docs" / "pictures" / "frontier.png"
    figure.savefig(target, dpi=130)


def main() -> None:
    """Print the table and draw the figure."""
    seconds = seconds_per_epoch()
    rows = [measured(name, folders, seconds) for name, folders in RUNS.items()]
    print("| run | top-1, % | by seed | minutes |\n| --- | --- | --- | --- |")
    print("\n".join(map(str, rows)))
    draw(rows)


if __name__ == "__main__":
    main()
