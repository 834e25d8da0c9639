"""`cifar100 doctor`: its checks, and its estimates of training time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import narrow_network

from cifar100.cli.main import main
from cifar100.compute.device import select_device
from cifar100.recipes import RECIPES
from cifar100.training import doctor, gradient_check, timing
from cifar100.training.gradient_check import GradientCheck
from cifar100.training.timing import Speed, estimate_times, measure_training

SIZES = {"baseline": [32], "fast": [16, 24, 32], "best": [16, 24, 32], "finetune": [32]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Narrow networks, minimal batches, and no dataset."""
    monkeypatch.setattr(timing, "build_model", narrow_network)
    monkeypatch.setattr(timing, "MIN_BATCH_SIZE", 2)
    monkeypatch.setattr(doctor, "SECONDS_PER_MEASUREMENT", 0.01)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("small")
def test_doctor_reports_everything_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--device", "cpu", "--precision", "fp32", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["versions"].keys() == {"cifar100", "python", "torch", "numpy", "pillow", "os"}
    assert result["versions"]["torch"] == torch.__version__
    assert (result["device"], result["precision"]) == ("cpu", "fp32")
    assert result["reason"]
    assert result["devices"][-1]["device"] == "cpu"
    assert result["gradient_check"]["passed"] is True
    assert [(row["recipe"], row["image_size"]) for row in result["speeds"]] == [
        (name, size) for name in RECIPES for size in SIZES[name]
    ]
    assert all(row["images_per_second"] > 0 for row in result["speeds"])
    assert all(2 <= row["measured_batch_size"] <= row["batch_size"] for row in result["speeds"])
    assert {row["recipe"]: row["epochs"] for row in result["estimates"]} == {
        name: make().optim.epochs for name, make in RECIPES.items()
    }
    rates = {(row["recipe"], row["image_size"]): row["images_per_second"] for row in result["speeds"]}
    baseline = next(row for row in result["estimates"] if row["recipe"] == "baseline")
    assert baseline["train_seconds"] == pytest.approx(100 * 50_000 / rates["baseline", 32])
    assert result["advice"]["code"]
    assert printed.err.count("\n") == 10, "one progress line per measurement"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_doctor_reports_everything_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert torch.__version__ in text
    assert all(name in text for name in RECIPES)


def test_estimates_follow_the_image_sizes_of_each_recipe() -> None:
    rates = {16: 1000.0, 24: 500.0, 32: 250.0}
    speeds = [Speed(name, size, 128, 128, rates[size]) for name in RECIPES for size in SIZES[name]]
    found = {one.recipe: one for one in estimate_times(speeds, eval_images_per_second=1000.0)}
    assert found["fast"].train_seconds == pytest.approx(4 * 50 + 3 * 100 + 2 * 200)
    assert found["fast"].eval_seconds == pytest.approx(9 * 10)
    assert found["baseline"].train_seconds == pytest.approx(100 * 200)
    assert found["baseline"].eval_seconds == pytest.approx(100 * 10)


@pytest.mark.parametrize(
    ("call_seconds", "measured_batch_size"), [(10.0, 8), (0.001, 64)], ids=["slow machine", "fast machine"]
)
def test_a_full_batch_is_timed_only_on_a_fast_machine(
    call_seconds: float, measured_batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "build_model", narrow_network)
    monkeypatch.setattr(timing, "_seconds", lambda _run, _compute: call_seconds)
    speed = measure_training("finetune", 32, select_device("cpu", "fp32"), seconds=1.0, update_seconds=40.0)
    assert (speed.batch_size, speed.measured_batch_size) == (64, measured_batch_size)
    if measured_batch_size == 8:  # 8 images take 10 s, so 64 take 80 s, and the optimizer update takes 40 s
        assert speed.images_per_second == pytest.approx(64 / 120)


@pytest.mark.usefixtures("small")
def test_wrong_gradients_end_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = GradientCheck(passed=False, tensor_name="layer1.0.conv1.weight", relative_error=3.0, limit=0.4)
    monkeypatch.setattr(doctor, "compare_gradients", lambda _compute: found)
    assert main(["doctor", "--device", "cpu", "--precision", "bf16", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    check = result["gradient_check"]
    assert (check["passed"], check["tensor_name"], check["relative_error"]) == (False, "layer1.0.conv1.weight", 3.0)
    assert result["speeds"] == result["estimates"] == []


@pytest.mark.usefixtures("small")
def test_a_device_that_computes_no_gradients_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_compute: object) -> None:
        raise RuntimeError("view size is not compatible\nwith input tensor's size and stride")

    monkeypatch.setattr(gradient_check, "_gradients", fail)
    assert main(["doctor", "--device", "cpu", "--precision", "bf16"]) == 1
    assert "view size is not compatible" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("selected", "available", "cuda_build", "driver", "threads", "fast_bf16", "code"),
    [
        ("cuda", True, "13.0", True, 8, False, "none"),
        ("cpu", True, "13.0", True, 8, False, "gpu.unused"),
        ("cpu", False, None, True, 8, False, "gpu.cpu_build"),
        ("cpu", False, "13.0", True, 8, False, "gpu.driver"),
        ("cpu", False, None, False, 1, False, "cpu.threads"),
        ("cpu", False, None, False, 8, False, "cpu.no_fast_bf16"),
        ("cpu", False, None, False, 8, True, "cpu"),
    ],
)
def test_advice(
    selected: str,
    available: bool,
    cuda_build: str | None,
    driver: bool,
    threads: int,
    fast_bf16: bool,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda_build)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if driver else None)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor, "usable_cores", lambda: 8)
    monkeypatch.setattr(doctor, "cpu_has_fast_bf16", lambda: fast_bf16)
    advice = doctor.advise(selected)
    assert advice.code == code
    assert advice.text.endswith(".")
