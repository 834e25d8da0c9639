"""Decoding of uploads in worker processes, which are killed and replaced if an image takes too much time or memory.

An image gets a short time in one of the fast workers. If that is not enough, it is decoded again in the slow worker, so
that expensive images wait for each other and not for ordinary photos.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import CancelledError, TimeoutError, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pebble import ProcessExpired, ProcessPool
from PIL import Image, ImageDraw

from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.support.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

NUM_FAST_WORKERS = 2
FAST_SECONDS = 0.7
"""For which a fast worker decodes one image; a 48-megapixel photo takes about as long."""

SLOW_SECONDS = 8.0
MAX_SLOW_WAITING = 4
"""Images that the slow worker decodes or that wait for it; a further one is refused."""

MAX_WORKER_BYTES = 2 << 30
"""Address space of a worker, on Linux: an image may take 1 GiB, the interpreter and its libraries take the rest."""

TINY = b"P6 1 1 255\n\0\0\0"

THUMBNAIL_SIZE = 192
SHADE = 0.45
"""Brightness of what a crop leaves out."""


@dataclass(frozen=True)
class DecodedImage:
    """What is kept of an upload."""

    pixels: np.ndarray
    """The model input, uint8 [S, S, 3]."""
    thumbnail: np.ndarray
    """To show, uint8 [H, W, 3], 192 on the longer side; of a crop the whole image, with the crop outlined."""


def decode(content: bytes, name: str, image_size: int, fit: Fit = DEFAULT_FIT) -> DecodedImage:
    """Decode an image in this process. Raises UserError if it is not an image within the bounds of `images.limits`."""
    from cifar100.images.convert import to_rgb
    from cifar100.images.square import to_square

    rgb = to_rgb(content, name=name)
    pixels = to_square(rgb, image_size, fit, name=name)
    return DecodedImage(pixels, outlined(rgb) if fit == "crop" else to_square(rgb, THUMBNAIL_SIZE, fit))


def outlined(rgb: Image.Image) -> np.ndarray:
    """A thumbnail of an image that is cropped, uint8 [H, W, 3]: what is left out is dark, with a white line around the
    crop."""
    scale = THUMBNAIL_SIZE / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    small = rgb.resize((width, height), Image.Resampling.BICUBIC)
    side = min(width, height)
    if width == height:
        return np.asarray(small)
    left, top = (width - side) // 2, (height - side) // 2
    shown = small.point(lambda value: SHADE * value)
    shown.paste(small.crop((left, top, left + side, top + side)), (left, top))
    ImageDraw.Draw(shown).rectangle((left, top, left + side - 1, top + side - 1), outline="white", width=2)
    return np.asarray(shown)


class DecoderPool:
    """Worker processes that decode images; any thread may call it. `close` ends them."""

    def __init__(self) -> None:
        context = _context()
        self._fast = ProcessPool(NUM_FAST_WORKERS, initializer=_prepare_worker, context=context)
        self._slow = ProcessPool(1, initializer=_prepare_worker, context=context)
        self._slow_places = threading.BoundedSemaphore(MAX_SLOW_WAITING)

    def warm_up(self) -> None:
        """Start the workers, so that no visitor waits for it."""
        for future in [pool.schedule(decode, (TINY, "", 1)) for pool in (self._fast, self._fast, self._slow)]:
            future.result()

    def __call__(self, content: bytes, name: str, image_size: int, fit: Fit = DEFAULT_FIT) -> DecodedImage:
        """As `decode`; UserError also if it takes too long or too much memory, or too many such images wait."""
        try:
            return self._decode(self._fast, FAST_SECONDS, (content, name, image_size, fit))
        except TimeoutError:
            pass
        if not self._slow_places.acquire(blocking=False):
            raise UserError("app.busy", f"{name} takes long to decode, and other such images wait; send a smaller one.")
        try:
            return self._decode(self._slow, SLOW_SECONDS, (content, name, image_size, fit))
        except TimeoutError:
            raise UserError("app.decode_time", f"{name} takes too long to decode; send a smaller image.") from None
        finally:
            self._slow_places.release()

    def close(self) -> None:
        """End the workers, also in the middle of an image."""
        for pool in (self._fast, self._slow):
            pool.stop()
            pool.join()

    @staticmethod
    def _decode(pool: ProcessPool, seconds: float, image: tuple[bytes, str, int, Fit]) -> DecodedImage:
        name = image[1]
        try:
            future = pool.schedule(decode, image, timeout=seconds)
            while not wait([future], timeout=1).done:  # stopping a pool leaves its futures pending
                if not pool.active:
                    raise CancelledError
            return future.result()
        except (MemoryError, ProcessExpired):
            raise UserError("app.decode_memory", f"{name} takes too much memory to decode.") from None
        except UserError:
            raise
        except Exception as error:  # pebble raises various kinds while a pool is being stopped, such as TypeError
            if pool.active and not isinstance(error, CancelledError | RuntimeError):
                raise
            raise UserError("app.closed", "The web app is shutting down.") from None


def _context() -> BaseContext:
    """The start method of the workers: a fork server with the libraries preloaded, if the system has one, so that a
    worker is replaced quickly; else "spawn"."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cifar100.images.convert", "cifar100.web.decoding", "pebble.pool.process"])
    return context


def _prepare_worker() -> None:
    """Lower the priority of this worker, bound its memory, and let SIGTERM end it inside a decoder, too.

    Load what the first image would load, which would count as its time.
    """
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        import resource

        os.nice(10)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_WORKER_BYTES, MAX_WORKER_BYTES))
    Image.init()
    decode(TINY, "", 1)
