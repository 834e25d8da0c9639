"""What one setting does for a short run, on images of 16 pixels: a stand-in for the fast recipe, a tenth of its cost.

    python benchmarks/levers.py --data-dir DIR NAME setting=value …

Four epochs of the real train images, scaled to 16 px, of which a tenth is held out and judged on: the test set has no
say. Appends a line to benchmarks/results/levers.jsonl. Noise is 0.7 points (a binomial standard deviation of 5,000).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circumstances import RESULTS, circumstances

from cifar100.config import Config
from cifar100.dataset import Dataset, Split

STAND_IN = {
    "epochs": 4,
    "batch_size": 256,
    "lr": 0.25,
    "warmup_epochs": 0.8,
    "schedule": "linear",
    "label_smoothing": 0.2,
    "decay_norms": False,
    "cutout_size": 0,
    "crop_padding": 2,
    "alternating_flip": True,
    "val_fraction": 0.1,
    "eval_every": 4,
    "checkpoint_every": 0,
}


def halved(split: Split) -> Split:
    """The images at half their side, each pixel the mean of four."""
    pixels = split.images.reshape(len(split), 16, 2, 16, 2, 3).astype(np.float32).mean((2, 4))
    return Split(pixels.round().astype(np.uint8), split.labels, split.fingerprint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("name")
    parser.add_argument("settings", nargs="*", help="setting=value, the value as JSON")
    args = parser.parse_args()
    settings = {}
    for word in args.settings:
        key, _, value = word.partition("=")
        settings[key] = json.loads(value) if value[0] in "0123456789-tf[" else value

    module: Any = import_module("cifar100.train")
    load = module.load_dataset

    def load_halved(*words: object, **options: object) -> Dataset:
        dataset = load(*words, **options)
        return replace(dataset, train=halved(dataset.train), test=halved(dataset.test))

    module.load_dataset = load_halved
    with tempfile.TemporaryDirectory() as folder:
        config = Config().replace(**(STAND_IN | settings), data_dir=args.data_dir, run_dir=Path(folder))
        row = module.train(config).history[-1]
    figures = {name: row[name] for name in ("top1", "top5", "loss", "train_loss", "images_per_second")}
    told = {"name": args.name, "settings": settings} | figures | {"threads": torch.get_num_threads()} | circumstances()
    with (RESULTS / "levers.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
