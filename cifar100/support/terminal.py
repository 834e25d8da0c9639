"""Output to the terminal: the one place at which control characters in names and messages are escaped."""

from __future__ import annotations

import sys
from typing import TextIO

from cifar100.support.text import escape_control_chars, escape_lines


def emit(text: object = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print text whose line breaks are ours; anything else that a terminal would act on is shown as `\\x1b`.

    A name with a line break in it must be escaped by the caller, who alone knows that it is not a layout.
    """
    print(escape_lines(text), file=file or sys.stdout, end=end, flush=flush)


def emit_error(message: object) -> None:
    """Print a message on one line of stderr, behind the name of the program; below it the `steps` of an error."""
    for line in (f"cifar100: {message}", *getattr(message, "steps", ())):
        print(escape_control_chars(line), file=sys.stderr)
