"""The exported static site: its files, its model metadata, and the download of its runtime."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import stat
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence, narrow_network, random_checkpoint
from PIL import Image

from cifar100.cli.main import main
from cifar100.dataset.published import CIFAR10
from cifar100.export import web, web_runtime
from cifar100.export.web import SITE, accuracy_metrics, export_site, model_json
from cifar100.export.web_serve import POLICY, make_server
from cifar100.images.sources import example_photos
from cifar100.inference import load_predictor
from cifar100.prediction.onnx_validation import read_onnx
from cifar100.support.errors import RunFailed, UserError

FAKES = {name: name.encode() for name in web_runtime.FILES}


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the files of the runtime by small ones."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FAKES.items()}
    monkeypatch.setattr(web_runtime, "FILES", digests)
    monkeypatch.setattr("cifar100.export.web.FILES", digests)
    monkeypatch.setattr("cifar100.export.web.runtime_files", lambda *_: FAKES)


@pytest.fixture
def site(fake_runtime: None, exports: Path, tmp_path: Path) -> Path:
    """The site exported from best.onnx."""
    export_site(exports / "best.onnx", tmp_path / "site", say=lambda _: None)
    return tmp_path / "site"


def facts_of(site: Path) -> dict[str, Any]:
    return json.loads((site / "model.json").read_text())


def test_every_file_exists_and_matches_its_digest(site: Path, exports: Path) -> None:
    facts = facts_of(site)
    for entry in facts["files"].values():
        content = (site / entry["path"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    wasm = facts["files"]["wasm"]
    unpacked = gzip.decompress((site / wasm["path"]).read_bytes())
    assert hashlib.sha256(unpacked).hexdigest() == wasm["content_sha256"]
    assert (site / "model.onnx").read_bytes() == (exports / "best.onnx").read_bytes()
    assert "MIT License" in (site / "runtime" / "LICENSE").read_text()
    assert not list(site.rglob(".*")), "temporary files"


def test_the_service_worker_lists_every_file_of_the_page(site: Path) -> None:
    first, _, rest = (site / "sw.js").read_text().partition(";\n")
    files = json.loads(first.removeprefix("const FILES = "))
    there = {str(path.relative_to(site)): path for path in site.rglob("*") if path.is_file()}
    assert there.keys() - files.keys() == {"sw.js", "README.md", "runtime/LICENSE"}
    assert all(hashlib.sha256(there[name].read_bytes()).hexdigest() == digest for name, digest in files.items())
    assert "addEventListener" in rest


def test_the_service_worker_is_written_last(
    fake_runtime: None, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers that see a new one fetch the other files."""
    written: list[str] = []
    monkeypatch.setattr(web, "atomic_write", lambda path, _content: written.append(path.name))
    export_site(exports / "best.onnx", tmp_path / "site", say=lambda _: None)
    assert written[-1] == "sw.js"


def test_no_external_or_absolute_references() -> None:
    """Relative paths only, so that it works under any path; no other host; no inline script or style."""
    for path in sorted(SITE.iterdir()):
        text = path.read_text()
        if path.suffix in (".html", ".js", ".css"):
            assert not re.search(r"https?://", text), path.name
            assert not re.search(r"""(?:src|href)="/|from "(?!\./)|fetch\("/|import\(`(?!\./)""", text), path.name
    page = (SITE / "index.html").read_text()
    assert POLICY in page
    assert POLICY in (SITE / "sw.js").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)


def test_every_text_of_the_page_is_in_one_file() -> None:
    strings = (SITE / "strings.js").read_text()
    page = (SITE / "index.html").read_text()
    names = re.findall(r'data-(?:text|label)="(\w+)"', page)
    assert names
    assert not [name for name in names if not re.search(rf"^  {name}: ", strings, flags=re.M)]
    body = page[page.index('id="app"') :]
    assert not re.findall(r">\s*([A-Za-z][\w ]+)\s*<", body), "text outside strings.js"


def test_stored_predictions_of_examples_equal_the_predictors(site: Path, exports: Path) -> None:
    predictor = load_predictor(exports / "best.onnx")
    examples = facts_of(site)["examples"]
    assert len(examples) == len(example_photos())
    for example in examples:
        predicted = predictor.predict(site / example["path"])
        answer = example["answer"]
        (result,) = predictor.classify([site / example["path"]])
        assert answer["reason"] == result.reason
        assert [item["id"] for item in answer["predictions"]] == [item.class_id for item in predicted]
        np.testing.assert_allclose(
            [item["probability"] for item in answer["predictions"]], [item.probability for item in predicted], atol=1e-5
        )
        for item in answer["predictions"]:
            assert len(item["map"]) == np.prod(answer["mapSize"])
            assert min(item["map"]) >= 0
            assert max(item["map"]) in (0, 1)


def test_model_json_has_the_calibration_and_the_thresholds(site: Path) -> None:
    from cifar100.prediction import rejection

    facts = facts_of(site)
    assert facts["temperature"] == 1.5
    assert facts["unsure"]["min_probability"] == rejection.MIN_PROBABILITY
    assert facts["unsure"]["min_pixel_std"] == rejection.MIN_PIXEL_STD
    assert facts["unsure"]["min_autocorrelation"] == rejection.MIN_AUTOCORRELATION
    assert len(facts["classes"]) == 100


def test_custom_classes_have_no_superclasses_no_temperature_no_examples(
    fake_runtime: None, narrow_checkpoints: None, tmp_path: Path
) -> None:
    classes = ["b<i>lue", "red"]
    weights = narrow_network("resnet18", 2).state_dict()
    random_checkpoint(classes=classes, superclasses=[], superclass_of=[], weights=weights).save(tmp_path / "own.pth")
    messages: list[str] = []
    written = export_site(tmp_path / "own.pth", tmp_path / "site", images=20, say=messages.append)
    facts = facts_of(tmp_path / "site")
    assert (facts["classes"], facts["superclasses"], facts["temperature"], facts["examples"]) == (classes, [], 1, [])
    assert written.check is not None
    assert facts["about"]["precision"] == "fp32"
    digest = load_predictor(tmp_path / "own.pth", device="cpu").info.digest
    assert facts["about"]["weights"] == {"name": "own.pth", "sha256": digest}
    assert facts["evaluation"] == {}
    assert any("int8" in line for line in messages), "the reason for not using int8"


def test_metadata_of_custom_examples_are_removed(fake_runtime: None, exports: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    exif[0x010E] = "a secret place"
    Image.new("RGB", (2000, 1000), "green").save(tmp_path / "my cat.jpg", exif=exif, comment=b"secret")
    export_site(exports / "best.onnx", tmp_path / "site", examples=[tmp_path / "my cat.jpg"], say=lambda _: None)
    (example,) = facts_of(tmp_path / "site")["examples"]
    assert (example["path"], example["name"]) == ("examples/1.jpg", "my cat")
    content = (tmp_path / "site" / example["path"]).read_bytes()
    assert b"secret" not in content
    assert Image.open(io.BytesIO(content)).size == (256, 512)


def test_examples_of_equal_names_are_distinct(fake_runtime: None, exports: Path, tmp_path: Path) -> None:
    names = ["a/cat.jpg", "b/cat.jpg", "café #1?.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), "green").save(tmp_path / name)
    export_site(exports / "best.onnx", tmp_path / "site", examples=[tmp_path / n for n in names], say=lambda _: None)
    examples = facts_of(tmp_path / "site")["examples"]
    assert [example["name"] for example in examples] == ["cat", "cat", "café #1?"]
    assert [example["path"] for example in examples] == [f"examples/{number}.jpg" for number in (1, 2, 3)]
    assert all((tmp_path / "site" / example["path"]).is_file() for example in examples)


def test_third_party_weights_keep_their_normalization_and_classes(
    fake_runtime: None, narrow_checkpoints: None, tmp_path: Path
) -> None:
    torch.save(narrow_network("resnet18", 10).state_dict(), tmp_path / "theirs.pth")
    out = tmp_path / "site"
    words = ["export", str(tmp_path / "theirs.pth"), "--format", "web", "--out", str(out), "--images", "20"]
    words += ["--mean", "0.49", "0.48", "0.45", "--std", "0.2", "0.3", "0.4", "--classes", "cifar10"]
    assert main(words) == 0
    metadata = read_onnx(out / "model.onnx")[1]
    assert (metadata["mean"], metadata["std"]) == ([0.49, 0.48, 0.45], [0.2, 0.3, 0.4])
    assert facts_of(out)["classes"] == list(CIFAR10.classes)


def test_the_folder_is_a_static_space(site: Path) -> None:
    front = (site / "README.md").read_text().split("---")[1]
    fields = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert (fields["sdk"], fields["app_file"]) == ("static", "index.html")


def test_only_an_earlier_site_is_replaced(site: Path, exports: Path, tmp_path: Path) -> None:
    (site / "CNAME").write_text("example.org")
    (site / "examples" / "old.jpg").write_text("old")
    export_site(exports / "best.onnx", site, say=lambda _: None)
    assert (site / "CNAME").read_text() == "example.org"
    assert not (site / "examples" / "old.jpg").exists()
    other = tmp_path / "papers"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    for out in (other, other / "thesis.tex"):
        with pytest.raises(UserError) as caught:
            export_site(exports / "best.onnx", out, say=lambda _: None)
        assert caught.value.code == "export.out"
        assert_one_sentence(str(caught.value), out)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_damaged_graph_is_refused(fake_runtime: None, exports: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes((exports / "best.onnx").read_bytes()[:-5000])
    with pytest.raises(UserError):
        export_site(tmp_path / "cut.onnx", tmp_path / "site", say=lambda _: None)
    assert not (tmp_path / "site").exists()


def test_the_accuracy_is_the_best_measured(exports: Path) -> None:
    facts = read_onnx(exports / "best.onnx")[1]
    evaluated = {"top1": 0.5, "images": 10_000, "split": "test", "per_class": {}}
    epoch = {"top1": 0.25, "split": "val"}
    assert accuracy_metrics(facts | {"evaluation": evaluated}, None) == {"top1": 0.5, "images": 10_000, "split": "test"}
    assert accuracy_metrics(facts | {"metrics": epoch}, None) == epoch
    assert accuracy_metrics(facts, None) == {}


def test_a_model_without_a_temperature_is_described(exports: Path) -> None:
    assert model_json(read_onnx(exports / "best.onnx")[1] | {"calibration": None})["temperature"] == 1


@pytest.mark.parametrize("options", [["onnx", "--serve"], ["web"], ["web", "--out", "x", "--input-format", "float"]])
def test_site_options_are_rejected_for_other_formats(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "model.onnx", "--format", *options]) == 2
    assert_one_sentence(capsys.readouterr().err.strip(), "--")


def test_the_server_listens_on_localhost_and_sends_the_policy(site: Path) -> None:
    import threading
    import urllib.request

    with make_server(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/worker.js") as response:
            assert response.headers["Content-Security-Policy"] == POLICY
            assert response.headers["Content-Type"] == "text/javascript"
        server.shutdown()


# The runtime


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake npm whose package contains FAKES; calls.txt there has a line for each call."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FAKES.items()}
    monkeypatch.setattr(web_runtime, "FILES", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bin"
    folder.mkdir()
    with tarfile.open(folder / "package.tgz", "w:gz") as tar:
        for name, content in FAKES.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls.txt\ncp {folder}/package.tgz "$4"/\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_the_runtime_is_downloaded_once_at_the_pinned_version(fake_npm: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert web_runtime.runtime_files(say=lambda _: None) == FAKES
    (call,) = (fake_npm / "calls.txt").read_text().splitlines()
    assert f"onnxruntime-web@{web_runtime.VERSION}" in call
    cached = tmp_path / "cache" / "cifar100" / f"onnxruntime-web-{web_runtime.VERSION}"
    (cached / next(iter(FAKES))).write_bytes(b"damaged")
    assert web_runtime.runtime_files(say=lambda _: None) == FAKES
    assert len((fake_npm / "calls.txt").read_text().splitlines()) == 2, "a damaged file is downloaded again"


def test_downloaded_files_are_verified(fake_npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_runtime, "FILES", dict.fromkeys(FAKES, "0" * 64))
    with pytest.raises(RunFailed) as caught:
        web_runtime.runtime_files(say=lambda _: None)
    assert_one_sentence(str(caught.value), "SHA-256")


@pytest.mark.parametrize("script", ["exit 1", "echo 'E404 not found' >&2; exit 1", "echo nothing"])
def test_a_failing_npm_is_one_error(fake_npm: Path, script: str) -> None:
    (fake_npm / "npm").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(RunFailed) as caught:
        web_runtime.runtime_files(say=lambda _: None)
    assert_one_sentence(str(caught.value), "onnxruntime-web")


def test_without_npm_the_message_explains_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        web_runtime.runtime_files(say=lambda _: None)
    assert caught.value.code == "runtime.npm"
    assert_one_sentence(str(caught.value), "Node.js", "--runtime", web_runtime.VERSION)


@pytest.mark.parametrize("below", web_runtime.FOLDERS)
def test_a_local_runtime_folder(fake_npm: Path, tmp_path: Path, below: str) -> None:
    folder = tmp_path / "own" / below
    folder.mkdir(parents=True)
    for name, content in FAKES.items():
        (folder / name).write_bytes(content)
    assert web_runtime.runtime_files(tmp_path / "own") == FAKES
    (folder / next(iter(FAKES))).write_bytes(b"another version")
    with pytest.raises(UserError) as caught:
        web_runtime.runtime_files(tmp_path / "own")
    assert caught.value.code == "runtime.missing"
    assert_one_sentence(str(caught.value), tmp_path / "own", next(iter(FAKES)))
    with pytest.raises(UserError) as caught:
        web_runtime.runtime_files(tmp_path)
    assert caught.value.code == "runtime.missing"
    assert not (fake_npm / "calls.txt").exists()


@pytest.mark.slow
def test_a_model_whose_int8_graph_disagrees_is_exported_in_fp32(
    fake_runtime: None, narrow_checkpoints: None, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar100.export.CALIBRATION_IMAGES", 128)
    monkeypatch.setattr("cifar100.export.check.MIN_AGREEMENT", 1.01)
    messages: list[str] = []
    export_site(exports / "best.pth", tmp_path / "site", images=20, say=messages.append)
    assert facts_of(tmp_path / "site")["about"]["precision"] == "fp32"
    assert any("fp32" in message for message in messages)
