"""Selection of device and precision, on simulated hardware."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifar100.cli.main import main
from cifar100.compute import device
from cifar100.compute.device import Compute, is_out_of_memory, select_device
from cifar100.config import Config
from cifar100.optim.build import build_optimizer
from cifar100.optim.muon import newton_schulz_dtype
from cifar100.support.errors import UserError
from cifar100.training.step import TrainStep


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch):
    """Returns a function that simulates a machine with the given hardware."""

    def fake(*, cuda: bool = False, mps: bool = False, bf16_gpu: bool = True, amx: bool = False, avx: bool = False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16_gpu)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)

    return fake


@pytest.mark.parametrize(
    ("there", "device", "precision", "why"),
    [
        ({"cuda": True, "mps": True}, "cuda", "bf16", "this GPU supports bf16"),
        ({"cuda": True, "bf16_gpu": False}, "cuda", "fp16", "the loss is scaled"),
        ({"mps": True}, "mps", "fp32", "not measured on Apple GPUs"),
        ({"amx": True, "avx": True}, "cpu", "bf16", "AMX"),
        ({"avx": True}, "cpu", "bf16", "AVX512-BF16"),
        ({}, "cpu", "fp32", "no fast bf16"),
    ],
)
def test_auto_selects_the_best_device_and_precision(
    hardware, there: dict[str, bool], device: str, precision: str, why: str
) -> None:
    hardware(**there)
    compute = select_device()
    assert (compute.device.type, compute.precision) == (device, precision)
    assert why in compute.reason
    is_slow_bf16 = compute.precision == "fp16" or "no fast" in compute.reason
    assert newton_schulz_dtype(compute.device) == (torch.float32 if is_slow_bf16 else torch.bfloat16)


def test_use_mps_false_affects_only_auto(hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(mps=True)
    monkeypatch.setattr("cifar100.compute.device.USE_MPS", False)
    assert select_device().device.type == "cpu"
    assert select_device("mps").device.type == "mps"


def test_each_rank_has_its_own_gpu(hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert select_device().device == torch.device("cuda")
    assert [select_device(local_rank=rank).device for rank in (0, 1)] == [
        torch.device("cuda", 0),
        torch.device("cuda", 1),
    ]
    assert select_device("cuda", "fp32", local_rank=1).device == torch.device("cuda", 1)
    with pytest.raises(UserError, match="2 GPUs") as raised:
        select_device(local_rank=2)
    assert raised.value.code == "device.processes"
    assert select_device("cpu", "fp32", local_rank=2).device.type == "cpu"


def test_an_apple_gpu_supports_one_process_only(hardware) -> None:
    hardware(mps=True)
    assert select_device(local_rank=0).device.type == "cpu"
    with pytest.raises(UserError, match="--device mps") as raised:
        select_device("mps", local_rank=0)
    assert raised.value.code == "device.processes"


@pytest.mark.parametrize(
    ("there", "device", "precision", "code"),
    [
        ({}, "cuda", "auto", "device.absent"),
        ({}, "mps", "auto", "device.absent"),
        ({}, "tpu", "auto", "device.unknown"),
        ({}, "cpu", "fp8", "device.precision"),
        ({}, "cpu", "fp16", "device.precision"),
        ({"mps": True}, "mps", "bf16", ""),
        ({"amx": True}, "cpu", "fp32", ""),
    ],
)
def test_a_requested_device_or_precision_is_used_or_refused(
    hardware,
    there: dict[str, bool],
    device: str,
    precision: str,
    code: str,
) -> None:
    hardware(**there)
    if code:
        with pytest.raises(UserError) as caught:
            select_device(device, precision)
        assert caught.value.code == code
    else:
        compute = select_device(device, precision)
        assert (compute.device.type, compute.precision) == (device, precision)


@pytest.mark.parametrize(
    "flags",
    [
        "--device=mps --compile",
        "--device=auto --compile",
        "--device=cuda",
        "--device=tpu",
        "--device=cpu --precision=fp16",
    ],
)
def test_an_unavailable_device_exits_with_2_and_writes_nothing(
    hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    hardware(mps=True)
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["train", "--dataset=synthetic", "--run-dir=run", *flags.split()])
    except SystemExit as error:  # raised by tyro for an invalid choice
        code = error.code
    assert code == 2
    assert flags.rsplit(maxsplit=1)[-1].split("=", maxsplit=1)[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_network_computes_in_the_selected_precision(hardware) -> None:
    hardware(amx=True)
    layer = torch.nn.Linear(4, 4)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with select_device("cpu", precision).autocast():
            assert layer(torch.zeros(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_fp32_on_cuda_uses_no_tf32_in_either_pass(precision: str, allowed: bool) -> None:
    """The device is simulated: the step runs on the CPU, and hooks read the flag that cuDNN would use."""
    layer, config = torch.nn.Linear(12, 5), Config().optim
    model = torch.nn.Sequential(torch.nn.Flatten(), layer)
    step = TrainStep(model, build_optimizer(model, config), select_device("cpu", "fp32"), config)
    step.compute = Compute(torch.device("cuda"), precision, "faked")
    seen = {}
    layer.register_forward_hook(lambda *_: seen.update(forward=torch.backends.cudnn.allow_tf32))
    layer.weight.register_hook(lambda _: seen.update(backward=torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    step(torch.randn(4, 3, 2, 2), torch.arange(4), learning_rate=0.1, step_index=0)
    assert seen == {"forward": allowed, "backward": allowed}
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_malloc_keeps_freed_memory() -> None:
    """Freed memory is reused without new page faults."""
    # Eight tensors, as in a training step: glibc before 2.38 cannot reuse the chunk of a single aligned allocation
    # (bug 14581).
    code = """
import resource, torch
from cifar100.compute.device import disable_malloc_trim

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10 << 20) for _ in range(8)]  # 40 MiB each: glibc uses mmap for each block of 32 MiB or more
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(page_faults() for _ in range(6)), disable_malloc_trim(), min(page_faults() for _ in range(12)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, done, after = result.stdout.split()
    assert done == "True"
    assert int(after) < int(before) / 4, "pages may be huge"


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory of the events"), False),
    ],
)
def test_out_of_memory_is_recognized(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


def test_the_description_of_a_mac_names_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "processor_name", lambda: "Apple M3 Max")
    assert str(Compute(torch.device("mps"), "fp32", "the default")) == "mps (Apple M3 Max), fp32: the default"
