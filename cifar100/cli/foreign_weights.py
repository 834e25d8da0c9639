"""Options for weights of others: what their file does not say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar100.support.errors import UserError

MAX_BYTES = 10_000_000
"""Of a file of class names."""


@dataclass(frozen=True, kw_only=True)
class ForeignWeights:
    """For weights of others, whose file does not say these."""

    mean: tuple[float, float, float] | None = None
    """What the channels of an image in 0..1 are normalized with. Not given: CIFAR-100's."""

    std: tuple[float, float, float] | None = None
    """What the channels are divided by after that. Not given: CIFAR-100's."""

    classes: tuple[str, ...] = ()
    """Names of the classes by id; or "cifar10", "cifar100", or a text file with one name per line."""

    def facts(self) -> dict[str, Any]:
        """What is given, as `load_weights` takes it. Raises UserError if a file of names cannot be read."""
        return {"mean": self.mean, "std": self.std, "classes": self._names() if self.classes else None}

    def _names(self) -> list[str]:
        from cifar100.dataset.published import CIFAR10, CIFAR100

        names = list(self.classes)
        if len(names) == 1:
            published = {"cifar10": CIFAR10, "cifar100": CIFAR100}.get(names[0].lower())
            if published is not None:
                return list(published.classes)
            if os.path.isfile(names[0]):
                return _lines(Path(names[0]))
            names = names[0].split(",")
        return [name.strip() for name in names]


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError("classes.unreadable", f"--classes {path} cannot be read ({why}).") from None
    if len(text) > MAX_BYTES:
        raise UserError("classes.unreadable", f"--classes {path} is longer than any list of names.")
    return [line.strip() for line in text.splitlines() if line.strip()]
