"""Zip and tar archives of class folders or of labeled images, as the directories of `cifar100.dataset.tree`.

Members are read from the archive directly. Only a compressed tar archive is unpacked, to an unnamed temporary file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
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

from cifar100.dataset.archive import is_tar
from cifar100.dataset.tree import Directory, Listing, Member
from cifar100.images.names import is_hidden
from cifar100.support.errors import UserError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 1 << 27
MAX_DEPTH = 32
MAX_ZIP_DIRECTORY = 1 << 26
"""Size of the list of members of a zip archive, which takes about ten times as much memory."""

MAX_RATIO, FREE_RATIO_BYTES = 50, 1 << 30
"""An archive may unpack to FREE_RATIO_BYTES, or to MAX_RATIO times its size: photos hardly compress."""

CHUNK = 1 << 20
OTHER_ARCHIVES = {
    b"Rar!\x1a\x07": "RAR",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
}
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""Others are Deflate64, which Windows uses for large files, and those of AES encryption and of newer programs."""

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error),
    *(ValueError, OverflowError, RecursionError, NotImplementedError),
)
"""Exceptions that zipfile, tarfile and the decompressors raise for a damaged file, besides OSError."""


def open_archive(path: Path) -> Directory | None:
    """The directory at the top of a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz; None if the file is none of them.

    Raises UserError if it is damaged, encrypted, or unpacks to an implausible size.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            start = file.read(tarfile.BLOCKSIZE)
        other = next((kind for magic, kind in OTHER_ARCHIVES.items() if start.startswith(magic)), None)
        if other:
            raise UserError(
                "archive.kind",
                f"{name} is a {other} archive, which is not supported: unpack it and name the directory.",
            )
        if start.startswith(b"PK"):
            return _open_zip(path)
        source = _decompressed(path, start)
        if source is not None:
            with source:
                return _open_tar(path, _unpacked(path, source))
        return _open_tar(path, path.open("rb")) if is_tar(start) else None
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:
            raise _damaged(path) from None
        raise UserError("archive.unreadable", f"{name} cannot be read ({error.strerror}).") from None
    except DAMAGED:
        raise _damaged(path) from None


def _damaged(path: Path) -> UserError:
    return UserError("archive.damaged", f"{path} is a damaged archive: download or create it again.")


def _too_large(path: Path) -> UserError:
    return UserError(
        "archive.too_large",
        f"{path} unpacks to more than an archive of photos would: unpack it and name the directory.",
    )


def _max_unpacked(path: Path) -> int:
    return max(FREE_RATIO_BYTES, MAX_RATIO * path.stat().st_size)


def _open_zip(path: Path) -> Directory:
    _refuse_long_zip_directory(path)
    archive = zipfile.ZipFile(path)
    tree, left = _Tree(path), _max_unpacked(path)
    for info in archive.infolist():
        left -= info.file_size
        if left < 0:
            raise _too_large(path)
        if info.flag_bits & 1:
            raise UserError("archive.encrypted", f"{path} is encrypted: unpack it and name the directory.")
        if info.compress_type not in ZIP_METHODS:
            raise UserError(
                "archive.method",
                f"{path} is compressed by a method that is not supported ({info.compress_type}): unpack it and name "
                "the directory.",
            )
        if not info.is_dir():
            tree.add(info.filename, info.file_size, partial(_open_member, archive, info), is_file=not _is_link(info))
    return tree.top


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """`ZipFile.open` may be called by several threads. Raises OSError if the member is damaged."""
    try:
        return archive.open(info)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise OSError(None, f"the archive is damaged there: {str(error)[:200]}") from None  # may repeat the content


def _is_link(info: zipfile.ZipInfo) -> bool:
    return (info.external_attr >> 16) & 0o170000 == 0o120000


def _refuse_long_zip_directory(path: Path) -> None:
    """Raise UserError if the list of members would take a gigabyte of memory, before zipfile reads it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 1024))
        end = file.read()
    place = end.rfind(b"PK\x05\x06")
    if place < 0 or len(end) < place + 22:
        raise _damaged(path)
    (length,) = struct.unpack_from("<L", end, place + 12)
    large = end.rfind(b"PK\x06\x06")
    if length == 0xFFFFFFFF and large >= 0 and len(end) >= large + 48:
        (length,) = struct.unpack_from("<Q", end, large + 40)
    if min(length, size) > MAX_ZIP_DIRECTORY:
        raise _too_large(path)


def _decompressed(path: Path, start: bytes) -> io.BufferedIOBase | None:
    """The decompressed content of a file that starts with these bytes; None if its format is not known."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(path)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(path)
    return lzma.LZMAFile(path) if start.startswith((b"\xfd7zXZ", b"\x5d\0\0")) else None


def _unpacked(path: Path, source: io.BufferedIOBase) -> IO[bytes]:
    """The decompressed content, in an unnamed temporary file."""
    left = _max_unpacked(path)
    target = tempfile.TemporaryFile()  # noqa: SIM115 (the members are read from it later)
    try:
        while block := source.read(CHUNK):
            left -= len(block)
            if left < 0:
                raise _too_large(path)
            target.write(block)
    except OSError as error:
        if error.errno is None:  # raised by a decompressor
            raise
        free = shutil.disk_usage(tempfile.gettempdir()).free >> 20
        raise UserError(
            "archive.no_room",
            f"{path} cannot be unpacked to {tempfile.gettempdir()} ({error.strerror}; {free:,} MiB free): "
            "unpack it elsewhere and name the directory.",
        ) from None
    target.seek(0)
    return target


class _ShortReads(io.BufferedIOBase):
    """A file from which tarfile reads headers; a header of implausible size allocates no memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= CHUNK:
            raise tarfile.ReadError("the header is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Parts:
    """Thread-safe access to ranges of a file, which is closed with the last reference."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def open(self, offset: int, size: int) -> IO[bytes]:
        """`size` bytes from `offset`. Raises OSError if there are fewer."""
        with self._lock:
            self._file.seek(offset)
            content = self._file.read(size)
        if len(content) < size:
            raise OSError(None, "the archive is truncated")
        return io.BytesIO(content)

    def __del__(self) -> None:
        self._file.close()


def _open_tar(path: Path, file: IO[bytes]) -> Directory:
    tree, left, parts = _Tree(path), _max_unpacked(path), _Parts(file)
    with tarfile.open(fileobj=_ShortReads(file), mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # pyright: ignore  (tarfile keeps them otherwise)
            left -= info.size
            if info.size < 0:
                raise _damaged(path)
            if left < 0:
                raise _too_large(path)
            if info.isdir():
                continue
            whole = info.isreg() and not info.issparse()
            tree.add(info.name, info.size, partial(parts.open, info.offset_data, info.size), is_file=whole)
    return tree.top


class _Tree:
    """The directory tree of the members of an archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = 0
        self._listings: dict[str, Listing] = {"": Listing()}
        self.top = Directory(str(path), partial(self._listings.__getitem__, ""))

    def add(self, name: str, size: int, open: Callable[[], IO[bytes]], *, is_file: bool) -> None:
        """Add a member that is not a directory. A name that leads outside the archive is recorded as an error."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise _too_large(self.path)
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or any(map(is_hidden_part, parts)):
            return
        full = f"{self.path}/{'/'.join(parts)}"
        if ".." in parts or name.startswith("/") or len(parts) > MAX_DEPTH:
            self._listings[""].errors.append(f"{self.path}/{name[:200]} is not a path in the archive, or is too deep.")
            return
        listing = self._directory(parts[:-1])
        if not is_file:
            listing.errors.append(f"{full} is not a file.")
        elif size > MAX_MEMBER_BYTES:
            listing.errors.append(f"{full} has {size >> 20:,} MiB, more than any photo.")
        elif parts[-1] in listing.files or parts[-1] in listing.directories:
            raise UserError("archive.duplicate", f"{self.path} contains {'/'.join(parts)} twice.")
        else:
            listing.files[parts[-1]] = Member(full, size, open)

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


def is_hidden_part(part: str) -> bool:
    """Whether a part of a member's path is hidden; ".." is not."""
    return part != ".." and is_hidden(part)
