"""Directories of files, on disk or in an archive, with one interface."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cifar100.images.names import has_image_suffix, is_hidden
from cifar100.support.errors import UserError
from cifar100.support.text import format_bytes


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    """The path of the archive and the path in it, for messages."""
    size: int
    read: Callable[[], bytes]
    """Returns its content; thread-safe. Raises OSError if it is damaged."""

    def __str__(self) -> str:
        return self.name


File = str | Member
"""A file: its path on disk, or a member of an archive."""


@dataclass
class Listing:
    """The entries of a directory, by name; without hidden ones."""

    directories: dict[str, Directory] = field(default_factory=dict)
    links: dict[str, Directory] = field(default_factory=dict)
    """Symbolic links to directories."""
    files: dict[str, File] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """A message for each other entry."""


class Directory:
    """A directory, which is read when first accessed."""

    def __init__(self, name: str, read: Callable[[], Listing]) -> None:
        """`name` is for messages; `read` raises UserError if the directory cannot be read."""
        self.name = name
        self._read = read

    @cached_property
    def listing(self) -> Listing:
        """Its entries."""
        return self._read()

    @cached_property
    def directories(self) -> dict[str, Directory]:
        """Its subdirectories, including symbolic links to directories."""
        return dict(sorted((self.listing.directories | self.listing.links).items()))

    @cached_property
    def image_files(self) -> list[str]:
        """Names of its files with the suffix of an image format."""
        return [name for name in self.listing.files if has_image_suffix(name)]

    @cached_property
    def with_images(self) -> dict[str, Directory]:
        """Its subdirectories that contain an image at any depth."""
        return {name: directory for name, directory in self.directories.items() if directory.holds_images}

    @cached_property
    def holds_images(self) -> bool:
        """Whether it contains an image at any depth; at most one symbolic link per path is followed."""
        waiting = [(self, True)]
        while waiting:
            directory, follow = waiting.pop()
            if directory.image_files:
                return True
            waiting += [(inner, follow) for inner in directory.listing.directories.values()]
            waiting += [(link, False) for link in directory.listing.links.values() if follow]
        return False

    def walk(self, errors: list[str] | None = None) -> Iterator[tuple[str, File]]:
        """Every file in it, at any depth, with its path relative to it ("a/b.jpg"), sorted within each directory.

        Symbolic links to directories are not followed, so that a loop of them ends. `errors` receives a
        message for each of them, and for each entry that is not a file.
        """
        waiting = [("", self)]
        while waiting:
            prefix, directory = waiting.pop()
            listing = directory.listing
            if errors is not None:
                errors += listing.errors
                errors += [
                    f"{link.name} is a link to a directory, which is not followed." for link in listing.links.values()
                ]
            yield from ((prefix + name, listing.files[name]) for name in sorted(listing.files))
            waiting += [(f"{prefix}{name}/", listing.directories[name]) for name in sorted(listing.directories)[::-1]]

    def count_images(self) -> int:
        """Number of images in it, at any depth."""
        return sum(has_image_suffix(path) for path, _ in self.walk())


def on_disk(path: Path | str) -> Directory:
    """The directory at this path."""
    return Directory(str(path), lambda: _read_disk(str(path)))


def _read_disk(path: str) -> Listing:
    listing = Listing()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    listing.directories[entry.name] = on_disk(entry.path)
                elif os.path.isdir(entry.path) and not _holds(entry.path, path):
                    listing.links[entry.name] = on_disk(entry.path)
                elif entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
                    listing.files[entry.name] = entry.path
                else:
                    what = "a link to a directory that contains it" if os.path.isdir(entry.path) else "not a file"
                    listing.errors.append(f"{entry.path} is {what}.")
    except OSError as error:
        name = str(error.filename or path)
        raise UserError(
            "dataset.unreadable", f"{name} cannot be read ({error.strerror or type(error).__name__})."
        ) from None
    listing.errors.sort()
    return listing


def _holds(link: str, directory: str) -> bool:
    """Whether a link leads to a directory that contains it."""
    target, inside = os.path.realpath(link), os.path.realpath(directory)
    return inside == target or inside.startswith(target.rstrip(os.sep) + os.sep)


def read_file(file: File, max_bytes: int) -> bytes:
    """The content of a file. Raises OSError if it cannot be read or is larger than `max_bytes`."""
    size = file.size if isinstance(file, Member) else os.stat(file).st_size
    if size > max_bytes:
        raise OSError(errno.EFBIG, f"{format_bytes(size)}; at most {format_bytes(max_bytes)} are read")
    return file.read() if isinstance(file, Member) else Path(file).read_bytes()
