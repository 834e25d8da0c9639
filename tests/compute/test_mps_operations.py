"""The operations that would run on an Apple GPU, recorded on a simulated "mps" device (see `device_recorder`).

`python tests/compute/test_mps_operations.py` prints the table of docs/devices.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import untrained, write_official
from device_recorder import MPS, Recording, mps_kernel, on_device, recorded
from narrow_cifar100 import narrow_training, small_network
from PIL import Image

from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.cli.main import main
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.dataset import Split
from cifar100.evaluation.corruptions import CORRUPTIONS, corrupt
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma, update_bn
from cifar100.training.background_save import BackgroundSave
from cifar100.training.step import TrainStep

COMPUTE = Compute(MPS, "fp32", "recorded")
BATCH_SIZE, NUM_IMAGES = 4, 10

INGREDIENTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "SGD without Nesterov momentum": {"nesterov": False},
    "Muon": {"optimizer": "muon", "lr": 0.3, "muon_lr": 0.06, "decay_norms": False},
    "EMA": {"ema_decay": 0.99},
    "RandAugment": {"policy": "rand"},
    "TrivialAugment": {"policy": "trivial"},
    "Mixup": {"mixup_probability": 0.5},
    "CutMix": {"cutmix_probability": 0.5},
    "alternating flip": {"alternating_flip": True},
    "train sizes 16 and 24": {"train_sizes": (16, 24)},
}
"""Training settings by scenario."""


def train_steps(settings: dict[str, Any]) -> Recording:
    """Two epochs of three steps, and the batch-norm statistics of the EMA weights."""
    config = Config().replace(batch_size=BATCH_SIZE, **settings)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), dtype=np.uint8)
    split = Split(images, np.arange(NUM_IMAGES), "")
    with recorded() as recording:
        loader = TrainLoader(split, config.augment, batch_size=BATCH_SIZE, seed=0, device=MPS, num_classes=100)
        model = COMPUTE.prepare(small_network()).train()
        ema = ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None
        optimizer = build_optimizer(model, config.optim)
        step = TrainStep(model, optimizer, COMPUTE, config.optim, ema=ema, loss_weight=loader.loss_weight)
        for epoch in range(2):
            batches = loader.epoch(epoch)
            batch = next(batches, None)  # this also copies the augmentation parameters of the epoch to the device
            with recording.step():
                while batch is not None:
                    step(*batch, learning_rate=0.01, step_index=recording.num_steps)
                    recording.num_steps += 1
                    batch = next(batches, None)
        assert step.first_nonfinite_step.item() == -1
        if ema is not None:
            update_bn(ema.model, (images for images, _ in loader.epoch(0)), COMPUTE)
    assert all(on_device(parameter) for parameter in model.parameters())
    return recording


def corrupt_images() -> Recording:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with recorded() as recording:
        for kind in CORRUPTIONS:
            for severity in (1, 3, 5):
                corrupt(torch.from_numpy(images).to(MPS), kind, severity, sample_ids=range(2))
    return recording


def run_command(*words: str | Path) -> Recording:
    with recorded() as recording:
        assert main([str(word) for word in words]) == 0
    return recording


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulates a Mac with a few images and narrow networks; returns its working directory."""
    fake_machine(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fake_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    narrow_training(monkeypatch.setattr)
    monkeypatch.setattr("cifar100.training.gradient_check.resnet18", small_network)


def commands(folder: Path, data: Path) -> dict[str, Callable[[], Recording]]:
    """The commands that use the device, in an order in which they can run."""
    train = ["train", f"--data-dir={data}", "--epochs=2", "--batch-size=64", "--no-report", "--ema-decay=0.9"]
    untrained(weights=small_network().state_dict(), config={"dataset": "synthetic"}).save(folder / "best.pth")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "image.png")

    def resume() -> Recording:
        main([*train, "--run-dir=moved", "--device=cpu", "--stop-after=1"])
        return run_command(*train, "--run-dir=moved", "--device=mps", "--resume")

    evaluate = ["evaluate", folder / "best.pth", f"--data-dir={data}", "--device=mps"]
    return {
        "train": lambda: run_command(*train, "--run-dir=run", "--device=mps"),
        "train --resume after epochs on the CPU": resume,
        "evaluate --tta 6": lambda: run_command(*evaluate, "--tta=6"),
        "predict --explain": lambda: run_command(
            "predict", folder / "image.png", f"--checkpoint={folder / 'best.pth'}", "--device=mps", "--explain=seen.png"
        ),
    }


def assert_runs_on_mps(recording: Recording) -> None:
    assert recording.operations
    missing = {name for name in recording.names() if mps_kernel(name) is None}
    assert not missing, "operations without an MPS kernel"
    for operation in recording.operations:
        tensors = (*operation.inputs, *operation.outputs)
        assert not any(tensor.dtype in (torch.float64, torch.complex128) for tensor in tensors), operation
        if operation.name == "native_batch_norm_backward":
            assert not any(tensor.is_channels_last for tensor in tensors), operation


FAST = {"baseline", "Muon", "RandAugment", "CutMix", "train sizes 16 and 24"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in INGREDIENTS]
)
def test_a_training_step_runs_on_mps_without_synchronization(name: str) -> None:
    recording = train_steps(INGREDIENTS[name])
    assert recording.num_steps == 6
    assert "native_batch_norm_backward" in recording.names()
    assert recording.synchronizations == []
    assert_runs_on_mps(recording)


@pytest.mark.slow
def test_corruptions_run_on_mps() -> None:
    assert_runs_on_mps(corrupt_images())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("train", marks=pytest.mark.slow),
        pytest.param("train --resume after epochs on the CPU", marks=pytest.mark.slow),
        pytest.param("evaluate --tta 6", marks=pytest.mark.slow),
        "predict --explain",
    ],
)
def test_commands_run_on_mps(name: str, machine: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = BackgroundSave.start

    def start_on_the_cpu(self: BackgroundSave, checkpoint: Checkpoint, path: Path) -> None:
        assert not any(map(on_device, checkpoint.weights.values())), "MPS in two threads can end the process"
        start(self, checkpoint, path)

    monkeypatch.setattr(BackgroundSave, "start", start_on_the_cpu)
    assert_runs_on_mps(commands(machine, tiny_data)[name]())


def test_the_recorder_detects_operations_and_synchronizations() -> None:
    with recorded() as recording:
        images = torch.randn(2, 3, 4, 4).to(MPS).contiguous(memory_format=torch.channels_last)
        norm = torch.nn.BatchNorm2d(3).to(MPS)
        with recording.step():
            norm(images).sum().backward()
            assert norm.weight.grad is not None
            float(norm.weight.grad.sum())
            torch.zeros(3).to(MPS)
        wide = norm.weight.double()
        assert wide.device == MPS
        with pytest.raises(RuntimeError, match="same device"):
            torch.add(norm.weight, torch.ones(3))
    assert recording.synchronizations == ["Tensor.__float__", "_local_scalar_dense", "copy to the device"]
    by_name = {operation.name: operation for operation in recording.operations}
    assert by_name["native_batch_norm_backward"].inputs[1].is_channels_last
    assert by_name["_to_copy"].outputs[0].dtype == torch.float64
    assert mps_kernel("_cudnn_rnn") is None


def _table() -> str:
    """The scenarios and their operations as a Markdown table."""
    from tempfile import TemporaryDirectory

    recordings: dict[str, Recording] = {}
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as scratch:
        for name, settings in INGREDIENTS.items():
            recordings[f"step: {name}"] = train_steps(settings)
        recordings["corruptions"] = corrupt_images()
        fake_machine(patch)
        patch.chdir(scratch)
        data = write_official(Path(scratch) / "data", train_per_class=2, test_per_class=1)
        recordings |= {name: run() for name, run in commands(Path(scratch), data).items()}
    rows = [
        f"| {name} | {len(recording.names())} | {sum(mps_kernel(one) is None for one in recording.names())} | "
        f"{len(recording.synchronizations) if recording.num_steps else '–'} |"
        for name, recording in recordings.items()
    ]
    every = set[str]().union(*(recording.names() for recording in recordings.values()))
    kernels = [mps_kernel(name) for name in every]
    rows.append(f"| **all** | **{len(every)}** | **{kernels.count(None)}** | **0** |")
    head = "| scenario | different operations | without an MPS kernel | synchronizations in steps |\n|---|---|---|---|"
    composite = (
        f"{kernels.count('MPS')} operations have a kernel of their own, {kernels.count('composite')} are composite."
    )
    return "\n".join((f"PyTorch {torch.__version__}:", "", head, *rows, "", composite))


if __name__ == "__main__":
    sys.stdout.write(f"\n\n{_table()}\n")
