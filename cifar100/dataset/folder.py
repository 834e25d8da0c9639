"""Reads images of your own: a folder for each class, named by it.

    my_photos/train/cat/1.jpg       my_photos/cat/1.jpg
    my_photos/train/dog/1.jpg       my_photos/cat/2.png
    my_photos/test/cat/2.jpg        my_photos/dog/1.jpg
    my_photos/test/dog/2.jpg        of which a share of each class becomes the test images

Instead of test/, val/ or valid/ will do. Classes are in the order of their names, with numbers by value (2 before 10).
A published dataset that was written out like this is recognised, by its class names and the size of its images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cifar100.config import Config, DataConfig
from cifar100.dataset.base import Dataset, DatasetSpec, canonical_split
from cifar100.dataset.cache import amount
from cifar100.dataset.decode import decode
from cifar100.dataset.published import CIFAR10, CIFAR100, SIZE, check_image_size
from cifar100.images.names import is_hidden, is_image, natural
from cifar100.support.errors import UserError

TRAIN, TESTS = "train", ("test", "val", "valid")

MOST_LISTED = 5


@dataclass
class Tree:
    """The files of class folders by class name, and a sentence for each that is none."""

    place: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def find(place: Path) -> tuple[Path, Path, Path | None] | None:
    """This folder, where in it the train images are and where the test images (None: among them); None for neither."""
    inside = {path.name.casefold(): path for path in _folders(place)}  # Train/ too
    train = inside.get(TRAIN)
    test = next((inside[name] for name in TESTS if name in inside), None)
    if train is None or test is None or not _folders(train):
        train, test = place, None
    holds_images = any(is_image(path) for folder in _folders(train) for path in _walk(folder))
    return (place, train, test) if holds_images else None


def hint(place: Path) -> str:
    """What to do about images that are in no class folder, as a further sentence; "" where there are none."""
    try:
        straight = sum(map(is_image, place.iterdir()))
    except OSError:
        straight = 0
    if not straight:
        return ""
    return f" There are {straight:,} images straight in it: put those of each class into a folder named by the class."


def read(place: Path, train: Path, test: Path | None, *, config: Config, say: Callable[[str], None]) -> Dataset:
    """The images in these class folders, as `--image-size`, `--test-fraction`, `--split-seed` and `--strict` say.

    Raises UserError, in one sentence, where there is nothing to learn from them.
    """
    trees = [_tree(folder) for folder in ((train,) if test is None else (train, test))]
    names = _class_names(place, trees)
    for tree in trees:  # before anything is decoded
        _refuse_empty(tree, [sum(map(is_image, tree.files[name])) for name in names], names)
    files = [
        (part, label, path)
        for part, tree in enumerate(trees)
        for label, name in enumerate(names)
        for path in tree.files[name]
    ]
    size = config.data.image_size
    memory = amount(3 * size * size * len(files))
    say(f"Reading {len(files):,} files in {place} as {size}x{size} images: {memory} of memory")
    decoded = decode([path for _, _, path in files], size, say)

    unreadable = tuple(sorted([*decoded.complaints, *(text for tree in trees for text in tree.complaints)]))
    if unreadable and config.run.strict:
        raise UserError(f"--strict: {_count(len(unreadable), 'file')} cannot be used; the first: {unreadable[0]}")
    readable = decoded.rows >= 0
    rows = decoded.rows[readable]
    parts, labels = np.array([(part, label) for part, label, _ in files])[readable].T
    for part, tree in enumerate(trees):
        _refuse_empty(tree, np.bincount(labels[parts == part], minlength=len(names)).tolist(), names)

    is_test, notes = parts == 1, _unused(place, [tree.place for tree in trees])
    if test is None:
        is_test = _choose_test([place / name for name in names], rows, labels, decoded.digests, config.data)
        notes.append(
            f"the test images are {100 * config.data.test_fraction:g} % of each class, chosen by what the files hold "
            f"(split seed {config.data.split_seed})"
        )
    both = len(np.intersect1d(rows[is_test], rows[~is_test]))
    if both:
        notes.append(f"in train and in test alike: {_count(both, 'image')}, so test figures flatter")

    sizes = decoded.sizes[decoded.sizes[:, 0] > 0]
    published = _published(names, sizes, is_split=test is not None)
    if published.fingerprints:
        check_image_size(size)
    labels = np.array([published.classes.index(name) for name in names])[labels]
    test_split = canonical_split(decoded.pixels[rows[is_test]], labels[is_test], len(names))
    train_images = decoded.pixels[rows[~is_test]]
    del decoded  # what is held at once stays below twice the images
    train_split = canonical_split(train_images, labels[~is_test], len(names))
    notes += _listed(unreadable)
    return Dataset(published, train_split, test_split, str(place), _in_words(sizes), tuple(notes), unreadable)


def _tree(place: Path) -> Tree:
    """What is in the class folders in this folder. Links to folders are followed here and no further, so no loop is."""
    tree = Tree(place)
    for folder in _folders(place):
        try:
            files = tree.files[folder.name] = []
            for path in _walk(folder):
                if path.is_file():
                    files.append(str(path))
                else:
                    what = "a link to a folder, which is not followed" if path.is_dir() else "not a file"
                    tree.complaints.append(f"{path} is {what}.")
            files.sort()
        except OSError as error:
            name = str(error.filename or folder)
            raise UserError(f"{name} cannot be read ({error.strerror or type(error).__name__}).") from None
    return tree


def _folders(place: Path) -> list[Path]:
    """The folders in a folder, by name; none in what is no folder."""
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if not is_hidden(path.name) and path.is_dir())


def _walk(folder: Path) -> Iterator[Path]:
    """All that is in a folder and in those below it, but folders: files, links to folders, whatever else there is."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield Path(entry.path)


def _class_names(place: Path, trees: list[Tree]) -> list[str]:
    """The classes, in order. Raises UserError where they are not those of all trees, or not at least two."""
    first = trees[0]
    halves = [name for name in first.files if name.casefold() in (TRAIN, *TESTS) and _folders(first.place / name)]
    if len(trees) == 1 and halves:
        raise UserError(
            f"{place} holds {_named(halves)} with folders in it: class folders are to be in train/ and in "
            "test/ (or val/, or valid/), or else directly in it, for test images to be split off."
        )
    for tree, other in zip(trees, reversed(trees), strict=True):
        odd = tree.files.keys() - other.files.keys()
        if odd:
            raise UserError(
                f"{tree.place} holds classes that {other.place} does not: {_named(odd)}. Both "
                "must hold the same class folders."
            )
    if len(first.files) == 1:
        raise UserError(f"{first.place} holds one class, {_named(first.files)}; at least two are needed.")
    return sorted(first.files, key=natural)


def _refuse_empty(tree: Tree, counts: Sequence[int], names: Sequence[str]) -> None:
    """Raise UserError where a class has no image."""
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"{tree.place}: no readable image for {_named(empty)}. Put some into each class folder, or take "
            "the folder away."
        )


def _choose_test(
    folders: Sequence[Path], rows: np.ndarray, labels: np.ndarray, digests: Sequence[bytes], config: DataConfig
) -> np.ndarray:
    """Which images are the test images, bool [N]: the same share of each class, by a digest of seed and content.

    So it hangs neither on names nor on order, size or training seed, and copies of an image stay together.
    """
    seed = f"{config.split_seed} ".encode()
    rank = {row: hashlib.sha256(seed + digests[row]).digest() for row in set(rows.tolist())}
    is_test = np.zeros(len(rows), bool)
    for label, folder in enumerate(folders):
        mine = labels == label
        images = sorted(set(rows[mine].tolist()), key=rank.__getitem__)
        if len(images) < 2:
            raise UserError(
                f"{folder} holds a single image (copies not counted), and test images are to be split "
                "off: at least two are needed, or folders train/ and test/."
            )
        count = min(max(round(len(images) * config.test_fraction), 1), len(images) - 1)
        is_test |= mine & np.isin(rows, images[:count])
    return is_test


def _published(names: list[str], sizes: np.ndarray, *, is_split: bool) -> DatasetSpec:
    """The published dataset that was written out as these folders, or else just these classes."""
    for published in (CIFAR100, CIFAR10):
        if is_split and set(names) == set(published.classes) and (sizes == SIZE).all():
            return published
    return DatasetSpec("own images", tuple(names))


def _unused(place: Path, parts: Collection[Path]) -> list[str]:
    """A line that names what there is beside the class folders of these parts, if anything is."""
    others = [] if place in parts else [path.name for path in _folders(place) if path not in parts]
    straight = sum(is_image(path) for folder in {place, *parts} for path in folder.iterdir() if path.is_file())
    unused = [_named(others)] if others else []
    unused += [f"{_count(straight, 'image')} in no class folder"] if straight else []
    return [f"not used: {' and '.join(unused)}"] if unused else []


def _listed(unreadable: Sequence[str]) -> list[str]:
    """The first of these sentences, as lines, below their number."""
    if not unreadable:
        return []
    lines = [f"{_count(len(unreadable), 'file')} left out:", *(f"  {text}" for text in unreadable[:MOST_LISTED])]
    more = len(unreadable) - MOST_LISTED
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def _in_words(sizes: np.ndarray) -> str:
    """The sizes of the originals, width x height in pixels."""
    if (sizes == sizes[0]).all():
        return f"all {sizes[0, 0]}x{sizes[0, 1]}"
    (narrow, low), (wide, high) = sizes.min(axis=0), sizes.max(axis=0)
    middle = int(np.median(sizes.min(axis=1)))
    return f"{narrow} to {wide} wide, {low} to {high} high; the shorter side's median is {middle}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _named(names: Collection[str]) -> str:
    """Some of these names, and how many more there are."""
    ordered = sorted(names, key=natural)
    more = f" and {len(ordered) - MOST_LISTED:,} more" if len(ordered) > MOST_LISTED else ""
    return ", ".join(str(name) for name in ordered[:MOST_LISTED]) + more
