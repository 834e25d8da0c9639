"""Files of format version 1, which have sentences in place of fields, are converted to version 2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SYNTHETIC_INFO, random_checkpoint

from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.checkpoints.version1 import upgrade, upgrade_recipe
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset.published import CIFAR10, CIFAR100
from cifar100.support.provenance import DatasetInfo, Selection, TemperatureFit
from cifar100.train import train

REAL = CIFAR100.fingerprints["train"]


def version1(checkpoint: Checkpoint, **fields: Any) -> dict[str, Any]:
    """The content of a version 1 file, updated with `fields`."""
    content = checkpoint.to_dict()
    info = content.pop("dataset")
    del content["selection"], content["calibration"], content["modified"]
    old = {"format": "cifar100-checkpoint", "version": 1, "dataset": "unknown", "fingerprint": info["fingerprint"]}
    return content | old | {"chosen_on": ""} | fields


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("CIFAR-100 (verified): 50,000 train images from data", DatasetInfo(name="CIFAR-100", verified=True)),
        ("own images (2 classes, 48x48): 9 train images from a: b", DatasetInfo(name="own images (2 classes, 48x48)")),
        (f"{SYNTHETIC_INFO.name}: 2,400 train images", DatasetInfo(name=SYNTHETIC_INFO.name, synthetic=True)),
        ("unknown: a bare state dict", DatasetInfo()),
        ("", DatasetInfo()),
    ],
)
def test_dataset_sentences(sentence: str, expected: DatasetInfo) -> None:
    content = upgrade({"dataset": sentence, "fingerprint": "f"})
    assert DatasetInfo.from_dict(content["dataset"]) == replace(expected, fingerprint="f")
    assert "fingerprint" not in content


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the best top-1 on test", Selection(rule="best", split="test")),
        ("the best top-1 on val", Selection(rule="best", split="val")),
        ("the latest step", Selection(rule="step")),
        ("the last epoch", Selection(rule="last")),
    ],
)
def test_selection_sentences(sentence: str, expected: Selection) -> None:
    content = upgrade({"chosen_on": sentence})
    assert Selection.from_dict(content["selection"]) == expected
    assert "chosen_on" not in content


@pytest.mark.parametrize(
    ("origin", "fitted_on"),
    [
        ("two-fold cross-fitting on test, 10,000 images: each half judged by the other's", "test-crossfit"),
        ("the 5,000 train images that its training held out", "val"),
        ("two-fold cross-fitting on val, 12 images: each half judged by the other's", ""),
    ],
)
def test_temperature_sentences(origin: str, fitted_on: Any) -> None:
    content = upgrade({"calibration": {"temperature": 0.69, "origin": origin, "ece_before": 0.17}})
    assert TemperatureFit.from_dict(content["calibration"]) == TemperatureFit(temperature=0.69, fitted_on=fitted_on)
    assert upgrade({"calibration": {}})["calibration"] is None


@pytest.mark.parametrize(
    ("old", "recipe", "modified"), [("best", "best", False), ("fast, changed", "fast", True), ("", "", False)]
)
def test_recipe_sentences(old: str, recipe: str, modified: bool) -> None:
    for content in (upgrade({"recipe": old}), upgrade_recipe({"recipe": old, "settings": {}})):
        assert (content["recipe"], content["modified"]) == (recipe, modified)
    new = {"recipe": "mine, changed", "modified": False}
    assert upgrade_recipe(new) == new, "config.json of version 2 must not change"


def test_an_unknown_selection_is_none() -> None:
    for content in ({"chosen_on": "by hand"}, {"chosen_on": ""}, {}):
        assert upgrade(content)["selection"] is None


SENTENCES = {
    "dataset": "CIFAR-100 (verified): 50,000 train and 10,000 test images from data",
    "chosen_on": "the last epoch",
    "recipe": "fast, changed",
}


def assert_read(checkpoint: Checkpoint, *, verified: bool = True) -> None:
    info = checkpoint.dataset
    assert checkpoint.selection == Selection(rule="last")
    assert (checkpoint.recipe, checkpoint.modified) == ("fast", True)
    assert (info.name, info.verified) == ("CIFAR-100", verified)


FOREIGN = CIFAR10.fingerprints["train"]


@pytest.mark.parametrize(("fingerprint", "verified"), [(REAL, True), ("", False), (FOREIGN, False)])
def test_a_version_1_checkpoint_is_loaded(
    tmp_path: Path, narrow_checkpoints: None, fingerprint: str, verified: bool
) -> None:
    torch.save(version1(random_checkpoint(), **SENTENCES, fingerprint=fingerprint), tmp_path / "old.pth")
    assert_read(load_checkpoint(tmp_path / "old.pth"), verified=verified)


def test_version_1_safetensors_weights_are_loaded(tmp_path: Path, narrow_checkpoints: None) -> None:
    path = tmp_path / "old.safetensors"
    save_weights(random_checkpoint(), path)
    fields = json.loads(path.with_suffix(".json").read_text())
    old = version1(random_checkpoint(), **SENTENCES, fingerprint=REAL)
    old = {name: value for name, value in old.items() if name in fields or name in ("fingerprint", "chosen_on")}
    path.with_suffix(".json").write_text(json.dumps(old | {"format": fields["format"], "sha256": fields["sha256"]}))
    assert_read(load_weights(path))


def test_a_version_1_run_is_resumed(narrow: None, tiny_data: Path, tmp_path: Path) -> None:
    settings = {"epochs": 2, "batch_size": 64, "warmup_epochs": 1, "lr": 0.02, "report": False}
    config = Config().replace(**settings, data_dir=tiny_data, run_dir=tmp_path / "run")
    last = train(config.replace(stop_after=1)).folder / "last.pth"
    sentence = "CIFAR-100 layout, but NOT the published images: 200 train and 100 test images from here"
    old = {"dataset": sentence, "chosen_on": "the latest epoch", "recipe": "fast, changed"}
    torch.save(version1(load_checkpoint(last), **old), last)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    del saved["modified"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved | {"recipe": "fast, changed"}))
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run")]) == 0
    again = load_checkpoint(last)
    assert (again.recipe, again.modified) == ("fast", True)
    assert (again.loop["epoch"], again.dataset.verified, again.dataset.num_train) == (2, False, 200)
