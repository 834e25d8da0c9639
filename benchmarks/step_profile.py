"""The training step on the CPU: time by phase and by kind of operation, and its share of the speed of a matrix product.

    python benchmarks/step_profile.py

Batches of 128 with SGD and 500 with Muon, at the resolutions of the fast recipe, on fixed random images: no data,
augmentation or metrics. The phases and images/s are medians of five rounds without the profiler; kinds of operation
are given as parts of the profiler's self CPU time. TFLOP/s count the multiplications and additions of the convolutions,
in the forward pass and twice in the backward pass. Writes benchmarks/results/step_profile.json.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Any

import torch
from circumstances import FLOP_PER_IMAGE, circumstances, save_result
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from cifar100.compute.device import disable_malloc_trim, memory_format, select_device
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer
from cifar100.recipes import recipe

ROUNDS, STEPS = 5, 3

KINDS = {
    "convolution": ("convolution", "aten::mm"),  # mm: of im2col patches
    "batch norm": ("batch_norm",),
    "ReLU and additions": ("clamp_min", "threshold", "aten::add"),
    "copies": ("copy_", "fill_", "constant_pad"),
}


def step_profile(name: str, batch_size: int, size: int) -> dict[str, Any]:
    """Images/s, phases and kinds of operation of one recipe, batch size and resolution."""
    config, compute = recipe(name), select_device("cpu")
    torch.manual_seed(0)
    model = compute.prepare(resnet18())
    optimizer = build_optimizer(model, config.optim)
    images = torch.randn(batch_size, 3, size, size).contiguous(memory_format=memory_format(compute.device))
    labels = torch.randint(100, (batch_size,))
    phases: Counter[str] = Counter()

    def step() -> None:
        start = time.perf_counter()
        with compute.autocast():
            loss = F.cross_entropy(model(images).float(), labels, label_smoothing=config.optim.label_smoothing)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        phases.update({"forward": forward - start, "backward": backward - forward, "optimizer": end - backward})

    step()
    rounds = []
    for _ in range(ROUNDS):
        phases.clear()
        for _ in range(STEPS):
            step()
        rounds.append({phase: 1000 * seconds / STEPS for phase, seconds in phases.items()})
    milliseconds = {phase: round(statistics.median(one[phase] for one in rounds), 1) for phase in rounds[0]}
    rate = batch_size / statistics.median(sum(one.values()) / 1000 for one in rounds)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    kinds: Counter[str] = Counter()
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
        kinds[kind] += event.self_cpu_time_total
    return {
        "recipe": name,
        "batch_size": batch_size,
        "size": size,
        "images_per_second": round(rate, 1),
        "tflop_per_second": round(rate * FLOP_PER_IMAGE * (size / 32) ** 2 / 1e12, 3),
        "milliseconds": milliseconds,
        "parts_of_operations": {kind: round(kinds[kind] / kinds.total(), 3) for kind in (*KINDS, "other")},
    }


def product_tflop_per_second(side: int = 4096) -> float:
    """The speed of a square bf16 matrix product."""
    a, b = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(2 * ROUNDS):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return round(2 * side**3 / statistics.median(times) / 1e12, 3)


def main() -> None:
    disable_malloc_trim()
    settings = [("baseline", 128, 32), ("fast", 500, 16), ("fast", 500, 24), ("fast", 500, 32)]
    result = {
        "product_tflop_per_second": product_tflop_per_second(),
        "steps": [step_profile(*setting) for setting in settings],
        "threads": torch.get_num_threads(),
        "circumstances": circumstances(),
    }
    save_result("step_profile.json", result)


if __name__ == "__main__":
    main()
