"""Decoded images, kept so that the same files are decoded once: in $XDG_CACHE_HOME/cifar100, or ~/.cache/cifar100.

A file there holds all images of a dataset at one size. Its name is a digest of what they were decoded from and how, so
nothing in it grows stale; its first bytes are the checksum of the rest. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar100.support.errors import RunFailed
from cifar100.support.files import atomic_write

LARGEST = 10 << 30
"""Bytes that the cache may hold: the files that were not used for longest go first."""

SUFFIX = ".pixels"
CHECKSUM = 32  # bytes


@dataclass(frozen=True)
class Block:
    """Decoded images in one piece of memory, laid out as their file in the cache: checksum, sizes, pixels."""

    content: np.ndarray  # uint8 [bytes]
    sizes: np.ndarray  # uint32 [M, 2]: width and height of each original; 0 and 0 where it is not decoded
    pixels: np.ndarray  # uint8 [M, S, S, 3]

    @staticmethod
    def around(content: np.ndarray, count: int, size: int) -> Block:
        """The block of `count` images of `size` x `size` pixels that these bytes hold, which are not copied."""
        start = CHECKSUM + 8 * count
        sizes = content[CHECKSUM:start].view("<u4").reshape(count, 2)
        return Block(content, sizes, content[start:].reshape(count, size, size, 3))

    @staticmethod
    def empty(count: int, size: int) -> Block:
        """A block in which nothing is decoded yet."""
        return Block.around(np.zeros(block_bytes(count, size), np.uint8), count, size)

    def checksum(self, key: str) -> bytes:
        """SHA-256 of the key that it is kept under and of all that follows the checksum."""
        digest = hashlib.sha256(key.encode())
        digest.update(self.content.data[CHECKSUM:])
        return digest.digest()


def block_bytes(count: int, size: int) -> int:
    """Bytes of a block of `count` images of `size` x `size` pixels."""
    return CHECKSUM + count * (8 + 3 * size * size)


def key_of(digests: Iterable[bytes], how: str) -> str:
    """The name of a block: `digests` are of the files that it was decoded from, in order; `how` says by what."""
    key = hashlib.sha256(how.encode())
    for digest in digests:
        key.update(digest)
    return key.hexdigest()


def load(key: str, count: int, size: int) -> Block | None:
    """The block that was kept under this key; None where there is none, or it is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / f"{key}{SUFFIX}"
    try:
        if path.stat().st_size != block_bytes(count, size):
            return None
        block = Block.around(np.fromfile(path, np.uint8), count, size)
        if block.content[:CHECKSUM].tobytes() != block.checksum(key):
            return None
    except (OSError, ValueError):  # ValueError: it became shorter meanwhile
        return None
    with suppress(OSError):
        os.utime(path)  # the latest used
    return block


def keep(key: str, block: Block) -> str:
    """Put the block into the cache, and take out what is too much; in words why not, "" where it was done."""
    folder = cache_folder()
    if folder is None:
        return "there is no home folder"
    if len(block.content) > LARGEST:
        return f"they are more than its {amount(LARGEST)}"
    block.content[:CHECKSUM] = np.frombuffer(block.checksum(key), np.uint8)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(folder, len(block.content))
        atomic_write(folder / f"{key}{SUFFIX}", block.content.data)
    except OSError as error:
        return error.strerror or type(error).__name__
    except RunFailed as error:
        reason = error.__cause__
        return getattr(reason, "strerror", None) or "it cannot be written"
    return ""


def describe() -> str:
    """Where the cache is, and how much is in it."""
    folder = cache_folder()
    if folder is None:
        return "none: there is no home folder"
    sizes = [size for _, size, _ in _kept(folder)]
    return f"{folder}, {amount(sum(sizes))} of at most {amount(LARGEST)}; it may be deleted at any time"


def cache_folder() -> Path | None:
    """The folder of the cache, which may not be there yet; None where no place for it is known."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        above = Path(named) if os.path.isabs(named) else Path.home() / ".cache"  # as its specification says
    except RuntimeError:
        return None
    return above / "cifar100"


def amount(size: int) -> str:
    """Bytes for people: 1.4 GiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _kept(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of the latest use, bytes, path) of each file of ours, the longest unused first."""
    kept = []
    with suppress(OSError):
        for path in folder.glob(f"*{SUFFIX}"):
            status = path.stat()
            kept.append((status.st_mtime, status.st_size, path))
    return sorted(kept)


def _make_room(folder: Path, size: int) -> None:
    """Remove what was not used for longest, until `size` more bytes fit, and what killed processes left."""
    kept = _kept(folder)
    too_much = sum(size for _, size, _ in kept) + size - LARGEST
    for _, bytes_, path in kept:
        if too_much > 0:
            path.unlink(missing_ok=True)
            too_much -= bytes_
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink(missing_ok=True)
