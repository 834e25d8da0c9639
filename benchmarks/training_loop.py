"""The training loop against the bare step of its model and a plain PyTorch loop; its memory; its start.

    python benchmarks/training_loop.py --data-dir DIR

The loop is `cifar100.train.train` itself, on the synthetic set, the second epoch's own figure. The bare step is the
same model, optimizer and precision on one batch that never changes: no data, no augmentation, no sums, no journal.
The plain loop is plain_loop.py. The three take turns, so that the machine's moods fall on all; ratios are taken turn by
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
from circumstances import RESULTS, circumstances
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
    model = compute.place(resnet18())
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


def plain_images_per_second() -> float:
    """Training throughput of the plain loop, in a process of its own."""
    script = Path(__file__).with_name("plain_loop.py")
    return float(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout)


SHORT_EPOCH = """
import resource, sys, time
from itertools import islice
from cifar100.cli.main import main
from cifar100.augmentation.loader import TrainLoader
from cifar100.training.step import TrainStep

call, epoch = TrainStep.__call__, TrainLoader.epoch

def told(self, *args, **kwargs):
    call(self, *args, **kwargs)
    if kwargs["number"] == 0:
        print("first", time.time(), file=sys.stderr)

TrainStep.__call__ = told
TrainLoader.__len__ = lambda self: 30
TrainLoader.epoch = lambda self, number, first_step=0: islice(epoch(self, number, first_step), 30)
code = main(["train", "--epochs", "1", *sys.argv[1:]])
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, file=sys.stderr)
sys.exit(code)
"""


def start_and_memory(data_dir: Path, folder: Path) -> tuple[float, float]:
    """Of a run on the real data whose epoch is cut to thirty steps, with its evaluations and checkpoints: seconds from
    the command to the end of the first step, and peak memory in MiB."""
    began = time.time()
    command = [sys.executable, "-c", SHORT_EPOCH, "--data-dir", str(data_dir), "--run-dir", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    told = dict(line.split()[:2] for line in lines if line.startswith(("first", "peak")))
    return float(told["first"]) - began, int(told["peak"]) / 2**20


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
                "plain_loop": plain_images_per_second(),
            }
            for number in range(args.turns)
        ]
    over_bare = [turn["loop"] / turn["bare_step"] for turn in turns]
    over_plain = [turn["loop"] / turn["plain_loop"] for turn in turns]
    result = {
        "images_per_second": {name: [round(turn[name], 1) for turn in turns] for name in turns[0]},
        "loop_over_bare_step": [round(ratio, 3) for ratio in over_bare],
        "loop_over_bare_step_median": round(statistics.median(over_bare), 3),
        "loop_over_plain_loop": [round(ratio, 2) for ratio in over_plain],
        "loop_over_plain_loop_median": round(statistics.median(over_plain), 2),
        "seconds_to_first_step": [round(seconds, 2) for seconds, _ in starts],
        "peak_memory_mib": [round(peak) for _, peak in starts],
        "circumstances": circumstances() | {"compute": str(select_device()), "batch_size": Config().optim.batch_size},
    }
    (RESULTS / "training_loop.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
