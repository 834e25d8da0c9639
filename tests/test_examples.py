"""The scripts and the notebook of examples/ run and give the expected results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.checkpoints.weights import load_weights
from cifar100.recipes import recipe
from cifar100.train import train

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "cifar100.ipynb"


def start(name: str, *words: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the process to succeed and return its output."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


@pytest.mark.slow
def test_minimal_reproduces_train(tiny_data: Path, tmp_path: Path) -> None:
    printed = finish(start("minimal.py", "--recipe", "fast", "--epochs", 2, "--data-dir", tiny_data, cwd=tmp_path))
    config = recipe("fast", 2).replace(data_dir=tiny_data, run_dir=tmp_path / "run", report=False)
    rows = train(config).history
    lines = [line for line in printed.splitlines() if line.startswith("epoch")]
    assert lines == [
        f"epoch {row['epoch']}/2  train loss {row['train_loss']:.4f}  test top-1 {row['top1']:.2%}" for row in rows
    ]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images of 16 pixels in each of three classes, red, green and blue."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_two_processes_share_one_study(photos: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    words = ["--trials", 4, "--epochs", 2, "--data-dir", photos, "--image-size", 16, "--batch-size", 8]
    both = [start("tune.py", *words, cwd=tmp_path) for _ in range(2)]
    printed = [finish(process) for process in both]
    study = optuna.load_study(study_name="cifar100", storage=f"sqlite:///{tmp_path / 'tuning' / 'tune.db'}")
    ended = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert 4 <= len(ended) <= 5, "each process finishes its current trial"
    assert len({trial.number for trial in ended}) == len(ended)
    assert all(0 <= value <= 1 for trial in ended for value in trial.intermediate_values.values())
    assert any(f"{study.best_value:.2%}" in text for text in printed), "the last process to end prints the best trial"

    assert f"{study.best_value:.2%}" in finish(start("tune.py", *words, cwd=tmp_path))
    assert not list((tmp_path / "tuning").rglob("evaluation.json")), "the test images are not used"
    again = optuna.load_study(study_name="cifar100", storage=f"sqlite:///{tmp_path / 'tuning' / 'tune.db'}")
    assert len(again.trials) == len(study.trials), "a complete study is not continued"


@pytest.mark.slow
def test_logit_adjustment_subtracts_the_log_class_priors(photos: Path, tmp_path: Path) -> None:
    for path in sorted((photos / "red").iterdir())[5:]:
        path.unlink()
    config = recipe("baseline").replace(
        data_dir=photos, image_size=16, cutout_size=8, epochs=1, warmup_epochs=0, batch_size=8
    )
    train(config.replace(run_dir=tmp_path / "run", report=False))
    given = tmp_path / "run" / "best_model.pth"
    finish(start("logit_adjustment.py", given, "adjusted.safetensors", "--data-dir", photos, cwd=tmp_path))
    before, after = load_checkpoint(given), load_weights(tmp_path / "adjusted.safetensors")
    assert before.classes == ["blue", "green", "red"]
    shares = torch.tensor([8, 8, 4]) / 20  # a fifth of each class is held out for testing
    assert torch.allclose(after.weights["fc.bias"], before.weights["fc.bias"] - shares.log())
    assert torch.equal(after.weights["fc.weight"], before.weights["fc.weight"])
    assert after.calibration is None


@pytest.mark.slow
def test_the_notebook_runs(tiny_data: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"epochs = 1\ndata_dir = {str(tiny_data)!r}\nphotos = ['none.jpg']"
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    images = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(images) == 3, "samples, curves, classes"
    made = {path.name for path in (tmp_path / "logs" / "notebook").rglob("*")}
    assert {"best_model.pth", "best_model.onnx", "index.html", "curves.png"} <= made


def test_the_notebook_is_stored_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    assert len(notebook.cells) <= 20
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


@pytest.mark.parametrize("path", [ROOT / "README.md", NOTEBOOK], ids=lambda path: path.name)
def test_the_colab_badge_links_to_an_existing_file(path: Path) -> None:
    badges = re.findall(r"colab\.research\.google\.com/github/[\w-]+/[\w-]+/blob/main/([\w./-]+)", path.read_text())
    assert badges
    assert all((ROOT / target).is_file() for target in badges)
