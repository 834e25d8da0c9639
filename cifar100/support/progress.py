"""Progress of long operations: a bar on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cifar100.support.terminal import Say

LINE_SECONDS = 10.0
"""Interval between two lines if there is no terminal."""


@contextmanager
def progress(what: str, total: int, say: Say, *, stream: TextIO | None = None) -> Iterator[Callable[[int], None]]:
    """A context that yields `advance(count)`, to be called with the number of items completed since the last call.

    If `stream` (default: standard output) is a terminal, it shows a bar labeled `what`, and other output scrolls above
    it. Otherwise `say` receives a line at most every `LINE_SECONDS`.
    """
    bar = _bar(sys.stdout if stream is None else stream)
    if bar is not None:
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    done, last = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            say(f"  {what}: {done:,} of {total:,}")

    yield advance


def _bar(stream: TextIO | None) -> Any:
    """A bar that is removed when it is complete; None without a terminal."""
    if stream is None or not stream.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    to_terminal = sys.stdout is not None and sys.stdout.isatty()  # else standard output is a file or a pipe
    console = Console(file=stream, soft_wrap=True)  # soft_wrap: long lines that are printed meanwhile are not broken
    return Progress(*columns, console=console, transient=True, redirect_stdout=to_terminal)
