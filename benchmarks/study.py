"""Ablation studies: settings over seeds, with means, standard deviations and paired differences.

    python benchmarks/study.py benchmarks/studies/few_images.json --data-dir DIR --out OUT --minutes 60

A study is a JSON file: "about", "settings" shared by all runs, "seeds", and "runs", {name: its own settings}. The
first run is the reference that the others are compared with, seed by seed. With "val_fraction" in the shared settings,
runs are evaluated on the validation split and the test set is not used; otherwise on the test set, in fp32. For
smaller datasets, "every": N keeps every N-th train image (rows are in order of the classes), "imbalance": N makes the
train split long-tailed, and "halved" halves the resolution. "width": N trains a network of N channels in the first
stage instead of ResNet-18's 64. A finished run is not repeated, an interrupted one is resumed, and none is started
after `--minutes`. On two cores, two processes with different `--seeds` and one thread each are faster than one.
Several processes started alike divide the runs among them. With `--cuda-graphs`, a step is one CUDA graph
(cuda_graph_step.py), and two or three processes keep a GPU busy instead of five.
Results: OUT/NAME_seedN.json.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circumstances import circumstances
from cuda_graph_step import CudaGraphStep

from cifar100.checkpoints import checkpoint
from cifar100.config import Config
from cifar100.dataset import Split, load_dataset
from cifar100.model import ResNet
from cifar100.recipes import recipe
from cifar100.train import train
from cifar100.training import setup

QUIET = {"eval_every": 100_000, "checkpoint_every": 0, "report": False}


def run_one(study: dict[str, Any], settings: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Train with these settings, or resume; None if training was interrupted."""
    wanted: dict[str, Any] = {"recipe": "baseline"} | settings
    name = wanted.pop("recipe")
    config = Config.from_flat(recipe(name, wanted.get("epochs")).flat() | QUIET | wanted | {"run_dir": str(folder)})
    dataset, halved = load_dataset(config), study.get("halved", False)
    train_split = long_tailed(dataset.train, study.get("imbalance", 1))
    train_split = subsample(train_split, study.get("every", 1), halved=halved)
    dataset = replace(dataset, train=train_split, test=subsample(dataset.test, 1, halved=halved))
    is_judged_on_val = bool(study["settings"].get("val_fraction"))
    resume = (folder / "last.pth").exists()
    result = train(config, recipe=name, resume=resume, dataset=dataset, finalize=not is_judged_on_val)
    if result.stopped_by:
        return None
    row, judged = result.history[-1], folder / "evaluation.json"
    if judged.exists():  # the last epoch in fp32, on the test set
        row |= {name: json.loads(judged.read_text())[name] for name in ("split", "loss", "top1", "top5")}
    figures = {name: row[name] for name in ("split", "top1", "top5", "loss", "train_loss", "train_top1")}
    seconds = sum(epoch["train_seconds"] for epoch in result.history)
    settings = {name: value for name, value in config.flat().items() if name not in ("data_dir", "run_dir")}
    return figures | {"train_seconds": seconds, "settings": settings, "threads": torch.get_num_threads()}


def file_stem(name: str, seed: int) -> str:
    """The name of a run's files."""
    return f"{re.sub(r'[^a-z0-9.-]+', '_', name)}_seed{seed}"


def narrow(width: int) -> None:
    """Train, save and load networks of this width instead of ResNet-18's 64 channels in the first stage."""
    setup.build_model = checkpoint.build_model = lambda _name, classes: ResNet((2, 2, 2, 2), classes, width)


def table(study: dict[str, Any], results: dict[tuple[str, int], dict[str, Any]]) -> str:
    """A line per run: n, mean and standard deviation of top-1 and of its paired difference to the first run."""
    first = next(iter(study["runs"]))
    lines = [f"{'run':<28}{'n':>3}{'top-1':>9}{'sd':>7}{'difference':>13}{'sd':>7}{'train loss':>12}{'minutes':>9}"]
    for name in study["runs"]:
        mine = {seed: result for (run, seed), result in results.items() if run == name}
        if not mine:
            continue
        top1 = [100 * result["top1"] for result in mine.values()]
        apart = [100 * (mine[s]["top1"] - results[first, s]["top1"]) for s in mine if (first, s) in results]
        line = f"{name:<28}{len(top1):>3}{statistics.mean(top1):>9.2f}{format_stdev(top1):>7}"
        line += f"{statistics.mean(apart):>+13.2f}{format_stdev(apart):>7}" if apart and name != first else " " * 20
        loss = statistics.mean(result["train_loss"] for result in mine.values())
        minutes = statistics.mean(result["train_seconds"] for result in mine.values()) / 60
        lines.append(f"{line}{loss:>12.3f}{minutes:>9.1f}")
    return "\n".join(lines)


def format_stdev(values: list[float]) -> str:
    """The standard deviation; "-" of fewer than two values."""
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def long_tailed(split: Split, imbalance: float) -> Split:
    """The first n * imbalance^(-c / (C - 1)) of the n images of class c (Cui et al. 2019, arXiv 1901.05555)."""
    if imbalance == 1:
        return split
    counts = np.bincount(split.labels)
    wanted = counts * imbalance ** -(np.arange(len(counts)) / (len(counts) - 1))
    rows = [np.flatnonzero(split.labels == label)[: int(wanted[label])] for label in range(len(counts))]
    kept = np.sort(np.concatenate(rows))
    return Split(split.images[kept], split.labels[kept], "")


def subsample(split: Split, every: int, *, halved: bool) -> Split:
    """Every `every`-th image of a split sorted by class; if `halved`, at half the resolution (2x2 average pooling)."""
    if every == 1 and not halved:
        return split
    pixels, labels = split.images[::every], split.labels[::every]
    if halved:
        count, side = len(pixels), pixels.shape[1] // 2
        pixels = pixels.reshape(count, side, 2, side, 2, 3).mean((2, 4), dtype=np.float32).round().astype(np.uint8)
    return Split(pixels, labels, "")


def main() -> None:
    """Run what is missing, and print a table after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay each step as one CUDA graph (Muon only)")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of the study's")
    parser.add_argument("--runs", nargs="+", help="only these of the study's, by name")
    args = parser.parse_args()
    study = json.loads(args.study.read_text())
    if "width" in study:
        narrow(study["width"])
    if args.cuda_graphs:
        setup.TrainStep = CudaGraphStep
    args.out.mkdir(parents=True, exist_ok=True)

    began, results, left = time.monotonic(), {}, []
    for seed in study["seeds"]:
        for name, settings in study["runs"].items():
            stem = file_stem(name, seed)
            kept = args.out / f"{stem}.json"
            asked = seed in (args.seeds or study["seeds"]) and name in (args.runs or study["runs"])
            if asked and not kept.exists() and time.monotonic() - began < 60 * args.minutes:
                shared = {"device": args.device, "data_dir": args.data_dir, "seed": seed} | study["settings"]
                try:
                    result = run_one(study, shared | settings, args.out / "runs" / stem)
                except Exception as error:  # the next call tries it again
                    print(f"{name}, seed {seed} failed: {type(error).__name__}: {error}", flush=True)
                else:
                    if result is None:
                        return
                    kept.write_text(json.dumps(result | {"circumstances": circumstances()}, indent=2) + "\n")
            if kept.exists():
                results[name, seed] = json.loads(kept.read_text())
                print(f"\n{table(study, results)}\n", flush=True)
            else:
                left.append(kept.stem)
    print(f"Left for the next call: {', '.join(left) or 'nothing'}")


if __name__ == "__main__":
    main()
