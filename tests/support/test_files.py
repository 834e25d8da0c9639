"""Atomic writing on Windows, where another program can lock a file, and on macOS; pickling of errors."""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import ROOT

from cifar100.support import files
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.files import FileInUse, atomic_write, remove_temp_files

LockFiles = Callable[[int, int], list[Path]]


@pytest.fixture
def lock_files(monkeypatch: pytest.MonkeyPatch) -> LockFiles:
    """A function that makes the next attempts to replace a file fail as on Windows; returns the list of attempts."""
    monkeypatch.setattr(files, "REPLACE_SECONDS", 0.2)
    replace = Path.replace

    def lock(num_failures: int, winerror: int) -> list[Path]:
        attempts: list[Path] = []

        def replace_locked(self: Path, target: Path) -> Path:
            attempts.append(Path(target))
            if len(attempts) <= num_failures:
                error = PermissionError(13, "Permission denied")
                error.winerror = winerror  # type: ignore[attr-defined]
                raise error
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", replace_locked)
        return attempts

    return lock


@pytest.mark.parametrize("winerror", [5, 32])
def test_replacing_a_briefly_locked_file_is_retried(lock_files: LockFiles, winerror: int, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_text("before")
    attempts = lock_files(2, winerror)
    atomic_write(path, "after")
    assert len(attempts) == 3
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_stays_locked_is_reported_and_unchanged(lock_files: LockFiles, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_text("before")
    attempts = lock_files(1000, 32)
    with pytest.raises(FileInUse, match=r"last\.pth"):
        atomic_write(path, "after")
    assert len(attempts) > 2
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_retried(lock_files: LockFiles, tmp_path: Path) -> None:
    attempts = lock_files(1000, 0)
    with pytest.raises(RunFailed) as caught:
        atomic_write(tmp_path / "last.pth", "after")
    assert not isinstance(caught.value, FileInUse)
    assert len(attempts) == 1


def test_a_symbolic_link_and_a_pipe_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "last.pth").write_text("before")
    (tmp_path / "last.pth").symlink_to("disk/last.pth")
    atomic_write(tmp_path / "last.pth", "after")
    assert (tmp_path / "last.pth").is_symlink()
    assert [path.read_text() for path in (tmp_path / "disk").iterdir()] == ["after"]
    (tmp_path / "disk" / ".last.pth.123.tmp").touch()
    remove_temp_files(tmp_path / "last.pth")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["last.pth"]

    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic_write(tmp_path / "pipe", "content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_devices_are_written_to(tmp_path: Path, path: str) -> None:
    """What is printed before and after stays in order, also in a regular file."""
    code = "from pathlib import Path; from cifar100.support.files import atomic_write as write; print('before');"
    code += f"write(Path('/dev/null'), 'x'); write(Path('{path}'), 'content\\n'); print('after')"
    before = [os.lstat(name).st_ino for name in ("/dev/null", "/dev/stdout")]
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=ROOT)
    assert (tmp_path / "out.txt").read_text().split() == ["before", "content", "after"]
    assert [os.lstat(name).st_ino for name in ("/dev/null", "/dev/stdout")] == before


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="a file system of Linux")
def test_a_file_in_shared_memory_is_replaced() -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        for content in ("first", "second"):
            atomic_write(Path(folder, "last.pth"), content)
        assert Path(folder, "last.pth").read_text() == "second"


@pytest.mark.parametrize("supported", [True, False])
def test_macos_flushes_the_cache_of_the_drive(supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []

    def full_sync(_descriptor: int, _command: int) -> None:
        if not supported:
            raise OSError(45, "Operation not supported")
        flushed.append("F_FULLFSYNC")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: flushed.append("fsync"))
    atomic_write(tmp_path / "last.pth", "content")
    assert flushed == ["F_FULLFSYNC" if supported else "fsync"]


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(UserError("area.kind", "What is wrong.", steps=("what to do",))))
    assert (error.code, str(error), error.steps) == ("area.kind", "What is wrong.", ("what to do",))
