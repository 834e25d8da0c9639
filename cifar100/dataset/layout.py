"""How a folder of images is divided into splits and classes; used for training, checking and evaluation.

    photos/train/cat/1.jpg      photos/cat/1.jpg        photos/images/1.jpg
    photos/test/cat/2.jpg       photos/dog/2.jpg        photos/labels.csv

Directories that only contain one of these are passed through. An ambiguous layout is an error; what is not used is
listed.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from cifar100.dataset.tree import Directory, File
from cifar100.images.names import natural_sort_key
from cifar100.support.text import escape_control_chars

MAX_LISTED = 5
MAX_CLASSES_LISTED = 10

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tests", "testset", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "eval", "evaluation", "dev"), "val"),
}
FILLER_WORDS = {"", "set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "split", "seg"}
FILLER_WORDS |= {"public", "private"}


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, by class."""

    place: str
    """The directory of its class folders, or its file of labels."""
    files: dict[str, list[File]]


@dataclass(frozen=True)
class Layout:
    """The splits and classes of a folder, and its other content."""

    place: str
    """The path that was given."""
    splits: dict[str, SplitFiles]
    """"train", "test" or both; or "all", if there are no splits."""
    ignored: tuple[str, ...] = ()
    """Human-readable descriptions of what is not used."""
    remarks: tuple[str, ...] = ()
    """Human-readable descriptions of how ambiguous parts were interpreted."""
    errors: tuple[str, ...] = field(default=(), repr=False)
    """A message for each entry of a class folder that is not a file."""

    @property
    def classes(self) -> list[str]:
        """Class names of all splits, in natural order."""
        return sorted({name for split in self.splits.values() for name in split.files}, key=natural_sort_key)

    def describe(self) -> list[str]:
        """The layout in human-readable lines, with class names and numbers of files."""
        known = self.splits.values()
        if "all" in self.splits:
            location = f"images in {self.splits['all'].place}, not divided into train/ and test/"
        else:
            location = ", ".join(f"{name} images in {split.place}" for name, split in self.splits.items())
        counts = [
            f"{escape_control_chars(name)} {' + '.join(f'{len(split.files.get(name, ())):,}' for split in known)}"
            for name in self.classes
        ]
        more = len(counts) - MAX_CLASSES_LISTED
        shown = ", ".join(counts[:MAX_CLASSES_LISTED]) + (f" and {more:,} more" if more > 0 else "")
        lines = [f"layout: {location}", f"classes and files: {shown}", *self.remarks]
        lines += [f"look alike, but are different classes: {listed(same)}" for same in lookalikes(self.classes)]
        lines += [f"not used: {', '.join(self.ignored)}"] if self.ignored else []
        return [escape_control_chars(line) for line in lines]


def class_name(name: str) -> str:
    """The normalized name of a class: in Unicode's composed form (NFC), without surrounding spaces."""
    return unicodedata.normalize("NFC", name).strip() or name


def split_of(name: str, *, loose: bool = False) -> str:
    """The split that a directory name denotes: "train", "test" or "val"; "" if none.

    "Testing", "val_images" and "PublicTest" denote one; "bullet_train" and "train_station" only if `loose`.
    """
    words = _words(name)
    kinds = [SPLIT_WORDS.get(word, "") for word in words]
    others = [word for word in words if word not in SPLIT_WORDS and word not in FILLER_WORDS]
    found = {kind for kind in kinds if kind}
    if len(found) != 1 or (others and not (loose and (kinds[0] or kinds[-1]))):
        return ""
    return found.pop()


def is_filler(name: str) -> bool:
    """Whether a directory name only describes the kind of content, such as "images"; a number does not."""
    words = _words(name)
    return any(words) and set(words) <= FILLER_WORDS


def _words(name: str) -> list[str]:
    parts = re.sub("(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))  # PublicTest: public, test
    return re.split(r"[\W\d_]+", parts.casefold())


def relative(root: Directory, directory: Directory) -> str:
    """The path of `directory` relative to `root`, with a trailing slash; "./" for `root` itself."""
    return f"{directory.name[len(root.name) :].lstrip('/' + os.sep) or '.'}/"


def listed(names: Iterable[str]) -> str:
    """The first of these names, quoted, and the number of the others."""
    ordered = sorted(names, key=natural_sort_key)
    more = f" and {len(ordered) - MAX_LISTED:,} more" if len(ordered) > MAX_LISTED else ""
    return ", ".join(f"'{escape_control_chars(name)}'" for name in ordered[:MAX_LISTED]) + more


def lookalike_hint(names: Iterable[str], others: Iterable[str]) -> str:
    """A sentence about the first of `names` with the same letters as another of `others`; "" if there is none."""
    known = {_letters(other): other for other in others}
    pairs = ((name, known.get(_letters(name), name)) for name in names)
    return next((f" {one!a} and {two!a} are different names: rename one." for one, two in pairs if one != two), "")


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Those of these names that have the same letters as another one, in groups."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_letters(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _letters(name: str) -> str:
    """The letters and digits of a name, in lower case; the name itself if it has none."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())) or name
