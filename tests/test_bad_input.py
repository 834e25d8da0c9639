"""Invalid input ends with one clear message and its exit code, and writes nothing: the table of `bad_input.py`.

Also: small files that request much memory.
"""

from __future__ import annotations

import pickle
import resource
import shlex
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tarfile import SYMTYPE
from typing import Any

import numpy as np
import pytest
import torch
from bad_input import (
    BOMBS,
    FULL_DISK,
    HOSTILE,
    LOGS,
    MAX_UNPACKED_BYTES,
    PICKLES,
    TABLE,
    WHOLE,
    WORDING,
    Corrupt,
    Row,
    last,
    nothing,
    tarred,
    with_extra_member,
    with_fields,
    with_torch,
    written,
    zipped,
)
from conftest import assert_one_sentence, untrained
from narrow_cifar100 import narrow_training, small_network
from PIL import Image
from test_dataset import write_folder

from cifar100.cli import main as cli
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset import archive as archives
from cifar100.dataset import download as fetching
from cifar100.dataset import read
from cifar100.support.terminal import emit_error
from cifar100.support.text import escape_control_chars
from cifar100.train import train

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(scope="session")
def valid_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with only valid files."""
    valid_files = tmp_path_factory.mktemp("valid_files")
    write_folder(valid_files / "data")
    (valid_files / "home").mkdir()
    Image.new("RGB", (50, 40), "teal").save(valid_files / "photo.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(valid_files)
        narrow_training(patch.setattr)
        untrained(weights=small_network().state_dict()).save(Path("good.pth"))
        settings = {"epochs": 2, "batch_size": 2, "warmup_epochs": 1, "stop_after": 1, "device": "cpu"}
        train(Config().replace(**settings, data_dir=Path("data"), run_dir=Path(LOGS)))
    return valid_files


@pytest.fixture
def work_dir(valid_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `valid_files` as the working directory, without access to a network."""
    shutil.copytree(valid_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    narrow_training(monkeypatch.setattr)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr(fetching, "HOMES", (f"{(tmp_path / 'home').as_uri()}/",))
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    monkeypatch.setattr(archives, "FREE_RATIO_BYTES", MAX_UNPACKED_BYTES)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    return tmp_path


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All files except locks, each with its size and its first MiB."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in (".lock", ".fetch.lock"):
            with path.open("rb") as file:
                found[path] = path.stat().st_size, file.read(1 << 20)
    return found


@contextmanager
def full_disk() -> Iterator[None]:
    """Make every write to a file fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("corrupt", "words", "code"),
    [
        (nothing, "data check data", 1),  # not the published dataset
        (nothing, "predict photo.png --checkpoint good.pth", 0),
        (with_fields(), "predict photo.png --checkpoint bad.pth", 0),
        (nothing, "evaluate good.pth --data-dir data --json x.json", 0),
        (nothing, "data preview --data-dir data --out x.png", 0),
        (nothing, "train --resume --no-report --data-dir data", 0),
        (last("dataset", lambda info: replace(info, name="other")), "train --resume --no-report --data-dir data", 0),
        (written("x.tar.gz", WHOLE), "data check x.tar.gz", 1),
        (written("x.tar.gz", zipped(tarred()[:-1024])), "data check x.tar.gz", 1),  # without the zeros at its end
        (written("x.tar.gz", with_extra_member(b"x", linkname="/etc/passwd", type=SYMTYPE)), "data check x.tar.gz", 1),
    ],
)
def test_valid_input_succeeds(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, corrupt: Corrupt, words: str, code: int
) -> None:
    """A control: the rows of the table fail only because of their corruption."""
    monkeypatch.setattr("cifar100.report.augmentation.images_per_second", lambda _loader: 1.0)  # would start workers
    corrupt()
    assert main(words.split()) == code
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_bad_input_is_one_message(
    row: Row,
    work_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    row.corrupt()
    errors: list[object] = []
    monkeypatch.setattr(cli, "emit_error", lambda error: (errors.append(error), emit_error(error)))
    words = shlex.split(row.words)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("="))
    before = contents(work_dir)
    with full_disk() if row in FULL_DISK else nullcontext():
        assert main(words) == row.exit_code
    if row.error:
        assert [getattr(error, "code", None) for error in errors] == [row.error]
    printed = capsys.readouterr().err
    assert printed.startswith("cifar100: ")
    message, *steps = printed.removeprefix("cifar100: ").splitlines()
    assert_one_sentence(message)
    assert len(steps) == len(getattr(errors[0], "steps", ())) if errors else not steps
    assert WORDING.get(row.name, "") in message
    named = [row.names] if row.names else [escape_control_chars(word) for word in words[1:] if word != "data"]
    assert any(word in message for word in named), f"none of {named} is in the message: {message}"
    assert contents(work_dir) == before, "a file was written or changed, or code was run"
    shown = [warning for warning in recwarn.list if warning.category is not ResourceWarning]
    assert not shown, "a warning in addition to the message"


def test_code_in_a_dataset_is_never_run(work_dir: Path) -> None:
    content = {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [9, 4], b"batch_label": HOSTILE}
    Path("data/train").write_bytes(pickle.dumps(content, protocol=2))
    assert len(read(Path("data")).train) == 2
    assert not Path("pwned").exists()
    pickle.loads(Path("data/train").read_bytes())
    assert Path("pwned").exists(), "the pickle must be malicious, or the test proves nothing"


def test_the_malicious_checkpoint_is_malicious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_torch(HOSTILE)()
    torch.load("bad.pth", weights_only=False)
    assert (tmp_path / "pwned").exists()


MEMORY_BOMBS = [*(row for row in PICKLES if "of gigabytes" in row.name), *BOMBS]


@pytest.mark.parametrize("row", MEMORY_BOMBS, ids=lambda row: row.name)
def test_a_small_file_cannot_allocate_much_memory(work_dir: Path, row: Row) -> None:
    row.corrupt()
    tracemalloc.start()
    try:
        assert main(row.words.split()) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
