"""Throughput of both augmentation pipelines: batched on the device, and albumentations with 0, 1 and 2 workers.

    python benchmarks/augmentation.py --data-dir DIR
    python benchmarks/augmentation.py --data-dir DIR --policies     the batched pipeline with each policy

Images/s of the loader alone, and of the loader with the training step of the baseline. The variants take turns, so that
other load on the machine affects all. Writes benchmarks/results/augmentation.json, or augmentation_policies.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import albumentations
import cv2
from circumstances import circumstances, save_result

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import Compute, select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer
from cifar100.report.augmentation import images_per_second
from cifar100.support.stopwatch import Stopwatch
from cifar100.training.step import TrainStep

STEPS = 10

VARIANTS: dict[str, dict[str, Any]] = {
    "batched": {"pipeline": "batched"},
    "albumentations, no workers": {"pipeline": "albumentations", "num_workers": 0},
    "albumentations, 1 worker": {"pipeline": "albumentations", "num_workers": 1},
    "albumentations, 2 workers": {"pipeline": "albumentations", "num_workers": 2},
}

POLICIES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "TrivialAugment": {"policy": "trivial"},
    "RandAugment, 1 operation": {"policy": "rand", "rand_ops": 1},
    "RandAugment, 2 operations": {"policy": "rand"},
}


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """All rounds of each variant, and their median."""
    figures = {name: [round(one[name], 1) for one in rounds] for name in rounds[0]}
    return {name: {"median": statistics.median(values), "rounds": values} for name, values in figures.items()}


def training_step(compute: Compute) -> TrainStep:
    """The training step of the baseline, with initial weights."""
    config = Config()
    model = compute.prepare(resnet18())
    return TrainStep(model, build_optimizer(model, config.optim), compute, config.optim)


def trained_per_second(loader: TrainLoader, step: TrainStep, epoch: int) -> float:
    """Images/s of STEPS steps in the middle of an epoch."""
    batches = loader.epoch(epoch)
    for number in range(2):
        step(*next(batches), learning_rate=1e-3, step_index=number)
    step.loss_sum.item()  # waits for the device
    watch = Stopwatch()
    for number in range(STEPS):
        step(*next(batches), learning_rate=1e-3, step_index=number)
    step.loss_sum.item()
    return STEPS * loader.batch_size / watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", action="store_true")
    args = parser.parse_args()

    others = round(os.getloadavg()[0], 1)
    dataset, compute = load_dataset(Config().replace(data_dir=args.data_dir)), select_device()
    assert dataset.is_verified, dataset
    with ExitStack() as stack:
        loaders = {}
        for name, settings in (POLICIES if args.policies else VARIANTS).items():
            loaders[name] = TrainLoader.from_config(Config().replace(**settings), dataset.train, compute.device)
            stack.enter_context(closing(loaders[name]))
        step = None if args.policies else training_step(compute)
        alone, training = [], []
        for number in range(args.rounds):
            alone.append({name: images_per_second(loader, 3) for name, loader in loaders.items()})
            if step:
                training.append({name: trained_per_second(loader, step, number) for name, loader in loaders.items()})
            print(alone[-1], training[-1:], flush=True)

    libraries = {"albumentations": albumentations.__version__, "opencv": cv2.__version__}
    settings = {"compute": str(compute), "batch_size": Config().optim.batch_size, "load_before": others}
    result = {
        "images_per_second": summary(alone),
        "training_images_per_second": summary(training) if training else None,
        "circumstances": circumstances() | libraries | settings,
    }
    save_result(f"augmentation{'_policies' * args.policies}.json", result)


if __name__ == "__main__":
    main()
