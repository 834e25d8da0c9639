"""The processor's name, on this system and on macOS."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cifar100.support.machine import processor_name


def test_the_processor_has_a_name() -> None:
    assert processor_name()


def test_macos_names_the_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **_options: object) -> str:
        commands.append(command)
        return "Apple M3 Max\n"

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "check_output", run)
    assert processor_name() == "Apple M3 Max"
    assert commands == [["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]]


def test_macos_without_sysctl_uses_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "check_output", fail)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert processor_name() == "arm"
