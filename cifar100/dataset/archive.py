"""Reads the archives that CIFAR-100 and CIFAR-10 are published as (.tar.gz), into memory: nothing is unpacked to disk.

Of an archive only the files of a known layout count, under their exact names, once each, and as plain files; whatever
else is in it is passed over unread. What they hold goes through the readers of these files, as it would from a folder.
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

LARGEST = 1 << 29
"""Bytes that an archive may unpack to; the real ones have about a third of that."""

CHUNK = 1 << 16

_KNOWN = [(reader, layout) for reader in (pickles, binary) for layout in reader.LAYOUTS]


def find(path: Path) -> tuple[Path] | None:
    """The archive: this file, or the one that this folder holds under its published name; None where there is none."""
    for candidate in (path, *(path / layout.archive for _, layout in _KNOWN)):
        if candidate.is_file():
            return (candidate,)
    return None


def read(path: Path) -> Dataset:
    """The dataset in this archive. Raises UserError, naming the archive, where it is damaged, hostile or foreign."""
    contents = read_members(path, {name for _, layout in _KNOWN for name in layout.members})
    for reader, layout in _KNOWN:
        if contents.keys() >= set(layout.members):
            return reader.read(
                path / layout.folder, layout, lambda file: contents.pop(file.relative_to(path).as_posix())
            )
    folders = ", ".join(layout.folder for _, layout in _KNOWN)
    raise UserError(f"{path} holds no dataset that is understood: expected all the files of {folders}.")


def read_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """What the members of these names hold, those that are there, in memory that LARGEST bounds.

    Raises UserError where the archive is damaged, unpacks to more than that, or has one of them twice or as anything
    but a plain file.
    """
    name, contents, left = str(path), dict[str, bytes](), LARGEST
    too_large = UserError(f"{name} unpacks to more than any archive of the dataset, and is refused.")
    try:
        with gzip.open(io.BytesIO(read_file(path))) as file:
            while (block := file.read(BLOCKSIZE)) != bytes(BLOCKSIZE):  # zeros end a tar archive
                if len(block) < BLOCKSIZE:
                    raise EOFError
                # only the standard's header: the extensions that tarfile would follow can ask for any memory
                member = TarInfo.frombuf(block, "utf-8", "replace")
                if member.size < 0:
                    raise TarError
                padded = -(-member.size // BLOCKSIZE) * BLOCKSIZE
                left -= CHUNK + padded  # so that there cannot be millions of empty members
                if left < 0:
                    raise too_large
                known = member.name.removeprefix("./")
                if known not in wanted:
                    file.seek(padded, os.SEEK_CUR)
                    continue
                if member.type not in (REGTYPE, AREGTYPE):
                    raise UserError(f"{name}: its {known} is no plain file.")
                if known in contents:
                    raise UserError(f"{name} has {known} twice.")
                contents[known] = file.read(member.size)
                file.seek(padded - member.size, os.SEEK_CUR)
            while file.read(CHUNK):  # to the end, where the checksum is
                left -= CHUNK
                if left < 0:
                    raise too_large
    except EOFError:
        raise UserError(f"{name} is cut short; download it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise UserError(
            f"{name} is no .tar.gz archive, or a damaged one; name a folder, or download it again."
        ) from None
    except TarError:
        raise UserError(f"{name} does not unpack to a tar archive, or is damaged; download it again.") from None
    return contents
