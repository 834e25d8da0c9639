"""cifar100/checkpoints/hub.py with a local server that emulates the hub's HTTP API; and the model card."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from conftest import SYNTHETIC_INFO, assert_one_sentence, narrow_network, random_checkpoint
from safetensors.torch import save_file
from test_download import NOWHERE, Handler, Server

from cifar100.checkpoints import hub
from cifar100.checkpoints.model_card import model_card
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset.published import CIFAR10, CIFAR100
from cifar100.inference import load_predictor
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo, Selection
from cifar100.support.settings import without_local_paths

REAL = DatasetInfo(name="CIFAR-100", verified=True, fingerprint=CIFAR100.fingerprints["train"])
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


class HubHandler(Handler):
    """Serves files that were pushed or added to `server.files`."""

    def answer(self, *, send: bool) -> None:
        known = self.path in self.server.files
        if known or self.server.faults:
            super().answer(send=send)
            return
        if self.path == "/api/models/someone/model" and self.headers.get("Authorization") == "Bearer hf_good":
            self.reply(200, {"id": "someone/model", "private": self.server.private and not self.server.files})
            return
        if "/tree/main" in self.path:
            paths = [path.partition("/resolve/main/")[2] for path in self.server.files]
            self.reply(200, [{"type": "file", "path": path, "oid": "a" * 40, "size": 1} for path in paths])
            return
        repository = "/".join(self.path.split("/")[:3])
        exists = any(path.startswith(f"{repository}/") for path in self.server.files)
        self.reply(404, {}, {"X-Error-Code": "EntryNotFound" if exists else "RepoNotFound"})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self.chunks()
        self.server.requests.append(("POST", self.path, self.headers.get("Authorization", "")))
        if self.headers.get("Authorization") != "Bearer hf_good":
            self.reply(403, {"error": "no"})
        elif self.path == "/api/repos/create":
            self.server.private = json.loads(body).get("private")
            self.reply(200, {"url": f"{self.server.url}/someone/model"})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.reply(200, {"files": files})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                operation = json.loads(line)
                if operation["key"] == "file":
                    place = f"/someone/model/resolve/main/{operation['value']['path']}"
                    self.server.files[place] = base64.b64decode(operation["value"]["content"])
                elif operation["key"] == "deletedFile":
                    del self.server.files[f"/someone/model/resolve/main/{operation['value']['path']}"]
            url = f"{self.server.url}/someone/model/commit/{'a' * 40}"
            self.reply(200, {"commitUrl": url, "commitOid": "a" * 40, "success": True})
        else:
            self.reply(200, {"errors": [], "warnings": []})

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def server(narrow_checkpoints: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """An empty hub, with a valid token, a temporary cache and narrow networks."""
    with Server() as server:
        server.RequestHandlerClass = HubHandler
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("cifar100.export.transformers_js.write_layout", lambda *_, **__: None)  # slow
        yield server


@pytest.fixture
def pushed(server: Server, tmp_path: Path) -> Path:
    """A checkpoint that was pushed to someone/model."""
    evaluation = {
        "split": "test",
        "images": 600,
        "top1": 0.7512,
        "top5": 0.9407,
        "superclass_top1": None,
        "compute": "cpu, fp32",
    }
    path = tmp_path / "best.pth"
    random_checkpoint(recipe="fast", compute="cpu (threads: 2), bf16", evaluation=evaluation).save(path)
    assert main(["push", "someone/model", "--checkpoint", str(path)]) == 0
    return path


def test_a_pushed_model_is_loaded_by_its_address(server: Server, pushed: Path) -> None:
    names = {path.rsplit("/", 1)[1] for path in server.files}
    assert names == {"model.safetensors", "model.json", "README.md"}
    expected = load_predictor(pushed, precision="fp32").predict(IMAGE)
    for address in (
        "hf://someone/model",
        Path("hf://someone/model"),
        "hf://someone/model@main",
        "hf://someone/model/model.safetensors",
    ):
        assert load_predictor(address, precision="fp32").predict(IMAGE) == expected
    assert load_weights("hf://someone/model").evaluation["top1"] == 0.7512


def test_a_push_deletes_what_an_earlier_one_wrote_and_this_one_does_not(server: Server, pushed: Path) -> None:
    root = "/someone/model/resolve/main/"
    server.files |= {root + name: b"old" for name in ("onnx/model_quantized.onnx", "config.json", "own/notes.txt")}
    assert main(["push", "someone/model", "--checkpoint", str(pushed)]) == 0
    names = {path.removeprefix(root) for path in server.files}
    assert names == {"model.safetensors", "model.json", "README.md", "own/notes.txt"}


@pytest.mark.parametrize("address", [PureWindowsPath("hf://someone/model"), PureWindowsPath("hf://a/b@v1/c.onnx")])
def test_addresses_are_recognized_as_paths_of_windows(address: PureWindowsPath) -> None:
    assert hub.is_hub_address(address)  # pyright: ignore[reportArgumentType]
    assert hub.ADDRESS.fullmatch(str(address).replace("\\", "/"))
    assert without_local_paths({"init_from": address})["init_from"] == address


def test_a_cached_model_is_loaded_offline(server: Server, pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_predictor("hf://someone/model")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert len(load_predictor("hf://someone/model").classes) == 100
    with pytest.raises(UserError) as caught:
        load_predictor("hf://someone/else")
    assert caught.value.code == "hub.offline"
    assert_one_sentence(str(caught.value), "someone/else")


def test_weights_are_downloaded_once(server: Server, pushed: Path) -> None:
    for _ in range(2):
        load_predictor("hf://someone/model")
    assert len([path for method, path, _ in server.requests if method == "GET" and "safetensors" in path]) == 1


def test_onnx_is_loaded_if_there_are_no_weights_and_then_offline(
    server: Server, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/someone/model/resolve/main/model.onnx"] = (exports / "best.onnx").read_bytes()
    expected = load_predictor(exports / "best.onnx").predict(IMAGE)
    for endpoint in (server.url, NOWHERE):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert load_predictor("hf://someone/model").predict(IMAGE) == expected


@pytest.mark.parametrize(
    ("address", "code", "name"),
    [
        ("hf://someone", "hub.address", "hf://someone"),
        ("hf://someone/model/best_model.pth", "hub.address", "best_model.pth"),
        ("hf://someone/../model/x.onnx", "hub.address", "someone/../model"),
        ("hf://some--one/m..odel", "hub.name", "some--one/m..odel"),
        ("hf://nobody/model", "hub.not_found", "nobody/model"),
        ("hf://someone/model/other.onnx", "hub.no_weights", "other.onnx"),
        ("hf://someone/model", "hub.no_weights", "someone/model"),
    ],
)
def test_invalid_and_missing_addresses_are_refused(server: Server, address: str, code: str, name: str) -> None:
    server.files["/someone/model/resolve/main/best_model.pth"] = b"code"
    with pytest.raises(UserError) as caught:
        load_predictor(address)
    assert caught.value.code == code
    assert_one_sentence(str(caught.value), name)
    assert not [path for method, path, _ in server.requests if method == "GET"], "nothing was fetched"


def test_a_too_large_file_is_not_downloaded(server: Server, pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.MAX_BYTES, ".safetensors", 1000)
    with pytest.raises(UserError) as caught:
        load_predictor("hf://someone/model")
    assert caught.value.code == "hub.size"
    assert_one_sentence(str(caught.value), "model.safetensors", "someone/model")
    assert not [path for method, path, _ in server.requests if method == "GET"]


def test_weights_of_another_network_are_refused(server: Server, tmp_path: Path) -> None:
    save_weights(random_checkpoint(weights={"evil": torch.zeros(3)}), tmp_path / "model.safetensors")
    for name in ("model.safetensors", "model.json"):
        server.files[f"/someone/model/resolve/main/{name}"] = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match="resnet18") as caught:
        load_predictor("hf://someone/model")
    assert caught.value.code == "checkpoint.weights"


def test_pushing_without_permission_is_refused(
    server: Server, pushed: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    assert main(["push", "someone/model", "--checkpoint", str(pushed)]) == 2
    assert "someone/model (403)" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["push", "someone/model", "--checkpoint", str(pushed)]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert main(["push", "model", "--checkpoint", str(pushed)]) == 2
    assert "it must be user/model" in capsys.readouterr().err


def test_pushing_without_a_network(pushed: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert main(["push", "someone/model", "--checkpoint", str(pushed)]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_push_to_a_folder_uploads_nothing(server: Server, tmp_path: Path) -> None:
    random_checkpoint().save(tmp_path / "best.pth")
    words = ["push", "someone/model", "--checkpoint", str(tmp_path / "best.pth"), "--folder", str(tmp_path / "look")]
    assert main(words) == 0
    assert load_predictor(tmp_path / "look" / "model.safetensors").predict(IMAGE)
    assert not server.requests


def test_the_model_card_describes_the_checkpoint(server: Server, pushed: Path) -> None:
    card = server.files["/someone/model/resolve/main/README.md"].decode()
    assert "**75.12%** on the 600 test images, single view; one run" in card
    assert "synthetic images" in card
    assert "| hardware | cpu (threads: 2), bf16 |" in card
    assert 'load_predictor("hf://someone/model")' in card
    assert "nowhere" not in card, "the path of the data must not be published"


def test_the_front_matter_of_the_model_card() -> None:
    yaml = pytest.importorskip("yaml")
    evaluation = {"split": "test", "images": 10_000, "top1": 0.7598}
    card = model_card(random_checkpoint(dataset=REAL, evaluation=evaluation), "me/my-model")
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["datasets"] == ["uoft-cs/cifar100"]
    assert metadata["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.7598}]
    assert huggingface_hub.ModelCard(card).data.to_dict()["license"] == "mit"
    for unproven in (replace(REAL, verified=False), DatasetInfo(name="my images"), SYNTHETIC_INFO):
        assert "datasets" not in yaml.safe_load(
            model_card(random_checkpoint(dataset=unproven), "me/m").split("---\n")[1]
        )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("fingerprint", ["", "0" * 64, CIFAR10.fingerprints["train"]])
def test_a_false_claim_of_verified_images_is_ignored(
    server: Server, tmp_path: Path, suffix: str, fingerprint: str
) -> None:
    """The dataset tag of the hub requires the fingerprint of the published images."""
    for info, tagged in ((replace(REAL, fingerprint=fingerprint), False), (REAL, True)):
        checkpoint = random_checkpoint(dataset=info)
        path = tmp_path / f"stranger.{suffix}"
        checkpoint.save(path) if suffix == "pth" else save_weights(checkpoint, path)
        assert main(["push", "me/m", "--checkpoint", str(path), "--folder", str(tmp_path / "card")]) == 0
        card = (tmp_path / "card" / "README.md").read_text()
        assert ("datasets:" in card, "(verified)" in card) == (tagged, tagged)
        assert load_weights(path).dataset.verified is tagged


def test_class_names_are_escaped_in_the_model_card() -> None:
    names = ["<script>", "[x](http://a)", "a|b", "*c*", "line\nbreak", "`code`"]
    card = model_card(random_checkpoint(classes=names, dataset=DatasetInfo(name="x | <b>")), "me/m")
    classes = card.split("## Classes\n\n")[1].strip()
    assert "<" not in classes
    assert len(classes.splitlines()) == 1
    assert not re.search(r"(?<!\\)[*|`\[\]]", classes)
    assert "| trained on | x \\| &lt;b&gt; |" in card


def test_the_model_card_without_an_evaluation() -> None:
    assert "| accuracy | not measured |" in model_card(random_checkpoint(), "me/m")
    unevaluated = {"epoch": 2, "split": None, "top1": None, "top5": None}  # --eval-every 3
    assert "| accuracy | not measured |" in model_card(random_checkpoint(metrics=unevaluated), "me/m")
    card = model_card(
        random_checkpoint(metrics={"split": "val", "top1": 0.5}, selection=Selection(rule="best", split="val")), "me/m"
    )
    assert "**50.00%** on the val images" in card
    assert "selected: best top-1 on val" in card


def test_an_existing_public_repository_does_not_become_private(server: Server, pushed: Path, capsys: Any) -> None:
    before = dict(server.files)
    server.requests.clear()
    assert main(["push", "someone/model", "--checkpoint", str(pushed), "--private"]) == 2
    assert "is public" in capsys.readouterr().err
    assert server.files == before
    assert not any("/commit/" in path for _, path, _ in server.requests)


def test_third_party_weights_on_the_hub_need_no_metadata(server: Server, tmp_path: Path) -> None:
    save_file(narrow_network("resnet18", 10).state_dict(), tmp_path / "model.safetensors")
    server.files["/someone/model/resolve/main/model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
    assert len(load_predictor("hf://someone/model").classes) == 10


@pytest.mark.parametrize("is_in_config", [False, True])
def test_a_push_whose_images_are_not_found_deletes_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_config: bool
) -> None:
    """A disk that is not mounted: without its images int8 could not be written again."""
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(tmp_path / "unmounted"))
    if is_in_config:
        monkeypatch.delenv("CIFAR100_DATA_DIR")
        edited = Config().replace(data_dir=tmp_path / "unmounted")
        for module in ("cifar100.dataset", "cifar100.export"):
            monkeypatch.setattr(f"{module}.Config", lambda: edited)
    server.files["/someone/model/resolve/main/onnx/model_quantized.onnx"] = b"old"
    random_checkpoint(config={}).save(tmp_path / "best.pth")
    assert main(["push", "someone/model", "--checkpoint", str(tmp_path / "best.pth")]) == 2
    assert len(server.files) == 1


def test_a_folder_with_other_files_is_not_pushed_to(server: Server, tmp_path: Path) -> None:
    random_checkpoint().save(tmp_path / "best.pth")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    (tmp_path / "project" / "model.json").write_text("of a site")
    words = ["push", "someone/model", "--checkpoint", str(tmp_path / "best.pth"), "--folder"]
    assert main([*words, str(tmp_path / "project")]) == 2
    assert (tmp_path / "project" / "README.md").read_text() == "mine"
    (tmp_path / "new" / ".git").mkdir(parents=True)
    assert main([*words, str(tmp_path / "new")]) == 0
    (tmp_path / "new" / "onnx").mkdir()
    (tmp_path / "new" / "onnx" / "model.onnx").write_bytes(b"of an earlier model")
    assert main([*words, str(tmp_path / "new")]) == 0
    assert not (tmp_path / "new" / "onnx" / "model.onnx").exists()
