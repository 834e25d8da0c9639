"""Reads the published archives of CIFAR-100 and CIFAR-10 (.tar.gz or .tar) into memory; nothing is written to disk.

Only the files of a known format are read, under their exact names; all other members are skipped.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Collection
from pathlib import Path
from tarfile import AREGTYPE, BLOCKSIZE, REGTYPE, TarError, TarInfo

from cifar100.dataset import binary, pickles
from cifar100.dataset.base import Dataset, read_file
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, read_start

MAX_UNPACKED_BYTES = 1 << 29
"""Maximum size of the unpacked archive; the official ones have about a third of that."""

MAX_PEEK = 1 << 27
"""Bytes of an archive that are searched for a published dataset, at least 64 KiB per member."""

CHUNK = 1 << 16

_KNOWN = [(reader, layout) for reader in (pickles, binary) for layout in reader.LAYOUTS]


def find(path: Path) -> tuple[Path] | None:
    """The archive: this file, or the one with a published name in this directory; None if there is none."""
    if path.is_file():
        return (path,) if _may_be_published(path) else None
    candidates = (path / layout.archive for _, layout in _KNOWN)
    return next(((candidate,) for candidate in candidates if candidate.is_file()), None)


def _may_be_published(path: Path) -> bool:
    """Whether an archive contains a directory of a published dataset near its start, or is damaged."""
    folders = {layout.folder for _, layout in _KNOWN}
    with path.open("rb") as file:
        start = file.read(BLOCKSIZE)
    if not _is_gzip(start) and not is_tar(start):
        return path.name.endswith((".tar.gz", ".tgz")) and not start.startswith(b"PK")
    left = MAX_PEEK
    try:
        with gzip.open(path) if _is_gzip(start) else path.open("rb") as file:
            while left > 0:
                block = file.read(BLOCKSIZE)
                if block == bytes(BLOCKSIZE):
                    return False
                member = TarInfo.frombuf(block, "utf-8", "replace")
                if member.size < 0 or member.name.removeprefix("./").split("/")[0] in folders:
                    return True
                padded = -(-member.size // BLOCKSIZE) * BLOCKSIZE
                left -= CHUNK + padded
                if left > 0:
                    file.seek(padded, os.SEEK_CUR)
    except (EOFError, gzip.BadGzipFile, zlib.error, TarError):
        return True
    return False


def _is_gzip(start: bytes) -> bool:
    return start.startswith(b"\x1f\x8b")


def is_tar(start: bytes) -> bool:
    """Whether this first block of a file is the header of a tar archive, of any version."""
    try:
        return start[257:262] == b"ustar" or bool(TarInfo.frombuf(start, "utf-8", "replace").name)
    except TarError:
        return False


def read(path: Path) -> Dataset:
    """The dataset in this archive. Raises UserError, naming the archive, if it is damaged or not CIFAR."""
    contents = read_members(path, {name for _, layout in _KNOWN for name in layout.members})
    for reader, layout in _KNOWN:
        if contents.keys() >= set(layout.members):
            return reader.read(
                path / layout.folder, layout, lambda file: contents.pop(file.relative_to(path).as_posix())
            )
    folders = ", ".join(layout.folder for _, layout in _KNOWN)
    raise UserError("dataset.format", f"{path} is not in a known format: it must contain all files of {folders}.")


def read_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The content of those of these members that exist, by name.

    Raises UserError if the archive is damaged, unpacks to more than MAX_UNPACKED_BYTES, or contains one of them
    twice or as anything but a regular file.
    """
    name, contents, left = str(path), dict[str, bytes](), MAX_UNPACKED_BYTES
    too_large = UserError("archive.too_large", f"{name} unpacks to more than any archive of the dataset.")
    try:
        content = io.BytesIO(read_file(path))
        with content if is_tar(content.getbuffer()[:BLOCKSIZE].tobytes()) else gzip.open(content) as file:
            while (block := file.read(BLOCKSIZE)) != bytes(BLOCKSIZE):  # zeros mark the end
                if len(block) < BLOCKSIZE:
                    raise EOFError
                # only the standard header: the extensions that tarfile supports can require any amount of memory
                member = TarInfo.frombuf(block, "utf-8", "replace")
                if member.size < 0:
                    raise TarError
                padded = -(-member.size // BLOCKSIZE) * BLOCKSIZE
                left -= CHUNK + padded  # bounds the number of empty members
                if left < 0:
                    raise too_large
                known = member.name.removeprefix("./")
                if known not in wanted:
                    file.seek(padded, os.SEEK_CUR)
                    continue
                if member.type not in (REGTYPE, AREGTYPE):
                    raise UserError("archive.not_a_file", f"{name}: its {known} is not a regular file.")
                if known in contents:
                    raise UserError("archive.duplicate", f"{name} contains {known} twice.")
                contents[known] = file.read(member.size)
                file.seek(padded - member.size, os.SEEK_CUR)
            while file.read(CHUNK):  # up to the checksum at the end
                left -= CHUNK
                if left < 0:
                    raise too_large
    except EOFError:
        raise UserError("archive.damaged", f"{name} is truncated: download it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise UserError(
            "archive.damaged",
            f"{name} is not a .tar.gz archive, or is damaged: download it again, or name a directory."
            f"{content_hint(read_start(path))}",
        ) from None
    except TarError:
        raise UserError(
            "archive.damaged", f"{name} does not contain a tar archive, or is damaged: download it again."
        ) from None
    return contents
