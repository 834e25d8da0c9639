"""Uploads are deleted by age and by total size."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cifar100.web.uploads import delete_uploads, deleting_uploads


def upload(folder: Path, name: str, *, age: float = 0, size: int = 10) -> Path:
    path = folder / name / "image.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(size))
    if age:  # else the file may already be deleted
        modified = time.time() - age
        os.utime(path, (modified, modified))
    return path


def left(folder: Path) -> set[str]:
    """The names of the directories that contain an upload. `Path.rglob` would fail if one is deleted meanwhile."""
    return {Path(parent).name for parent, _, names in os.walk(folder) if "image.png" in names}


def test_old_uploads_and_their_directories_are_deleted(tmp_path: Path) -> None:
    old = upload(tmp_path, "old", age=100)
    upload(tmp_path, "new", age=10)
    example = upload(tmp_path / "examples", "example", age=1000)
    delete_uploads(tmp_path, max_age=60, keep=tmp_path / "examples")
    assert left(tmp_path) == {"new", "example"}
    assert not old.parent.exists()
    assert example.exists()


def test_the_oldest_uploads_are_deleted_above_the_size_limit(tmp_path: Path) -> None:
    for age in range(5):
        upload(tmp_path, str(age), age=age, size=100)
    delete_uploads(tmp_path, max_age=60, max_bytes=250)
    assert left(tmp_path) == {"0", "1"}


def test_a_thread_deletes_uploads_while_others_arrive(tmp_path: Path) -> None:
    with deleting_uploads(tmp_path, max_age=0.1):
        for number in range(50):
            upload(tmp_path, str(number))
            time.sleep(0.01)
        end = time.monotonic() + 10
        while left(tmp_path) and time.monotonic() < end:
            time.sleep(0.05)
        assert left(tmp_path) == set()
