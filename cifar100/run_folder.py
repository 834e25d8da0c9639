"""A run's folder: one run at a time, and an earlier one moved aside, never overwritten."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cifar100.checkpoint import Checkpoint, load_checkpoint
from cifar100.errors import RunFailed, UserError


class RunFolder:
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
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for leftover in self.path.glob(".*.tmp"):  # of a run that was killed while it wrote
                leftover.unlink()
        except Timeout:
            raise UserError(f"Another run is using {self.path}; wait for it, or choose another --run-dir.") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); choose another --run-dir.") from None
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

    def move_previous(self) -> Path | None:
        """Move the files of the run that is here, if any, to previous/<timestamp>/; the new place, or None."""
        mine = [self.last, self.best, self.config, self.metrics_jsonl, self.metrics_csv, self.evaluation, self.curves]
        files = [path for path in mine if path.exists()] + self.logs()
        files += self.path.glob("checkpoint_epoch_*.pth")
        if not files:
            return None
        stamp = f"{datetime.now():%Y%m%d_%H%M%S}"
        target = self.path / "previous" / stamp
        for attempt in range(2, 100):
            if not target.exists():
                break
            target = target.with_name(f"{stamp}_{attempt}")
        target.mkdir(parents=True)
        for path in files:
            path.rename(target / path.name)
        return target

    @staticmethod
    def write(path: Path, text: str) -> None:
        """Make a file hold this text, atomically. Raises RunFailed where the disk refuses."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            temporary.replace(path)
        except OSError as error:
            raise RunFailed(f"{path} could not be written ({error.strerror}).") from error
        finally:
            temporary.unlink(missing_ok=True)

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Make a file of the folder hold these values as JSON, atomically."""
        self.write(path, json.dumps(values, indent=2) + "\n")

    def newest_checkpoint(self) -> tuple[Path, Checkpoint, list[str]]:
        """The file to go on from, what it holds, and a sentence for each one passed over because it is damaged.

        last.pth is the newest; where it is missing or damaged, the furthest of the others serves.
        Raises UserError where there is none that can be read.
        """
        complaints: list[str] = []
        if self.last.is_file():
            try:
                return self.last, load_checkpoint(self.last), complaints
            except UserError as error:
                complaints.append(str(error))
        readable = []
        for path in [*self.path.glob("checkpoint_epoch_*.pth"), self.best]:
            if path.is_file():
                try:
                    checkpoint = load_checkpoint(path)
                    readable.append((checkpoint.loop["epoch"], checkpoint.loop["step"], path, checkpoint))
                except UserError as error:
                    complaints.append(str(error))
        if not readable:
            detail = " ".join(complaints) or "No run was saved there."
            raise UserError(f"--resume: nothing to go on from in {self.path}. {detail}")
        _, _, path, checkpoint = max(readable, key=lambda item: item[:2])
        return path, checkpoint, complaints
