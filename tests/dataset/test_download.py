"""Downloads from a faulty local server."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_formats import cifar100_parquet, cifar100_pickles, some

from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset import download as fetching
from cifar100.dataset import load_dataset, read
from cifar100.dataset.download import ARCHIVE, HUB_FILES, HUB_REPOSITORY, HUB_REVISION, download_cifar100
from cifar100.dataset.published import CIFAR100
from cifar100.support.errors import UserError

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


class Server(ThreadingHTTPServer):
    """Serves `files` by path. Each GET request consumes the first of `faults`; "" means no fault."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def server_close(self) -> None:
        self.shutdown()  # otherwise the server thread keeps polling the closed socket
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print no traceback if a client closes the connection."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer(send=True)

    def answer(self, *, send: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append((self.command, self.path, wanted))
        fault = self.server.faults.pop(0) if send and self.server.faults else ""
        content = self.server.files.get(self.path)
        if content is None or fault.isdigit():
            self.send_response(int(fault) if fault else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and fault != "no ranges" else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = content[start:] if fault != "wrong bytes" else bytes(len(content) - start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", {"huge": "9" * 12, "no number": "many"}.get(fault, str(len(body))))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", HUB_REVISION)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if send:
            self.wfile.write(body[: len(body) // 2] if fault in ("truncate", "stall") else body)
            self.wfile.flush()
            if fault == "stall":
                time.sleep(1.5)
        if fault:
            self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that acts as the hub and as both mirrors, with a tiny dataset that is verified as CIFAR-100."""
    with Server() as server:
        train, test = some(0, 300, 100), some(1, 50, 100)
        for name, write in (("pickles", cifar100_pickles), ("parquet", cifar100_parquet)):
            (tmp_path / "made" / name).mkdir(parents=True)
            write(tmp_path / "made" / name, train, test)
        made = read(tmp_path / "made" / "pickles")
        monkeypatch.setitem(CIFAR100.fingerprints, "train", made.train.fingerprint)
        monkeypatch.setitem(CIFAR100.fingerprints, "test", made.test.fingerprint)

        for number, name in enumerate(HUB_FILES):
            path = (
                tmp_path / "made" / "parquet" / ("train-00000-of-00002.parquet", "test-00000-of-00002.parquet")[number]
            )
            server.files[f"/datasets/{HUB_REPOSITORY}/resolve/{HUB_REVISION}/{name}"] = path.read_bytes()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
            tar.add(tmp_path / "made" / "pickles", "cifar-100-python")
            tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
        for home in ("one", "two"):
            server.files[f"/{home}/{ARCHIVE}"] = archive.getvalue()

        monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
        monkeypatch.setattr(fetching, "HOMES", (f"{server.url}/one/", f"{server.url}/two/"))
        monkeypatch.setattr(fetching, "ARCHIVE_MD5", hashlib.md5(archive.getvalue(), usedforsecurity=False).hexdigest())
        monkeypatch.setattr(fetching, "TIMEOUT", 0.5)
        monkeypatch.setattr(fetching, "RETRY_SECONDS", 0)
        yield server


def assert_placed(folder: Path, name: str) -> None:
    """Assert that the directory contains the verified dataset and no other file."""
    assert read(folder).is_verified
    assert {path.name for path in folder.iterdir()} - {".fetch.lock"} == {name}


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["truncate"],
        ["truncate", "truncate", "truncate"],
        ["stall"],
        ["truncate", "no ranges"],
        ["redirect"],
        ["500"],
        ["503", "truncate", "500"],
        ["no number"],
    ],
    ids=lambda faults: "+".join(faults) or "none",
)
def test_the_first_mirror_with_recoverable_faults(server: Server, tmp_path: Path, faults: list[str]) -> None:
    server.faults = list(faults)
    download_cifar100(tmp_path / "data", lambda _: None)
    assert_placed(tmp_path / "data", "cifar-100-python")
    assert not (tmp_path / "outside").exists()


def test_a_truncated_response_is_continued_with_a_range_request(server: Server, tmp_path: Path) -> None:
    server.faults = ["truncate"]
    download_cifar100(tmp_path / "data", lambda _: None)
    half = len(server.files[f"/one/{ARCHIVE}"]) // 2
    assert [request[2] for request in server.requests if request[0] == "GET"] == ["", f"bytes={half}-"]


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.faults = ["truncate", *["500"] * 20]
    with pytest.raises(UserError, match="could not be downloaded"):
        download_cifar100(tmp_path / "data", lambda _: None)
    server.faults, server.requests = [], []
    download_cifar100(tmp_path / "data", lambda _: None)
    assert server.requests[0][2].startswith("bytes=")
    assert_placed(tmp_path / "data", "cifar-100-python")


def test_a_network_that_fails_within_a_transfer_is_tried_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENETUNREACH and the like are neither a ConnectionError nor a TimeoutError."""
    reads, faults = http.client.HTTPResponse.read, [OSError(errno.ENETUNREACH, "Network is unreachable")]

    def read(self: http.client.HTTPResponse, amt: int | None = None) -> bytes:
        if faults and amt == 1 << 20:
            raise faults.pop()
        return reads(self, amt)

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    download_cifar100(tmp_path / "data", lambda _: None)
    assert not faults
    assert_placed(tmp_path / "data", "cifar-100-python")


@pytest.mark.parametrize("fault", ["404", "wrong bytes", "huge"])
def test_the_second_mirror_is_used_if_the_first_fails(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults = [fault]
    shown: list[str] = []
    download_cifar100(tmp_path / "data", shown.append)
    assert_placed(tmp_path / "data", "cifar-100-python")
    assert any("/two/" in line for line in shown)
    assert any({"404": "answered 404", "wrong bytes": "MD5", "huge": "announces"}[fault] in line for line in shown)


def test_wrong_bytes_from_all_mirrors_install_nothing(server: Server, tmp_path: Path) -> None:
    server.faults = ["wrong bytes"] * 20
    with pytest.raises(UserError, match=r"could not be downloaded.*MD5.*deleted"):
        download_cifar100(tmp_path / "data", lambda _: None)
    assert not list((tmp_path / "data").rglob("*.gz"))
    assert not list((tmp_path / "data").glob("cifar*"))


def test_the_hub_is_tried_first_and_stored_in_the_binary_format(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub has the train split in one parquet file, but here it is written as two: only the first half is served."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    half = tmp_path / "made" / "half"
    half.mkdir()
    images, labels = some(0, 300, 100)
    cifar100_pickles(half, (images[:150], labels[:150]), some(1, 50, 100))
    monkeypatch.setitem(CIFAR100.fingerprints, "train", read(half).train.fingerprint)
    download_cifar100(tmp_path / "data", lambda _: None)
    assert_placed(tmp_path / "data", "cifar-100-binary")
    np.testing.assert_array_equal(read(tmp_path / "data").train.images, read(half).train.images)
    assert not [path for _, path, _ in server.requests if ARCHIVE in path]


def test_other_data_from_the_hub_is_rejected(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    shown: list[str] = []
    download_cifar100(tmp_path / "data", shown.append)
    assert any("not CIFAR-100, and were deleted" in line for line in shown)
    assert_placed(tmp_path / "data", "cifar-100-python")


def test_the_mirrors_are_used_if_the_hub_lacks_the_dataset(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for path in [path for path in server.files if "/resolve/" in path]:
        del server.files[path]
    shown: list[str] = []
    download_cifar100(tmp_path / "data", shown.append)
    assert any("answered 404" in line or "cannot be reached" in line for line in shown)
    assert_placed(tmp_path / "data", "cifar-100-python")


def test_concurrent_downloads_download_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=download_cifar100, args=(tmp_path / "data", lambda _: None)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert_placed(tmp_path / "data", "cifar-100-python")
    assert len([request for request in server.requests if request[0] == "GET"]) == 1


def test_an_existing_dataset_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    download_cifar100(tmp_path / "data", lambda _: None)
    requested, shown = len(server.requests), list[str]()
    assert download_cifar100(tmp_path / "data", shown.append).is_verified
    assert len(server.requests) == requested
    assert shown[0].startswith("Already downloaded: CIFAR-100 (verified)")


@pytest.mark.parametrize("name", ["cifar-100-python", "cifar-100-binary"])
def test_an_incomplete_directory_is_named_before_the_download(server: Server, tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / name / "train").touch()
    with pytest.raises(UserError, match=name) as caught:
        download_cifar100(tmp_path / "data", lambda _: None)
    assert caught.value.code == "download.incomplete"
    assert not server.requests


def test_an_existing_archive_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ARCHIVE).write_bytes(server.files[f"/one/{ARCHIVE}"])
    assert download_cifar100(tmp_path / "data", lambda _: None).is_verified
    assert not server.requests


def test_the_first_training_downloads_into_data(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    assert load_dataset(say=lambda _: None).is_verified
    assert_placed(tmp_path / "data", "cifar-100-python")
    requested = len(server.requests)
    assert load_dataset(say=lambda _: None).is_verified
    assert len(server.requests) == requested, "the dataset was downloaded again"


def test_nothing_is_downloaded_into_an_explicit_data_dir(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no known dataset"):
        load_dataset(Config().replace(data_dir=tmp_path / "empty"))
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="contains no known dataset"):
        load_dataset()
    assert not server.requests
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("name", ["download", "get"])
def test_data_download_writes_to_the_given_directory(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["data", name, "--to", str(tmp_path / "elsewhere")]) == 0
    assert "CIFAR-100 (verified): 300 train and 50 test images" in capsys.readouterr().out
    assert_placed(tmp_path / "elsewhere", "cifar-100-python")
