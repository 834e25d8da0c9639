"""Project files: version numbers, workflows, `torch.hub` entry points, the package index of PyTorch."""

from __future__ import annotations

import datetime
import http.server
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

import cifar100

yaml = pytest.importorskip("yaml")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_version_is_in_the_changelog_and_the_citation() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == cifar100.__version__
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (cifar100.__version__, citation["date-released"].isoformat())
    assert isinstance(citation["date-released"], datetime.date)


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_exist(path: Path) -> None:
    jobs = read_yaml(path)["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job.get("steps", []) if "run" in step]
    called = {
        word
        for command in commands
        if command.startswith("make ")
        for word in command.split(" ARGS=")[0].split()[1:]
        if "=" not in word
    }
    assert called
    assert called <= make_targets()


def test_only_the_publishing_job_may_ask_for_a_token() -> None:
    """Trusted publishing: only one job may publish, and it runs no code of this repository."""
    release = read_yaml(ROOT / ".github" / "workflows" / "release.yml")
    holders = [name for name, job in release["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert holders == ["publish"]
    assert not [step for step in release["jobs"]["publish"]["steps"] if "run" in step]


def test_hooks_call_targets_that_exist() -> None:
    hooks = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert {hook["entry"].split()[1] for hook in hooks} <= make_targets()


def test_the_issue_form_asks_for_the_doctor() -> None:
    fields = read_yaml(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml")["body"]
    doctor = next(field for field in fields if field["id"] == "doctor")
    assert "cifar100 doctor" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"]


def test_constraints_pin_every_direct_dependency() -> None:
    """So that `make` installs the tested versions."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = content["project"], content["dependency-groups"]
    items = [project["dependencies"], *project["optional-dependencies"].values(), *groups.values()]
    named = {re.split(r"[><=!~;\[ ]", item)[0] for group in items for item in group if isinstance(item, str)}
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert {name.lower().replace("_", "-") for name in named} - {"cifar100", "wandb"} <= pinned


def from_hub(code: str, folder: Path) -> str:
    """The output of `code` in another folder; `load` calls a `torch.hub` entry point of this checkout."""
    start = f"import torch; load = lambda *a, **k: torch.hub.load({str(ROOT)!r}, *a, source='local', **k); "
    done = subprocess.run([sys.executable, "-c", start + code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_torch_hub_loads_the_pretrained_network(tmp_path: Path) -> None:
    printed = from_hub(
        "import cifar100; from cifar100 import load_predictor; model = load('resnet18', pretrained=True); "
        "images = torch.zeros(2, 3, 32, 32); print(tuple(model(images).shape), model.training); "
        "print(load('resnet18', num_classes=7)(images).shape[1]); "
        "print(len(load('predictor').classes)); print(cifar100.__file__)",
        tmp_path,
    )
    assert printed.splitlines() == ["(2, 100) False", "7", "100", str(ROOT / "cifar100" / "__init__.py")]


@pytest.fixture
def index() -> Iterator[str]:
    """The address of a local package index with a page for torch."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()
    server.server_close()


def torch_index(address: str, path: Path) -> str:
    command = [sys.executable, ROOT / ".ci" / "torch_index.py", address]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only one build of PyTorch")
def test_the_cpu_index_is_used_if_reachable_and_without_a_driver(index: str, tmp_path: Path) -> None:
    driver_here = Path("/proc/driver/nvidia").exists()
    assert torch_index(index, tmp_path) == ("" if driver_here else f"--extra-index-url {index}\n")
    assert torch_index(index.replace("/cpu", "/other"), tmp_path) == "", "the index has no torch"
    assert torch_index("http://127.0.0.1:9/whl/cpu", tmp_path) == "", "the index is unreachable"
    driver = tmp_path / "nvidia-smi"
    driver.touch(mode=0o755)
    assert torch_index(index, tmp_path) == "", "an NVIDIA driver is installed"


@pytest.mark.parametrize(("platform", "pinned", "lowest"), [("darwin", "2.14.1", "2.14"), ("linux", "2.13.0", "2.10")])
def test_macos_requires_a_pytorch_with_correct_gradients(platform: str, pinned: str, lowest: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    for lines, expected in ((constraints, f"=={pinned}"), (dependencies, f">={lowest}")):
        stated = [Requirement(line.partition("  #")[0]) for line in lines if line.startswith("torch")]
        specifiers = [
            str(one.specifier)
            for one in stated
            if one.name == "torch" and (one.marker is None or one.marker.evaluate({"sys_platform": platform}))
        ]
        assert specifiers == [expected]
