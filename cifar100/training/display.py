"""What the console shows of a run: a live progress bar (rich) on a terminal; elsewhere, plain lines."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

from cifar100.support.text import duration

WIDE = 100
"""Columns from which the live bar also shows the learning rate and the speed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state within an epoch, as the console shows it."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    learning_rate: float
    images_per_second: float
    seconds_left: float | None  # of the whole run; None until enough steps were timed

    def figures(self, *, wide: bool) -> str:
        """The metrics, with learning rate and speed if `wide`."""
        speed = f"  lr {self.learning_rate:.4f}  {self.images_per_second:,.0f} images/s" if wide else ""
        left = "" if self.seconds_left is None else f"  {duration(self.seconds_left)} left"
        return f"loss {self.loss:.3f}  acc {self.top1:6.2%}{speed}{left}"

    def bar_fields(self, *, wide: bool) -> dict[str, Any]:
        """What the live bar shows."""
        name, figures = f"epoch {self.epoch}/{self.epochs}", self.figures(wide=wide)
        return {"description": name, "completed": self.step, "total": self.steps, "figures": figures}

    def __str__(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  {self.figures(wide=True)}"


@dataclass(frozen=True, kw_only=True)
class EvalProgress:
    """The state within an evaluation, in images."""

    split: str
    done: int
    total: int

    def bar_fields(self, *, wide: bool) -> dict[str, Any]:  # noqa: ARG002, as Progress has it
        """What the live bar shows."""
        figures = f"{self.split} images"
        return {"description": "evaluating", "completed": self.done, "total": self.total, "figures": figures}

    def __str__(self) -> str:
        return f"evaluating: {self.done:,} of {self.total:,} {self.split} images"


class Display:
    """The console side of the log; this one shows nothing, as if there were no console."""

    @property
    def width(self) -> float:
        """Characters that fit on a line."""
        return math.inf

    def info(self, text: str) -> None:
        """Show a line."""

    def progress(self, progress: Progress | EvalProgress) -> None:
        """Show the state of the epoch or evaluation."""

    def close(self) -> None:
        """End the display."""


class PlainDisplay(Display):
    """Plain lines, for a pipe or a file; progress at most every 30 seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def info(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, progress: Progress | EvalProgress) -> None:
        if time.monotonic() - self.last >= 30:
            self.last = time.monotonic()
            print(progress, flush=True)


class RichDisplay(Display):
    """A live bar for a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
            auto_refresh=False,  # `progress` refreshes: no thread that takes time from the training
        )
        self.task: Any = None

    @property
    def width(self) -> float:
        return self.bar.console.width

    def info(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def progress(self, progress: Progress | EvalProgress) -> None:
        fields = progress.bar_fields(wide=self.width >= WIDE)
        if self.task is None:
            self.task = self.bar.add_task("", total=fields["total"], figures="")
            self.bar.start()
        self.bar.update(self.task, refresh=True, **fields)

    def close(self) -> None:
        if self.task is not None:
            self.bar.update(self.task, visible=False)
            self.bar.stop()


def console_display() -> Display:
    """Live on a terminal; else plain lines."""
    if sys.stdout is None:
        return Display()
    return RichDisplay() if sys.stdout.isatty() else PlainDisplay()
