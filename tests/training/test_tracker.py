"""Experiment trackers: a killed and resumed run remains one run with each epoch once, also in Trackio's own store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

from cifar100.config import Config
from cifar100.support.errors import UserError
from cifar100.train import train
from cifar100.training import tracker
from cifar100.training.logger import COLUMNS
from cifar100.training.tracker import Tracker, require_tracker


def rows(count: int) -> list[dict[str, Any]]:
    given = {"learning_rate": 0.1, "train_loss": 2.0, "train_top1": 0.5, "images_per_second": 100.0}
    return [dict.fromkeys(COLUMNS) | given | {"epoch": epoch, "top1": epoch / 10} for epoch in range(1, count + 1)]


class Recorder:
    """A stand-in for wandb that records its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inits: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.ended = 0
        library = SimpleNamespace(init=lambda **words: self.inits.append(words), log=self.log, finish=self.finish)
        monkeypatch.setitem(sys.modules, "wandb", library)

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        assert None not in metrics.values()
        self.steps.append(step)

    def finish(self) -> None:
        self.ended += 1


def test_a_resumed_run_logs_each_epoch_once_under_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Recorder(monkeypatch)
    for counts in ((1, 2, 3), (3, 4)):  # killed in the fourth epoch, and resumed in the third
        mine = Tracker("wandb", tmp_path / "tracker.json", {"lr": 0.1, "data_dir": "/somewhere"}, resume=True)
        for count in counts:
            mine.log_epoch(rows(count))
        mine.close()
    assert seen.steps == [1, 2, 3, 4]
    assert seen.ended == 2
    first, second = seen.inits
    assert first == second
    assert first["id"] == first["name"]
    assert first["resume"] == "allow"
    assert first["config"] == {"lr": 0.1}, "local directories must not be uploaded"
    (tmp_path / "tracker.json").write_text('{"library": "wandb", "name": "earlier", "epochs": 9}')
    new = Tracker("wandb", tmp_path / "tracker.json", {}, resume=False)
    assert (new.name.startswith(f"{tmp_path.name}-"), new.logged) == (True, 0), "not the run that was there"


def test_a_tracker_that_does_not_start_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_words: object) -> None:
        raise RuntimeError("api_key not configured (no-tty)")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(UserError, match=r"api_key not configured.*wandb login") as caught:
        Tracker("wandb", tmp_path / "tracker.json", {}, resume=False)
    assert caught.value.code == "track.init"


@pytest.mark.usefixtures("narrow")
def test_a_tracker_is_closed_if_the_previous_run_cannot_be_archived(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorder(monkeypatch)
    monkeypatch.setattr(tracker, "find_spec", lambda _name: True)
    (tmp_path / "metrics.jsonl").write_text("not of a run")
    config = Config().replace(data_dir=tiny_data, run_dir=tmp_path, track="wandb", report=False, device="cpu")
    with pytest.raises(UserError) as caught:
        train(config)
    assert caught.value.code == "run_dir.foreign"
    assert (len(seen.inits), seen.ended) == (1, 1)


def test_a_missing_library_is_reported_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda _name: None)
    require_tracker(Config())
    with pytest.raises(UserError, match=r"pip install 'cifar100\[trackio\]'") as caught:
        require_tracker(Config().replace(track="trackio"))
    assert caught.value.code == "track.not_installed"


TRAIN = """
import sys
from pathlib import Path
from cifar100.config import Config
from cifar100.train import train
from narrow_cifar100 import narrow_training

narrow_training()
data, run, stop, resume = sys.argv[1:]
config = Config().replace(data_dir=Path(data), run_dir=Path(run), epochs=3, batch_size=64, warmup_epochs=1)
config = config.replace(report=False, track="trackio", stop_after=int(stop))
train(config, resume=bool(resume))
"""

READ = """
import json
from trackio.sqlite_storage import SQLiteStorage

(project,) = SQLiteStorage.get_projects()
runs = SQLiteStorage.get_runs(project)
print(json.dumps({run: SQLiteStorage.get_logs(project, run) for run in runs}))
"""


@pytest.mark.slow
def test_trackio_has_one_run_with_each_epoch_once(tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    env = os.environ | {"TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = str(ROOT / "tests")

    def run(code: str, *words: object) -> str:
        command = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(TRAIN, tiny_data, tmp_path / "run", 2, "")
    run(TRAIN, tiny_data, tmp_path / "run", 0, "yes")
    found = json.loads(run(READ).splitlines()[-1])
    ((name, logs),) = found.items()
    assert name.startswith("run-")
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["evaluation/top1"]) for row in logs] == [(row["epoch"], row["top1"]) for row in history]
    assert len(history) == 3
