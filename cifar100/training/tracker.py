"""Experiment trackers with the interface that wandb and Trackio share: `init`, `log`, `finish`."""

from __future__ import annotations

import json
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cifar100.config import Config
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.settings import without_local_paths
from cifar100.training.tensorboard import SCALARS

PROJECT = "cifar100"
LIBRARIES = {"trackio": "Trackio", "wandb": "Weights & Biases"}


class Tracker:
    """One run of a tracker. `state` is a file that keeps its name and the last epoch that was logged, so that a resumed
    run continues its own and logs no epoch twice. Raises UserError if the tracker cannot be started."""

    def __init__(self, library: str, state: Path, settings: dict[str, Any], *, resume: bool) -> None:
        self.library = library
        self.state = state
        new = f"{state.parent.name}-{time.strftime('%Y%m%d-%H%M%S')}", 0
        self.name, self.logged = (self._saved() if resume else None) or new
        shared = without_local_paths(settings)
        own = {"id": self.name} if library == "wandb" else {}  # wandb resumes by id, Trackio by name
        self.module = import_module(library)
        try:
            self.module.init(project=PROJECT, name=self.name, config=shared, resume="allow", **own)
        except Exception as error:  # whatever the library raises, such as wandb's UsageError without a login
            hint = "run `wandb login`, or set WANDB_MODE=offline" if library == "wandb" else "omit it to train without"
            raise UserError("track.init", f"--track {library} could not be started ({error}): {hint}.") from error

    def log_epoch(self, history: list[dict[str, Any]]) -> None:
        """Log the rows that were not logged yet."""
        for row in history:
            if row["epoch"] > self.logged:
                self.module.log(
                    {tag: row[column] for tag, column in SCALARS.items() if row[column] is not None}, step=row["epoch"]
                )
                self.logged = row["epoch"]
        state = {"library": self.library, "name": self.name, "epochs": self.logged}
        atomic_write(self.state, json.dumps(state) + "\n")

    def close(self) -> None:
        self.module.finish()

    def _saved(self) -> tuple[str, int] | None:
        """The name of the run in the tracker, and the last epoch that was logged there; None if there is none."""
        try:
            saved = json.loads(self.state.read_text(encoding="utf-8"))
            if saved["library"] == self.library:
                return str(saved["name"]), int(saved["epochs"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None  # the run had no tracker, or another one


def require_tracker(config: Config) -> None:
    """Raise UserError if a tracker is asked for and not installed."""
    library = config.run.track
    if library != "none" and find_spec(library) is None:
        raise UserError(
            "track.not_installed",
            f"--track {library} needs {LIBRARIES[library]}: pip install 'cifar100[{library}]'.",
        )
