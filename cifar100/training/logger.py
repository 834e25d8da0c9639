"""What a run tells: the console, the text log, and the metrics files. Each part can be there or not, and the training
loop never asks which.

On a terminal the console is a live progress display (rich); elsewhere, plain lines.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cifar100.support.errors import RunFailed
from cifar100.support.files import FileInUse, atomic_write
from cifar100.support.text import duration, escape_lines
from cifar100.training.run_dir import RunDir
from cifar100.training.tensorboard import NullTensorBoard, TensorBoardLogger
from cifar100.training.tracker import Tracker

COLUMNS: tuple[str, ...] = (
    "epoch",
    "steps",
    "learning_rate",
    "train_loss",
    "train_top1",
    "split",
    "loss",
    "top1",
    "top5",
    "superclass_top1",
    "images_per_second",
    "train_seconds",
    "eval_seconds",
    "elapsed_seconds",
)
"""The metrics of an epoch. Accuracies are shares in 0..1; `train_*` are over augmented images, with smoothed loss, as
training went; the evaluation columns are over `split` after it, and empty where the epoch was not evaluated."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an epoch stands: what the display shows between two epochs."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    learning_rate: float
    images_per_second: float
    seconds_left: float | None  # of the whole run; None until enough steps were timed

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f"  {duration(self.seconds_left)} left"
        return (
            f"epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  loss {self.loss:.3f}  "
            f"acc {self.top1:6.2%}  lr {self.learning_rate:.4f}  {self.images_per_second:,.0f} images/s{left}"
        )


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """A row of metrics as one line for people."""
    parts = [
        f"Epoch {row['epoch']:>3}/{epochs}",
        f"train loss {row['train_loss']:.4f} acc {row['train_top1']:6.2%}",
    ]
    if row["split"]:
        parts.append(f"{row['split']} loss {row['loss']:.4f} acc {row['top1']:6.2%} top-5 {row['top5']:6.2%}")
    parts.append(f"lr {row['learning_rate']:.5f}")
    parts.append(f"{row['images_per_second']:,.0f} images/s")
    parts.append(duration(row["elapsed_seconds"]))
    return " | ".join(parts)


class Display(Protocol):
    """The console side of a journal."""

    def say(self, text: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


class PlainDisplay:
    """Lines, for a pipe or a file: what is said at once, progress at most every 30 seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, progress: Progress) -> None:
        if time.monotonic() - self.last >= 30:
            self.last = time.monotonic()
            print(progress, flush=True)

    def close(self) -> None:
        pass


class RichDisplay:
    """A live bar for a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
        )
        self.task: Any = None

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def progress(self, progress: Progress) -> None:
        if self.task is None:
            self.task = self.bar.add_task("", total=progress.steps, figures="")
            self.bar.start()
        left = "" if progress.seconds_left is None else f"  {duration(progress.seconds_left)} left"
        figures = (
            f"loss {progress.loss:.3f}  acc {progress.top1:.2%}  lr {progress.learning_rate:.4f}  "
            f"{progress.images_per_second:,.0f} img/s{left}"
        )
        self.bar.update(
            self.task,
            description=f"epoch {progress.epoch}/{progress.epochs}",
            completed=progress.step,
            total=progress.steps,
            figures=figures,
        )

    def close(self) -> None:
        if self.task is not None:
            self.bar.update(self.task, visible=False)
            self.bar.stop()


class NullDisplay:
    """Nothing: where there is no console, or none any more."""

    def say(self, text: str) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


def _display() -> Display:
    """Live on a terminal, where rich is installed; plain lines elsewhere."""
    if sys.stdout is None:
        return NullDisplay()
    if sys.stdout.isatty():
        with suppress(ImportError):
            return RichDisplay()
    return PlainDisplay()


class RunLogger:
    """Tells a run to the console, its text log, its metrics files, `board` and `tracker`. Use as a context."""

    def __init__(
        self,
        folder: RunDir,
        *,
        resume: bool,
        board: TensorBoardLogger | NullTensorBoard | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.folder = folder
        self.tracker = tracker
        self.board = board or NullTensorBoard()
        self.display = _display()
        self.in_use: set[Path] = set()  # metrics files that were reported
        logs = folder.logs()
        self.log_path = logs[-1] if resume and logs else folder.new_log()
        try:
            self.log = self.log_path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunFailed(f"{self.log_path} could not be written ({error.strerror}).") from None

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._console(lambda display: display.close())
        self.board.close()
        if self.tracker is not None:
            self.tracker.close()
        with suppress(OSError):  # what a full disk did not take has been reported
            self.log.close()

    def say(self, text: str) -> None:
        """Write a line to the console and, with the time, to the log. Control characters are escaped."""
        text = escape_lines(text)
        self._console(lambda display: display.say(text))
        self.log_only(text)

    def log_only(self, text: str) -> None:
        """A line for the log alone. Raises RunFailed where the disk refuses."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            self.log.writelines(f"{stamp} | {line}\n" for line in escape_lines(text).split("\n") if line)
            self.log.flush()
        except OSError as error:
            raise RunFailed(f"{self.log_path} could not be written ({error.strerror}).") from error

    def progress(self, progress: Progress) -> None:
        """Where the epoch stands: console only."""
        self._console(lambda display: display.progress(progress))

    def _console(self, act: Callable[[Display], None]) -> None:
        """Tell the console; one that is gone (a closed pipe, a lost terminal) must not end a run."""
        try:
            act(self.display)
        except (OSError, ValueError):
            self.display = NullDisplay()

    def epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        """The last row of the history, everywhere."""
        self.say(epoch_line(history[-1], epochs))
        self._write_metrics(history)
        self.board.epoch(history)
        if self.tracker is not None:
            self.tracker.epoch(history)

    def rewrite(self, history: list[dict[str, Any]]) -> None:
        """Make all that is kept of the metrics hold exactly these rows: where a run goes on from an earlier moment."""
        self._write_metrics(history)
        self.board.rewrite(history)

    def pictures(self, pictures: dict[str, Callable[[], bytes]], epoch: int) -> None:
        """Pictures, PNG by name, for the board; they are made only where there is one."""
        self.board.pictures(pictures, epoch)

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        """The metrics files with exactly these rows, atomically; a few hundred cost nothing."""
        self._write(self.folder.metrics_jsonl, "".join(json.dumps(row) + "\n" for row in history))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(COLUMNS))
        writer.writeheader()
        writer.writerows(history)
        self._write(self.folder.metrics_csv, table.getvalue())

    def _write(self, path: Path, content: str) -> None:
        """A metrics file that another program holds open is reported once; a later epoch writes its rows too."""
        try:
            atomic_write(path, content)
        except FileInUse:
            if path not in self.in_use:
                self.in_use.add(path)
                self.say(f"{path.name} is open in another program: its new rows are written once it is closed.")


class NullLogger:
    """Tells nothing and writes nothing: for the processes of a training beside the first."""

    log_path = Path(os.devnull)

    def __enter__(self) -> NullLogger:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def log_only(self, text: str) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass

    def epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        pass

    def rewrite(self, history: list[dict[str, Any]]) -> None:
        pass

    def pictures(self, pictures: dict[str, Callable[[], bytes]], epoch: int) -> None:
        pass
