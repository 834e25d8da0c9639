"""The directory of a run: one run at a time; an earlier one is moved, never overwritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write, remove_temp_files


class RunDir:
    """The paths of a run's files. As a context manager, it creates the directory and holds its lock.

    Entering raises UserError if the directory cannot be written or another run is using it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pth"
        self.best = path / "best_model.pth"
        self.config = path / "config.json"
        self.metrics_jsonl = path / "metrics.jsonl"
        self.metrics_csv = path / "metrics.csv"
        self.evaluation = path / "evaluation.json"
        self.curves = path / "curves.png"
        self.report = path / "report"
        self.tensorboard = path / "tensorboard"
        self.tracker = path / "tracker.json"
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for path in (*self._other_files(), *self._checkpoints()):
                remove_temp_files(path)
        except Timeout:
            message = f"Another run is using {self.path}; wait for it, or choose another --run-dir."
            raise UserError("run_dir.locked", message) from None
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def checkpoint_path(self, epoch: int) -> Path:
        """The path of the checkpoint of an epoch, counted from 1."""
        return self.path / f"checkpoint_epoch_{epoch}.pth"

    def logs(self) -> list[Path]:
        """The text logs of the run, the oldest first."""
        return sorted(self.path.glob("training_log_*.txt"))

    def new_log_path(self) -> Path:
        """The path of a new log."""
        return self.path / f"training_log_{datetime.now():%Y%m%d_%H%M%S}.txt"

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Write these values as JSON, atomically."""
        atomic_write(path, json.dumps(values, indent=2) + "\n")

    def archive_previous_run(self) -> Path | None:
        """Move the files of the run in this directory, if any, to previous/<timestamp>/, and return that path.

        Raises UserError if files of these names do not belong to a run, or cannot be moved.
        """
        others = [path for path in self._other_files() if path.exists()]
        checkpoints = [path for path in self._checkpoints() if path.exists()]
        if not others and not checkpoints:
            return None
        if not checkpoints and not self.logs():
            message = f"{self.path} holds {others[0].name}, but not from a run; choose another --run-dir."
            raise UserError("run_dir.foreign", message)
        target = self.path / "previous" / f"{datetime.now():%Y%m%d_%H%M%S_%f}"
        corruptions = self.path / "corruptions.json"  # of `cifar100 robustness`, beside the weights that it is of
        try:
            target.mkdir(parents=True)
            _move_all([*others, *([corruptions] if corruptions.exists() else []), *checkpoints], target)
        except OSError as error:
            raise self._unwritable(error) from None
        return target

    def latest_checkpoint(self) -> tuple[Path, Checkpoint, list[str]]:
        """The file to resume from, its content, and a message for each file that was skipped because it is damaged.

        That is last.pth; if it is missing or damaged, the furthest of the others that can be read. Raises UserError if
        there is none.
        """
        skipped: list[str] = []
        if self.last.is_file():
            try:
                return self.last, load_checkpoint(self.last), skipped
            except UserError as error:
                skipped.append(str(error))
        elif self.path.is_dir():
            skipped.append("last.pth is missing.")
        furthest, found = (-1, -1), None
        for path in self._checkpoints():
            if path.is_file() and path != self.last:
                try:
                    checkpoint = load_checkpoint(path)
                except UserError as error:
                    skipped.append(str(error))
                    continue
                position = checkpoint.loop.get("epoch", -1), checkpoint.loop.get("step", -1)
                if found is None or position > furthest:  # only one is kept in memory
                    furthest, found = position, (path, checkpoint)
        if found is None:
            earlier = sorted((self.path / "previous").glob("*/last.pth"))
            hint = f" The previous run is in {earlier[-1].parent}." if earlier else ""
            reason = " ".join(skipped) if self.path.is_dir() else "There is no such directory."
            raise UserError("resume.no_checkpoint", f"--resume: nothing to resume from in {self.path}. {reason}{hint}")
        return *found, skipped

    def _other_files(self) -> list[Path]:
        """All possible files of a run other than checkpoints, config.json, which resuming needs, at the end."""
        named = [self.metrics_jsonl, self.metrics_csv, self.evaluation, self.curves, self.report, self.tensorboard]
        return [*named, self.tracker, *self.logs(), self.config]

    def _checkpoints(self) -> list[Path]:
        """All possible checkpoints of a run, last.pth at the end: the run can be resumed while it is there."""
        return [*self.path.glob("checkpoint_epoch_*.pth"), self.best, self.last]

    def _unwritable(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError("run_dir.write", f"{self.path} cannot be written ({reason}); choose another --run-dir.")


def _move_all(paths: Sequence[Path], target: Path) -> None:
    """Move files into an empty directory. If one cannot be moved, on Windows because another program has it open, move
    all back, remove the directory and raise the OSError."""
    moved: list[Path] = []
    try:
        for path in paths:
            path.rename(target / path.name)
            moved.append(path)
    except OSError:
        with suppress(OSError):
            for path in moved:
                (target / path.name).rename(path)
            target.rmdir()
        raise
