"""The log of a run: console, text log, metrics files, TensorBoard and experiment tracker.

On a terminal the console is a live progress display (rich); elsewhere, plain lines.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cifar100.support.errors import RunFailed
from cifar100.support.files import FileInUse, atomic_write
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.text import duration, escape_lines
from cifar100.training.display import Display, EvalProgress, Progress, console_display
from cifar100.training.run_dir import RunDir
from cifar100.training.tensorboard import TensorBoardLogger
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
"""The metrics of an epoch. Accuracies lie in 0..1. `train_*` are means over the augmented images during training, with
the smoothed loss; the evaluation columns are over `split` at the end, and None if the epoch was not evaluated."""

PROGRESS_SECONDS = 0.5
"""Minimum time between two updates of the console, because each synchronizes with the device."""


def epoch_line(row: dict[str, Any], epochs: int, *, short: bool = False) -> str:
    """A row of metrics as one line of text; `short` fits 80 columns."""
    if short:
        parts = [f"Epoch {row['epoch']:>3}/{epochs}", f"train {row['train_loss']:.4g} {row['train_top1']:6.2%}"]
        if row["split"]:
            parts += [f"{row['split']} {row['loss']:.4g} {row['top1']:6.2%}", f"top-5 {row['top5']:6.2%}"]
        return "  ".join([*parts, duration(row["elapsed_seconds"])])
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


class Logger:
    """The log of a run; this one writes nothing, for ranks other than 0."""

    log_path = Path(os.devnull)
    progress_due = False

    def info(self, text: str) -> None:
        """Write a line to the console and, with the time, to the text log. Control characters are escaped."""

    def file_only(self, text: str) -> None:
        """Write a line to the text log. Raises RunFailed if it cannot be written."""

    def progress(self, progress: Progress | EvalProgress) -> None:
        """Show the state of the epoch or evaluation; console only."""

    def log_epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        """Write the last row of the history to all parts of the log."""

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write the metrics files with exactly these rows, and log them to TensorBoard and the tracker; also after
        resuming from an earlier checkpoint."""

    def log_images(self, images: dict[str, Callable[[], bytes]], epoch: int) -> None:
        """Send PNG images, by name, to TensorBoard; they are rendered only if it is on."""


class RunLogger(Logger):
    """Logs to the console, the text log, the metrics files, and `sinks`, which the caller closes. A context manager."""

    def __init__(self, run_dir: RunDir, *, resume: bool, sinks: Sequence[TensorBoardLogger | Tracker] = ()) -> None:
        self.run_dir = run_dir
        self.sinks = sinks
        self.display = console_display()
        self.in_use: set[Path] = set()  # metrics files that were reported
        self._progress_timer = Stopwatch(PROGRESS_SECONDS)
        logs = run_dir.logs()
        self.log_path = logs[-1] if resume and logs else run_dir.new_log_path()
        try:
            self.log = self.log_path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._console(lambda display: display.close())
        with suppress(OSError):  # a full disk has been reported
            self.log.close()

    @property
    def progress_due(self) -> bool:
        """Whether `progress` was not called for PROGRESS_SECONDS."""
        return self._progress_timer.seconds >= PROGRESS_SECONDS

    def info(self, text: str) -> None:
        text = escape_lines(text)
        self._console(lambda display: display.info(text))
        self.file_only(text)

    def file_only(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            self.log.writelines(f"{stamp} | {line}\n" for line in escape_lines(text).split("\n") if line)
            self.log.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def progress(self, progress: Progress | EvalProgress) -> None:
        self._console(lambda display: display.progress(progress))
        self._progress_timer.restart()

    def log_epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        line, short = epoch_line(history[-1], epochs), epoch_line(history[-1], epochs, short=True)
        self._console(lambda display: display.info(line if len(line) <= display.width else short))
        self.file_only(line)
        self.write_metrics(history)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        self._write(self.run_dir.metrics_jsonl, "".join(json.dumps(row) + "\n" for row in history))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(COLUMNS))
        writer.writeheader()
        writer.writerows(history)
        self._write(self.run_dir.metrics_csv, table.getvalue())
        for sink in self.sinks:
            sink.log_epoch(history)

    def log_images(self, images: dict[str, Callable[[], bytes]], epoch: int) -> None:
        for sink in self.sinks:
            if isinstance(sink, TensorBoardLogger):
                sink.log_images(images, epoch)

    def _unwritable(self, error: OSError) -> RunFailed:
        return RunFailed("log.write", f"{self.log_path} could not be written ({error.strerror}).")

    def _console(self, act: Callable[[Display], None]) -> None:
        """Show it on the console; a closed pipe or a lost terminal must not end a run."""
        try:
            act(self.display)
        except (OSError, ValueError):
            self.display = Display()

    def _write(self, path: Path, content: str) -> None:
        """Write a metrics file. One that another program holds open is reported once; a later epoch writes its rows."""
        try:
            atomic_write(path, content)
        except FileInUse:
            if path not in self.in_use:
                self.in_use.add(path)
                self.info(f"{path.name} is open in another program: its new rows are written once it is closed.")
