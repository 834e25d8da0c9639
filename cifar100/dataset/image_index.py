"""The images of a directory, by the paths and names that a file of labels may give them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from pathlib import PurePosixPath

from cifar100.dataset.layout import listed, split_of
from cifar100.dataset.tree import Directory, File
from cifar100.images.names import has_image_suffix
from cifar100.support.errors import UserError


class ImageIndex:
    """The images in a directory, by path, by file name, and by file name without suffix; names in Unicode's NFC.

    `count` is the number of different images: links may lead to the same ones.
    """

    def __init__(self, directory: Directory) -> None:
        self.files: dict[str, File] = {_nfc(path): file for path, file in directory.walk() if has_image_suffix(path)}
        distinct = list(self.files)
        links = directory.listing.links
        known = {os.path.realpath(str(file)) for file in self.files.values()} if links else set()
        for name, link in links.items():
            linked = {_nfc(f"{name}/{path}"): file for path, file in link.walk() if has_image_suffix(path)}
            self.files |= linked
            targets = {path: os.path.realpath(str(file)) for path, file in linked.items()}
            distinct += [path for path, target in targets.items() if target not in known]
            known |= set(targets.values())
        self.count = len(distinct)
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        for path in distinct:  # not the same image again by way of a link
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem, pure.stem.casefold()}:
                self._paths[name].append(path)

    def find(self, cell: str, split: str = "", *, by_name: bool = False) -> str:
        """The path of the image that a CSV cell refers to; "" if there is none.

        The file name must match, with or without its suffix. The directories match if one list ends with the other:
        "1.jpg" and "x/a/1.jpg" both match "a/1.jpg". With `by_name` the directories are ignored, except that an image
        in a directory of another split than the cell's own directories name does not match. Of several matches, those
        with the most shared directories are preferred (not with `by_name`), then those in a directory of `split`, then,
        for other splits than train, those outside directories of train. Raises UserError if several remain.
        """
        name = _nfc(cell).strip().replace("\\", "/").removeprefix("./")
        if name in self.files:
            return name
        last = name.rpartition("/")[2]
        directories, own = _directories(name), directory_split(name) if by_name else ""

        def is_meant(path: str) -> bool:
            if by_name:
                return not own or directory_split(path) in ("", own)
            return _agree(directories, _directories(path))

        paths = [path for path in self._paths.get(last, []) if is_meant(path)]
        if not paths and has_image_suffix(last):
            paths = [path for path in self._paths.get(PurePosixPath(last).stem.casefold(), []) if is_meant(path)]
        if len(paths) > 1 and not by_name:
            shared = [min(len(directories), len(_directories(path))) for path in paths]  # a/1.jpg is not 1.jpg
            paths = [path for path, count in zip(paths, shared, strict=True) if count == max(shared)]
        if len(paths) > 1 and split:
            paths = [path for path in paths if directory_split(path) == split] or paths
        if len(paths) > 1 and split and split != "train":  # val images may be in a directory test, and the reverse
            paths = [path for path in paths if directory_split(path) != "train"] or paths
        if len(paths) > 1:
            raise UserError(
                "dataset.csv", f"'{cell}' matches several images, {listed(paths)}: use their paths instead."
            )
        return paths[0] if paths else ""


def _nfc(name: str) -> str:
    """macOS may decompose "é" in the names of files, and a CSV file does not."""
    return unicodedata.normalize("NFC", name)


def _directories(path: str) -> tuple[str, ...]:
    """The directories of a path or an address, the innermost first, case-folded."""
    return tuple(part for part in reversed(path.casefold().split("/")[:-1]) if part)


def _agree(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether these are the same directories, of which either may lack the outermost ones."""
    return all(part == other for part, other in zip(some, others, strict=False))


def directory_split(path: str) -> str:
    """The split that a directory in a path denotes; "" if none does."""
    return next((split for part in PurePosixPath(path).parent.parts if (split := split_of(part, loose=True))), "")
