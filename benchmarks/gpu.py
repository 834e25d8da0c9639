"""Throughput of training steps on a GPU, loader included: eager, compiled and with CUDA graphs, by batch size and side.

    python benchmarks/gpu.py --out FILE [--minutes 9] [--way eager]

The file is written after each measurement, and none is started after `--minutes`. Compiling takes up to a minute for
each shape. Trainings on a GPU are studies: benchmarks/study.py --device cuda. One training leaves most of a fast GPU
idle, because the CPU launches its kernels too slowly: start a study in four or five processes, which share its runs,
or in two or three with --cuda-graphs.
`--device cpu --dry` tests everything with tiny batches. If cifar100 is not installed, set PYTHONPATH=.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circumstances import FLOP_PER_IMAGE, circumstances
from cuda_graph_step import CudaGraphStep
from torch import Tensor

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import Compute, select_device
from cifar100.dataset.base import Split
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # bf16, dense, from the data sheets


def measured_steps(*, dry: bool) -> list[dict[str, Any]]:
    """Settings of the throughput measurements: mode of the step, batch size, resolution, optimizer."""
    batches = [(batch_size, 32, "sgd") for batch_size in (128, 256, 500, 768)]
    batches += [(500, 32, "muon"), (500, 16, "muon")]
    rows = [(way, *batch) for way in ("eager", "compiled") for batch in batches]
    rows += [("cuda graphs", 500, side, "muon") for side in (16, 24, 32)]
    rows = [("eager", 16, 32, "sgd"), ("eager", 16, 16, "muon")] if dry else rows
    return [dict(zip(("way", "batch_size", "side", "optimizer"), row, strict=True)) for row in rows]


def speed(compute: Compute, *, way: str, batch_size: int, side: int, optimizer: str, num_steps: int) -> dict[str, Any]:
    """Images/s with the loader, of the step on one repeated batch, and of the CPU launching steps to an idle GPU.

    Medians of rounds after a warm-up, which compiles."""
    torch.compiler.reset()
    fast = recipe("fast")
    config = fast.replace(train_sizes=(side,), optimizer=optimizer)
    model = compute.prepare(resnet18()).train()
    built = build_optimizer(model, config.optim, fused=uses_fused_sgd(compute))
    kind = CudaGraphStep if way == "cuda graphs" else TrainStep
    step = kind(model, built, compute, config.optim, compiled=way == "compiled")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (num_steps * batch_size, 32, 32, 3), dtype=np.uint8)
    split = Split(pixels, random.integers(0, 100, len(pixels)), "")
    loader = TrainLoader(split, config.augment, batch_size=batch_size, seed=0, device=compute.device, num_classes=100)
    with closing(loader):
        with_loader = [_images_per_second(step, loader.epoch(turn), compute) for turn in range(4)][1:]
        batch = next(loader.epoch(0))
        alone = [_images_per_second(step, [batch] * num_steps, compute) for _ in range(3)]
    issued = []
    for number in range(10):
        start = time.perf_counter()
        step(*batch, learning_rate=0.01, step_index=number)
        issued.append(batch_size / (time.perf_counter() - start))
        compute.synchronize()
    median, peak = statistics.median(with_loader), next((p for n, p in PEAK_FLOPS.items() if n in str(compute)), None)
    return {
        "images_per_second": median,
        "step_images_per_second": statistics.median(alone),
        "issued_per_second": statistics.median(issued),
        "rounds": with_loader,
        "mfu": None if peak is None else median * FLOP_PER_IMAGE * (side / 32) ** 2 / peak,
    }


def _images_per_second(step: TrainStep, batches: Iterable[tuple[Tensor, Tensor]], compute: Compute) -> float:
    count, start = 0, time.perf_counter()
    for number, (images, labels) in enumerate(batches):
        step(images, labels, learning_rate=0.01, step_index=number)
        count += len(labels)
    compute.synchronize()
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--way", nargs="+", default=["eager", "compiled", "cuda graphs"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()

    compute, began, rows = select_device(args.device), time.monotonic(), []
    torch.backends.cudnn.benchmark = True  # as in training
    rates = f"{'images/s':>10}{'step alone':>12}{'CPU alone':>11}{'MFU':>8}"
    print(f"{'way':<13}{'batch':<7}{'side':<6}{'optimizer':<11}{rates}")
    for row in measured_steps(dry=args.dry):
        if row["way"] not in args.way or time.monotonic() - began > 60 * args.minutes:
            continue
        try:
            result = row | speed(compute, **row, num_steps=2 if args.dry else 30)
        except Exception as error:  # the other rows are still measured
            result = row | {"failed": f"{type(error).__name__}: {error}"[:400]}
        rows.append(result)
        print(line(result), flush=True)
        content = {"compute": str(compute), "rows": rows, "circumstances": circumstances()}
        args.out.write_text(json.dumps(content, indent=2) + "\n")


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    named = f"{row['way']:<13}{row['batch_size']:<7}{row['side']:<6}{row['optimizer']:<11}"
    if "failed" in row:
        return named + row["failed"].splitlines()[0]
    mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
    rates = f"{row['images_per_second']:>10,.0f}{row['step_images_per_second']:>12,.0f}"
    return f"{named}{rates}{row['issued_per_second']:>11,.0f}{mfu:>8}"


if __name__ == "__main__":
    main()
