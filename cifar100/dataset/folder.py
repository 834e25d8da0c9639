"""Reads custom images: a folder for each class, or a CSV file of labels, in a directory or an archive.

    my_photos/train/cat/1.jpg       my_photos/cat/1.jpg
    my_photos/train/dog/1.jpg       my_photos/cat/2.png
    my_photos/test/cat/2.jpg        my_photos/dog/1.jpg
    my_photos/test/dog/2.jpg        with a fraction of each class held out for testing

Its structure is described by a `Layout`. Classes are sorted by name in natural order (2 before 10). A published dataset
in this form is recognized by its class names and the size of its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cifar100.config import Config, DataConfig
from cifar100.dataset.base import Dataset, DatasetSpec, Split, canonical_split
from cifar100.dataset.decode import Decoded, decode
from cifar100.dataset.labels_csv import find_labeled
from cifar100.dataset.layout import MAX_LISTED, Layout, class_name, listed, lookalike_hint
from cifar100.dataset.published import CIFAR10, CIFAR100, IMAGE_SIZE, check_image_size
from cifar100.dataset.tree import File, on_disk
from cifar100.images.names import has_image_suffix
from cifar100.support.errors import UserError
from cifar100.support.terminal import Say
from cifar100.support.text import counted, escape_control_chars, format_bytes

UNFIT_FOR_TRAINING = (
    "dataset.no_train",
    "dataset.classes",
    "dataset.one_class",
    "dataset.empty_class",
    "dataset.single_image",
)
"""Codes of errors that prevent training, but not evaluation."""

DARK = 64
"""If no pixel of a dataset reaches this, its files may hold 12-bit or 14-bit values, which are read as 16-bit ones."""


def find_labels(path: Path) -> Layout | None:
    """The layout of the images beside a CSV file of labels. Raises UserError if it labels none."""
    root = on_disk(path.parent)
    layout = find_labeled(root, root, only=path.name)
    return layout and replace(layout, place=str(path))


@dataclass(frozen=True)
class Loaded:
    """The N readable images of a layout, decoded."""

    decoded: Decoded
    rows: np.ndarray  # int64 [N]: index of each image into `decoded.pixels`
    labels: np.ndarray  # int64 [N]: index into the given class names
    splits: np.ndarray  # str [N]
    unreadable: tuple[str, ...]
    """A message for each file that was skipped."""

    def counts(self, split: str, num_classes: int) -> list[int]:
        """Number of images of each class in a split."""
        return np.bincount(self.labels[self.splits == split], minlength=num_classes).tolist()


def load(layout: Layout, names: Sequence[str], splits: Sequence[str], config: Config, say: Say) -> Loaded:
    """Decode the images of these classes and splits. Raises UserError if they need too much memory, or with `--strict`
    if a file is not a readable image."""
    files: list[File] = []
    origins: list[tuple[str, int]] = []
    for split in splits:
        for label, name in enumerate(names):
            of_class = layout.splits[split].files.get(name, [])
            files += of_class
            origins += [(split, label)] * len(of_class)
    size = config.data.image_size
    memory = format_bytes(3 * size * size * len(files))
    say(f"Reading {len(files):,} files in {layout.place} as {size}x{size} images: {memory} of memory")
    decoded = decode(files, size, say)
    unreadable = tuple(sorted([*decoded.errors, *layout.errors]))
    if unreadable and config.run.strict:
        raise UserError(
            "dataset.strict", f"--strict: {counted(len(unreadable), 'file')} cannot be used; the first: {unreadable[0]}"
        )
    readable = decoded.rows >= 0
    return Loaded(
        decoded,
        decoded.rows[readable],
        np.array([label for _, label in origins], np.int64)[readable],
        np.array([split for split, _ in origins], str)[readable],
        unreadable,
    )


def read(layout: Layout, *, config: Config, say: Say) -> Dataset:
    """The training and test images, according to `--image-size`, `--test-fraction`, `--split-seed` and `--strict`.

    Raises UserError if they cannot be trained on.
    """
    names = layout.classes
    _refuse_untrainable(layout)
    for split, of_split in layout.splits.items():  # before anything is decoded
        counts = [sum(has_image_suffix(str(file)) for file in of_split.files.get(name, [])) for name in names]
        _refuse_empty(layout, split, counts, names)
    loaded = load(layout, names, list(layout.splits), config, say)
    for split in layout.splits:
        _refuse_empty(layout, split, loaded.counts(split, len(names)), names, loaded.unreadable)

    notes, labels, rows, unreadable = layout.describe(), loaded.labels, loaded.rows, loaded.unreadable
    is_test = loaded.splits == "test"
    if "test" not in layout.splits:
        is_test = _choose_test(layout, rows, labels, loaded.decoded.digests, config.data)
        notes.append(
            f"the test images are {100 * config.data.test_fraction:g} % of each class, chosen by content "
            f"(split seed {config.data.split_seed})"
        )
    both = len(np.intersect1d(rows[is_test], rows[~is_test]))
    if both:
        notes.append(f"{counted(both, 'image')} in both train and test, so the test accuracy is optimistic")

    in_classes = np.unique(np.stack([rows, labels]), axis=1)[0]
    conflicting = len(in_classes) - len(np.unique(in_classes))
    if conflicting:
        notes.append(f"{counted(conflicting, 'image')} in more than one class: cifar100 data report lists them")

    pixels, sizes = loaded.decoded.pixels, _known_sizes(loaded.decoded)
    brightest = int(pixels.max())
    if brightest < DARK:
        notes.append(
            f"no pixel is brighter than {brightest} of 255: if 16-bit files hold values of fewer bits, rescale these"
        )
    del loaded
    spec = _spec_of(names, sizes, is_split="test" in layout.splits)
    if spec.fingerprints:
        check_image_size(config.data.image_size)
    labels = np.array([spec.classes.index(name) for name in names])[labels]
    test_split = canonical_split(pixels[rows[is_test]], labels[is_test], len(names))
    train_images = pixels[rows[~is_test]]
    del pixels  # peak memory stays below twice the images
    train_split = canonical_split(train_images, labels[~is_test], len(names))
    notes += _skipped_lines(unreadable)
    return Dataset(spec, train_split, test_split, layout.place, _format_sizes(sizes), tuple(notes), unreadable)


def read_labeled(layout: Layout, spec: DatasetSpec, *, everything: bool, config: Config, say: Say) -> Dataset:
    """The images of a layout as test images, for a model with the classes of `spec`: those of its test split if it has
    one, unless `everything` is true.

    The layout may contain any subset of these classes; there are no training images. Raises UserError if it contains
    others.
    """
    splits = ["test"] if "test" in layout.splits and not everything else list(layout.splits)
    known = {class_name(name): label for label, name in enumerate(spec.classes)}
    names = [name for name in layout.classes if any(layout.splits[split].files.get(name) for split in splits)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            "evaluate.classes",
            f"{layout.place} contains classes that the checkpoint does not have: {listed(unknown)}. It has "
            f"{listed(known)}.{lookalike_hint(unknown, known.keys() - set(names))}",
        )
    loaded = load(layout, names, splits, config, say)
    if not len(loaded.rows):
        first = loaded.unreadable[0] if loaded.unreadable else ""
        raise UserError("dataset.empty", f"{layout.place} contains no readable image. {first}".rstrip())
    labels = np.array([known[name] for name in names])[loaded.labels]
    test = canonical_split(loaded.decoded.pixels[loaded.rows], labels, len(known))
    none = Split(test.images[:0], test.labels[:0], "")
    evaluated = f"evaluated: {counted(len(test), 'image')}, all that there are"
    notes = (*layout.describe(), evaluated, *_skipped_lines(loaded.unreadable))
    sizes, test_name = _format_sizes(_known_sizes(loaded.decoded)), "test" if list(splits) == ["test"] else "all"
    return Dataset(spec, none, test, layout.place, sizes, notes, loaded.unreadable, test_name=test_name)


def _refuse_untrainable(layout: Layout) -> None:
    """Raise UserError unless the splits have the same classes, at least two."""
    place = layout.place
    if "train" not in layout.splits and "all" not in layout.splits:
        test = layout.splits["test"].place
        raise UserError(
            "dataset.no_train",
            f"{place} contains only test images, in {test}. cifar100 evaluate CHECKPOINT --data-dir {place} uses them; "
            f"to train, put class folders into train/ beside {test}, or rename {test} if these are all images.",
        )
    first, *others = layout.splits.values()
    for other in others:
        for one, two in ((first, other), (other, first)):
            odd = one.files.keys() - two.files.keys()
            if odd:
                raise UserError(
                    "dataset.classes",
                    f"{place}: {one.place} contains classes that {two.place} does not: "
                    f"{listed(odd)}. Both must contain the same class folders."
                    f"{lookalike_hint(odd, two.files.keys() - one.files.keys())}",
                )
    if len(layout.classes) < 2:
        raise UserError(
            "dataset.one_class",
            f"{place} contains one class, {listed(layout.classes)}; training requires at least two."
            + (f" Not used: {escape_control_chars(', '.join(layout.ignored))}." if layout.ignored else ""),
        )


def _refuse_empty(
    layout: Layout, split: str, counts: Sequence[int], names: Sequence[str], unreadable: Sequence[str] = ()
) -> None:
    """Raise UserError if a class has no image in a split."""
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        reason = f" The first unreadable file: {unreadable[0]}" if unreadable else ""
        files = {name: layout.splits[split].files.get(name, []) for name in empty}
        unnamed = [name for name, its in files.items() if its and not any(has_image_suffix(str(file)) for file in its)]
        advice = f"Rename the files of {listed(unnamed)}: an image ends in .jpg, .png or .webp, for example."
        advice = advice if unnamed else "Add images to the folder, or remove it."
        raise UserError(
            "dataset.empty_class",
            f"{layout.place}: no readable image for {listed(empty)} in {layout.splits[split].place}. {advice}{reason}",
        )


def _choose_test(
    layout: Layout, rows: np.ndarray, labels: np.ndarray, digests: Sequence[bytes], config: DataConfig
) -> np.ndarray:
    """Mask of the test images, bool [N]: the same fraction of each class, by a hash of seed and content.

    So it does not depend on names, order, image size or training seed, and copies of an image stay together.
    """
    seed = f"{config.split_seed} ".encode()
    rank = {row: hashlib.sha256(seed + digests[row]).digest() for row in set(rows.tolist())}
    is_test = np.zeros(len(rows), bool)
    for label, name in enumerate(layout.classes):
        mine = labels == label
        images = sorted(set(rows[mine].tolist()), key=rank.__getitem__)
        if len(images) < 2:
            raise UserError(
                "dataset.single_image",
                f"{layout.place}: '{name}' contains a single image (copies not counted); holding out test images "
                "requires at least two, or folders train/ and test/.",
            )
        count = min(max(round(len(images) * config.test_fraction), 1), len(images) - 1)
        is_test |= mine & np.isin(rows, images[:count])
    return is_test


def _spec_of(names: list[str], sizes: np.ndarray, *, is_split: bool) -> DatasetSpec:
    """The published dataset that these folders contain, or a dataset of just these classes."""
    for spec in (CIFAR100, CIFAR10):
        if is_split and set(names) == set(spec.classes) and (sizes == IMAGE_SIZE).all():
            return spec
    return DatasetSpec("custom images", tuple(names))


def _skipped_lines(unreadable: Sequence[str]) -> list[str]:
    """The number of these messages and the first of them, as lines."""
    if not unreadable:
        return []
    lines = [
        f"{counted(len(unreadable), 'file')} skipped:",
        *(f"  {escape_control_chars(text)}" for text in unreadable[:MAX_LISTED]),
    ]
    more = len(unreadable) - MAX_LISTED
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def _known_sizes(decoded: Decoded) -> np.ndarray:
    return decoded.sizes[decoded.sizes[:, 0] > 0]


def _format_sizes(sizes: np.ndarray) -> str:
    """Human-readable range of the original sizes, width x height in pixels."""
    if (sizes == sizes[0]).all():
        return f"all {sizes[0, 0]}x{sizes[0, 1]}"
    (narrow, low), (wide, high) = sizes.min(axis=0), sizes.max(axis=0)
    median = int(np.median(sizes.min(axis=1)))
    return f"{narrow} to {wide} wide, {low} to {high} high; median of the shorter side {median}"
