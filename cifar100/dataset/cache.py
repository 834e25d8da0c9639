"""Cache of decoded images, so that the same files are decoded once: in $XDG_CACHE_HOME/cifar100, or ~/.cache/cifar100.

One .npz file holds all images of a dataset at one size. Its name is a hash of the content of the image files and of how
they were decoded, so it never becomes stale. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from cifar100.support.text import format_bytes


def cache_key(digests: Iterable[bytes], method: str) -> str:
    """The key of decoded images: `digests` are those of the files, in order; `method` says how they were decoded."""
    key = hashlib.sha256(method.encode())
    for digest in digests:
        key.update(digest)
    return key.hexdigest()


def load_cached(key: str, count: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The sizes (uint32 [count, 2]) and pixels (uint8 [count, size, size, 3]) stored under this key; None if there are
    none, or the file is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with np.load(folder / f"{key}.npz", allow_pickle=False) as file:
            sizes, pixels = file["sizes"], file["pixels"]
    except Exception:  # no such file, or a damaged one, which zipfile and numpy report in many ways
        return None
    fits = sizes.shape == (count, 2) and pixels.shape == (count, size, size, 3)
    return (sizes, pixels) if fits and (sizes.dtype, pixels.dtype) == (np.uint32, np.uint8) else None


def store(key: str, sizes: np.ndarray, pixels: np.ndarray) -> str:
    """Store decoded images under a key; the reason why they could not be stored, "" if they were."""
    folder = cache_folder()
    if folder is None:
        return "there is no home directory"
    temporary = folder / f".{key}.{os.getpid()}.npz"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        np.savez(temporary, sizes=sizes, pixels=pixels)  # its checksums are those of zip archives
        temporary.replace(folder / f"{key}.npz")
    except OSError as error:
        return error.strerror or type(error).__name__
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return ""


def cache_summary() -> str:
    """The directory of the cache and the size of its content."""
    folder = cache_folder()
    if folder is None:
        return "none: there is no home directory"
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    return f"{folder}, {format_bytes(size)}; it may be deleted at any time"


def cache_folder() -> Path | None:
    """The directory of the cache, which may not exist yet; None if there is no home directory."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    try:
        parent = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"  # as the XDG standard says
    except RuntimeError:
        return None
    return parent / "cifar100"
