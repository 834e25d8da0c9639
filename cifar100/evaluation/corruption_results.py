"""`corruptions.json`: the results of `cifar100 robustness`, next to the weights.

    {"format": "cifar100-corruptions", "version": 1,
     "evaluations": [
       {"weights": "best_model.pth",         the file of the weights, next to this one
        "sha256": "9f…",                     `state_dict_sha256` of the weights
        "source": "computed",                or "published": the files of CIFAR-100-C
        "dataset": "CIFAR-100", "fingerprint": "…",       of the test split
        "images": 10000, "seed": 0, "precision": "fp32", "image_size": 32,
        "compute": "cpu (…)", "versions": {…},
        "clean": {"top1": 0.7599, "top5": 0.9406, "loss": 0.97, "seconds": 33.1},
        "cells": [{"kind": "gaussian_noise", "severity": 1, "top1": …, "top5": …, "loss": …, "seconds": …}, …],
        "mean_corruption_error": 0.41}]}     null until all cells have been evaluated

The fields up to "image_size" identify an evaluation, and one with the same is resumed. The mean corruption error is the
mean of 1 - top1 over all cells, in 0..1. It is not divided by the errors of AlexNet, as Hendrycks & Dietterich 2019
(https://arxiv.org/abs/1903.12261) do for ImageNet-C; for CIFAR-C it is usually reported like this.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.checkpoints.hub import is_hub_address
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write

FORMAT, VERSION = "cifar100-corruptions", 1
CELLS = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
FIGURES = ("top1", "top5", "loss", "seconds")
IDENTITY = ("weights", "sha256", "source", "dataset", "fingerprint", "images", "seed", "precision", "image_size")

Identity = dict[str, Any]
"""The fields of IDENTITY."""


@dataclass
class Robustness:
    """The results of one model on corrupted test images, possibly incomplete."""

    identity: Identity
    compute: str = ""
    clean: dict[str, float] = field(default_factory=dict)
    """The results on the same images without corruption."""
    cells: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    """By corruption and severity: "top1", "top5" (in 0..1), "loss" (nats) and "seconds"."""

    @property
    def errors(self) -> np.ndarray:
        """float64 [15, 5]: 1 - top1 by corruption and severity; NaN for a cell that has not been evaluated."""
        flat = [1 - self.cells[cell]["top1"] if cell in self.cells else np.nan for cell in CELLS]
        return np.array(flat).reshape(len(CORRUPTIONS), len(SEVERITIES))

    @property
    def mean_corruption_error(self) -> float | None:
        """Mean of `errors`; None until all cells have been evaluated."""
        return float(self.errors.mean()) if len(self.cells) == len(CELLS) else None

    def to_json(self) -> dict[str, Any]:
        """An entry of "evaluations"."""
        cells = [
            {"kind": name, "severity": severity} | self.cells[name, severity]
            for name, severity in CELLS
            if (name, severity) in self.cells
        ]
        return self.identity | {
            "compute": self.compute,
            "versions": versions(),
            "clean": self.clean,
            "cells": cells,
            "mean_corruption_error": self.mean_corruption_error,
        }

    def __str__(self) -> str:
        """The errors as a table, in percent."""
        rows = [f"{'error, %':<22}{''.join(f'{severity:>7}' for severity in SEVERITIES)}{'mean':>9}"]
        for name, errors in zip(CORRUPTIONS, 100 * self.errors, strict=True):
            is_complete = not np.isnan(errors).any()
            shown = "".join(f"{error:7.1f}" if not np.isnan(error) else f"{'-':>7}" for error in errors)
            rows.append(f"  {name:<20}{shown}" + (f"{errors.mean():9.1f}" if is_complete else f"{'-':>9}"))
        mean = self.mean_corruption_error
        rows.append(f"{'clean images':<22}{100 * (1 - self.clean['top1']):44.2f}")
        rows.append(f"{'mean corruption error':<22}" + (f"{100 * mean:44.2f}" if mean is not None else f"{'-':>44}"))
        return "\n".join(rows)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Robustness:
        """The inverse of `to_json`. Raises an exception of some kind for anything else."""
        cells = {
            (cell["kind"], cell["severity"]): {name: float(cell[name]) for name in FIGURES} for cell in entry["cells"]
        }
        if not cells.keys() <= set(CELLS):
            raise ValueError
        clean = {name: float(entry["clean"][name]) for name in FIGURES}
        return cls({name: entry[name] for name in IDENTITY}, str(entry["compute"]), clean, cells)


class ResultStore:
    """A corruptions.json, from which the results with one identity are resumed, and to which they are saved.

    Results of other weights that had the same file name are dropped. Raises UserError if the file is damaged.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        own = (entry for entry in _read(path) if _is_of(entry, identity))
        self.results = next(map(Robustness.from_json, own), Robustness(identity))

    def save(self) -> None:
        """Write the file; what another process has saved there stays. Raises RunFailed if that fails."""
        identity = self.results.identity
        others = [
            entry
            for entry in _read(self.path)
            if not _is_of(entry, identity)
            and (entry["weights"] != identity["weights"] or entry["sha256"] == identity["sha256"])
        ]
        content = {"format": FORMAT, "version": VERSION, "evaluations": [*others, self.results.to_json()]}
        atomic_write(self.path, json.dumps(content, indent=1) + "\n")


def _is_of(entry: dict[str, Any], identity: Identity) -> bool:
    return all(entry[name] == value for name, value in identity.items())


def results_path(weights: Path) -> Path:
    """The corruptions.json of a file of weights: next to it; in the working directory for "pretrained" and the Hub."""
    return Path("corruptions.json") if is_hub_address(weights) else weights.with_name("corruptions.json")


def read_results(weights: Path, checkpoint: Checkpoint) -> list[Robustness]:
    """The results for exactly these weights in the corruptions.json next to `weights`; empty if there are none.

    Raises UserError if the file is damaged.
    """
    sha256 = state_dict_sha256(checkpoint.weights)
    return [Robustness.from_json(entry) for entry in _read(results_path(weights)) if entry["sha256"] == sha256]


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError
        entries = content["evaluations"]
        for entry in entries:
            Robustness.from_json(entry)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            "robustness.results", f"{path} is damaged, or was not written by cifar100 robustness; move it away."
        ) from None
    return entries
