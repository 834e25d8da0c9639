"""A run that is asked to stop does so in order: saved, between two steps."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


class GracefulStop:
    """In this context the first SIGINT (Ctrl-C), SIGTERM or SIGHUP is only noted, in `number`; a second one acts.

    Under torchrun (`forwarded`) a second one changes nothing, and none is spoken of: the first may come twice, directly
    and passed on; torchrun sends one also where another process failed; and it ends who does not end in 30 seconds.
    """

    def __init__(self, *, forwarded: bool = False) -> None:
        self.number = 0
        self.forwarded = forwarded
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulStop:
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in map(signal.Signals.__getitem__, names):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.number and not self.forwarded:
            raise KeyboardInterrupt
        self.number = self.number or number
        if not self.forwarded:
            with suppress(OSError):  # print is not safe here
                os.write(2, b"\nStopping after this step or evaluation, and saving. Once more: at once, unsaved.\n")


@dataclass(frozen=True)
class StopAfter:
    """The setting `stop_after` ended the run."""

    epoch: int


StopReason = signal.Signals | StopAfter
"""What stopped a run before its last epoch."""


def describe_stop(reason: StopReason) -> str:
    """The signal's name, or the flag."""
    return f"--stop-after {reason.epoch}" if isinstance(reason, StopAfter) else reason.name
