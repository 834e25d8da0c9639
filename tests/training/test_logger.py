"""Log lines and the progress bar, on a terminal and without one."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import printed_on_a_terminal

from cifar100.config import Config
from cifar100.support.files import FileInUse, atomic_write
from cifar100.training.logger import COLUMNS, Progress, RunLogger, duration, epoch_line
from cifar100.training.progress import current_progress, seconds_left
from cifar100.training.run import LoopState
from cifar100.training.run_dir import RunDir


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_an_epoch_without_evaluation_shows_only_training() -> None:
    row = {"epoch": 3, "train_loss": 2.0, "train_top1": 0.5, "split": None, "learning_rate": 0.1}
    row |= {"images_per_second": 1234.0, "elapsed_seconds": 61}
    line = epoch_line(row, 10)
    assert line == "Epoch   3/10 | train loss 2.0000 acc 50.00% | lr 0.10000 | 1,234 images/s | 1:01"


def test_time_left_is_shown_only_when_known() -> None:
    progress = Progress(
        epoch=1,
        epochs=2,
        step=3,
        steps=4,
        loss=1.0,
        top1=0.25,
        learning_rate=0.1,
        images_per_second=100.0,
        seconds_left=None,
    )
    assert "left" not in str(progress)
    assert "acc 25.00%" in str(progress)


@pytest.mark.parametrize(
    ("sizes", "seconds"),
    [((), (187, 187, 187)), ((16, 24, 32), (63, 117, 187)), ((32, 16), (187, 63, 63))],
    ids=["dataset size", "growing", "shrinking"],
)
def test_the_time_left_is_close_to_measured_epochs(sizes: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    """In the middle of the first of three epochs; seconds of epochs of the fast recipe on two CPU cores."""
    run: Any = SimpleNamespace(
        config=Config().replace(epochs=3, train_sizes=sizes),
        state=LoopState(step=20, seen=1, train_seconds=seconds[0] / 2),
        loader=range(40),
        dataset=SimpleNamespace(image_size=32),
    )
    assert seconds_left(run) == pytest.approx(sum(seconds) - seconds[0] / 2, rel=0.05)


@pytest.mark.parametrize(("steps", "timed", "is_shown"), [(1, 1, False), (1, 2, True), (40, 19, False), (40, 20, True)])
def test_the_time_left_is_estimated_after_twenty_steps_or_two_epochs(steps: int, timed: int, is_shown: bool) -> None:
    run: Any = SimpleNamespace(
        config=Config().replace(epochs=90),
        state=LoopState(epoch=2, step=1, seen=1, train_seconds=1.0),
        loader=range(steps),
        dataset=SimpleNamespace(image_size=32),
        global_step=2 * steps + 1,
        num_timed_steps=timed,
        sync_metrics=lambda: None,
    )
    assert (current_progress(run).seconds_left is not None) == is_shown


@pytest.mark.slow
def test_a_live_display_on_a_terminal(tiny_data: Path, tmp_path: Path) -> None:
    """The bar shows loss, accuracy, learning rate, images/s and, after twenty steps, the time left."""
    code = (
        "import narrow_cifar100 as narrow, cifar100.training.logger as logger;"
        "logger.PROGRESS_SECONDS = 0; narrow.narrow_training(); raise SystemExit(narrow.main())"
    )
    words = ["train", "--epochs", "1", "--batch-size", "2", "--lr", "0.01", "--warmup-epochs", "0", "--no-report"]
    words += ["--data-dir", str(tiny_data), "--run-dir", str(tmp_path / "run")]
    text = printed_on_a_terminal("-c", code, *words, columns=140)
    assert re.search(r"epoch 1/1 .* loss \d\.\d+  acc +\d+\.\d+%  lr 0\.\d+  \d+ images/s  \d+:\d\d left", text)
    assert "Epoch   1/1 | train loss" in text


def test_a_locked_metrics_file_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a spreadsheet does on Windows: the run must not end, and the missing rows are written with the next ones."""
    folder = RunDir(tmp_path)
    row = dict.fromkeys(COLUMNS, 1) | {"split": "test", "elapsed_seconds": 1.0}
    is_open = True

    def replace(path: Path, content: str) -> None:
        if is_open and path == folder.metrics_csv:
            raise FileInUse("output.write", "Permission denied")
        atomic_write(path, content)

    monkeypatch.setattr("cifar100.training.logger.atomic_write", replace)
    with RunLogger(folder, resume=False) as logger:
        logger.log_epoch([row], 3)
        logger.log_epoch([row, row], 3)
        assert not folder.metrics_csv.exists()
        is_open = False
        logger.log_epoch([row, row, row], 3)
    assert capsys.readouterr().out.count("metrics.csv is open in another program") == 1
    assert len(folder.metrics_csv.read_text().splitlines()) == 4
    assert len(folder.metrics_jsonl.read_text().splitlines()) == 3
