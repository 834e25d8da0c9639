"""The real CIFAR-100: train, kill, resume, predict; accuracy of the bundled weights; duplicates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.checkpoints.weights import load_weights
from cifar100.compute.device import cpu_has_fast_bf16
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.evaluation.duplicates import CombinedSplits, duplicated_test_rows, exact_duplicates
from cifar100.inference import load_predictor

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def train_until(folder: Path, steps: int, number: signal.Signals, *words: str) -> str:
    """Train until last.pth has reached `steps`, then send the signal; returns the output."""
    command = [sys.executable, "-m", "cifar100", "train", "--run-dir", str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        if (folder / "last.pth").exists() and load_checkpoint(folder / "last.pth").loop["step"] >= steps:
            process.send_signal(number)
            break
    printed, _ = process.communicate(timeout=600)
    return printed


def test_train_kill_resume_and_predict(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = train_until(folder, 6, signal.SIGKILL, "--save-seconds=3", "--train-sizes=16", "--batch-size=32")
    assert "CIFAR-100 (verified): 50,000 train and 10,000 test images" in started
    first = load_checkpoint(folder / "last.pth")
    resumed = train_until(folder, first.loop["step"] + 6, signal.SIGTERM, "--resume")
    assert f"0 epochs and {first.loop['step']} steps done" in resumed
    assert "Stopped by SIGTERM" in resumed
    second = load_checkpoint(folder / "last.pth")
    assert second.loop["step"] >= first.loop["step"] + 6
    assert second.loop["seen"] == 32 * second.loop["step"]
    assert 4.0 < second.loop["loss_sum"] / second.loop["seen"] < 5.5, "initially near ln 100"

    test = load_dataset().test
    predictions = load_predictor(folder / "last.pth").predict_batch(test.images[::100], top_k=100)
    assert len(predictions) == 100
    assert all(sum(item.probability for item in ranked) == pytest.approx(1, abs=1e-6) for ranked in predictions)


@pytest.mark.parametrize("precision", ["fp32", "auto"] if cpu_has_fast_bf16() else ["auto"])
def test_bundled_weights_reach_their_stated_accuracy(precision: str) -> None:
    """With folded batch norms. On all test images if the CPU has fast bf16, else on every fifth."""
    predictor = load_predictor(precision=precision)
    every, tolerance = (1, 0.001) if cpu_has_fast_bf16() else (5, 0.02)
    test = load_dataset(Config().replace(data_dir=Path(os.environ["CIFAR100_DATA_DIR"]))).test
    images, labels = test.images[::every], test.labels[::every]
    batches = (images[start : start + 250] for start in range(0, len(images), 250))
    predicted = np.concatenate([predictor.backend.logits(batch).argmax(axis=1) for batch in batches])
    expected = load_weights("pretrained").evaluation["top1"]
    assert np.mean(predicted == labels) == pytest.approx(expected, abs=tolerance)


def test_ten_test_images_occur_in_train() -> None:
    rows = CombinedSplits(load_dataset())
    pairs = exact_duplicates(rows.images)
    across = [pair for pair in pairs if rows.location(pair) == "across"]
    assert len(across) == len(duplicated_test_rows(pairs, rows)) == 10
    assert sum(rows.labels_conflict(pair) for pair in across) == 6
