"""The gradient check: the gradients of a device compared with those of the CPU."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import narrow_network
from torch import Tensor

from cifar100.compute.device import Compute, memory_format
from cifar100.config import Config
from cifar100.support.errors import UserError
from cifar100.train import train
from cifar100.training import gradient_check
from cifar100.training.gradient_check import check_gradients, compare_gradients

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gradients() -> dict[str, Tensor]:
    """The gradients of the CPU in fp32."""
    return gradient_check._gradients(Compute(CPU, "fp32", ""))


@pytest.fixture
def wrong_gradient(gradients: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes the gradient of one tensor 2 % too large on the device; returns the name of the tensor."""
    name = "layer3.0.bn1.weight"
    answers = iter([gradients, gradients | {name: gradients[name] * 1.02}])  # of the CPU, then of the device
    monkeypatch.setattr(gradient_check, "_gradients", lambda _: next(answers))
    return name


@pytest.mark.slow
def test_half_precision_is_within_its_tolerance(gradients: dict[str, Tensor]) -> None:
    halves = gradient_check._gradients(Compute(CPU, "fp16", ""))
    errors = [gradient_check._relative_error(halves[name], gradients[name]) for name in gradients]
    assert gradient_check.TOLERANCES["fp32"] < max(errors) < gradient_check.TOLERANCES["fp16"]


def test_memory_format_changes_only_rounding(gradients: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar100.compute.device.memory_format", lambda _: torch.contiguous_format)
    monkeypatch.setattr(gradient_check, "memory_format", lambda _: torch.contiguous_format)
    in_nchw = gradient_check._gradients(Compute(CPU, "fp32", ""))
    errors = [gradient_check._relative_error(in_nchw[name], gradients[name]) for name in gradients]
    assert 0 < max(errors) < 1e-3


def test_a_wrong_gradient_is_reported_by_tensor_name(wrong_gradient: str) -> None:
    with pytest.raises(UserError) as caught:
        check_gradients(Compute(CPU, "fp32", ""))
    assert caught.value.code == "device.gradients"
    for part in (wrong_gradient, torch.__version__, "2.0%", "newer PyTorch", "--device cpu"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nonfinite_gradient_has_the_largest_error(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.full((2,), value), "b": torch.zeros(2)}])
    monkeypatch.setattr(gradient_check, "_gradients", lambda _: next(answers))
    worst = compare_gradients(Compute(CPU, "fp32", ""))
    assert (worst.passed, worst.tensor_name, worst.relative_error) == (False, "a", float("inf"))


def test_an_operation_that_fails_on_the_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_compute: Compute) -> dict[str, Tensor]:
        raise RuntimeError("view size is not compatible with input tensor's size and stride\nmore")

    monkeypatch.setattr(gradient_check, "_gradients", fail)
    with pytest.raises(UserError) as caught:
        check_gradients(Compute(CPU, "fp32", ""))
    assert caught.value.code == "device.gradients"
    assert "view size is not compatible" in str(caught.value)


def test_the_global_random_state_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_check, "resnet18", lambda: narrow_network("resnet18", 100))
    before = torch.get_rng_state()
    gradient_check._gradients(Compute(CPU, "fp32", ""))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_on_an_apple_gpu_stops_before_anything_is_written(
    wrong_gradient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mps = Compute(torch.device("mps"), "fp32", "")
    monkeypatch.setattr(import_module("cifar100.training.setup"), "select_device", lambda *_, **__: mps)
    with pytest.raises(UserError, match=wrong_gradient):
        train(Config().replace(dataset="synthetic", run_dir=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("device", "expected"),
    [("mps", torch.contiguous_format), ("cuda", torch.channels_last), ("cpu", torch.channels_last)],
)
def test_memory_format_of_a_device(device: str, expected: torch.memory_format) -> None:
    assert memory_format(torch.device(device)) is expected
