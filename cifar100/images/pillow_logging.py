"""Pillow's warnings and log messages; a module of its own, so that nothing imports Pillow to silence it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache


@contextmanager
def suppress_pillow_messages() -> Iterator[None]:
    """Suppress the warnings and log messages that Pillow emits beside the errors that it raises."""
    logger = logging.getLogger("PIL")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@cache
def silence_libtiff() -> None:
    """Make Pillow's libtiff, which writes to stderr beside the errors that Pillow raises, silent in this process."""
    import ctypes

    from PIL import _imaging

    with suppress(OSError, AttributeError):  # it is linked statically, as on Windows, or missing
        set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
