"""Writing files that are never half there."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cifar100.support.errors import RunFailed, UserError

REPLACE_SECONDS = 2.0
"""How long a file that another program holds open is waited for."""


class FileInUse(RunFailed):
    """Another program holds the file open, so it could not be replaced. Only on Windows."""


def check_writable(flag: str, path: Path) -> None:
    """Raise UserError where no file can be written at `path`, which this flag names: before the work, not after it."""
    if not os.path.isdir(path.parent):  # unlike Path.is_dir, raises nothing if a folder cannot be entered
        raise UserError("output.directory", f"{flag} {path}: the directory {path.parent} does not exist.")
    if os.path.isdir(path):
        raise UserError("output.is_directory", f"{flag} {path} is a directory, not a file.")


def atomic_write(path: Path, content: bytes | memoryview | str) -> None:
    """Make a file hold this content: written beside it, flushed to the disk, renamed.

    Raises RunFailed if the disk refuses, FileInUse if another program holds the file open for longer than
    `REPLACE_SECONDS`; what was at `path` is then intact.
    """
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            _flush_to_disk(file)
        _replace(temporary, path)
    except OSError as error:
        kind = FileInUse if _is_in_use(error) else RunFailed
        raise kind(
            f"{path} could not be written ({error.strerror or error}). What was there before is intact."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    if sys.platform == "darwin":  # fsync leaves the content in the cache of the drive
        import fcntl

        with suppress(OSError):  # a file system without it, such as a network share
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def _replace(temporary: Path, path: Path) -> None:
    """Rename; on Windows a virus scanner or a spreadsheet may hold the file open, mostly for a moment."""
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
    """Whether Windows refuses because of another program: ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION."""
    return getattr(error, "winerror", None) in (5, 32)


def remove_temp_files(path: Path) -> None:
    """Remove what a process that was killed while it wrote `path` left beside it."""
    for leftover in path.parent.glob(f"{temporary_prefix(path)}*.tmp"):
        leftover.unlink(missing_ok=True)


def temporary_prefix(path: Path) -> str:
    """How the names of the temporary files for `path` begin; the number of the process follows."""
    return f".{path.name}."


def not_a_file(path: str | Path) -> str:
    """What there is at `path` in place of a regular file, as a further sentence; "" if there is nothing."""
    if os.path.isdir(path):
        return " It is a folder."
    return " It is a device or a pipe, not a file." if os.path.exists(path) else ""
