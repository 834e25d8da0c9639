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
from cifar100.support.text import printable


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Accuracy of a checkpoint: top-1, top-5, the 20 superclasses, the classes; loss and speed."""

    checkpoint: Positional[Path]
    """A .pth file that training wrote, a state dict under torchvision's names, or a .safetensors file with its .json;
    "pretrained": the weights that come with cifar100."""

    split: Literal["test", "val", "train"] = "test"
    """Which images; "val" is what the checkpoint's training held out."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set of `train --dataset synthetic`."""

    data_dir: Path | None = None
    """Folder that holds the dataset, or its .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    device: DeviceName = "auto"
    """Where to compute."""

    precision: PrecisionName = "fp32"
    """Arithmetic of the network; "auto" is what training would use."""

    per_class: bool = False
    """List all classes, not only the best and the worst."""

    samples: int = 0
    """Also show so many sample predictions."""

    json: Path | None = None
    """Also write all figures to this file."""

    views: Literal[1, 2, 6] = 1
    """Also the accuracy of the mean of so many views of each image (mirrored; shifted by a pixel), and how far they
    agree: an extra, never the headline."""

    without_duplicates: bool = False
    """Also the accuracy without the test images that occur in train, exactly or nearly; a minute or two."""

    corruptions: bool = False
    """Instead: the error on test images spoiled in fifteen ways, five severities each; how long it takes is said first.
    Kept in corruptions.json beside the weights (of "pretrained" in the working directory), and gone on with there when
    started again."""

    corruptions_dir: Path | None = None
    """For --corruptions: the folder that holds the files of CIFAR-100-C, to take these in place of our own."""

    limit: int | None = None
    """For --corruptions: so many images, spread evenly over the split."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        if self.corruptions:
            return self._run_corruptions()
        if self.corruptions_dir is not None or self.limit is not None:
            raise UserError("--corruptions-dir and --limit go with --corruptions.")
        from cifar100.checkpoints.checkpoint import versions
        from cifar100.checkpoints.weights import load_weights
        from cifar100.compute.device import choose_compute
        from cifar100.evaluation.evaluate import evaluate_split, open_split, sample_lines, table
        from cifar100.support.files import refuse_target, replace_file

        if self.json is not None:
            refuse_target("--json", self.json)
        if self.without_duplicates and self.split != "test":
            raise UserError("--without-duplicates is for the test images; leave --split out.")
        compute = choose_compute(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.facts())
        data, split, config = open_split(checkpoint, split=self.split, dataset=self.dataset, data_dir=self.data_dir)
        evaluation = evaluate_split(checkpoint, data, split, config.augment, compute, name=self.split)
        figures = evaluation.to_json() | {"checkpoint": str(self.checkpoint), "versions": versions()}
        figures |= {name: getattr(checkpoint, name) for name in ("mean", "std", "assumed", "left_aside")}
        print(f"{printable(self.checkpoint)}: {checkpoint.model}, trained on {printable(checkpoint.dataset)}")
        if checkpoint.chosen_on:
            print(f"kept as {printable(checkpoint.chosen_on)}")
        for note in checkpoint.notes:
            print(note)
        print("\n" + table(evaluation, per_class=self.per_class))
        if self.samples:
            print("\n" + "\n".join(sample_lines(evaluation, data.classes, self.samples)))
        if self.views > 1:
            from cifar100.evaluation import tta

            model = compute.place(checkpoint.build())
            seen = tta.evaluate_views(model, split, config.augment, compute, single=evaluation.logits, count=self.views)
            figures["views"] = tta.to_json(seen)
            print("\n" + tta.table(seen))
        if self.without_duplicates:
            from cifar100.evaluation.duplicates import without_duplicates

            left = without_duplicates(evaluation.logits, evaluation.labels, data)
            figures["without_duplicates"] = [asdict(one) for one in left]
            print("\nWithout the test images that are in train as well\n" + "\n".join(map(str, left)))
        if self.json is not None:
            replace_file(self.json, json.dumps(figures, indent=2) + "\n")
        return 0

    def _run_corruptions(self) -> int:
        from cifar100.checkpoints.weights import load_weights
        from cifar100.compute.device import choose_compute
        from cifar100.evaluation.evaluate import open_split
        from cifar100.evaluation.robustness import evaluate_corruptions, results_path

        if self.split != "test":
            raise UserError("--corruptions is for the test images; leave --split out.")
        compute = choose_compute(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.facts())
        for note in checkpoint.notes:
            print(note)
        dataset, _, config = open_split(checkpoint, dataset=self.dataset, data_dir=self.data_dir)
        where = {"limit": self.limit, "corruptions_dir": self.corruptions_dir}
        result = evaluate_corruptions(self.checkpoint, checkpoint, dataset, config.augment, compute, **where)
        print(f"\n{result}\n\nKept in {printable(results_path(self.checkpoint))}")
        return 0
