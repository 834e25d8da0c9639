"""What `predict` is given -> pixels: files, folders, patterns, addresses, standard input.

`find` says what is meant, `load` reads it: in order, small files when they are asked for, others by threads, a bounded
number of images ahead of who takes them.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar100.images.convert import resize_center_crop, to_rgb
from cifar100.images.download import download_image, is_url
from cifar100.images.names import is_hidden, is_image, natural_sort_key
from cifar100.images.pillow_logging import suppress_pillow_messages
from cifar100.support.errors import UserError
from cifar100.support.machine import usable_cores

STANDARD_INPUT = "-"

PREFETCH = 512
"""Images that may be decoded and not taken yet: some batches."""

SMALL_FILE_BYTES = 1 << 14
"""Bytes of a file that is read as it is asked for: 12,000 a second, where two threads that wait for one another's
interpreter make 6,000."""

MAX_WORKERS = 16
MIN_WORKERS_FOR_URLS = 8
"""At least, where there are any: they wait for others' machines, not for this one's cores."""

MAX_STDIN_BYTES = 1 << 28
"""Of standard input."""


class ImageSource(NamedTuple):
    """Where one image is to be had."""

    name: str
    """A path, an address, or "-" for standard input."""
    problem: str = ""
    """A sentence that says why nothing is to be had there; "" where it may be tried."""


class LoadedImage(NamedTuple):
    """An image that was read, or a sentence that says why it was not."""

    name: str
    pixels: np.ndarray | None
    """uint8 [S, S, 3]: model input; None where there is a problem."""
    problem: str = ""
    picture: np.ndarray | None = None
    """uint8 [L, L, 3]: the same square, larger, to be looked at; None where it was not asked for."""


def expand_inputs(words: Iterable[str | Path], say: Callable[[str], None] | None = None) -> list[ImageSource]:
    """What these words mean, in their order: each folder's images (those of its folders too, hidden ones not) and each
    pattern's matches sorted by name, numbers by value. A word that names a file is that file, whatever is in it.

    Files of a folder whose suffix is no image format's are skipped; `say` gets a line with their number.
    """
    skipped: Counter[str] = Counter()
    sources = _find(words, skipped)
    if skipped and say is not None:
        say(f"skipped {skipped.total():,} files without the suffix of an image format: {_suffixes(skipped)}")
    return sources


def _find(words: Iterable[str | Path], skipped: Counter[str]) -> list[ImageSource]:
    sources: list[ImageSource] = []
    for word in map(str, words):
        if word == STANDARD_INPUT or is_url(word) or os.path.isfile(word):
            repeated = word == STANDARD_INPUT and any(source.name == word for source in sources)
            sources.append(ImageSource(word, "Standard input can be read only once." if repeated else ""))
        elif os.path.isdir(word):
            sources += _in_folder(word, skipped)
        elif glob.has_magic(word) and not os.path.lexists(word):
            sources += _matches(word, skipped)
        else:
            sources.append(ImageSource(word))  # reading it finds the words for what is wrong
    return sources


def _suffixes(skipped: Counter[str]) -> str:
    return ", ".join(f"{count:,} {suffix or 'without any'}" for suffix, count in skipped.most_common(5))


def _in_folder(folder: str, skipped: Counter[str]) -> list[ImageSource]:
    found: list[ImageSource] = []
    others: Counter[str] = Counter()

    def cannot_be_read(error: OSError) -> None:
        name = str(error.filename)
        found.append(ImageSource(name, f"{name} cannot be read ({error.strerror})."))

    for place, folders, files in os.walk(folder, onerror=cannot_be_read):
        folders[:] = [name for name in folders if not is_hidden(name)]
        visible = [name for name in files if not is_hidden(name)]
        others.update(os.path.splitext(name)[1].lower() for name in visible if not is_image(name))
        paths = [os.path.join(place, name) for name in visible if is_image(name)]
        found += [ImageSource(path) for path in paths if os.path.isfile(path)]  # and no pipe, which one would wait for
    if not found:
        files = f": none of its {others.total():,} files ends in .jpg, .png, .webp or such" if others else ""
        return [ImageSource(folder, f"{folder} is a folder, not an image, and there are no images in it{files}.")]
    skipped.update(others)
    return sorted(found, key=lambda source: natural_sort_key(source.name))


def _matches(pattern: str, skipped: Counter[str]) -> list[ImageSource]:
    """By pathlib, which goes through `**` without following links to folders."""
    path = Path(pattern)
    if path.name == "**":
        return _find([path.parent], skipped)
    try:
        found = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError:  # "**" beside other letters
        found = []
    if not any(part.startswith(".") and part.strip(".") for part in path.parts):
        found = [match for match in found if not any(map(is_hidden, match.relative_to(path.anchor).parts))]
    found = sorted(map(str, found), key=natural_sort_key)
    sources = [ImageSource(match) for match in found if os.path.isfile(match)]
    if "**" not in path.parts:  # which names what is in the folders itself
        sources += [source for match in found if os.path.isdir(match) for source in _in_folder(match, skipped)]
    return sources or [ImageSource(pattern, f"No image is called {pattern}.")]


def load_images(
    sources: Sequence[ImageSource], size: int, *, pictures: int = 0, picture_size: int = 0
) -> Iterator[LoadedImage]:
    """The images, `size` x `size` pixels each, in order; of the first `pictures` also a larger square, for people."""
    addresses = any(is_url(source.name) for source in sources)
    workers = min(MAX_WORKERS, max(usable_cores(), MIN_WORKERS_FOR_URLS if addresses else 1))
    pool = ThreadPoolExecutor(workers)
    under_way: deque[Callable[[], LoadedImage]] = deque()
    try:
        with suppress_pillow_messages():
            for number, source in enumerate(sources):
                # in this thread, which can be interrupted while it waits for who writes
                content = _standard_input() if source == ImageSource(STANDARD_INPUT) else b""
                larger = picture_size if number < pictures else 0
                work = partial(_load, source, content, size, larger)
                under_way.append(work if _is_small(source.name) else pool.submit(work).result)
                if len(under_way) == PREFETCH:
                    yield under_way.popleft()()
            while under_way:
                yield under_way.popleft()()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _is_small(name: str) -> bool:
    """Whether it is a small file, whose reading takes mostly Python's time, of which threads have no more than one."""
    try:
        return os.path.getsize(name) <= SMALL_FILE_BYTES
    except (OSError, ValueError):  # no file, or no name of one
        return False


def _load(source: ImageSource, content: bytes, size: int, larger: int) -> LoadedImage:
    name = source.name
    if source.problem:
        return LoadedImage(name, None, source.problem)
    try:
        if name == STANDARD_INPUT:
            rgb = to_rgb(content, name="standard input")
        elif is_url(name):
            rgb = to_rgb(download_image(name), name=name)
        else:
            rgb = to_rgb(name)
        pixels = np.array(
            resize_center_crop(rgb, size, name=name)
        )  # of its own, to be written to: PyTorch warns otherwise
        return LoadedImage(name, pixels, picture=resize_center_crop(rgb, larger, name=name) if larger else None)
    except UserError as error:
        return LoadedImage(name, None, str(error))


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(MAX_STDIN_BYTES)
