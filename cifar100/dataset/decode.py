"""Decoding of image files: each distinct file once, in threads, with a cache.

Pillow releases the GIL while it decodes and resizes, so threads suffice; processes would require that a user's script
can be imported again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cifar100.dataset.cache import cache_key, load_cached, store
from cifar100.dataset.tree import File, Member, read_file
from cifar100.images.limits import MAX_FILE_BYTES
from cifar100.images.pillow_logging import suppress_pillow_messages
from cifar100.support.errors import UserError
from cifar100.support.machine import available_memory, usable_cores
from cifar100.support.progress import progress
from cifar100.support.terminal import Say
from cifar100.support.text import format_bytes

VERSION = 2
"""Incremented when the pixels that `cifar100.images.convert` returns change; part of the cache key."""

MAX_WORKERS = 16
CHUNK = 32  # files per task

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoded:
    """Decoded files: N files with M distinct contents; copies have the same row."""

    rows: np.ndarray  # int64 [N]: index into `pixels` of each file; -1 if it is not a readable image
    pixels: np.ndarray  # uint8 [M, S, S, 3]
    sizes: np.ndarray  # uint32 [M, 2]: original width and height; 0 and 0 if it could not be decoded
    digests: tuple[bytes, ...]  # [M]: SHA-256 of the files
    errors: tuple[str, ...]
    """A message for each file that is not a readable image, in the order of the files."""


def decode(paths: Sequence[File], size: int, say: Say) -> Decoded:
    """The images in these files, `size` x `size` pixels each; `say` receives progress messages.

    Raises UserError, before anything is read, if they would not fit into memory.
    """
    _refuse_too_many(len(paths), size)
    with _workers() as pool:
        found = _in_chunks(pool, _digest, paths, "reading", say)  # a digest, or an error message
    digests = tuple(sorted({item for item in found if isinstance(item, bytes)}))
    row_of = {digest: row for row, digest in enumerate(digests)}
    rows = np.array([row_of[item] if isinstance(item, bytes) else -1 for item in found], np.int64)
    first = dict(zip(rows[::-1].tolist(), reversed(paths), strict=True))

    key = cache_key(digests, f"{VERSION}, Pillow {_pillow()}, {size}x{size}: ")
    sizes, pixels = load_cached(key, len(digests), size) or (
        np.zeros((len(digests), 2), np.uint32),
        np.zeros((len(digests), size, size, 3), np.uint8),
    )
    # those that could not be decoded before are tried again, for their error messages
    missing = np.flatnonzero(sizes[:, 0] == 0).tolist()

    def decode_row(row: int) -> str:
        try:
            pixels[row], sizes[row] = _decode_file(first[row], size)
        except UserError as error:
            return str(error)
        return ""

    try:
        with suppress_pillow_messages(), _workers() as pool:
            reasons = _in_chunks(pool, decode_row, missing, "decoding", say)
    finally:  # also if interrupted: the images decoded so far are stored
        reason = store(key, sizes, pixels) if sizes[missing].any() else ""
        if reason:
            say(f"The decoded images could not be cached ({reason}); they will be decoded again next time.")
    failed = {row: reason for row, reason in zip(missing, reasons, strict=True) if reason}
    errors = []
    for place, path in enumerate(paths):
        row, item = int(rows[place]), found[place]
        if isinstance(item, str):
            errors.append(item)
        elif row in failed:
            errors.append(failed[row].replace(str(first[row]), str(path)))
            rows[place] = -1
    return Decoded(rows, pixels, sizes, digests, tuple(errors))


def _in_chunks(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item], what: str, say: Say
) -> list[Result]:
    """`work(item)` for each item, in order, in the threads of the pool."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    results: list[Result] = []
    if chunks:
        with progress(what, len(items), say) as advance:
            for part in pool.map(lambda chunk: [work(item) for item in chunk], chunks):
                results += part
                advance(len(part))
    return results


def _digest(file: File) -> bytes | str:
    """The SHA-256 of a file, or an error message."""
    try:
        return hashlib.sha256(read_file(file, MAX_FILE_BYTES)).digest()
    except OSError as error:
        return f"{file} cannot be read ({error.strerror or type(error).__name__})."


def _decode_file(file: File, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The pixels of an image file, uint8 [size, size, 3], and its (width, height). Raises UserError."""
    from cifar100.images.convert import to_rgb
    from cifar100.images.square import to_square

    rgb = to_rgb(file.read(), name=file.name) if isinstance(file, Member) else to_rgb(file)
    original = rgb.info.get("original_size")  # a tuple from `to_rgb`, or the text of a PNG chunk of this name
    return to_square(rgb, size, name=str(file)), original if isinstance(original, tuple) else rgb.size


def _refuse_too_many(count: int, size: int) -> None:
    """Raise UserError if `count` images, two copies of which exist while they are sorted, do not fit into memory."""
    needed, available = 2 * 3 * count * size * size, available_memory()
    if available is not None and needed > available:
        largest = math.isqrt(available // (6 * count))
        raise UserError(
            "dataset.memory",
            f"{count:,} images of {size}x{size} pixels need {format_bytes(needed)} of memory while they are sorted; "
            f"{format_bytes(available)} are available: use an --image-size of at most {largest}, or fewer images.",
        )


def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(MAX_WORKERS, usable_cores()))


def _pillow() -> str:
    import PIL

    return PIL.__version__
