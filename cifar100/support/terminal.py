"""Output to the terminal, with control characters in names and messages escaped."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from shutil import get_terminal_size
from textwrap import wrap
from typing import TextIO

from cifar100.support.text import escape_control_chars, escape_lines

Say = Callable[[str], None]
"""A function that prints or logs a line of text, such as `emit`."""

_LABEL = re.compile(r" *\S+(?: \S+)*  +")
"""The first column of a line: up to two spaces or more."""


def emit(
    text: object = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False, wrapped: bool = True
) -> None:
    """Print text with control characters other than line breaks shown as `\\x1b`.

    Lines are wrapped between words to the width of the terminal, or to $COLUMNS, unless `wrapped` is false, as for
    output that programs read. The caller must escape names that may contain a line break.
    """
    stream = file or sys.stdout
    print(_fitted(escape_lines(text), stream) if wrapped else escape_lines(text), file=stream, end=end, flush=flush)


def emit_error(message: object) -> None:
    """Print a message on one line of stderr, prefixed by the name of the program, then the `steps` of an error.

    On a terminal, or if $COLUMNS is set, the lines are wrapped.
    """
    for line in (f"cifar100: {message}", *getattr(message, "steps", ())):
        print(_fitted(escape_control_chars(line), sys.stderr), file=sys.stderr)


def _fitted(text: str, stream: TextIO | None) -> str:
    if not os.environ.get("COLUMNS") and not (stream is not None and stream.isatty()):
        return text
    width = max(40, get_terminal_size().columns)
    return "\n".join(_wrapped(line, width) if len(line) > width else line for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    """The line, wrapped; continuation lines start at its second column if that is in the left half, else two spaces
    right of its own indentation."""
    label = _LABEL.match(line)
    indent = len(line) - len(line.lstrip()) + 2
    if label is not None and label.end() <= width // 2:
        indent = label.end()
    lines = wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
