"""Tensors saved in one memory format are loaded in the memory format of the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import assert_identical, random_checkpoint, untrained
from torch import Tensor

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma
from cifar100.prediction.torch_backend import TorchBackend
from cifar100.training.resume import load_state
from cifar100.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("narrow_checkpoints")

CPU = Compute(torch.device("cpu"), "fp32", "")
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def in_format(tensors: dict[str, Tensor], memory_format: torch.memory_format) -> dict[str, Tensor]:
    return {
        name: tensor.contiguous(memory_format=memory_format) if tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize(("saved", "used"), [("NCHW", "channels_last"), ("channels_last", "NCHW")])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_run_resumes_in_the_memory_format_of_the_device(
    optimizer: str, saved: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config().replace(optimizer=optimizer, ema_decay=0.9).optim

    def started(name: str) -> TrainStep:
        monkeypatch.setattr("cifar100.compute.device.memory_format", lambda _: FORMATS[name])
        model = CPU.prepare(random_checkpoint().build())
        return TrainStep(model, build_optimizer(model, config), CPU, config, ema=ModelEma(model, 0.9))

    before, after = started(saved), started(used)
    before(torch.randn(4, 3, 8, 8), torch.arange(4), learning_rate=0.1, step_index=0)
    assert before.ema is not None
    assert after.ema is not None
    path = tmp_path / "last.pth"
    state = before.optimizer.state_dict()
    weights = {"weights": before.ema.model.state_dict(), "training_weights": before.model.state_dict()}
    untrained(optimizer=state, **weights).save(path)
    load_state(path, load_checkpoint(path), after.model, after)

    assert_identical(after.model.state_dict(), before.model.state_dict())
    assert_identical(after.ema.model.state_dict(), before.ema.model.state_dict())
    pairs = list(zip(before.model.parameters(), after.model.parameters(), strict=True))
    momenta = [(before.optimizer.state[old]["momentum_buffer"], after.optimizer.state[new]) for old, new in pairs]
    assert all(torch.equal(old, new["momentum_buffer"]) for old, new in momenta)
    for (_, weight), (_, state) in zip(pairs, momenta, strict=True):
        assert state["momentum_buffer"].stride() == weight.stride()
        assert weight.ndim < 4 or weight.is_contiguous(memory_format=FORMATS[used])
    assert all(
        tensor.is_contiguous(memory_format=FORMATS[used]) for tensor in after.ema.model.parameters() if tensor.ndim == 4
    )


@pytest.mark.parametrize("kind", ["checkpoint", "state dict", "safetensors"])
@pytest.mark.parametrize("saved", FORMATS)
def test_weights_load_from_either_memory_format(kind: str, saved: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    checkpoint.weights = in_format(checkpoint.weights, FORMATS[saved])
    path = tmp_path / ("best.safetensors" if kind == "safetensors" else "best.pth")
    if kind == "checkpoint":
        checkpoint.save(path)
    elif kind == "state dict":
        torch.save(checkpoint.weights, path)
    else:
        save_weights(checkpoint, path)
    loaded = load_weights(path)
    assert_identical(loaded.weights, random_checkpoint().weights)
    loaded.mean, loaded.std = checkpoint.mean, checkpoint.std  # a bare state dict has neither
    pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8).numpy()
    expected = TorchBackend(random_checkpoint(), CPU).logits(pixels)
    assert (TorchBackend(loaded, CPU).logits(pixels) == expected).all()
