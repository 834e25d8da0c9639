"""Inputs of `predict`: files, directories, glob patterns, URLs, standard input.

`expand_inputs` lists the images, `load_images` reads them in order: small files on demand, others by threads with a
bounded prefetch.
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

from cifar100.images.convert import to_rgb
from cifar100.images.download import download_image, is_url
from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.images.limits import MAX_FILE_BYTES
from cifar100.images.names import has_image_suffix, is_hidden, natural_sort_key
from cifar100.images.pillow_logging import suppress_pillow_messages
from cifar100.images.square import to_square, visible_fraction
from cifar100.support.errors import UserError
from cifar100.support.machine import usable_cores
from cifar100.support.terminal import Say

STANDARD_INPUT = "-"

PREFETCH = 512
"""Maximum number of images that are decoded in advance: some batches."""

SMALL_FILE_BYTES = 1 << 14
"""Files up to this size are read without threads: 12,000 per second, two threads that contend for the GIL 6,000."""

MAX_WORKERS = 16
MIN_WORKERS_FOR_URLS = 8
"""If there are URLs: their threads wait for the network, not for a core."""


class ImageSource(NamedTuple):
    """The origin of one image."""

    name: str
    """A path, a URL, or "-" for standard input."""
    problem: str = ""
    """The reason why there is no image; "" if it can be read."""


class LoadedImage(NamedTuple):
    """An image, or the reason why it could not be read."""

    name: str
    pixels: np.ndarray | None
    """uint8 [S, S, 3]: model input; None if there is a problem."""
    problem: str = ""
    preview: np.ndarray | None = None
    """uint8 [L, L, 3]: the same crop at a higher resolution, for display; None if not requested."""
    visible_fraction: float = 1.0
    """The fraction of the image's area that `pixels` shows: less than 1 if it was cropped."""


def expand_inputs(words: Iterable[str | Path], say: Say | None = None) -> list[ImageSource]:
    """The images that these arguments denote, in order. Directories are expanded recursively, without hidden entries;
    their images and the matches of a pattern are in natural order. An argument that names a file is that file.

    Files of a directory without the suffix of an image format are skipped; `say` receives a line with their number.
    """
    skipped: Counter[str] = Counter()
    sources = _find(words, skipped)
    if skipped and say is not None:
        kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in skipped.most_common(5))
        say(f"skipped {skipped.total():,} files without an image suffix: {kinds}")
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
        elif not word:
            sources.append(ImageSource(word, "An argument is empty: name an image."))
        else:
            sources.append(ImageSource(word))  # reading it gives the error message
    return sources


def _in_folder(folder: str, skipped: Counter[str]) -> list[ImageSource]:
    found: list[ImageSource] = []
    others: Counter[str] = Counter()

    def cannot_be_read(error: OSError) -> None:
        name = str(error.filename)
        found.append(ImageSource(name, f"{name} cannot be read ({error.strerror})."))

    for place, folders, files in os.walk(folder, onerror=cannot_be_read):
        folders[:] = [name for name in folders if not is_hidden(name)]
        visible = [name for name in files if not is_hidden(name)]
        others.update(os.path.splitext(name)[1].lower() for name in visible if not has_image_suffix(name))
        paths = [os.path.join(place, name) for name in visible if has_image_suffix(name)]
        found += [ImageSource(path) for path in paths if os.path.isfile(path)]  # not a pipe, which would block
    if not found:
        files = (
            f": none of its {others.total():,} files has an image suffix such as .jpg, .png or .webp" if others else ""
        )
        return [ImageSource(folder, f"{folder} is a directory without images{files}.")]
    skipped.update(others)
    return sorted(found, key=lambda source: natural_sort_key(source.name))


def _matches(pattern: str, skipped: Counter[str]) -> list[ImageSource]:
    """The images that match a pattern; pathlib expands `**` without following links to directories."""
    path = Path(pattern)
    if path.name == "**":
        return _find([path.parent], skipped)
    try:
        found = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError:  # "**" within a name
        found = []
    if not any(part.startswith(".") and part.strip(".") for part in path.parts):
        parts = {match: match.relative_to(path.anchor).parts for match in found}
        found = [match for match in found if not any(map(is_hidden, parts[match]))]
    found = sorted(map(str, found), key=natural_sort_key)
    sources = [ImageSource(match) for match in found if os.path.isfile(match)]
    if "**" not in path.parts:  # which also matches the content of the directories
        sources += [source for match in found if os.path.isdir(match) for source in _in_folder(match, skipped)]
    return sources or [ImageSource(pattern, f"No image matches {pattern}.")]


def example_photos() -> list[Path]:
    """The photos in the package, in the public domain or CC0; the stem of each is what it shows."""
    return sorted((Path(__file__).parent / "example_photos").glob("*.jpg"))


def load_images(
    sources: Sequence[ImageSource],
    size: int,
    fit: Fit = DEFAULT_FIT,
    *,
    num_previews: int = 0,
    preview_size: int = 0,
) -> Iterator[LoadedImage]:
    """The images, `size` x `size` pixels each, in order; the first `num_previews` also at `preview_size`."""
    addresses = any(is_url(source.name) for source in sources)
    workers = min(MAX_WORKERS, max(usable_cores(), MIN_WORKERS_FOR_URLS if addresses else 1))
    pool = ThreadPoolExecutor(workers)
    under_way: deque[Callable[[], LoadedImage]] = deque()
    try:
        with suppress_pillow_messages():
            for number, source in enumerate(sources):
                # in this thread, which can be interrupted while it waits for input
                content = sys.stdin.buffer.read(MAX_FILE_BYTES) if source == ImageSource(STANDARD_INPUT) else b""
                display_size = preview_size if number < num_previews else 0
                work = partial(_load, source, content, size, fit, display_size)
                under_way.append(work if _is_small(source.name) else pool.submit(work).result)
                if len(under_way) == PREFETCH:
                    yield under_way.popleft()()
            while under_way:
                yield under_way.popleft()()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _is_small(name: str) -> bool:
    """Whether a file is so small that threads would not help."""
    try:
        return os.path.getsize(name) <= SMALL_FILE_BYTES
    except (OSError, ValueError):  # not a file, or not a valid name
        return False


def _load(source: ImageSource, content: bytes, size: int, fit: Fit, preview_size: int) -> LoadedImage:
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
        pixels = np.array(to_square(rgb, size, fit, name=name))  # a writable copy: PyTorch warns otherwise
        preview = to_square(rgb, preview_size, fit, name=name) if preview_size else None
        return LoadedImage(name, pixels, "", preview, visible_fraction(*rgb.size, fit))
    except UserError as error:
        return LoadedImage(name, None, str(error))
