"""The model that commands use if none is named."""

from __future__ import annotations

import os
from pathlib import Path

OWN_MODEL = Path("logs/cifar100/best_model.pth")


def default_model() -> Path:
    """The model of the latest run in the working directory, else "pretrained", the bundled weights."""
    return OWN_MODEL if os.path.exists(OWN_MODEL) else Path("pretrained")
