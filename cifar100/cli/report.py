"""cifar100 report"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cifar100.cli.options import SplitOptions
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit
from cifar100.support.text import escape_control_chars


@dataclass(frozen=True, kw_only=True)
class Report(SplitOptions):
    """Write an HTML report: accuracy, errors, calibration, robustness.

    The page is one file; its plots are also written next to it as PNG files.
    """

    checkpoints: Positional[tuple[Path, ...]]
    """Checkpoint to report on; further checkpoints contribute learning curves only."""

    out: Path | None = None
    """Output directory. None: report/ next to the checkpoint."""

    neighbors: bool = False
    """Also show the train images most similar to the most confident errors (a pass over the whole training set)."""

    def run(self) -> int:
        if not self.checkpoints:
            raise UserError("report.no_checkpoint", "Name a checkpoint, as in cifar100 report logs/cifar100/last.pth.")
        from cifar100.report.build import report

        page = report(
            self.checkpoints,
            self.out,
            split=self.split,
            dataset=self.dataset,
            data_dir=self.data_dir,
            device=self.device,
            precision=self.precision,
            neighbors=self.neighbors,
        )
        emit(escape_control_chars(page), wrapped=False)
        return 0
