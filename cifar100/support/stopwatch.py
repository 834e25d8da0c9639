"""A timer for runs that may be interrupted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds since creation or `restart`, plus the initial `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.began = time.perf_counter() - seconds

    def restart(self) -> None:
        """Count from 0 again."""
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The elapsed time."""
        return time.perf_counter() - self.began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside the block is not counted."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.began += time.perf_counter() - began
