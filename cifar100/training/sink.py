"""Where the metrics of a run can go besides its own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class MetricsSink:
    """Base of `TensorBoardLogger` and `Tracker`. History: one row of metrics (`logger.COLUMNS`) per epoch."""

    def log_epoch(self, history: list[dict[str, Any]]) -> None:
        """Log the last row."""

    def truncate_to(self, history: list[dict[str, Any]]) -> None:
        """Hold exactly these rows: the run was resumed from an earlier checkpoint."""

    def log_images(self, images: dict[str, Callable[[], bytes]], epoch: int) -> None:
        """Log PNG images by name; the functions render them."""

    def close(self) -> None:
        """Flush and close."""
