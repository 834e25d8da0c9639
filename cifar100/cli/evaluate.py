"""cifar100 evaluate"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.config import DatasetName, DeviceName, PrecisionName
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a checkpoint: top-1, top-5, superclass and per-class accuracy, loss, speed."""

    checkpoint: Positional[Path]
    """A .pth file that training wrote, a state dict under torchvision's names, or a .safetensors file with its .json;
    "pretrained": the bundled weights."""

    split: Literal["test", "val", "train", "all"] | None = None
    """Split; "val" is the validation split used in training, "all" every image of a folder of your own (default: test;
    of a folder without test/ that the checkpoint was not trained on, all)."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the generated dataset of `train --dataset synthetic`."""

    data_dir: Path | None = None
    """Dataset directory or archive (default: $CIFAR100_DATA_DIR, then ./data)."""

    device: DeviceName = "auto"
    """Device to run on."""

    precision: PrecisionName = "fp32"
    """Compute precision; "auto" is what training would use."""

    per_class: bool = False
    """List all classes, not only the best and the worst."""

    samples: int = 0
    """Show N sample predictions."""

    json: Path | None = None
    """Also write all results to this JSON file."""

    views: Literal[1, 2, 6] = 1
    """Also report test-time augmentation with N views (horizontal flip, one-pixel shifts) and their agreement."""

    without_duplicates: bool = False
    """Also report accuracy without test images that are duplicated in train (exact or near; takes a minute or two)."""

    corruptions: bool = False
    """Evaluate corruption robustness instead: 15 corruptions x 5 severities (prints an ETA first). Results are saved to
    corruptions.json next to the weights, and an interrupted run continues from there."""

    corruptions_dir: Path | None = None
    """For --corruptions: directory with the CIFAR-100-C files, to use instead of our own corruptions."""

    limit: int | None = None
    """For --corruptions: number of images, evenly spread over the split."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        if self.corruptions:
            return self._run_corruptions()
        if self.corruptions_dir is not None or self.limit is not None:
            raise UserError("--corruptions-dir and --limit go with --corruptions.")
        from cifar100.checkpoints.checkpoint import versions
        from cifar100.checkpoints.weights import load_weights
        from cifar100.compute.device import select_device
        from cifar100.evaluation.eval_split import load_eval_split
        from cifar100.evaluation.evaluate import evaluate_split, format_samples, table
        from cifar100.support.files import atomic_write, check_writable

        if self.json is not None:
            check_writable("--json", self.json)
        if self.without_duplicates and self.split not in (None, "test"):
            raise UserError("--without-duplicates is for the test images; leave --split out.")
        compute = select_device(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.facts())
        data, split, config = load_eval_split(
            checkpoint, split=self.split, dataset=self.dataset, data_dir=self.data_dir
        )
        evaluation = evaluate_split(checkpoint, data, split, config.augment, compute, name=self.split)
        figures = evaluation.to_json() | {"checkpoint": str(self.checkpoint), "versions": versions()}
        figures |= {name: getattr(checkpoint, name) for name in ("mean", "std", "assumed", "left_aside")}
        emit(f"{self.checkpoint}: {checkpoint.model}, trained on {checkpoint.dataset}")
        if checkpoint.selection:
            emit(f"selected: {checkpoint.selection}")
        for note in checkpoint.notes:
            emit(note)
        emit("\n" + table(evaluation, per_class=self.per_class))
        if self.samples:
            temperature = checkpoint.calibration.temperature if checkpoint.calibration else 1.0
            emit("\n" + "\n".join(format_samples(evaluation, data.classes, self.samples, temperature=temperature)))
        if self.views > 1:
            from cifar100.evaluation import tta

            model = compute.place(checkpoint.build())
            seen = tta.evaluate_views(model, split, config.augment, compute, single=evaluation.logits, count=self.views)
            figures["views"] = tta.to_json(seen)
            emit("\n" + tta.table(seen))
        if self.without_duplicates:
            if not len(data.train):
                raise UserError(
                    "evaluate.no_train", "--without-duplicates needs train images, and there are none here."
                )
            from cifar100.evaluation.duplicates import without_duplicates

            left = without_duplicates(evaluation.logits, evaluation.labels, data)
            figures["without_duplicates"] = [asdict(one) for one in left]
            emit("\nWithout the test images that are in train as well\n" + "\n".join(map(str, left)))
        if self.json is not None:
            atomic_write(self.json, json.dumps(figures, indent=2) + "\n")
        return 0

    def _run_corruptions(self) -> int:
        from cifar100.checkpoints.weights import load_weights
        from cifar100.compute.device import select_device
        from cifar100.evaluation.eval_split import load_eval_split
        from cifar100.evaluation.robustness import evaluate_corruptions, results_path

        if self.split not in (None, "test"):
            raise UserError("--corruptions is for the test images; leave --split out.")
        compute = select_device(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.facts())
        for note in checkpoint.notes:
            emit(note)
        dataset, _, config = load_eval_split(checkpoint, dataset=self.dataset, data_dir=self.data_dir)
        where = {"limit": self.limit, "corruptions_dir": self.corruptions_dir}
        result = evaluate_corruptions(self.checkpoint, checkpoint, dataset, config.augment, compute, **where)
        emit(f"\n{result}\n\nKept in {results_path(self.checkpoint)}")
        return 0
