"""cifar100/checkpoints/weights.py: safetensors weights, and the weights bundled with the package."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_sentence, untrained
from safetensors.torch import load_file, save_file
from torch import Tensor

from cifar100.checkpoints.weights import PRETRAINED, load_weights, save_weights
from cifar100.config import Config
from cifar100.inference import load_predictor
from cifar100.recipes import is_modified
from cifar100.support.errors import UserError
from cifar100.support.provenance import Selection, TemperatureFit

LAST = Selection(rule="last")
FIT = TemperatureFit(temperature=1.5, fitted_on="val", num_images=5000)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with exported weights in fp32."""
    folder = tmp_path_factory.mktemp("shared")
    save_weights(untrained(selection=LAST, evaluation={"top1": 0.5}), folder / "some.safetensors")
    return folder


@pytest.fixture
def shared(saved: Path, tmp_path: Path) -> Path:
    """A copy of the exported weights."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path / "some.safetensors"


@pytest.mark.parametrize(("precision", "error", "size"), [("fp32", 0.0, 45), ("fp16", 5e-4, 23), ("bf16", 4e-3, 23)])
def test_exported_weights_round_trip(tmp_path: Path, precision: str, error: float, size: float) -> None:
    checkpoint = untrained(selection=LAST, calibration=FIT, history=[{"epoch": 1}])
    save_weights(checkpoint, tmp_path / "some.safetensors", precision)
    again = load_weights(tmp_path / "some.safetensors")
    assert (again.model, again.classes, again.mean, again.std) == ("resnet18", *_metadata(checkpoint))
    assert (again.superclass_of, again.selection) == (checkpoint.superclass_of, LAST)
    assert again.calibration == FIT
    assert again.history == [{"epoch": 1}]
    for name, tensor in checkpoint.weights.items():
        assert again.weights[name].dtype == tensor.dtype
        torch.testing.assert_close(again.weights[name], tensor, rtol=error, atol=1e-7 if error else 0)
    assert (tmp_path / "some.safetensors").stat().st_size < size * 1e6
    again.build()


def _metadata(checkpoint: Any) -> tuple[Any, ...]:
    return checkpoint.classes, checkpoint.mean, checkpoint.std


def test_local_paths_are_not_exported(tmp_path: Path) -> None:
    config = {"lr": 0.1, "data_dir": "/home/me/secret", "run_dir": "/home/me/runs", "init_from": "/home/me/base.pth"}
    save_weights(untrained(config=config), tmp_path / "some.safetensors")
    assert "/home" not in (tmp_path / "some.json").read_text()
    again = load_weights(tmp_path / "some.safetensors")
    assert again.config == {"lr": 0.1, "init_from": "base.pth"}


def test_a_weight_that_overflows_in_fp16_is_refused(tmp_path: Path) -> None:
    checkpoint = untrained()
    checkpoint.weights["bn1.running_var"] = torch.full((64,), 1e6)
    with pytest.raises(UserError) as caught:
        save_weights(checkpoint, tmp_path / "some.safetensors", "fp16")
    assert_one_sentence(str(caught.value), "bn1.running_var", "fp16", "bf16")
    assert list(tmp_path.iterdir()) == []


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    metadata = json.loads(path.with_suffix(".json").read_text())
    change(metadata)
    path.with_suffix(".json").write_text(json.dumps(metadata))


def _tensors(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors, and update the checksum in the JSON file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    _edit(path, lambda fields: fields.update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1_000_000])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _declare_a_huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda p: p.unlink(), "There are no weights"),
    "JSON with other fields": (lambda p: p.with_suffix(".json").write_text('{"a": 1}'), "does not describe weights"),
    "invalid JSON": (lambda p: p.with_suffix(".json").write_text("{"), "cannot be read"),
    "JSON that is a list": (lambda p: p.with_suffix(".json").write_text("[]"), "does not describe weights"),
    "a huge JSON": (lambda p: p.with_suffix(".json").write_bytes(b"[" * 20_000_000), "larger than any"),
    "a newer version": (lambda p: _edit(p, lambda fields: fields.update(version=3)), "is of version 3"),
    "no classes": (lambda p: _edit(p, lambda fields: fields.update(classes=[])), "its classes"),
    "fewer classes": (
        lambda p: _edit(p, lambda fields: fields.update(classes=["a"] * 99, superclasses=[], superclass_of=[])),
        "of 99 classes",
    ),
    "a NaN": (
        lambda p: _tensors(p, lambda weights: weights["fc.bias"].fill_(torch.nan)),
        "its fc.bias holds numbers that are not finite",
    ),
    "another network": (
        lambda p: _edit(p, lambda fields: fields.update(model="resnet34")),
        "not the weights of a resnet34",
    ),
    "an unknown selection": (
        lambda p: _edit(p, lambda fields: fields.update(selection={"rule": "luck"})),
        "its selection has a wrong rule",
    ),
    "a selection without a rule": (
        lambda p: _edit(p, lambda fields: fields.update(selection={"split": "val"})),
        "its selection lacks a field",
    ),
    "a temperature of 0": (
        lambda p: _edit(p, lambda fields: fields.update(calibration={"temperature": 0})),
        "its calibration has a wrong temperature",
    ),
    "no checksum": (lambda p: _edit(p, lambda fields: fields.pop("sha256")), "not the file that some.json"),
    "a flipped bit": (_flip_a_bit, "not the file that some.json describes"),
    "half a file": (_cut, "cannot be read as safetensors"),
    "an empty file": (lambda p: p.write_bytes(b""), "cannot be read as safetensors"),
    "a header of 4 EiB": (_declare_a_huge_header, "cannot be read as safetensors"),
    "a pickle": (lambda p: torch.save({}, p), "cannot be read as safetensors"),
    "a missing tensor": (lambda p: _tensors(p, lambda t: t.pop("fc.bias")), "fc.bias is missing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_or_incompatible_weights_are_refused(shared: Path, kind: str) -> None:
    damage, message = BAD[kind]
    damage(shared)
    with pytest.raises(UserError) as caught:
        load_weights(shared)
    assert_one_sentence(str(caught.value), message, "some.")


def test_the_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the weights must not be searched for in the working directory
    predictor, named = load_predictor(), load_predictor(PRETRAINED)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert predictor.predict(image) == named.predict(image)
    assert len(predictor.classes) == 100
    figures = load_weights("pretrained").evaluation
    assert figures["top1"] > 0.80
    assert f"{figures['top1']:.2%}".replace("%", " %") in PRETRAINED.with_name("README.md").read_text()
    assert PRETRAINED.stat().st_size + PRETRAINED.with_suffix(".json").stat().st_size < 24e6


def test_the_bundled_weights_include_the_history_of_their_run() -> None:
    """The weights are those of the run in benchmarks/results/h100/best_100, and include its history."""
    checkpoint = load_weights("pretrained")
    lines = (ROOT / "benchmarks" / "results" / "h100" / "best_100" / "metrics.jsonl").read_text().splitlines()
    assert checkpoint.history == [json.loads(line) for line in lines]
    assert checkpoint.metrics == checkpoint.history[-1]
    assert (checkpoint.recipe, checkpoint.modified) == ("best", False)
    assert not is_modified("best", Config.from_flat(checkpoint.config))
    assert checkpoint.selection == Selection(rule="last")
    assert checkpoint.dataset.verified
    assert (checkpoint.dataset.num_train, checkpoint.dataset.num_test) == (50_000, 10_000)
    assert checkpoint.calibration == TemperatureFit(temperature=0.854, fitted_on="sibling-val", num_images=5_000)
    assert json.loads(PRETRAINED.with_suffix(".json").read_text())["version"] == 2


def test_without_a_temperature_probabilities_are_uncalibrated(shared: Path) -> None:
    assert load_predictor(shared).temperature == 1
