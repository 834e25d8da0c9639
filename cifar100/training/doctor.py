"""What `cifar100 doctor` reports: versions, devices, correct gradients, the speed of training, and the time that each
recipe would take on this machine. Needs no dataset."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from cifar100.checkpoints.checkpoint import versions
from cifar100.compute.device import Compute, cpu_has_fast_bf16, disable_malloc_trim
from cifar100.support.machine import describe_machine, usable_cores
from cifar100.support.terminal import Say
from cifar100.support.text import duration
from cifar100.training.gradient_check import GradientCheck, compare_gradients
from cifar100.training.timing import (
    IMAGE_SIZE,
    Estimate,
    Speed,
    estimate_times,
    image_sizes_by_recipe,
    measure_evaluation,
    measure_muon,
    measure_training,
)

SECONDS_PER_MEASUREMENT = 4.0


@dataclass(frozen=True)
class Advice:
    """What would make training faster; `code` stays the same if the sentence is reworded."""

    code: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """All that doctor reports. Without correct gradients there are no speeds and no estimates."""

    versions: dict[str, str]
    devices: list[dict[str, Any]]
    device: str
    precision: str
    reason: str
    gradient_check: GradientCheck
    speeds: list[Speed]
    eval_images_per_second: float
    estimates: list[Estimate]
    advice: Advice


def diagnose(compute: Compute, say: Say) -> Diagnosis:
    """Examine this machine with `compute`; `say` is called with what is about to be done."""
    say("checking gradients")
    is_reference = compute.device.type == "cpu" and compute.precision == "fp32"
    check = GradientCheck(passed=True) if is_reference else compare_gradients(compute)
    speeds, eval_rate = [], 0.0
    if check.passed:
        if compute.device.type == "cpu":
            disable_malloc_trim()
        torch.backends.cudnn.benchmark = compute.device.type == "cuda"  # as in training
        for name, sizes in image_sizes_by_recipe().items():
            update_seconds = measure_muon(name, compute)
            for size in sizes:
                say(f"timing {name} at {size} px")
                speeds.append(measure_training(name, size, compute, SECONDS_PER_MEASUREMENT, update_seconds))
        say("timing evaluation")
        eval_rate = measure_evaluation(compute, SECONDS_PER_MEASUREMENT)
    return Diagnosis(
        versions=versions() | {"numpy": np.__version__, "pillow": version("pillow"), "os": platform.platform()},
        devices=_devices(),
        device=str(compute.device),
        precision=compute.precision,
        reason=compute.reason,
        gradient_check=check,
        speeds=speeds,
        eval_images_per_second=eval_rate,
        estimates=estimate_times(speeds, eval_rate) if check.passed else [],
        advice=advise(compute.device.type),
    )


def advise(selected: str) -> Advice:
    """One sentence on what would make training on the selected kind of device faster."""
    if selected != "cuda":
        if torch.cuda.is_available():
            return Advice("gpu.unused", "This machine's NVIDIA GPU is not used: give --device cuda.")
        if shutil.which("nvidia-smi") and torch.version.cuda is None:
            text = "An NVIDIA driver is installed, but this PyTorch is a CPU build: install a CUDA build (pytorch.org)."
            return Advice("gpu.cpu_build", text)
        if shutil.which("nvidia-smi"):
            text = (
                f"An NVIDIA driver is installed, but PyTorch finds no GPU: CUDA {torch.version.cuda} may need a newer "
            )
            return Advice("gpu.driver", text + "driver, or $CUDA_VISIBLE_DEVICES hides the GPU.")
    if selected == "cpu":
        return _advise_cpu()
    return Advice("none", "The fastest device that this machine offers is used.")


def _advise_cpu() -> Advice:
    if torch.backends.mps.is_available():
        return Advice("gpu.unused", "This Mac's GPU is not used: give --device mps.")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Advice("gpu.mps", "PyTorch cannot use this Mac's GPU: update macOS, and install a newer PyTorch.")
    if torch.get_num_threads() < usable_cores() // 2:
        text = f"PyTorch uses {torch.get_num_threads()} thread(s) on {usable_cores()} cores: unset OMP_NUM_THREADS."
        return Advice("cpu.threads", text)
    if not cpu_has_fast_bf16():
        text = "This CPU has no fast bf16 (AMX or AVX512-BF16): a CPU that has it, or a GPU, trains many times faster."
        return Advice("cpu.no_fast_bf16", text)
    return Advice("cpu", "A GPU would train faster.")


def report(diagnosis: Diagnosis) -> str:
    """The diagnosis as text."""
    names = {"cifar100": "cifar100", "python": "Python", "torch": "PyTorch", "numpy": "numpy", "pillow": "Pillow"}
    found = ", ".join(f"{names[name]} {diagnosis.versions[name]}" for name in names)
    lines = [f"versions    {found}", f"            {diagnosis.versions['os']}"]
    for index, device in enumerate(diagnosis.devices):
        details = [f"{key} {value}" for key, value in device.items() if key not in ("device", "name")]
        lines.append(
            f"{'devices' if index == 0 else '':<12}{device['device']}: {', '.join([device['name'], *details])}"
        )
    lines.append(f"selected    {diagnosis.device}, {diagnosis.precision}: {diagnosis.reason}")
    lines.append(f"gradients   {_gradient_line(diagnosis.gradient_check)}")
    if diagnosis.speeds:
        lines += ["", f"{'training step':<16}{'image size':>10}{'batch size':>12}{'images/s':>11}"]
        for speed in diagnosis.speeds:
            row = f"{speed.recipe:<16}{speed.image_size:>7} px{speed.batch_size:>12}{speed.images_per_second:>11,.1f}"
            smaller = speed.measured_batch_size < speed.batch_size
            lines.append(row + (f"  (from batches of {speed.measured_batch_size})" if smaller else ""))
        lines.append(f"{'evaluation':<16}{IMAGE_SIZE:>7} px{'':>12}{diagnosis.eval_images_per_second:>11,.1f}")
        lines += ["", f"{'recipe':<16}{'epochs':>10}{'expected time for 50,000 training images':>46}"]
        for one in diagnosis.estimates:
            times = f"{duration(one.train_seconds)} + {duration(one.eval_seconds)} of evaluation"
            lines.append(f"{one.recipe:<16}{one.epochs:>10}{times:>46}")
    return "\n".join([*lines, "", f"faster      {diagnosis.advice.text}"])


def _gradient_line(check: GradientCheck) -> str:
    if check.error:
        return (
            f"FAILED: PyTorch cannot compute them on this device ({check.error}). Use a newer PyTorch, or --device cpu."
        )
    if not check.tensor_name:
        return "not compared: the CPU in fp32 is what other devices are compared with"
    verdict = "correct" if check.passed else "WRONG: use a newer PyTorch, or --device cpu"
    deviation = f"{check.tensor_name} deviates most from the CPU's in fp32, by {check.relative_error:.2%}"
    return f"{verdict}; {deviation} of its norm (limit {check.limit:.0%})"


def _devices() -> list[dict[str, Any]]:
    """The devices that PyTorch can use, the CPU last."""
    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gib = round(properties.total_memory / 2**30)
            found.append({"device": f"cuda:{index}", "name": properties.name, "memory_gib": gib})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": describe_machine()})
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    return [*found, {"device": "cpu", "name": describe_machine(), "threads": threads, "instructions": instructions}]
