"""Deletion of uploads by age and by total size, independent of gradio's own cleanup."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SWEEP_SECONDS = 10.0
MAX_TOTAL_BYTES = 500_000_000


def delete_uploads(folder: Path, *, max_age: float, max_bytes: int = MAX_TOTAL_BYTES, keep: Path | None = None) -> None:
    """Delete the files below `folder` that are older than `max_age` seconds, then the oldest ones until at most
    `max_bytes` are left; files below `keep` stay. Directories that are empty then go as well."""
    found: list[tuple[float, int, str]] = []
    for parent, _, names in os.walk(folder):
        if keep is not None and Path(parent).is_relative_to(keep):
            continue
        for name in names:
            with suppress(OSError):  # it was deleted meanwhile
                status = os.stat(os.path.join(parent, name))
                found.append((status.st_mtime, status.st_size, os.path.join(parent, name)))
    total = sum(size for _, size, _ in found)
    now = time.time()
    for modified, size, path in sorted(found):
        if now - modified <= max_age and total <= max_bytes:
            break
        total -= size
        with suppress(OSError):
            os.unlink(path)
            if os.path.dirname(path) != str(folder):
                os.rmdir(os.path.dirname(path))


@contextmanager
def deleting_uploads(folder: Path, *, max_age: float, keep: Path | None = None) -> Iterator[None]:
    """A context in which a thread deletes uploads every ten seconds."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(min(SWEEP_SECONDS, max_age / 2)):
            delete_uploads(folder, max_age=max_age, keep=keep)

    thread = threading.Thread(target=sweep, name="upload-deletion", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
