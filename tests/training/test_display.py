"""Console output of a run: fits an 80-column terminal; its first and last lines."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
from own_images import photos
from rich.console import Console

from cifar100.cli.main import main
from cifar100.dataset import synthetic
from cifar100.training.display import EvalProgress, Progress, RichDisplay
from cifar100.training.logger import epoch_line

ROW = {
    "epoch": 100,
    "train_loss": 12.3456,
    "train_top1": 0.9999,
    "split": "test",
    "loss": 12.3456,
    "top1": 0.5,
    "top5": 1.0,
    "learning_rate": 0.1,
    "images_per_second": 12345.0,
    "elapsed_seconds": 36000.0,
}
STEP = Progress(
    epoch=12,
    epochs=100,
    step=377,
    steps=391,
    loss=4.613,
    top1=0.1156,
    learning_rate=0.0999,
    images_per_second=12345.0,
    seconds_left=36000.0,
)


def test_the_line_of_an_epoch_fits_80_columns() -> None:
    line = epoch_line(ROW, 100, short=True)
    assert len(line) <= 80
    assert all(figure in line for figure in ("100/100", "12.35", "99.99%", "50.00%", "100.00%", "10:00:00"))


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (STEP, ("epoch 12/100", "377/391", "loss 4.613", "acc 11.56%", "10:00:00 left")),
        (EvalProgress(split="test", done=500, total=10_000), ("evaluating", "500/10000", "test images")),
    ],
    ids=["training", "evaluation"],
)
def test_the_live_bar_shows_every_figure(width: int, state: Progress | EvalProgress, shown: tuple[str, ...]) -> None:
    display = RichDisplay()
    display.bar.live.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    display.progress(state)
    display.bar.stop()
    with display.bar.console.capture() as captured:
        display.bar.console.print(display.bar.get_renderable())
    (line,) = captured.get().splitlines()
    assert all(figure in line for figure in shown)


FLAGS = ["--epochs", "1", "--batch-size", "32", "--no-report", "--device", "cpu"]


@pytest.mark.usefixtures("narrow")
def test_the_next_command_works_after_training_on_synthetic_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must evaluate on the synthetic images again, neither downloading CIFAR-100 nor reading it from --data-dir."""
    monkeypatch.setattr(synthetic, "TRAIN_PER_CLASS", 1)
    monkeypatch.setattr(synthetic, "TEST_PER_CLASS", 1)
    monkeypatch.chdir(tmp_path)
    more = ["--data-dir", "elsewhere", "--run-dir", "my run"]
    assert main(["train", "--dataset", "synthetic", "--train-sizes", "8", *more, *FLAGS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("evaluated at 32 px" in line for line in lines), "training ends at 8 px"
    command = next(line for line in lines if line.startswith("Next")).split("|")[0]
    program, *words = shlex.split(command.removeprefix("Next"))
    assert program == "cifar100"
    assert main(words) == 0
    assert "test, 100 images" in capsys.readouterr().out


@pytest.mark.usefixtures("narrow")
def test_few_images_and_chance_accuracy_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random noise cannot be learned, and nine training images are few."""
    data, run = photos(tmp_path / "data", {"a": 4, "b": 4, "c": 4}), tmp_path / "run"
    flags = ["--data-dir", str(data), "--image-size", "24", "--run-dir", str(run), *FLAGS]
    assert main(["train", *flags]) == 0
    console = capsys.readouterr().out
    first, _, rest = console.partition("Epoch")
    assert "--recipe finetune" in first
    assert re.search(r"NO BETTER THAN CHANCE.*33.33%", rest)
    assert "momentum" not in console, "default settings belong in the log only"
    (log,) = run.glob("training_log_*.txt")
    assert "momentum 0.9" in log.read_text()
    assert len(first.splitlines()) <= 15
