"""Options for third-party weights: what their file does not contain."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar100.support.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """For third-party weights whose file does not contain these."""

    mean: tuple[float, float, float] | None = None
    """Per-channel mean used for normalization, in 0..1. None: that of CIFAR-100."""

    std: tuple[float, float, float] | None = None
    """Per-channel standard deviation used for normalization, in 0..1. None: that of CIFAR-100."""

    classes: tuple[str, ...] = ()
    """Class names in the order of ids; or "cifar10", "cifar100", or a text file with one name per line."""

    def options(self) -> dict[str, Any]:
        """These options as keyword arguments of `load_weights`. Raises UserError if a file of names cannot be read."""
        return {"mean": self.mean, "std": self.std, "classes": self._names() if self.classes else None}

    def _names(self) -> list[str]:
        from cifar100.dataset.published import CIFAR10, CIFAR100

        names = list(self.classes)
        if len(names) == 1:
            spec = {"cifar10": CIFAR10, "cifar100": CIFAR100}.get(names[0].lower())
            if spec is not None:
                return list(spec.classes)
            if os.path.isfile(names[0]):
                return _lines(Path(names[0]))
            names = names[0].split(",")
        return [name.strip() for name in names]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError("classes.unreadable", f"--classes {path} cannot be read ({reason}).") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
