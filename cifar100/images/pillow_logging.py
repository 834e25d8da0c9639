"""Pillow's warnings and log messages; a module of its own, so that nothing imports Pillow to silence it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
