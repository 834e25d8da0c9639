"""Full disks, missing permissions, signals: one error message, the exit code, and no temporary files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_one_sentence, random_checkpoint
from PIL import Image

from cifar100.cli.main import main
from cifar100.export.graph import ExportModule, save_pt2
from cifar100.support.errors import RunFailed
from cifar100.support.files import atomic_write


@pytest.fixture
def folder(exports: Path, narrow_checkpoints: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and an image."""
    for name in ("best.onnx", "best.pth"):
        (tmp_path / name).write_bytes((exports / name).read_bytes())
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [["--help"], ["predict", "photo.png", "--checkpoint", "best.onnx", "--csv"]],
    ids=" ".join,
)
def test_standard_output_on_a_full_disk(folder: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "cifar100", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 1
    assert_one_sentence(ran.stderr.removesuffix("\n"), "cifar100: Standard output could not be written (No space left")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version >&-", 0),
        ("predict - --json --checkpoint best.onnx <&-", 1),
        ("predict photo.png --json --checkpoint best.onnx 2>&-", 0),
    ],
)
def test_closed_standard_streams(folder: Path, words: str, code: int) -> None:
    """Messages do not get into the JSON lines."""
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m cifar100 {words}"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert all(json.loads(line)["image"] for line in ran.stdout.splitlines())


def test_a_deleted_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["model"]) == 2
    assert_one_sentence(capsys.readouterr().err.removesuffix("\n"), "working directory")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "photo.png", "--checkpoint", "closed/x.safetensors"],
        ["predict", "photo.png", "--checkpoint", "closed/x.pth"],
        ["predict", "photo.png", "--checkpoint", "closed/x.onnx"],
        ["predict", "photo.png", "--checkpoint", "best.onnx", "--montage", "closed/m.png"],
        ["predict", "closed/photo.png", "--checkpoint", "best.onnx"],
        ["evaluate", "best.pth", "--json", "closed/e.json"],
        ["compare", "closed/run", "other"],
        ["report", "closed/x.pth"],
        ["export", "best.pth", "--format", "onnx", "--out", "closed/x.onnx"],
        ["train", "--resume", "--run-dir", "closed/run"],
    ],
    ids=" ".join,
)
def test_a_directory_without_permission(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str]
) -> None:
    """The system calls are patched to fail, since root can read every directory."""
    (folder / "closed").mkdir()

    def refusing(call: Any) -> Any:
        def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | os.PathLike) and "closed/" in os.fspath(path):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return call(path, *arguments, **options)

        return refuse

    for name in ("stat", "lstat", "open", "mkdir", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    monkeypatch.setattr("io.open", refusing(open))
    monkeypatch.setattr("builtins.open", refusing(open))
    code = main(words)
    shown = capsys.readouterr().err
    assert code in (1, 2)
    assert "Traceback" not in shown
    assert shown.startswith("cifar100: ")


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_temporary_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, number: signal.Signals
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = {path.name for path in folder.iterdir()}
    seen: list[str] = []

    def interrupted(*_: Any, **__: Any) -> None:
        seen.extend(path.name for path in folder.iterdir())
        os.kill(os.getpid(), number)

    monkeypatch.setattr("cifar100.export.write_unchecked", interrupted)
    handler = signal.getsignal(number)
    assert main(["export", "best.pth", "--format", "onnx", "--out", "new.onnx"]) == 143
    assert len(seen) > len(before)
    assert {path.name for path in folder.iterdir()} == before
    assert capsys.readouterr().err.endswith("cifar100: terminated\n")
    assert signal.getsignal(number) == handler


def test_a_read_only_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunFailed, match="Read-only file system"):
        atomic_write(tmp_path / "x.json", "{}")


@pytest.mark.slow
def test_pt2_on_a_full_disk_raises_an_os_error(folder: Path) -> None:
    """`torch.export.save` to a path on a full disk would abort the process (SIGABRT)."""
    with pytest.raises(OSError, match="No space left"):
        save_pt2(ExportModule(random_checkpoint(), "uint8"), Path("/dev/full"), {})
