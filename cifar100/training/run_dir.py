"""A run's folder: one run at a time, and an earlier one moved aside, never overwritten."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write, remove_temp_files


class RunDir:
    """Use as a context: it holds the folder's lock, so that two runs never share one.

    Raises UserError where the folder cannot be written, or another run is using it.
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
            for path in (*self._figures(), *self._checkpoints()):
                remove_temp_files(path)
        except Timeout:
            raise UserError(f"Another run is using {self.path}; wait for it, or choose another --run-dir.") from None
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def checkpoint(self, epoch: int) -> Path:
        """Where the checkpoint of an epoch, counted from 1, is kept."""
        return self.path / f"checkpoint_epoch_{epoch}.pth"

    def logs(self) -> list[Path]:
        """The text logs of the run, the oldest first."""
        return sorted(self.path.glob("training_log_*.txt"))

    def new_log(self) -> Path:
        """The name for a log that begins now."""
        return self.path / f"training_log_{datetime.now():%Y%m%d_%H%M%S}.txt"

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Make a file of the folder hold these values as JSON, atomically."""
        atomic_write(path, json.dumps(values, indent=2) + "\n")

    def archive_previous_run(self) -> Path | None:
        """Move the files of the run that is here, if any, to previous/<timestamp>/; the new place, or None.

        Raises UserError where files of these names are no run's, or cannot be moved.
        """
        figures = [path for path in self._figures() if path.exists()]
        checkpoints = [path for path in self._checkpoints() if path.exists()]
        if not figures and not checkpoints:
            return None
        if not checkpoints and not self.logs():
            raise UserError(f"{self.path} holds {figures[0].name}, which is no run's; choose another --run-dir.")
        stamp = f"{datetime.now():%Y%m%d_%H%M%S}"
        try:
            target = self._new_folder(self.path / "previous", stamp)
            for path in (*figures, *checkpoints):  # last.pth comes last: killed before that, the run can still go on
                path.rename(target / path.name)
        except OSError as error:
            raise self._unwritable(error) from None
        return target

    def latest_checkpoint(self) -> tuple[Path, Checkpoint, list[str]]:
        """The file to go on from, what it holds, and a sentence for each one passed over because it is damaged.

        That is last.pth; where it is missing or damaged, the furthest of the others that can be read.
        Raises UserError where there is none.
        """
        complaints: list[str] = []
        if self.last.is_file():
            try:
                return self.last, load_checkpoint(self.last), complaints
            except UserError as error:
                complaints.append(str(error))
        elif self.path.is_dir():
            complaints.append("last.pth is missing.")
        readable = []
        for path in self._checkpoints():
            if path.is_file() and path != self.last:
                try:
                    checkpoint = load_checkpoint(path)
                except UserError as error:
                    complaints.append(str(error))
                    continue
                readable.append((checkpoint.loop.get("epoch", -1), checkpoint.loop.get("step", -1), path, checkpoint))
        if not readable:
            earlier = sorted((self.path / "previous").glob("*/last.pth"))
            hint = f" The run before it is in {earlier[-1].parent}." if earlier else ""
            reason = " ".join(complaints) if self.path.is_dir() else "There is no such folder."
            raise UserError(f"--resume: nothing to go on from in {self.path}. {reason}{hint}")
        _, _, path, checkpoint = max(readable, key=lambda item: item[:2])
        return path, checkpoint, complaints

    def _figures(self) -> list[Path]:
        """The run's files other than checkpoints, those that there may be."""
        named = [self.config, self.metrics_jsonl, self.metrics_csv, self.evaluation, self.curves]
        return [*named, self.report, self.tensorboard, self.tracker, *self.logs()]

    def _checkpoints(self) -> list[Path]:
        """The run's checkpoints, those that there may be, last.pth the last."""
        return [*self.path.glob("checkpoint_epoch_*.pth"), self.best, self.last]

    def _new_folder(self, above: Path, name: str) -> Path:
        for attempt in range(1, 1000):
            folder = above / (name if attempt == 1 else f"{name}_{attempt}")
            if not folder.exists():
                folder.mkdir(parents=True)
                return folder
        raise FileExistsError(17, "too many runs in one second")

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written ({error.strerror or error}); choose another --run-dir.")
