"""TensorBoard event files contain each step once, however often a run was stopped and resumed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_bytes import image_bytes
from PIL import Image

from cifar100.config import Config
from cifar100.support.errors import UserError
from cifar100.train import train
from cifar100.training import tensorboard
from cifar100.training.logger import COLUMNS
from cifar100.training.tensorboard import (
    SCALARS,
    TensorBoardLogger,
    require_tensorboard,
)


def rows(count: int) -> list[dict[str, Any]]:
    given = {"learning_rate": 0.1, "train_loss": 2.0, "train_top1": 0.5, "images_per_second": 100.0}
    return [dict.fromkeys(COLUMNS) | given | {"epoch": epoch, "top1": epoch / 10} for epoch in range(1, count + 1)]


def read(folder: Path) -> Any:
    """The events of a directory, as read by TensorBoard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in read(folder).Scalars(tag)]


def test_scalars_settings_and_images_are_written(tmp_path: Path) -> None:
    ours = TensorBoardLogger(tmp_path, {"lr": 0.1, "train_sizes": [16], "data_dir": "/somewhere"})
    for count in (1, 2, 3):
        ours.log_epoch(rows(count))
    ours.log_images({"confusion": lambda: image_bytes(Image.new("RGB", (5, 4), "teal"))}, 3)
    ours.close()
    found = read(tmp_path)
    assert [(event.step, round(event.value, 6)) for event in found.Scalars("evaluation/top1")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]
    assert "evaluation/loss" not in found.Tags()["scalars"], "a metric without a value must not be written"
    (image,) = found.Images("confusion")
    assert np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))[0, 0].tolist() == [0, 128, 128]
    session = str(found.summary_metadata["_hparams_/session_start_info"])
    assert "lr" in session
    assert "train_sizes" in session
    assert "somewhere" not in session


def test_resuming_from_an_earlier_checkpoint_leaves_each_step_once(tmp_path: Path) -> None:
    first = TensorBoardLogger(tmp_path, {})
    for count in range(1, 6):
        first.log_epoch(rows(count))  # never closed, as if the process was killed
    second = TensorBoardLogger(tmp_path, {})
    second.log_epoch(rows(3))
    second.log_epoch(rows(4))
    second.close()
    for tag in ("evaluation/top1", "train/loss"):
        assert steps(tmp_path, tag) == [1, 2, 3, 4]


def test_every_scalar_is_a_column_of_the_metrics() -> None:
    assert set(SCALARS.values()) <= set(COLUMNS)


def test_tensorboard_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "find_spec", lambda _name: None)
    require_tensorboard(Config())
    with pytest.raises(UserError, match=r"pip install 'cifar100\[tensorboard\]'") as raised:
        require_tensorboard(Config().replace(tensorboard=True))
    assert raised.value.code == "tensorboard.not_installed"


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_a_resumed_run_writes_each_step_once(tiny_data: Path, tmp_path: Path) -> None:
    where = {"data_dir": tiny_data, "run_dir": tmp_path / "run", "report": False, "tensorboard": True}
    config = Config().replace(epochs=3, batch_size=64, warmup_epochs=1, lr=0.02, **where)
    train(config.replace(stop_after=2))
    folder = train(config, resume=True).folder / "tensorboard"
    assert steps(folder, "evaluation/top1") == steps(folder, "train/loss") == [1, 2, 3]
    assert set(read(folder).Tags()["images"]) == {"confusion", "samples"}
