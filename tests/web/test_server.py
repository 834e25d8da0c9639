"""The server of the web app: rejected requests, malformed input, cleanup."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_app import confident_checkpoint

from cifar100.images.sources import example_photos
from cifar100.inference import load_predictor
from cifar100.support.errors import UserError
from cifar100.web.server import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    confident_checkpoint().save(path)
    return path


@pytest.fixture(scope="module")
def port(model_file: Path) -> Iterator[int]:
    """The port of a server that was started with unreachable proxies in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "")  # restored at the end
            patch.delenv(name)
        with serving(load_predictor(model_file, device="cpu")) as address:
            yield int(address.rstrip("/").rpartition(":")[2])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("[::1]", 200),
        ("attacker.example", 400),
        ("127.0.0.1.attacker.example", 400),
    ],
)
def test_foreign_host_headers_are_refused(port: int, host: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/config", headers={"Host": f"{host}:{port}"})
    assert connection.getresponse().status == status


def test_a_port_in_use_is_a_user_error(model_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(UserError) as error, serving(load_predictor(model_file, device="cpu"), port=number):
            pass
    assert error.value.code == "app.address"
    assert str(number) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def app(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port and the stderr of `cifar100 app`."""
    log = tmp_path_factory.mktemp("app") / "stderr.txt"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--checkpoint", model_file, "--device", "cpu", "--port", str(port)]
    command = [sys.executable, "-m", "cifar100", "app", *options]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        yield port, log
        process.terminate()


def send(port: int, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET" if body is None else "POST", f"/gradio_api/{path}", body, headers)
    response = connection.getresponse()
    return response.status, response.read()


JSON, FORM = {"Content-Type": "application/json"}, {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="files"'


def event(data: object, function: object = 0) -> bytes:
    return json.dumps({"data": data, "fn_index": function, "session_hash": "s"}).encode()


def file(path: object) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


MALFORMED = {
    "no JSON": ("queue/join", b"{", JSON),
    "not an object": ("queue/join", b"[]", JSON),
    "NaN": ("call/predict", b'{"data": NaN}', JSON),
    "infinity": ("cancel", b'{"data": [1e999]}', JSON),
    "deep": ("call/predict", b"[" * 100_000, JSON),
    "large": ("queue/join", b" " * 2_000_000, JSON),
    "no fields": ("queue/join", b"{}", JSON),
    "no such function": ("queue/join", event([None], 999), JSON),
    "a negative function": ("queue/join", event([None], -1), JSON),
    "a function of the wrong type": ("queue/join", event([None], "x"), JSON),
    "no such endpoint": ("call/nope", b'{"data": []}', JSON),
    "too few values": ("queue/join", event([]), JSON),
    "too many values": ("queue/join", event([None, None]), JSON),
    "data of the wrong type": ("queue/join", event("x"), JSON),
    "no file": ("call/predict", event([{}, 5]), JSON),
    "a path of the wrong type": ("call/predict", event([file(3), 5]), JSON),
    "a path elsewhere": ("call/predict", event([file("/etc/passwd"), 5]), JSON),
    "a path with a null": ("call/predict", event([file("a\0b"), 5]), JSON),
    "a long path": ("call/predict", event([file("a" * 5000), 5]), JSON),
    "a URL without a path": ("call/predict", event([{"url": "http://127.0.0.1:1/x.png"}, 5]), JSON),
    "a number of the wrong type": ("call/predict", event([None, "x"]), JSON),
    "a direct call of no function": ("run/predict", event([0], 99), JSON),
    "an example of the wrong type": ("run/predict", event(["x"], 1), JSON),
    "a direct call": ("api/predict", event([None, 5]), JSON),
    "a component": ("component_server", b'{"session_hash":"s","component_id":0,"fn_name":"x","data":[]}', JSON),
    "an upload without a boundary": ("upload", b"x", {"Content-Type": "multipart/form-data"}),
    "an upload with a long boundary": ("upload", b"x", {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}),
    "an upload without a file name": ("upload", PART + b"\r\n\r\nabc\r\n--x--\r\n", FORM),
    "an unknown session": ("queue/data?session_hash=nope", None, {}),
    "large headers": ("info", None, {"X": "y" * 65_000}),
    "no host": ("info", None, {"X-Forwarded-Host": "[::"}),
    "no host, in an event": ("queue/join", event([None, 5]), JSON | {"X-Forwarded-Host": "\xa0"}),
    "no server, in an event": ("queue/join", event([None, 5]), JSON | {"X-Gradio-Server": "http://[::"}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused_without_a_traceback(app: tuple[int, Path], name: str) -> None:
    port, log = app
    status, _ = send(port, *MALFORMED[name])
    assert 400 <= status < 500 or name == "an unknown session"  # reported in an event stream
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("path", ["file=https://example.org/x.png", "file/http://example.org/x.png"])
def test_urls_are_not_fetched(app: tuple[int, Path], path: str) -> None:
    status, answer = send(app[0], path, None, {})
    assert (status, json.loads(answer)) == (403, {"detail": "URLs are not fetched."})


def test_the_run_history_is_off(app: tuple[int, Path]) -> None:
    """It would use the Hugging Face token of whoever runs the app; without a token it answers 401."""
    assert send(app[0], "run-history/buckets", None, {})[0] == 404


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_upgrade_is_ignored(app: tuple[int, Path], protocol: str) -> None:
    port, log = app
    headers = JSON | {"Connection": "Upgrade", "Upgrade": protocol, "Sec-WebSocket-Version": "13"}
    assert send(port, "info", None, headers)[0] == 200
    assert 400 <= send(port, "call/predict", b"{}", headers)[0] < 500
    assert "WARNING" not in log.read_text()


def test_a_well_formed_request_is_answered(app: tuple[int, Path]) -> None:
    port, log = app
    content = example_photos()[0].read_bytes()
    status, answer = send(port, "upload", PART + b'; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n", FORM)
    assert status == 200
    status, answer = send(port, "call/predict", event([file(json.loads(answer)[0]), 5]), JSON)
    assert status == 200
    status, answer = send(port, f"call/predict/{json.loads(answer)['event_id']}", None, {})
    assert (status, b"event: complete" in answer, b"class_name" in answer) == (200, True, True)
    assert "Traceback" not in log.read_text()


def test_nothing_is_left_after_sigterm(model_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cifar100", "app", "--checkpoint", model_file, "--device", "cpu", "--port"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        command.append(str(free.getsockname()[1]))
    with subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as app:
        assert app.stdout is not None
        assert app.stderr is not None
        app.stdout.readline()
        assert list(tmp_path.glob("cifar100-page-*/examples/*.jpg"))
        app.send_signal(signal.SIGTERM)
        assert app.wait(timeout=60) == 0
        assert "Traceback" not in app.stderr.read()
    assert not list(tmp_path.glob("cifar100-page-*"))
