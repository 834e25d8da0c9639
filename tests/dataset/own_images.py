"""Custom datasets for tests: class folders of small random images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_bytes import image_bytes

from cifar100.config import Config
from cifar100.dataset.base import Split
from cifar100.images.convert import to_model_input

SILENT: Callable[[str], None] = lambda _text: None  # noqa: E731


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] | None = None) -> bytes:
    """A random image file as bytes; its pixels, and its size unless given, depend on the seed."""
    rng = np.random.default_rng(seed)
    width, height = size or rng.integers(20, 60, 2).tolist()
    return image_bytes(rng.integers(0, 256, (height, width, 3), np.uint8), kind)


def photos(place: Path, classes: dict[str, int], *, seed: int = 0) -> Path:
    """Write class folders with the given numbers of images, alternately PNG and JPEG; return `place`."""
    for name, count in classes.items():
        (place / name).mkdir(parents=True)
        for number in range(count):
            seed += 1
            kind = ("PNG", "JPEG")[number % 2]
            (place / name / f"{number}.{kind[:3].lower()}").write_bytes(encoded(seed, kind))
    return place


def settings(**values: Any) -> Config:
    return Config().replace(image_size=24, report=False, **values)


def as_set(*splits: Split) -> set[tuple[int, bytes]]:
    return {(int(label), image.tobytes()) for s in splits for image, label in zip(s.images, s.labels, strict=True)}


def rows_of(folder: Path, names: list[str], size: int = 24) -> set[tuple[int, bytes]]:
    """The set of (label, pixels) expected when these class folders are read."""
    return {
        (label, to_model_input(path, size).tobytes())
        for label, name in enumerate(names)
        for path in (folder / name).iterdir()
    }
