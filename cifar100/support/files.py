"""Atomic writing of files, and hints for error messages about files of the wrong kind."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cifar100.support.errors import RunFailed, UserError

REPLACE_SECONDS = 2.0
"""How long to wait for a file that another program holds open."""


class FileInUse(RunFailed):
    """Another program holds the file open, so it could not be replaced. Only on Windows."""


def check_writable(flag: str, path: Path) -> None:
    """Raise UserError if `path`, the value of `flag`, cannot be a file; call it before long work."""
    if not os.path.isdir(path.parent):  # unlike Path.is_dir, raises nothing without permission
        raise UserError("output.directory", f"{flag} {path}: the directory {path.parent} does not exist.")
    if os.path.isdir(path):
        raise UserError("output.is_directory", f"{flag} {path} is a directory, not a file.")


def atomic_write(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file atomically: to a temporary file next to it, which is flushed to the disk and renamed.

    A symbolic link stays one. A device or a pipe, such as /dev/stdout, is written to.

    Raises RunFailed if that fails, FileInUse if another program holds the file open for longer than `REPLACE_SECONDS`;
    the previous content is then intact.
    """
    if _is_special(path):
        _write_in_place(path, content)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            _flush_to_disk(file)
        _replace(temporary, path)
    except OSError as error:
        kind = FileInUse if _is_in_use(error) else RunFailed
        raise kind(
            "output.write", f"{path} could not be written ({error.strerror or error}). The previous content is intact."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """Whether this is a device, a pipe or a file descriptor of this process, which may be a regular file."""
    if _descriptor(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _descriptor(path: Path) -> int | None:
    """The file descriptor that /dev/stdout, /dev/fd/3 and the like name."""
    folder, name = os.path.split(path)
    if folder in ("/dev/fd", "/proc/self/fd") and name.isdecimal() and len(name) < 6:
        return int(name)
    return {"/dev/stdout": 1, "/dev/stderr": 2}.get(str(path))


def _write_in_place(path: Path, content: bytes | memoryview | str) -> None:
    number = _descriptor(path)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        # a copy of the descriptor shares its position with what is printed
        with path.open("ab") if number is None else open(os.dup(number), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise RunFailed("output.write", f"{path} could not be written ({error.strerror or error}).") from error


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    if sys.platform == "darwin":  # fsync leaves the content in the cache of the drive
        import fcntl

        with suppress(OSError):  # a file system without it, such as a network share
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def _replace(temporary: Path, path: Path) -> None:
    """Rename; on Windows another program, such as a virus scanner, may hold the file open for a moment."""
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError as error:
            if not _is_in_use(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _is_in_use(error: OSError) -> bool:
    """Whether Windows reports that another program uses the file: ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION."""
    return getattr(error, "winerror", None) in (5, 32)


def remove_temp_files(path: Path) -> None:
    """Remove the temporary files that killed processes left next to `path`."""
    path = Path(os.path.realpath(path))
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def read_start(path: str | Path) -> bytes:
    """The first 64 bytes of a file, for `content_hint`; b" ", for which there is no hint, if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError:
        return b" "


def content_hint(start: bytes) -> str:
    """A sentence (with a leading space) that explains a file of the wrong kind by its first bytes: empty, a Git LFS
    pointer, a web page, or safetensors; "" if it is none of these."""
    if not start:
        return " It is empty."
    if start.startswith(b"version https://git-lfs"):
        return " It is a Git LFS pointer: run git lfs pull to download the file itself."
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return " It is a web page: download the file itself."
    return " It is a safetensors file: rename it to end in .safetensors." if start[8:10] == b'{"' else ""


def not_a_file(path: str | Path) -> str:
    """A sentence about what is at `path` instead of a regular file; "" if there is nothing."""
    if os.path.isdir(path):
        best = os.path.join(path, "best_model.pth")
        return f" It is the directory of a run: name {best}." if os.path.isfile(best) else " It is a directory."
    return " It is a device or a pipe, not a file." if os.path.exists(path) else ""
