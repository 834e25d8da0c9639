"""cifar100/training/signals.py: which signals stop a run."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from cifar100.training.signals import GracefulStop


def test_a_handler_that_python_did_not_set_is_replaced_by_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: dict[int, Any] = {}

    def set_handler(number: int, handler: Any) -> None:
        restored[number] = handler

    monkeypatch.setattr(signal, "signal", set_handler)  # returns None, as for the handler of another language
    with GracefulStop():
        pass
    assert set(restored.values()) <= {signal.SIG_DFL}


def test_an_ignored_interrupt_stays_ignored() -> None:
    """That of a background job of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with GracefulStop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize("is_ignored", [False, True], ids=["terminal", "nohup"])
def test_closing_the_terminal_stops_a_run_unless_started_with_nohup(is_ignored: bool) -> None:
    handler = signal.SIG_IGN if is_ignored else signal.SIG_DFL
    signal.signal(signal.SIGHUP, handler)
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.signum == (0 if is_ignored else signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == handler


@pytest.mark.usefixtures("default_sighup")
def test_a_second_signal_within_a_second_does_not_end_a_run_unsaved() -> None:
    """A terminal that is closed sends SIGHUP twice: its shell, and the kernel."""
    with GracefulStop() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.signum == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        stop._time -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
