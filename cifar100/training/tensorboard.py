"""Logging to TensorBoard: metrics, settings and images; each epoch once, however often the run was resumed."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cifar100.config import Config
from cifar100.support.errors import UserError
from cifar100.support.settings import without_local_paths

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
"""{TensorBoard tag: column of `cifar100.training.logger.COLUMNS`}; its steps are epochs."""


class TensorBoardLogger:
    """Event files in a directory of their own. They are append-only, so going back means to rewrite them."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.writer: Any = None

    def log_epoch(self, history: list[dict[str, Any]]) -> None:
        """Log the last row; the first call logs all rows, in place of the directory's earlier event files."""
        new = history[-1:]
        if self.writer is None:
            self.writer = self._start()
            new = history
        for row in new:
            for tag, column in SCALARS.items():
                if row[column] is not None:
                    self.writer.add_scalar(tag, row[column], row["epoch"])
        self.writer.flush()

    def _start(self) -> Any:
        """A writer of a new event file, with the settings."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        for events in self.folder.glob("events.out.tfevents.*"):
            events.unlink()
        writer: Any = SummaryWriter(str(self.folder))
        settings = without_local_paths(self.settings)
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        for summary in hparams(plain, dict.fromkeys(("evaluation/top1", "evaluation/loss"), 0)):
            writer.file_writer.add_summary(summary)
        return writer

    def log_images(self, images: dict[str, Callable[[], bytes]], epoch: int) -> None:
        import numpy as np
        from PIL import Image

        for name, render in images.items():
            pixels = np.asarray(Image.open(io.BytesIO(render())).convert("RGB"))
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def require_tensorboard(config: Config) -> None:
    """Raise UserError if TensorBoard is requested and not installed."""
    if config.run.tensorboard and find_spec("tensorboard") is None:
        message = "--tensorboard needs TensorBoard: pip install 'cifar100[tensorboard]'."
        raise UserError("tensorboard.not_installed", message)
