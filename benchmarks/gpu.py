"""All GPU measurements in one resumable call; each result is saved as soon as it is complete.

    python benchmarks/gpu.py --data-dir DIR --out OUT --minutes 9

In order: training throughput, loader included, eager and compiled, by batch size and resolution; the baseline recipe;
the fast recipe with five seeds, with wall-clock seconds; the fast recipe with 14 epochs; the best recipe with 100
epochs and in full. A measurement whose file is in OUT is not repeated, an interrupted training is resumed, nothing is
started after `--minutes`, and a failure does not stop the others. Tables are printed at the end. `--eager` disables
torch.compile. Means over seeds and ablations are in study.py (studies/records.json, studies/best_without.json).
`--device cpu --dry` tests everything with tiny settings. If cifar100 is not installed, set PYTHONPATH=. The results
belong under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circumstances import circumstances
from torch import Tensor

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import Compute, select_device
from cifar100.dataset.base import Split
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep

FLOP_PER_IMAGE = 3 * 2 * 0.556e9  # forward plus backward (twice that), 2 FLOP per multiply-add, 32x32
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # bf16, dense, from the data sheets
LONGER = {"epochs": 14, "train_sizes": (*[16] * 5, *[24] * 5, *[32] * 4)}


def measured_steps(*, dry: bool) -> list[dict[str, Any]]:
    """Settings of the throughput measurements: mode of the step, batch size, resolution, optimizer."""
    batches = [(batch_size, 32, "sgd") for batch_size in (128, 256, 500, 768)]
    batches += [(500, 32, "muon"), (500, 16, "muon")]
    rows = [(way, *batch) for way in ("eager", "compiled") for batch in batches]
    rows += [("cuda graphs", batch_size, 32, "sgd") for batch_size in (128, 500)]
    rows = [("eager", 16, 32, "sgd"), ("eager", 16, 16, "muon")] if dry else rows
    return [dict(zip(("way", "batch_size", "side", "optimizer"), row, strict=True)) for row in rows]


def throughput(device: str, *, dry: bool) -> dict[str, Any]:
    """Images/s of training steps with the augmentation of the fast recipe, and the model FLOPs utilization (bf16).

    A row that fails contains the reason."""
    compute = select_device(device)
    rows = measured_steps(dry=dry)
    for row in rows:
        try:
            row |= speed(compute, **row, num_steps=2 if dry else 30)  # noqa: PLW2901
        except Exception as error:  # the other rows are still measured
            row["failed"] = f"{type(error).__name__}: {error}"[:400]
    return {"compute": str(compute), "rows": rows}


def speed(compute: Compute, *, way: str, batch_size: int, side: int, optimizer: str, num_steps: int) -> dict[str, Any]:
    """Images/s with the loader, of the step on one repeated batch, and of the CPU launching steps to an idle GPU.

    Medians of rounds after a warm-up, which compiles."""
    torch.compiler.reset()
    fast = recipe("fast")
    config = fast.replace(train_sizes=(side,), optimizer=optimizer)
    model = compute.prepare(resnet18()).train()
    built = build_optimizer(model, config.optim, fused=uses_fused_sgd(compute))
    step = TrainStep(model, built, compute, config.optim, compiled=way == "compiled")
    if way == "cuda graphs":
        step.forward = torch.compile(model, dynamic=False, mode="reduce-overhead")
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
        step(*batch, learning_rate=0.01, number=number)
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
        step(images, labels, learning_rate=0.01, number=number)
        count += len(labels)
    compute.synchronize()
    return count / (time.perf_counter() - start)


def training(words: argparse.Namespace, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run `cifar100 train` in a new process; its metrics and times."""
    folder = words.out / "runs" / name
    small = {"epochs": 2, "warmup_epochs": 1, "batch_size": 64, "train_sizes": (8, 16)}
    flags = {"device": words.device, "run_dir": folder, "eval_every": 10_000, "checkpoint_every": 0}
    flags |= {"save_seconds": 10_000, "no_report": True} | settings
    flags |= small | {"dataset": "synthetic"} if words.dry else {}
    command = [sys.executable, "-m", "cifar100", "train"]
    for key, value in flags.items():
        flag = f"--{key.replace('_', '-')}"
        values = value if isinstance(value, tuple) else (value,)
        command += [flag] if value is True else [flag, *map(str, values)]
    if not words.dry:
        command += ["--data-dir", str(words.data_dir)]
    if (folder / "last.pth").exists():
        command += ["--resume"]
    subprocess.run(command, check=True)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = evaluation["clock"]["ready_seconds"] + evaluation["clock"]["steps_seconds"]
    kept = {
        name: evaluation[name] for name in ("top1", "top5", "superclass_top1", "loss", "clock", "settings", "versions")
    }
    return kept | {"clock_seconds": clock, "compute": evaluation["compute"], "history": history}


def pieces(words: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """All measurements by name, in order."""
    compiled = {} if words.dry or words.eager else {"compile": True}
    todo: dict[str, Callable[[], dict[str, Any]]] = {
        "throughput": lambda: throughput(words.device, dry=words.dry),
        "baseline": lambda: training(words, "baseline", {"recipe": "baseline"} | compiled),
    }
    for seed in range(words.seeds):
        settings = {"recipe": "fast", "seed": seed} | compiled
        todo[f"fast_seed{seed}"] = lambda settings=settings, seed=seed: training(words, f"fast_seed{seed}", settings)
    todo["fast_14_epochs"] = lambda: training(words, "fast_14_epochs", {"recipe": "fast"} | LONGER | compiled)
    best = {"recipe": "best", "save_seconds": 60} | compiled
    todo["best_100_epochs"] = lambda: training(words, "best_100_epochs", best | {"epochs": 100})
    todo["best"] = lambda: training(words, "best", best)
    return todo


def main() -> None:
    """Run the missing measurements, then print all results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--dry", action="store_true")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(words.out / "inductor"))  # compile only once

    began, done = time.monotonic(), {}
    for name, work in pieces(words).items():
        kept = words.out / f"{name}.json"
        if not kept.exists() and time.monotonic() - began < 60 * words.minutes:
            try:
                result = work() | {"circumstances": circumstances()}
            except Exception as error:  # the next call tries it again
                print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
                continue
            kept.write_text(json.dumps(result, indent=2) + "\n")
        if kept.exists():
            done[name] = json.loads(kept.read_text())

    columns = f"{'images/s':>10}{'step alone':>12}{'CPU alone':>11}{'MFU':>8}"
    print(f"\n{'way':<13}{'batch':<7}{'side':<6}{'optimizer':<11}{columns}")
    for row in done.get("throughput", {}).get("rows", []):
        named = f"{row['way']:<13}{row['batch_size']:<7}{row['side']:<6}{row['optimizer']:<11}"
        if "failed" in row:
            print(f"{named}{row['failed'].splitlines()[0]}")
        else:
            mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
            rates = f"{row['images_per_second']:>10,.0f}{row['step_images_per_second']:>12,.0f}"
            print(f"{named}{rates}{row['issued_per_second']:>11,.0f}{mfu:>8}")
    print(f"\n{'run':<18}{'top-1':>8}{'clock, s':>10}{'warm-up, s':>12}")
    runs = {name: result for name, result in done.items() if "top1" in result}
    for name, run in runs.items():
        print(f"{name:<18}{run['top1']:>8.2%}{run['clock_seconds']:>10.2f}{run['clock']['warm_up_seconds']:>12.1f}")
    fast = [run for name, run in runs.items() if name.startswith("fast_seed")]
    if len(fast) > 1:
        top1, clocks = [run["top1"] for run in fast], [run["clock_seconds"] for run in fast]
        spread = statistics.stdev(top1)
        print(f"fast, n = {len(fast)}: {statistics.mean(top1):.2%} ± {spread:.2%}, {statistics.mean(clocks):.2f} s")
    left = [name for name in pieces(words) if name not in done]
    print(f"\nLeft for the next call: {', '.join(left) or 'nothing'}")


if __name__ == "__main__":
    main()
