"""Fine-tuning the bundled weights on 50 images per class of CIFAR-10, against training from scratch.

    python benchmarks/finetune.py --data-dir DIR            (a directory with CIFAR-10)

The images are written as class folders, like custom images. All runs take the same steps on the same images; training
from scratch uses three learning rates. CIFAR-10's test images are evaluated once, after the last step. Writes
benchmarks/results/finetune.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from circumstances import circumstances, save_result
from PIL import Image

from cifar100.config import Config
from cifar100.dataset import Split, load_dataset
from cifar100.recipes import recipe
from cifar100.train import train

PER_CLASS = 50
STARTS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "scratch, lr 0.01": {"init_from": None},
    "scratch, lr 0.03": {"init_from": None, "lr": 0.03},
    "scratch, lr 0.1": {"init_from": None, "lr": 0.1},
}


def write_folders(split: Split, names: tuple[str, ...], rows: np.ndarray, folder: Path) -> None:
    """Write these rows as PNG files, one directory per class."""
    for row in rows:
        place = folder / names[split.labels[row]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[row]).save(place / f"{row}.png", compress_level=1)


def main() -> None:
    """Train every variant with every seed; print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=10_000)
    args = parser.parse_args()
    dataset = load_dataset(Config().replace(data_dir=args.data_dir))
    assert dataset.spec.name == "CIFAR-10", dataset

    results: dict[str, list[dict[str, float]]] = {name: [] for name in STARTS}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            folder, draw = Path(scratch) / "images", np.random.default_rng(seed)
            few = [draw.permutation(np.flatnonzero(dataset.train.labels == label))[:PER_CLASS] for label in range(10)]
            test = draw.permutation(len(dataset.test))[: args.test_images]
            write_folders(dataset.train, dataset.classes, np.concatenate(few), folder / "train")
            write_folders(dataset.test, dataset.classes, test, folder / "test")
            for name, settings in STARTS.items():
                config = recipe("finetune").replace(
                    data_dir=folder, run_dir=Path(scratch) / "run", seed=seed, eval_every=10_000, report=False
                )
                run = train(config.replace(**settings), recipe="finetune")
                seconds = sum(row["train_seconds"] for row in run.history)
                results[name].append({"seed": seed, "top1": run.history[-1]["top1"], "train_seconds": seconds})

    for name, runs in results.items():
        top1 = [run["top1"] for run in runs]
        spread = f" ± {stdev(top1):.2%}" if len(top1) > 1 else ""
        print(f"{name:<24}{mean(top1):.2%}{spread}   {mean(run['train_seconds'] for run in runs):.0f} s of steps")
    result = {"images_per_class": PER_CLASS, "test_images": args.test_images, "runs": results} | circumstances()
    save_result("finetune.json", result)


if __name__ == "__main__":
    main()
