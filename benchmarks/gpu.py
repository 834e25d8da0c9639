"""Everything that is owed from a GPU, in one call; in pieces, each kept as it ends, so that a next call goes on.

    python benchmarks/gpu.py --data-dir DIR --out OUT --minutes 9

In order: throughput of the step by batch size, compiled or not; the baseline recipe; the fast recipe over five seeds,
with its seconds on the clock; its 14-epoch form. A piece whose file is in OUT is not run again; none is begun after
`--minutes`. The tables come last. `--device cpu --dry` tries the whole on tiny settings. What is found belongs under
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from circumstances import circumstances

from cifar100.config import Config
from cifar100.device import choose_compute
from cifar100.model import resnet18
from cifar100.optim import build_optimizer
from cifar100.recipes import recipe
from cifar100.step import TrainStep

FLOP_PER_IMAGE = 3 * 2 * 0.556e9  # forward and twice that backward, two operations a multiply-add, 32x32
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # bf16, dense, as their makers say
LONGER = {"epochs": 14, "train_sizes": (*[16] * 5, *[24] * 5, *[32] * 4)}


def throughput(device: str, *, dry: bool) -> dict[str, Any]:
    """Images a second of the fast recipe's step at 32 px, and the share of the chip's bf16 peak that this is (MFU)."""
    compute = choose_compute(device)
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in str(compute)), None)
    rows = []
    for compiled in (False, True):
        for batch_size in (64,) if dry else (512, 1024, 2048):
            for optimizer in ("sgd", "muon"):
                if compiled and dry:
                    continue
                config = recipe("fast").optim
                model = compute.place(resnet18())
                named = Config().replace(optimizer=optimizer, lr=config.lr, muon_lr=config.muon_lr).optim
                step = TrainStep(model, build_optimizer(model, named), compute, named, compiled=compiled)
                images = torch.randn(batch_size, 3, 32, 32, device=compute.device)
                labels = torch.randint(100, (batch_size,), device=compute.device)
                rounds = []
                for turn in range(4):
                    start, steps = time.perf_counter(), 2 if dry else 50
                    for number in range(steps):
                        step(images, labels, learning_rate=0.01, number=number)
                    compute.synchronize()
                    rounds += [steps * batch_size / (time.perf_counter() - start)] * (turn > 0)
                speed = statistics.median(rounds)
                mfu = None if peak is None else speed * FLOP_PER_IMAGE / peak
                rows.append({"compiled": compiled, "batch_size": batch_size, "optimizer": optimizer})
                rows[-1] |= {"images_per_second": speed, "rounds": rounds, "mfu": mfu}
    return {"compute": str(compute), "rows": rows}


def training(words: argparse.Namespace, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A training as its command would run it, in a process of its own; its figures and its clock."""
    folder = words.out / "runs" / name
    small = {"epochs": 2, "warmup_epochs": 1, "batch_size": 64, "train_sizes": (8, 16)}
    flags = {"device": words.device, "run_dir": folder, "eval_every": 10_000, "checkpoint_every": 0}
    flags |= {"save_seconds": 10_000} | settings | (small | {"dataset": "synthetic"} if words.dry else {})
    command = [sys.executable, "-m", "cifar100.cli", "train"]
    for key, value in flags.items():
        flag = f"--{key.replace('_', '-')}"
        values = value if isinstance(value, tuple) else (value,)
        command += [flag] if value is True else [flag, *map(str, values)]
    if not words.dry:
        command += ["--data-dir", str(words.data_dir)]
    subprocess.run(command, check=True)
    said = json.loads((folder / "evaluation.json").read_text())
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = said["clock"]["ready_seconds"] + said["clock"]["steps_seconds"]
    kept = {name: said[name] for name in ("top1", "top5", "superclass_top1", "loss", "clock", "settings", "versions")}
    return kept | {"clock_seconds": clock, "compute": said["compute"], "history": history}


def pieces(words: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is to be done, in order."""
    compiled = {} if words.dry else {"compile": True}
    todo: dict[str, Callable[[], dict[str, Any]]] = {
        "throughput": lambda: throughput(words.device, dry=words.dry),
        "baseline": lambda: training(words, "baseline", {"recipe": "baseline"} | compiled),
    }
    for seed in range(words.seeds):
        settings = {"recipe": "fast", "seed": seed} | compiled
        todo[f"fast_seed{seed}"] = lambda settings=settings, seed=seed: training(words, f"fast_seed{seed}", settings)
    todo["fast_14_epochs"] = lambda: training(words, "fast_14_epochs", {"recipe": "fast"} | LONGER | compiled)
    return todo


def main() -> None:
    """Do what is not done yet, then print all that is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)

    began, done = time.monotonic(), {}
    for name, work in pieces(words).items():
        kept = words.out / f"{name}.json"
        if not kept.exists() and time.monotonic() - began < 60 * words.minutes:
            result = work() | {"circumstances": circumstances()}
            kept.write_text(json.dumps(result, indent=2) + "\n")
        if kept.exists():
            done[name] = json.loads(kept.read_text())

    print(f"\n{'compiled':<10}{'batch':<8}{'optimizer':<11}{'images/s':>10}{'MFU':>8}")
    for row in done.get("throughput", {}).get("rows", []):
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        words_of_row = (str(row["compiled"]), row["batch_size"], row["optimizer"], row["images_per_second"], mfu)
        print("{:<10}{:<8}{:<11}{:>10,.0f}{:>8}".format(*words_of_row))
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
