"""The training loop against its bare training step and a plain PyTorch loop; startup time and memory.

    python benchmarks/training_loop.py --data-dir DIR

The loop is `cifar100.train.train`, on the synthetic dataset, in its second epoch. The bare step is the same model,
optimizer and precision on one fixed batch: no data, augmentation, metrics or log. The plain loop is plain_loop.py, in
fp32 and in bf16 (autocast, channels_last). All take turns, so that other load affects all; ratios are computed per
turn. Writes benchmarks/results/training_loop.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from circumstances import circumstances, save_result
from torch.nn import functional as F

from cifar100.compute.device import memory_format, select_device
from cifar100.config import Config
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer
from cifar100.train import train

STEPS = 19  # as many as an epoch of the synthetic set has


def bare_images_per_second(batch_size: int) -> float:
    """Training throughput on one fixed batch."""
    config, compute = Config(), select_device()
    model = compute.prepare(resnet18())
    optimizer = build_optimizer(model, config.optim)
    images = torch.randn(batch_size, 3, 32, 32, device=compute.device)
    images = images.contiguous(memory_format=memory_format(compute.device))
    labels = torch.randint(100, (batch_size,), device=compute.device)

    def step() -> None:
        with compute.autocast():
            loss = F.cross_entropy(model(images).float(), labels, label_smoothing=config.optim.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()
    step()
    compute.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    compute.synchronize()
    return STEPS * batch_size / (time.perf_counter() - start)


def loop_images_per_second(folder: Path) -> float:
    """Training throughput of the second epoch of a real run."""
    config = Config().replace(dataset="synthetic", epochs=2, run_dir=folder, eval_every=2)
    return train(config).history[1]["images_per_second"]


def plain_images_per_second(precision: str) -> float:
    """Training throughput of the plain loop, in a new process."""
    command = [sys.executable, Path(__file__).with_name("plain_loop.py"), precision]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


SHORT_EPOCH = """
import json, resource, sys, time
from dataclasses import replace
from pathlib import Path
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.train import train

called = time.time()
data_dir, run_dir = map(Path, sys.argv[1:])
config = Config().replace(epochs=1, data_dir=data_dir, run_dir=run_dir, report=False)
dataset = load_dataset(config)
short = replace(dataset, train=dataset.train.take(range(30 * config.optim.batch_size)))
read_seconds = time.time() - called
train(config, dataset=short)
setup_seconds = json.loads((run_dir / "evaluation.json").read_text())["clock"]["ready_seconds"]
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"first_step": called + read_seconds + setup_seconds, "peak": peak}), file=sys.stderr)
"""


def start_and_memory(data_dir: Path, folder: Path) -> tuple[float, float]:
    """Seconds from the start of the process to the first step, and peak memory in MiB, of one epoch of 30 steps on
    the real dataset with evaluation and checkpoints."""
    began = time.time()
    command = [sys.executable, "-c", SHORT_EPOCH, str(data_dir), str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    figures = json.loads(lines[-1])
    return figures["first_step"] - began, figures["peak"] / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        starts = [start_and_memory(args.data_dir, Path(scratch) / "start") for _ in range(2)]
        turns = [
            {
                "loop": loop_images_per_second(Path(scratch) / f"run{number}"),
                "bare_step": bare_images_per_second(Config().optim.batch_size),
                "plain_loop_fp32": plain_images_per_second("fp32"),
                "plain_loop_bf16": plain_images_per_second("bf16"),
            }
            for number in range(args.turns)
        ]
    over_bare = [turn["loop"] / turn["bare_step"] for turn in turns]
    over_fp32 = [turn["loop"] / turn["plain_loop_fp32"] for turn in turns]
    over_bf16 = [turn["loop"] / turn["plain_loop_bf16"] for turn in turns]
    result = {
        "images_per_second": {name: [round(turn[name], 1) for turn in turns] for name in turns[0]},
        "loop_over_bare_step": [round(ratio, 3) for ratio in over_bare],
        "loop_over_bare_step_median": round(statistics.median(over_bare), 3),
        "loop_over_plain_loop_fp32": [round(ratio, 2) for ratio in over_fp32],
        "loop_over_plain_loop_fp32_median": round(statistics.median(over_fp32), 2),
        "loop_over_plain_loop_bf16": [round(ratio, 2) for ratio in over_bf16],
        "loop_over_plain_loop_bf16_median": round(statistics.median(over_bf16), 2),
        "seconds_to_first_step": [round(seconds, 2) for seconds, _ in starts],
        "peak_memory_mib": [round(peak) for _, peak in starts],
        "circumstances": circumstances() | {"compute": str(select_device()), "batch_size": Config().optim.batch_size},
    }
    save_result("training_loop.json", result)


if __name__ == "__main__":
    main()
