"""How fast the two augmentation pipelines are: the batched ops on the device, and albumentations in 0, 1, 2 processes.

    python benchmarks/augmentation.py --data-dir DIR

Once alone, as images a second that a loader gives to one who only asks for more; and once under the training loop, on
the synthetic set, the second epoch's own figure. The variants take turns, so that the machine's moods fall on all.
Writes benchmarks/results/augmentation.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import albumentations
import cv2
from circumstances import RESULTS, circumstances

from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.device import choose_compute
from cifar100.train import train
from cifar100.utils import images_per_second, train_loader

VARIANTS: dict[str, dict[str, Any]] = {
    "batched": {"pipeline": "batched"},
    "albumentations, no workers": {"pipeline": "albumentations", "num_workers": 0},
    "albumentations, 1 worker": {"pipeline": "albumentations", "num_workers": 1},
    "albumentations, 2 workers": {"pipeline": "albumentations", "num_workers": 2},
}


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Of each variant, all figures in the order of the rounds, and their median."""
    figures = {name: [round(one[name], 1) for one in rounds] for name in rounds[0]}
    return {name: {"median": statistics.median(values), "rounds": values} for name, values in figures.items()}


def alone(data_dir: Path, rounds: int) -> dict[str, Any]:
    """Images a second of the loaders of the real training images."""
    dataset, device = load_dataset(Config().replace(data_dir=data_dir)), choose_compute().device
    assert dataset.is_verified, dataset
    with ExitStack() as stack:
        loaders = {}
        for name, settings in VARIANTS.items():
            loaders[name] = train_loader(dataset, Config().replace(**settings), device)
            stack.enter_context(closing(loaders[name]))
        return summary(
            [{name: images_per_second(loader, 3) for name, loader in loaders.items()} for _ in range(rounds)]
        )


def under_training(rounds: int) -> dict[str, Any]:
    """Images a second of the second epoch of a run on the synthetic set."""

    def speed(settings: dict[str, Any]) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            config = Config().replace(dataset="synthetic", epochs=2, eval_every=2, run_dir=Path(scratch) / "run")
            return train(config.replace(**settings)).history[1]["images_per_second"]

    return summary([{name: speed(settings) for name, settings in VARIANTS.items()} for _ in range(rounds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    libraries = {"albumentations": albumentations.__version__, "opencv": cv2.__version__}
    settings = {"compute": str(choose_compute()), "batch_size": Config().optim.batch_size}
    result = {
        "images_per_second": alone(args.data_dir, args.rounds),
        "training_images_per_second": under_training(args.rounds),
        "circumstances": circumstances() | libraries | settings,
    }
    (RESULTS / "augmentation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
