"""Lines are wrapped at the width of the terminal, and unwrapped when piped."""

from __future__ import annotations

import pytest

from cifar100.cli.main import COMMANDS, main
from cifar100.support.terminal import emit, emit_error

LONG = " ".join(["word"] * 30)


@pytest.mark.parametrize("columns", [80, 100])
def test_wrapped_lines_are_indented_to_the_second_column(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    emit(f"short\n  two words  {LONG}\n  {LONG}")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0] == "short"
    assert lines[2].startswith(" " * 13 + "word")
    assert lines[-1].startswith(" " * 4 + "word")
    assert " ".join(" ".join(lines).split()) == f"short two words {LONG} {LONG}"


def test_piped_output_is_not_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    emit(LONG)
    emit_error(LONG)
    monkeypatch.setenv("COLUMNS", "80")
    emit(LONG, wrapped=False)
    emit("x" * 200)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [LONG, LONG, "x" * 200]
    assert printed.err.splitlines() == [f"cifar100: {LONG}"]


def test_messages_are_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["evaluate", "no/such/file.pth", "--data-dir", " ".join(["folder"] * 30)]) == 2
    assert main(["comparee"]) == 2
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_command_descriptions_fit_in_80_columns(name: str) -> None:
    """tyro prints each paragraph of a description as one line."""
    assert max(len(" ".join(text.split())) for text in (COMMANDS[name].__doc__ or "").split("\n\n")) <= 80
