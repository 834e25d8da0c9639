"""cifar100 evaluate"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.cli.options import SplitOptions
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit

if TYPE_CHECKING:
    from cifar100.checkpoints.checkpoint import Checkpoint
    from cifar100.compute.device import Compute
    from cifar100.config import Config
    from cifar100.dataset import Dataset, Split
    from cifar100.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(SplitOptions):
    """Evaluate a checkpoint: top-1, top-5, superclasses, classes, speed."""

    checkpoint: Positional[Path]
    """A .pth file that training wrote, a third-party state dict (with the parameter names of torchvision, timm,
    kuangliu/pytorch-cifar or weiaicunzai/pytorch-cifar100), or a .safetensors file with its .json; "pretrained": the
    bundled weights."""

    per_class: bool = False
    """List all classes, not only the best and the worst."""

    samples: int = 0
    """Show N sample predictions."""

    json: Path | None = None
    """Also write all results to this JSON file."""

    # tyro's help shows an alias before the name: the alias is the current flag, the name the flag of earlier versions
    tta: Annotated[Literal[1, 2, 6], arg(name="views", aliases=["--tta"])] = 1
    """Also report test-time augmentation with N views (horizontal flip, one-pixel shifts) and their agreement."""

    exclude_duplicates: Annotated[bool, arg(name="without-duplicates", aliases=["--exclude-duplicates"])] = False
    """Also report accuracy without test images that are duplicated in train (exact or near; takes a minute or two)."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        from cifar100.checkpoints.checkpoint import versions
        from cifar100.checkpoints.weights import load_weights, state_dict_sha256
        from cifar100.compute.device import select_device
        from cifar100.evaluation.eval_split import load_eval_split
        from cifar100.evaluation.evaluate import evaluate_split, format_samples, format_table
        from cifar100.support.files import atomic_write, check_writable

        if self.json is not None:
            check_writable("--json", self.json)
            target = Path(os.path.realpath(self.json))
            is_metadata = target.suffix == ".json" and os.path.exists(target.with_suffix(".safetensors"))
            if is_metadata or target == Path(os.path.realpath(self.checkpoint)):
                raise UserError("evaluate.json", f"--json {self.json} would overwrite weights, or their metadata.")
        if self.exclude_duplicates and self.split not in (None, "test"):
            raise UserError("evaluate.split", "--exclude-duplicates is for the test split; leave --split out.")
        compute = select_device(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.options())
        data, split, config = load_eval_split(
            checkpoint, split=self.split, dataset=self.dataset, data_dir=self.data_dir
        )
        evaluation = evaluate_split(checkpoint, data, split, config.augment, compute, name=self.split)
        sha256 = state_dict_sha256(checkpoint.weights)
        results = evaluation.to_json() | {"checkpoint": str(self.checkpoint), "sha256": sha256, "versions": versions()}
        results |= {"dataset": data.info.to_dict(), "notes": list(evaluation.notes)}
        results |= {name: getattr(checkpoint, name) for name in ("mean", "std", "assumed", "left_aside")}
        emit(f"{self.checkpoint} (sha256 {sha256[:12]}): {checkpoint.model}, trained on {checkpoint.dataset}")
        emit(f"evaluated on {data.info.title}")
        if checkpoint.selection:
            emit(f"selected: {checkpoint.selection}")
        for note in checkpoint.notes:
            emit(note)
        emit("\n" + format_table(evaluation, per_class=self.per_class))
        if self.samples:
            temperature = checkpoint.calibration.temperature if checkpoint.calibration else 1.0
            emit("\n" + "\n".join(format_samples(evaluation, data.classes, self.samples, temperature=temperature)))
        try:
            if self.tta > 1:
                results["tta"] = self._tta(checkpoint, split, config, compute, evaluation)
            if self.exclude_duplicates:
                results["exclude_duplicates"] = self._exclude_duplicates(data, evaluation)
        finally:
            if self.json is not None:
                atomic_write(self.json, json.dumps(results, indent=2) + "\n")
        return 0

    def _tta(
        self, checkpoint: Checkpoint, split: Split, config: Config, compute: Compute, evaluation: Evaluation
    ) -> list[dict[str, Any]]:
        """Print the results of test-time augmentation; the same as JSON types."""
        from cifar100.evaluation import tta

        model = compute.prepare(checkpoint.build())
        results = tta.evaluate_tta(
            model, split, config.augment, compute, single_view_logits=evaluation.logits, num_views=self.tta
        )
        emit("\n" + tta.format_table(results))
        return [asdict(result) for result in results]

    @staticmethod
    def _exclude_duplicates(data: Dataset, evaluation: Evaluation) -> list[dict[str, Any]]:
        """Print the accuracy without duplicates; the same as JSON types."""
        from cifar100.evaluation.duplicates import accuracy_without_duplicates

        if not len(data.train):
            raise UserError("evaluate.no_train", "--exclude-duplicates needs train images, and there are none here.")
        results = accuracy_without_duplicates(evaluation.logits, evaluation.labels, data)
        emit("\nWithout test images that are duplicated in train\n" + "\n".join(map(str, results)))
        return [asdict(result) for result in results]
