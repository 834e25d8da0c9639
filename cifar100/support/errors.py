"""The two errors that carry a message for the user; anything else is a defect and keeps its traceback."""

from __future__ import annotations

from collections.abc import Sequence


class _CodedError(Exception):
    """`code` identifies the kind of error ("checkpoint.version") and stays the same if the message is reworded."""

    def __init__(self, code: str, message: str, *, steps: Sequence[str] = ()) -> None:
        """`steps` are what to do, each a line to print below the message."""
        self.code = code
        self.steps = tuple(steps)
        super().__init__(code, message)  # both, so that it can be pickled

    def __str__(self) -> str:
        return self.args[1]


class UserError(_CodedError):
    """A mistake that the user can correct: what was wrong, where, and what to do. Exit code 2."""


class RunFailed(_CodedError):
    """A failure while the work was under way: the loss, the disk, the memory. Exit code 1."""
