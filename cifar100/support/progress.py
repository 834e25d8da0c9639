"""How far a long piece of work is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

LINE_SECONDS = 10.0
"""Between two lines, where there is no terminal."""


@contextmanager
def progress(
    what: str, total: int, say: Callable[[str], None], *, stream: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """A context that gives a function, to be told how many more of `total` are done. The bar is drawn on `stream`, the
    standard output if None; what is printed meanwhile scrolls above it."""
    bar = _bar(sys.stdout if stream is None else stream)
    if bar is not None:
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    done, last = 0, time.monotonic()

    def tell(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            say(f"  {what}: {done:,} of {total:,}")

    yield tell


def _bar(stream: TextIO | None) -> Any:
    """A bar that goes away when it is done; None off a terminal, or without rich."""
    if stream is None or not stream.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    to_terminal = sys.stdout is not None and sys.stdout.isatty()  # else what is printed goes where it was sent
    return Progress(*columns, console=Console(file=stream), transient=True, redirect_stdout=to_terminal)
