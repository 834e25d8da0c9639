"""`cifar100 data report`: statistics and duplicates of a dataset, as text and as a self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar100.config import AugmentConfig
from cifar100.dataset import Dataset
from cifar100.dataset.base import spread_rows
from cifar100.evaluation.duplicates import (
    CombinedSplits,
    DuplicatePair,
    duplicated_test_rows,
    exact_duplicates,
    near_duplicates,
)
from cifar100.report.page import render
from cifar100.report.sections import footer
from cifar100.report.style import data_uri, display_name, png
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.progress import progress
from cifar100.support.terminal import emit
from cifar100.support.text import number_range

EXAMPLES = 10
"""Images per class in the grid."""
MAX_CLASSES, MAX_PAIRS = 200, 60
"""Maximum numbers of classes on the page, and of pairs in a gallery."""
TILE = 64
"""Maximum width and height of an image on the page, in pixels; larger ones are downscaled."""

LOCATIONS = {"train": "within train", "test": "within test", "across": "across train and test"}
"""{`CombinedSplits.location`: as text}"""


@dataclass(frozen=True)
class DatasetReport:
    """Statistics and duplicates of a dataset."""

    dataset: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """`mean` and `std` of each channel (R, G, B) of the train images, in 0..1."""
    exact: list[DuplicatePair]
    near: list[DuplicatePair] | None
    """None if too many images look alike."""
    splits: CombinedSplits
    """Both splits in one array, which the row numbers of the pairs refer to."""


def analyze_dataset(dataset: Dataset) -> DatasetReport:
    """Analyze all images of a dataset, which takes minutes for 60,000."""
    splits = CombinedSplits(dataset)
    train = dataset.train.images.reshape(-1, 3)
    mean = train.mean(axis=0, dtype=np.float64) / 255
    parts = np.array_split(train, max(1, len(train) // 10_000_000))  # all squares in float64 would take gigabytes
    squares = np.sum([np.square(part / 255 - mean).sum(axis=0) for part in parts], axis=0)
    with progress("images compared", len(splits.images), emit) as advance:
        try:
            near = near_duplicates(splits.images, advance=advance)
        except UserError as error:
            near, dataset = None, replace(dataset, notes=(*dataset.notes, str(error)))
    std = np.sqrt(squares / len(train))
    exact = exact_duplicates(splits.images)
    return DatasetReport(dataset, tuple(mean.tolist()), tuple(std.tolist()), exact, near, splits)


def summary(found: DatasetReport) -> str:
    """The report as plain text."""
    dataset = found.dataset
    lines = [str(dataset), *(f"  {note}" for note in dataset.notes)]
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        each = number_range(*split.class_range(len(dataset.classes)))
        lines.append(f"  {name:<8}{len(split):,} images, {each} of each of {len(dataset.classes):,} classes")
    lines.append("  red, green and blue of the train images, in 0..1")
    lines += [f"    {name:<16}{' '.join(f'{value:.4f}' for value in values)}" for name, values in _channels(found)]
    for kind, counts in _pair_counts(found):
        lines.append(f"  {kind}: {sum(count for count, _ in counts):,} pairs")
        for text, (count, conflicts) in zip(LOCATIONS.values(), counts, strict=True):
            lines.append(f"    {text:<24}{count:>6,}   with different labels {conflicts:>5,}")
    return "\n".join([*lines, *(f"  {line}" for line in _in_train(found))])


def write_page(found: DatasetReport, path: Path) -> None:
    """Write the report as one HTML file. Raises RunFailed if that fails."""
    dataset, splits = found.dataset, found.splits
    galleries = [
        ("Exact duplicates across train and test", [pair for pair in found.exact if splits.location(pair) == "across"]),
        ("Exact duplicates within a split", [pair for pair in found.exact if splits.location(pair) != "across"]),
    ]
    if found.near is not None:
        titles = {
            "across": "Near duplicates across train and test",
            "conflict": "Near duplicates within a split, with different labels",
            "same": "Near duplicates within a split, with the same label",
        }
        galleries += [(title, [p for p in found.near if _kind(p, splits) == kind]) for kind, title in titles.items()]
    content = {
        "title": dataset.spec.name,
        "info": str(dataset.info),
        "notes": dataset.notes,
        "channels": _channels(found),
        "pairs": _pair_counts(found),
        "in_train": _in_train(found),
        "galleries": [
            {"title": title, "count": len(pairs), "shown": [_pair(pair, found) for pair in pairs[:MAX_PAIRS]]}
            for title, pairs in galleries
        ],
        "classes": [_class(dataset, class_id) for class_id in range(min(len(dataset.classes), MAX_CLASSES))],
        "num_hidden": max(0, len(dataset.classes) - MAX_CLASSES),
        "num_examples": EXAMPLES,
        "footer": footer(),
    }
    atomic_write(path, render("data.html", content))


def _kind(pair: DuplicatePair, splits: CombinedSplits) -> str:
    if splits.location(pair) == "across":
        return "across"
    return "conflict" if splits.labels_conflict(pair) else "same"


def _channels(found: DatasetReport) -> list[tuple[str, tuple[float, ...]]]:
    """The statistics of the channels by name, those of CIFAR-100 with the published ones."""
    published, table = AugmentConfig(), []
    for name, own, theirs in (("mean", found.mean, published.mean), ("std", found.std, published.std)):
        table.append((name, own))
        if found.dataset.spec.name == "CIFAR-100":
            table.append((f"{name}, published", theirs))
    return table


def _pair_counts(found: DatasetReport) -> list[tuple[str, list[tuple[int, int]]]]:
    """For exact and for near duplicates, the number of pairs at each of LOCATIONS, and of those whose labels differ."""
    table = []
    for kind, pairs in (("exact duplicates", found.exact), ("near duplicates", found.near)):
        if pairs is None:
            continue
        by_location = [[pair for pair in pairs if found.splits.location(pair) == location] for location in LOCATIONS]
        conflicts = [sum(map(found.splits.labels_conflict, some)) for some in by_location]
        table.append((kind, list(zip(map(len, by_location), conflicts, strict=True))))
    return table


def _in_train(found: DatasetReport) -> list[str]:
    """How many test images have a duplicate in train, as lines of text."""
    lines = []
    both = None if found.near is None else [*found.exact, *found.near]
    for kind, pairs in (("exact", found.exact), ("exact or near", both)):
        if pairs is None:
            continue
        count = len(duplicated_test_rows(pairs, found.splits))
        lines.append(
            f"test images with an {kind} duplicate in train: {count:,} ({count / len(found.dataset.test):.2%})"
        )
    return lines


def _pair(pair: DuplicatePair, found: DatasetReport) -> dict[str, Any]:
    """A pair of duplicates as the page shows it."""
    splits, both = found.splits, (pair.first, pair.second)
    tiles = [_tile(splits.images[row]) for row in both]
    image = np.concatenate([tiles[0], np.full((len(tiles[0]), 1, 3), 127, np.uint8), tiles[1]], axis=1)
    return {
        "src": data_uri(png(image), "png"),
        "width": 2 * image.shape[1] if image.shape[1] < 2 * TILE else image.shape[1],
        "labels": [display_name(found.dataset.classes[splits.labels[row]]) for row in both],
        "labels_conflict": splits.labels_conflict(pair),
        "rows": [f"train {row}" if row < splits.num_train else f"test {row - splits.num_train}" for row in both],
        "correlation": "" if pair.exact else f"{pair.correlation:.2f}{' ↔' * pair.mirrored}",
    }


def _class(dataset: Dataset, class_id: int) -> dict[str, Any]:
    """A class with some of its train images in one row."""
    of_class = np.flatnonzero(dataset.train.labels == class_id)
    tiles = [_tile(image) for image in dataset.train.images[of_class[spread_rows(len(of_class), EXAMPLES)]]]
    src = data_uri(png(np.concatenate(tiles, axis=1)), "png") if tiles else ""
    return {"id": class_id, "name": display_name(dataset.classes[class_id]), "src": src}


def _tile(image: np.ndarray) -> np.ndarray:
    if len(image) <= TILE:
        return image
    return np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BOX))
