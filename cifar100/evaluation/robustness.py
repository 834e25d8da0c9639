"""What a model still knows of spoiled pictures: its error for each kind of corruption and severity.

`cifar100 evaluate CHECKPOINT --corruptions` goes through the 75 cells (fifteen kinds, five severities) and keeps what
it finds in `corruptions.json` beside the weights, cell by cell, so that it can be stopped and gone on with:

    {"format": "cifar100-corruptions", "version": 1,
     "evaluations": [
       {"weights": "best_model.pth",         the file beside which this one lies
        "sha256": "9f…",                     of the weights themselves: `state_dict_sha256`
        "source": "computed",                or "published": the files of CIFAR-100-C
        "dataset": "CIFAR-100", "fingerprint": "…",       of the test split
        "images": 10000, "seed": 0, "precision": "fp32", "image_size": 32,
        "compute": "cpu (…)", "versions": {…},
        "clean": {"top1": 0.7599, "top5": 0.9406, "loss": 0.97, "seconds": 33.1},
        "cells": [{"kind": "gaussian_noise", "severity": 1, "top1": …, "top5": …, "loss": …, "seconds": …}, …],
        "mean_corruption_error": 0.41}]}     null until all cells are there

An evaluation is gone on with where all fields up to "image_size" are the same. The mean corruption error is the mean of
1 - top1 over all cells, a share in 0..1. It is not divided by the errors of AlexNet, as Hendrycks & Dietterich 2019
(https://arxiv.org/abs/1903.12261) do for ImageNet-C; for CIFAR-C others give it as it is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.checkpoints.hub import is_hub_address
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.compute.device import Compute
from cifar100.config import AugmentConfig
from cifar100.dataset import Dataset
from cifar100.evaluation import metrics
from cifar100.evaluation.corruptions import KINDS, SEVERITIES, corrupt
from cifar100.evaluation.evaluate import BATCH_SIZE, predict_logits
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.terminal import emit
from cifar100.support.text import duration

FORMAT, VERSION = "cifar100-corruptions", 1
CELLS = [(kind, severity) for kind in KINDS for severity in SEVERITIES]
PUBLISHED_IMAGES = 10_000
"""Of each cell of CIFAR-100-C."""

Identity = dict[str, Any]
"""What must be the same for an evaluation to be gone on with."""

Spoil = Callable[[Tensor, int], Tensor]
"""(a batch uint8 [B, S, S, 3], the place of its first image) -> the batch spoiled."""


@dataclass
class Robustness:
    """An evaluation of some weights on corrupted test images, as far as it has come."""

    identity: Identity
    compute: str = ""
    clean: dict[str, float] = field(default_factory=dict)
    """The figures of the same images unspoiled."""
    cells: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    """By kind and severity: "top1", "top5" (shares in 0..1), "loss" (nats) and "seconds"."""

    @property
    def errors(self) -> np.ndarray:
        """float64 [15, 5]: 1 - top1 by kind and severity; NaN where a cell has not been evaluated."""
        flat = [1 - self.cells[cell]["top1"] if cell in self.cells else np.nan for cell in CELLS]
        return np.array(flat).reshape(len(KINDS), len(SEVERITIES))

    @property
    def mean_corruption_error(self) -> float | None:
        """Mean of `errors`, None until all are there."""
        return float(self.errors.mean()) if len(self.cells) == len(CELLS) else None

    def to_json(self) -> dict[str, Any]:
        """An entry of "evaluations"."""
        cells = [
            {"kind": kind, "severity": level} | self.cells[kind, level]
            for kind, level in CELLS
            if (kind, level) in self.cells
        ]
        return self.identity | {
            "compute": self.compute,
            "versions": versions(),
            "clean": self.clean,
            "cells": cells,
            "mean_corruption_error": self.mean_corruption_error,
        }

    def __str__(self) -> str:
        """The errors as a table, in per cent."""
        rows = [f"{'error, %':<22}{''.join(f'{level:>7}' for level in SEVERITIES)}{'mean':>9}"]
        for kind, errors in zip(KINDS, 100 * self.errors, strict=True):
            known = not np.isnan(errors).any()
            shown = "".join(f"{error:7.1f}" if not np.isnan(error) else f"{'-':>7}" for error in errors)
            rows.append(f"  {kind:<20}{shown}" + (f"{errors.mean():9.1f}" if known else f"{'-':>9}"))
        mean = self.mean_corruption_error
        rows.append(f"{'clean images':<22}{100 * (1 - self.clean['top1']):44.2f}")
        rows.append(f"{'mean corruption error':<22}" + (f"{100 * mean:44.2f}" if mean is not None else f"{'-':>44}"))
        return "\n".join(rows)


def results_path(weights: Path) -> Path:
    """Where the results for some weights are kept: beside them, or in the working directory where they are no file of
    the user's ("pretrained", or on the hub)."""
    return Path("corruptions.json") if is_hub_address(weights) else weights.with_name("corruptions.json")


def read_results(weights: Path, checkpoint: Checkpoint) -> list[Robustness]:
    """What `corruptions.json` beside a file of weights holds of exactly these weights, the one of most cells first.

    None where there is no such file. Raises UserError where it is damaged.
    """
    known = state_dict_sha256(checkpoint.weights)
    found = [_from_json(entry) for entry in _read(results_path(weights)) if entry["sha256"] == known]
    return sorted(found, key=lambda one: (-len(one.cells), -one.identity["images"]))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError
        entries = content["evaluations"]
        for entry in entries:
            _from_json(entry)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} is damaged, or not what evaluate --corruptions wrote; move it away to start anew."
        ) from None
    return entries


def _from_json(entry: dict[str, Any]) -> Robustness:
    names = ("weights", "sha256", "source", "dataset", "fingerprint", "images", "seed", "precision", "image_size")
    figures = ("top1", "top5", "loss", "seconds")
    cells = {(cell["kind"], cell["severity"]): {name: float(cell[name]) for name in figures} for cell in entry["cells"]}
    if not cells.keys() <= set(CELLS):
        raise ValueError
    clean = {name: float(entry["clean"][name]) for name in figures}
    return Robustness({name: entry[name] for name in names}, str(entry["compute"]), clean, cells)


@dataclass(frozen=True)
class Cifar100C:
    """The files of CIFAR-100-C in a folder: `<kind>.npy`, uint8 [50000, 32, 32, 3], the five severities one after the
    other, and `labels.npy`, integers [50000]. Nothing in them is executed. Raises UserError where one is not so."""

    folder: Path
    kinds: tuple[str, ...]
    labels: np.ndarray

    @staticmethod
    def find(folder: Path, classes: int) -> Cifar100C:
        """What is there of the fifteen kinds; at least one must be."""
        kinds = tuple(kind for kind in KINDS if (folder / f"{kind}.npy").is_file())
        if not kinds:
            raise UserError(f"--corruptions-dir {folder}: none of the files of CIFAR-100-C, such as fog.npy, is there.")
        labels = _load(folder / "labels.npy")
        if labels.shape != (5 * PUBLISHED_IMAGES,) or not np.issubdtype(labels.dtype, np.integer):
            found = f"{labels.dtype} {list(labels.shape)}"
            raise UserError(f"{folder / 'labels.npy'} is {found}, not {5 * PUBLISHED_IMAGES:,} ids.")
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(f"{folder / 'labels.npy'} holds ids outside 0..{classes - 1}.")
        return Cifar100C(folder, kinds, np.asarray(labels).astype(np.int64))

    def cell(self, kind: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """The images uint8 [10000, 32, 32, 3], still on the disk, and the labels [10000] of a cell."""
        path = self.folder / f"{kind}.npy"
        images = _load(path)
        if images.dtype != np.uint8 or images.shape != (5 * PUBLISHED_IMAGES, 32, 32, 3):
            raise UserError(f"{path} is {images.dtype} {list(images.shape)}; CIFAR-100-C has uint8 [50000, 32, 32, 3].")
        place = slice((severity - 1) * PUBLISHED_IMAGES, severity * PUBLISHED_IMAGES)
        return images[place], self.labels[place]


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"There is no {path}.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array of numpy ({error}).") from None


def evaluate_corruptions(
    weights: Path,
    checkpoint: Checkpoint,
    dataset: Dataset,
    config: AugmentConfig,
    compute: Compute,
    *,
    limit: int | None = None,
    corruptions_dir: Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] = emit,
) -> Robustness:
    """Evaluate a checkpoint, read from the file `weights`, on its test images in all cells that are not known yet.

    `limit` takes so many images, spread evenly over the split; `corruptions_dir` holds the files of CIFAR-100-C, used
    in place of images that are spoiled here. Each cell is kept as soon as it is known; `say` is told what is done and
    how long it will take. Raises UserError where the folder or the results so far cannot be used, RunFailed where the
    disk refuses.
    """
    test = dataset.test
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least one image is needed.")
    if corruptions_dir is not None and (dataset.image_size != 32 or len(test) != PUBLISHED_IMAGES):
        raise UserError("--corruptions-dir holds CIFAR-100-C; it is for weights and data of CIFAR-100, of 32 pixels.")
    published = None if corruptions_dir is None else Cifar100C.find(corruptions_dir, len(dataset.classes))
    rows = test.spread(limit or len(test))
    count = len(rows)
    identity: Identity = {
        "weights": weights.name,
        "sha256": state_dict_sha256(checkpoint.weights),
        "source": "published" if published else "computed",
        "dataset": dataset.published.name,
        "fingerprint": test.fingerprint,
        "images": count,
        "seed": seed,
        "precision": compute.precision,
        "image_size": dataset.image_size,
    }
    path = results_path(weights)
    entries = [
        entry for entry in _read(path) if entry["weights"] != weights.name or entry["sha256"] == identity["sha256"]
    ]
    same = [entry for entry in entries if all(entry[name] == value for name, value in identity.items())]
    others = [entry for entry in entries if entry not in same]
    result = _from_json(same[0]) if same else Robustness(identity)
    result.compute = str(compute)
    model = compute.place(checkpoint.build())

    def keep() -> None:
        content = {"format": FORMAT, "version": VERSION, "evaluations": [*others, result.to_json()]}
        atomic_write(path, json.dumps(content, indent=1) + "\n")

    def figures(images: np.ndarray, labels: np.ndarray, spoil: Spoil | None = None) -> dict[str, float]:
        return _figures(model, images, labels, spoil=spoil, config=config, compute=compute)

    if not result.clean:
        result.clean = figures(test.images[rows], test.labels[rows])
    kinds = tuple(KINDS) if published is None else published.kinds
    missing = [cell for cell in CELLS if cell[0] in kinds and cell not in result.cells]
    speed = count / result.clean["seconds"]
    say(
        f"{len(missing)} of {len(CELLS)} cells to do, {count:,} images each: about "
        f"{duration(len(missing) * count / speed * 1.05)} at {speed:,.0f} images/s. Stop and start again as you like."
    )
    if len(kinds) < len(KINDS):
        absent = ", ".join(kind for kind in KINDS if kind not in kinds)
        say(f"Left out, for there are no files of them in {corruptions_dir}: {absent}")
    keep()  # a disk that refuses should do so now
    for kind, severity in missing:
        if published is None:
            spoil = partial(_spoil, kind=kind, severity=severity, numbers=rows.tolist(), seed=seed)
            cell = figures(test.images[rows], test.labels[rows], spoil)
        else:
            images, labels = published.cell(kind, severity)
            cell = figures(images[rows], labels[rows])
        result.cells[kind, severity] = cell
        keep()
        say(f"  {kind:<18} {severity}  {cell['top1']:7.2%}  {cell['seconds']:6.1f} s")
    return result


def _spoil(images: Tensor, start: int, *, kind: str, severity: int, numbers: list[int], seed: int) -> Tensor:
    return corrupt(images, kind, severity, numbers=numbers[start : start + len(images)], seed=seed)


def _figures(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    spoil: Spoil | None,
    config: AugmentConfig,
    compute: Compute,
) -> dict[str, float]:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(labels), BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + BATCH_SIZE]).to(compute.device)
            shown = batch if spoil is None else spoil(batch, start)
            yield normalize(shown, config.mean, config.std), torch.empty(0)

    watch = Stopwatch()
    logits = predict_logits(model, batches(), compute)
    return {
        "top1": metrics.top_k_accuracy(logits, labels, 1),
        "top5": metrics.top_k_accuracy(logits, labels, 5),
        "loss": metrics.cross_entropy(logits, labels),
        "seconds": watch.seconds,
    }
