"""cifar100 compare"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cifar100.support.errors import UserError
from cifar100.support.files import check_writable
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare runs: settings that differ, best and last accuracy, time."""

    runs: Positional[tuple[Path, ...]]
    """Run directories, or checkpoints in them."""

    plot: Path | None = None
    """Also plot their learning curves to this PNG file."""

    def run(self) -> int:
        if not self.runs:
            raise UserError("compare.runs", "Name the runs to compare, as in cifar100 compare logs/one logs/other.")
        if self.plot is not None:
            check_writable("--plot", self.plot)
        from cifar100.report.compare import comparison, draw_comparison, read_runs

        runs = read_runs(self.runs)
        emit(comparison(runs))
        if self.plot is not None:
            draw_comparison(runs, self.plot)
            emit(f"\n{self.plot}")
        return 0
