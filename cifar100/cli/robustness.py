"""cifar100 robustness"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.cli.options import EvalOptions
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Robustness(EvalOptions):
    """Evaluate a checkpoint on corrupted test images.

    These are 15 corruptions at 5 severities; the expected time is printed first.

    Results are saved next to the weights; an interrupted run resumes from there.
    """

    checkpoint: Positional[Path]
    """A .pth file that training wrote, a third-party state dict (with the parameter names of torchvision, timm,
    kuangliu/pytorch-cifar or weiaicunzai/pytorch-cifar100), or a .safetensors file with its .json; "pretrained": the
    bundled weights."""

    corruptions_dir: Path | None = None
    """Directory with the CIFAR-100-C files, to use instead of our own corruptions."""

    limit: int | None = None
    """Number of images, evenly spread over the test split; not with --corruptions-dir. None: all."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        from cifar100.checkpoints.weights import load_weights
        from cifar100.compute.device import select_device
        from cifar100.evaluation.corruption_results import results_path
        from cifar100.evaluation.eval_split import load_eval_split
        from cifar100.evaluation.robustness import evaluate_corruptions

        compute = select_device(self.device, self.precision)
        checkpoint = load_weights(self.checkpoint, **self.foreign.options())
        for note in checkpoint.notes:
            emit(note)
        dataset, _, config = load_eval_split(checkpoint, dataset=self.dataset, data_dir=self.data_dir)
        results = evaluate_corruptions(
            self.checkpoint,
            checkpoint,
            dataset,
            config.augment,
            compute,
            limit=self.limit,
            corruptions_dir=self.corruptions_dir,
        )
        emit(f"\n{results}\n\nSaved to {results_path(self.checkpoint)}")
        return 0
