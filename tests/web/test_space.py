"""gradio_app/: the folder that `make space` writes, run in a fresh environment as on Hugging Face Spaces."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_app import confident_checkpoint

SPACE = ROOT / "gradio_app"


def test_front_matter_and_requirements_pin_the_same_gradio() -> None:
    import yaml

    matter = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert matter["sdk"] == "gradio"
    assert matter["app_file"] == "app.py"
    assert re.fullmatch(r"3\.\d+", matter["python_version"])
    requirements = (SPACE / "requirements.txt").read_text().split()
    assert f"gradio=={matter['sdk_version']}" in requirements
    assert all("==" in line for line in requirements)
    assert not any(line.startswith("torch") for line in requirements)
    pinned = set((ROOT / "constraints.txt").read_text().split())
    assert set(requirements) <= pinned, "the tests use the versions of the Space"


@pytest.mark.slow
def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    words = [sys.executable, SPACE / "build.py", tmp_path]
    ran = subprocess.run(words, env={**os.environ, **ON_PATH}, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert str(tmp_path) in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_runs_with_its_requirements_and_without_torch(tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    confident_checkpoint().save(tmp_path / "model.pth")
    space = tmp_path / "space"
    (space / ".git").mkdir(parents=True)  # a clone of the Space
    (space / ".git" / "config").touch()
    (space / "README.md").touch()
    words = [space, "--weights", tmp_path / "model.pth", "--format", "onnx"]
    subprocess.run([sys.executable, SPACE / "build.py", *map(str, words)], check=True, env={**os.environ, **ON_PATH})
    assert (space / ".git" / "config").exists()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", space / "requirements.txt"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [python, "app.py"], cwd=space, env={**alone, "GRADIO_SERVER_PORT": port}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert "The app is at" in server.stdout.readline()
        client = Client(f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False)
        photo = ROOT / "cifar100/images/example_photos/bee.jpg"
        answer = client.predict(handle_file(str(photo)), 5, api_name="/predict")
        assert len(answer["predictions"]) == 5
    finally:
        server.terminate()
        server.wait()


ON_PATH = {"PYTHONPATH": str(ROOT)}
