"""The server of the web app: what it refuses, what it survives, what it leaves behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_app import sure_checkpoint

from cifar100.inference import load_predictor
from cifar100.support.errors import UserError
from cifar100.web.server import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    sure_checkpoint().save(path)
    return path


@pytest.fixture(scope="module")
def port(model_file: Path) -> Iterator[int]:
    """That of a server which was started with proxies in the environment that do not exist."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.delenv("no_proxy", raising=False)
        patch.delenv("NO_PROXY", raising=False)
        with serving(load_predictor(model_file, device="cpu")) as address:
            yield int(address.rstrip("/").rpartition(":")[2])
        assert "no_proxy" not in os.environ


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


def test_a_port_that_is_taken_is_one_message(model_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(UserError) as error, serving(load_predictor(model_file, device="cpu"), port=number):
            pass
    assert error.value.code == "app.address"
    assert str(number) in str(error.value)
    assert "\n" not in str(error.value)


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
