"""Stopping a run by a signal: between two steps, after saving."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any, Literal


class GracefulStop:
    """A context in which the first SIGINT (Ctrl-C), SIGTERM or SIGHUP only sets `signum`, for the loop to stop.

    A later SIGINT raises KeyboardInterrupt. So does a later SIGTERM or SIGHUP, but not within a second of the first
    signal, because a terminal that is closed sends SIGHUP twice: itself, and through its shell.

    A signal that the parent process has set to be ignored stays ignored: SIGHUP under nohup, so that the run continues
    after its terminal is closed, and SIGINT of a background job of a script.
    Under torchrun, repeated signals are ignored silently: Ctrl-C reaches a worker twice (from the terminal and from
    torchrun), and torchrun kills workers that do not exit within 30 s.
    """

    def __init__(self, *, under_torchrun: bool = False) -> None:
        self.signum, self._time = 0, 0.0
        self.under_torchrun = under_torchrun
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulStop:
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in map(signal.Signals.__getitem__, names):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not set by Python

    def _handle(self, number: int, _frame: object) -> None:
        is_first = not self.signum
        if is_first:
            self.signum, self._time = number, time.monotonic()
        elif not self.under_torchrun and (number == signal.SIGINT or time.monotonic() > self._time + 1):
            raise KeyboardInterrupt
        if is_first and not self.under_torchrun:
            with suppress(OSError):  # print is not safe here
                os.write(2, b"\nStopping after this step or evaluation, and saving. Again: stop now, unsaved.\n")


StopReason = signal.Signals | Literal["stop_after"]
"""Why a run stopped before its last epoch."""
