"""What a run leaves for TensorBoard: metrics, settings and pictures; each step once, however often it was resumed."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cifar100.config import Config
from cifar100.support.errors import UserError

SCALARS = {
    "train/loss": "train_loss",
    "train/top1": "train_top1",
    "train/learning_rate": "learning_rate",
    "train/images_per_second": "images_per_second",
    "evaluation/loss": "loss",
    "evaluation/top1": "top1",
    "evaluation/top5": "top5",
    "evaluation/superclass_top1": "superclass_top1",
}
"""What TensorBoard calls the columns of `cifar100.training.logger.COLUMNS`; its steps are epochs."""


class TensorBoardLogger:
    """Event files in a folder of their own. They can only grow, so that going back means writing them anew."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.writer: Any = None

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """The last row of the history."""
        if self.writer is None:
            self.rewrite(history)
            return
        self._row(history[-1])
        self.writer.flush()

    def rewrite(self, history: list[dict[str, Any]]) -> None:
        """Exactly these rows, and the settings."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.close()
        for events in self.folder.glob("events.out.tfevents.*"):
            events.unlink()
        self.writer = SummaryWriter(str(self.folder))
        plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in self._told()}
        for summary in hparams(plain, dict.fromkeys(("evaluation/top1", "evaluation/loss"), 0)):
            self.writer.file_writer.add_summary(summary)
        for row in history:
            self._row(row)
        self.writer.flush()

    def pictures(self, pictures: dict[str, Callable[[], bytes]], epoch: int) -> None:
        """Pictures, PNG by name."""
        import numpy as np
        from PIL import Image

        for name, make in pictures.items():
            pixels = np.asarray(Image.open(io.BytesIO(make())).convert("RGB"))
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is not yet written."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _row(self, row: dict[str, Any]) -> None:
        for tag, column in SCALARS.items():
            if row[column] is not None:
                self.writer.add_scalar(tag, row[column], row["epoch"])

    def _told(self) -> list[tuple[str, Any]]:
        """The settings, but for the folders: they are of the machine, not of the run."""
        return [(name, value) for name, value in self.settings.items() if not name.endswith("_dir")]


class NullTensorBoard:
    """Nothing, where TensorBoard is not asked for."""

    def epoch(self, history: list[dict[str, Any]]) -> None:
        pass

    def rewrite(self, history: list[dict[str, Any]]) -> None:
        pass

    def pictures(self, pictures: dict[str, Callable[[], bytes]], epoch: int) -> None:
        pass

    def close(self) -> None:
        pass


def make_tensorboard(folder: Path, config: Config) -> TensorBoardLogger | NullTensorBoard:
    """The board that the settings ask for."""
    return TensorBoardLogger(folder, config.flat()) if config.run.tensorboard else NullTensorBoard()


def require_tensorboard(config: Config) -> None:
    """Raise UserError where TensorBoard is asked for and not installed."""
    if config.run.tensorboard and find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs TensorBoard: pip install 'cifar100[tensorboard]'.")
