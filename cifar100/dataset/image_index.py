"""The images of a directory, by the paths and names that a file of labels may give them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from cifar100.dataset.layout import listed, split_of
from cifar100.dataset.tree import Directory, File
from cifar100.images.names import is_image
from cifar100.support.errors import UserError


class Images:
    """The images in a directory, by path, by file name, and by file name without suffix."""

    def __init__(self, directory: Directory) -> None:
        self.files: dict[str, File] = {path: file for path, file in directory.walk() if is_image(path)}
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.files:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem, pure.stem.casefold()}:
                self._paths[name].append(path)

    def find(self, cell: str, split: str = "", *, by_name: bool = False) -> str:
        """The path of the image that a cell names, perhaps with more or fewer directories at its start, or if `by_name`
        with others, unless they are of another split; "" if there is none. Of several images of one name, that in a
        directory of this split. Raises UserError if it is still ambiguous."""
        name = cell.strip().replace("\\", "/").removeprefix("./")
        if name in self.files:
            return name
        last = name.rpartition("/")[2]
        paths = self._paths.get(last) or self._paths.get(
            PurePosixPath(last).stem.casefold() if is_image(last) else "", []
        )
        if by_name:
            own = directory_split(name)
            paths = [path for path in paths if directory_split(path) in ("", own) or not own]
        else:
            paths = [path for path in paths if _agree(_directories(name), _directories(path))]
        if len(paths) > 1:
            paths = [path for path in paths if split and directory_split(path) == split] or paths
        if len(paths) > 1:
            raise UserError(
                "dataset.csv", f"'{cell}' matches several images, {listed(paths)}: use their paths instead."
            )
        return paths[0] if paths else ""


def _directories(path: str) -> tuple[str, ...]:
    """The directories of a path or an address, the innermost first, case-folded."""
    return tuple(part for part in reversed(path.casefold().split("/")[:-1]) if part)


def _agree(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether these are the same directories, of which either may lack the outermost ones."""
    return all(part == other for part, other in zip(some, others, strict=False))


def directory_split(path: str) -> str:
    """The split that a directory in a path denotes; "" if none does."""
    return next((split for part in PurePosixPath(path).parent.parts if (split := split_of(part, loose=True))), "")
