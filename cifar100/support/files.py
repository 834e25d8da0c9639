"""Writing files that are never half there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cifar100.support.errors import RunFailed, UserError


def check_writable(flag: str, path: Path) -> None:
    """Raise UserError where no file can be written at `path`, which this flag names: before the work, not after it."""
    if not os.path.isdir(path.parent):  # unlike Path.is_dir, raises nothing if a folder cannot be entered
        raise UserError(f"{flag} {path}: there is no folder {path.parent}.")
    if os.path.isdir(path):
        raise UserError(f"{flag} {path}: it is a folder, not a file.")


def atomic_write(path: Path, content: bytes | memoryview | str) -> None:
    """Make a file hold this content: written beside it, flushed to the disk, renamed.

    Raises RunFailed where the disk refuses; what was at `path` is then intact.
    """
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunFailed(
            f"{path} could not be written ({error.strerror or error}). What was there before is intact."
        ) from error
    finally:
        with suppress(OSError):  # on a read-only disk
            temporary.unlink(missing_ok=True)


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
