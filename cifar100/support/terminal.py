"""Output to the terminal, with control characters in names and messages escaped."""

from __future__ import annotations

import sys
from typing import TextIO

from cifar100.support.text import escape_control_chars, escape_lines


def emit(text: object = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print text with control characters other than line breaks shown as `\\x1b`.

    The caller must escape names that may contain a line break.
    """
    print(escape_lines(text), file=file or sys.stdout, end=end, flush=flush)


def emit_error(message: object) -> None:
    """Print a message on one line of stderr, prefixed by the name of the program, then the `steps` of an error."""
    for line in (f"cifar100: {message}", *getattr(message, "steps", ())):
        print(escape_control_chars(line), file=sys.stderr)
