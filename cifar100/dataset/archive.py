"""Zip and tar archives as the directories of `cifar100.dataset.tree`.

Members are read from the archive directly. Only a compressed tar archive is unpacked: into memory, or to an unnamed
temporary file if it is larger than the published datasets.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from cifar100.dataset.tree import Directory, Listing, Member, on_disk
from cifar100.images.names import is_hidden
from cifar100.support.errors import UserError

MAX_MEMBERS = 2_000_000
MAX_DEPTH = 32
MAX_RATIO, FREE_RATIO_BYTES = 50, 1 << 30
"""An archive may unpack to FREE_RATIO_BYTES, or to MAX_RATIO times its size: photos hardly compress."""

MAX_IN_MEMORY = 1 << 28

CHUNK = 1 << 20
DECOMPRESSORS = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
}
"""{the first bytes of a compressed file: what reads it}"""

ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""Others are Deflate64, which Windows uses for large files, and those of AES encryption and of newer programs."""

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error),
    *(ValueError, OverflowError, RecursionError, NotImplementedError),
)
"""Exceptions that zipfile, tarfile and the decompressors raise for a damaged file, besides OSError."""


def open_directory(place: Path) -> Directory | None:
    """The directory at this path, or at the top of an archive; None if it is neither. Raises UserError as
    `open_archive`."""
    if os.path.isdir(place):
        return on_disk(place)
    return open_archive(place) if os.path.isfile(place) else None


def open_archive(path: Path) -> Directory | None:
    """The directory at the top of a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz; None if the file is none of them.

    Raises UserError if it is damaged, encrypted, or unpacks to an implausible size.
    """
    try:
        with path.open("rb") as file:
            start = file.read(tarfile.BLOCKSIZE)
            if start.startswith(b"PK"):
                return _open_zip(path)
            decompressor = next((kind for magic, kind in DECOMPRESSORS.items() if start.startswith(magic)), None)
            if decompressor is not None:
                with decompressor(path) as source:
                    return _open_tar(path, _unpacked(path, source))
            return _open_tar(path, path.open("rb")) if _is_tar(start) else None
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:
            raise _damaged(path) from None
        raise UserError("archive.unreadable", f"{path} cannot be read ({error.strerror}).") from None
    except DAMAGED:
        raise _damaged(path) from None


def _is_tar(start: bytes) -> bool:
    """Whether this first block of a file is the header of a tar archive, of any version."""
    try:
        return start[257:262] == b"ustar" or bool(tarfile.TarInfo.frombuf(start, "utf-8", "replace").name)
    except tarfile.TarError:
        return False


def _damaged(path: Path) -> UserError:
    return UserError("archive.damaged", f"{path} is damaged, or not an archive: download or create it again.")


def _too_large(path: Path) -> UserError:
    return UserError(
        "archive.too_large",
        f"{path} unpacks to more than an archive of photos would: unpack it and name the directory.",
    )


def _max_unpacked(path: Path) -> int:
    return max(FREE_RATIO_BYTES, MAX_RATIO * path.stat().st_size)


def _open_zip(path: Path) -> Directory:
    archive = zipfile.ZipFile(path)
    tree, left = _Tree(path), _max_unpacked(path)
    for info in archive.infolist():
        left -= info.file_size
        if left < 0:
            raise _too_large(path)
        if info.flag_bits & 1 or info.compress_type not in ZIP_METHODS:
            raise UserError(
                "archive.method",
                f"{path} is encrypted, or compressed by a method that is not supported: unpack it and name the "
                "directory.",
            )
        if not info.is_dir():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            tree.add(info.filename, info.file_size, partial(_read_member, archive, info), is_file=not is_link)
    return tree.top


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """May be called by several threads."""
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)  # not more, whatever it unpacks to
    except Exception as error:  # zipfile and the decompressors raise many types, with texts that repeat the content
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise OSError(None, f"damaged in its archive: {type(error).__name__}") from None


def _unpacked(path: Path, source: IO[bytes]) -> IO[bytes]:
    """The decompressed content, in memory or in an unnamed temporary file."""
    left = _max_unpacked(path)
    target = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115 - `_Content` closes it
    try:
        while block := source.read(CHUNK):
            left -= len(block)
            if left < 0:
                raise _too_large(path)
            target.write(block)
        target.seek(0)
    except OSError as error:
        if error.errno is None:  # raised by a decompressor
            raise
        free = shutil.disk_usage(tempfile.gettempdir()).free >> 20
        raise UserError(
            "archive.no_room",
            f"{path} cannot be unpacked to {tempfile.gettempdir()} ({error.strerror}; {free:,} MiB free): "
            "unpack it elsewhere and name the directory.",
        ) from None
    return target


class _Content(io.BufferedIOBase):
    """A file from which tarfile reads headers and threads read members; it is closed with the last reference."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._lock = file, threading.Lock()

    def read(self, size: int | None = -1, /) -> bytes:
        """Of a header: one of implausible size allocates no memory."""
        if size is None or not 0 <= size <= CHUNK:
            raise tarfile.ReadError("the header is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def member(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; thread-safe. Raises OSError if there are fewer."""
        with self._lock:
            self._file.seek(offset)
            content = self._file.read(size)
        if len(content) < size:
            raise OSError(None, "the archive is truncated")
        return content

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_tar(path: Path, file: IO[bytes]) -> Directory:
    tree, content = _Tree(path), _Content(file)
    with tarfile.open(fileobj=content, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # pyright: ignore  (tarfile keeps them otherwise)
            if info.size < 0:
                raise _damaged(path)
            if not info.isdir():
                read = partial(content.member, info.offset_data, info.size)
                tree.add(info.name, info.size, read, is_file=info.isreg() and not info.issparse())
    return tree.top


class _Tree:
    """The directory tree of the members of an archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = 0
        self._listings: dict[str, Listing] = {"": Listing()}
        self.top = Directory(str(path), partial(self._listings.__getitem__, ""))

    def add(self, name: str, size: int, read: Callable[[], bytes], *, is_file: bool) -> None:
        """Add a member that is not a directory. A name that leads outside the archive is recorded as an error."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise _too_large(self.path)
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or any(map(is_hidden, parts)):
            return
        full = f"{self.path}/{'/'.join(parts)}"
        if ".." in parts or name.startswith("/") or len(parts) > MAX_DEPTH:
            self._listings[""].errors.append(f"{self.path}/{name[:200]} is not a path in the archive, or is too deep.")
            return
        listing = self._directory(parts[:-1])
        if not is_file:
            listing.errors.append(f"{full} is not a file.")
        elif parts[-1] in listing.files or parts[-1] in listing.directories:
            raise UserError("archive.duplicate", f"{self.path} contains {'/'.join(parts)} twice.")
        else:
            listing.files[parts[-1]] = Member(full, size, read)

    def _directory(self, parts: list[str]) -> Listing:
        inside, path = self._listings[""], ""
        for part in parts:
            path = f"{path}{part}/"
            if path not in self._listings:
                self._listings[path] = Listing()
                full = f"{self.path}/{path.rstrip('/')}"
                inside.directories[part] = Directory(full, partial(self._listings.__getitem__, path))
            inside = self._listings[path]
        return inside
