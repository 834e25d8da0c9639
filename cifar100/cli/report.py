"""cifar100 report"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from cifar100.config import DatasetName, DeviceName, PrecisionName
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Report:
    """One page about a checkpoint: figures, curves, confusion, mistakes with their images, calibration, coverage.

    The page holds all that it shows and asks the network for nothing; its figures lie beside it as PNG files.
    """

    checkpoints: Positional[tuple[Path, ...]]
    """The checkpoint to report on; of those after it only the learning curves, laid over its own."""

    out: Path | None = None
    """The folder that it goes to. Not given: report/ beside the checkpoint."""

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

    def run(self) -> int:
        if not self.checkpoints:
            raise UserError("Which checkpoint? Name one, as in cifar100 report logs/cifar100/last.pth.")
        from cifar100.report.build import report

        page = report(
            self.checkpoints,
            self.out,
            split=self.split,
            dataset=self.dataset,
            data_dir=self.data_dir,
            device=self.device,
            precision=self.precision,
        )
        emit(page)
        return 0
