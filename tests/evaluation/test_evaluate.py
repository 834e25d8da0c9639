"""Evaluation: metrics equal those of the Predictor, for any batch size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence, random_checkpoint

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import save_weights
from cifar100.cli.main import main
from cifar100.cli.options import EvalOptions
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.dataset.classes import CLASSES
from cifar100.evaluation.evaluate import eval_batch_size, evaluate, format_table
from cifar100.inference import load_predictor
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo


@pytest.fixture
def checkpoint(narrow_checkpoints: None) -> Checkpoint:
    return random_checkpoint(config={"val_fraction": 0.5})


def test_equals_the_predictor_image_by_image(checkpoint: Checkpoint, tiny_data: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pth")
    evaluation = evaluate(tmp_path / "model.pth", data_dir=tiny_data, device="cpu")
    predictor = load_predictor(tmp_path / "model.pth", device="cpu", precision="fp32")
    test = load_dataset(Config().replace(data_dir=tiny_data)).test
    named = [predictions[0].class_id for predictions in predictor.predict_batch(test.images, top_k=1)]
    assert evaluation.top1 == np.mean(np.array(named) == test.labels)
    assert evaluation.logits.argmax(axis=1).tolist() == named
    assert evaluation.images == 100
    assert set(evaluation.per_class) == set(CLASSES)
    assert f"{evaluation.top1:.2%}" in format_table(evaluation)


@pytest.mark.parametrize(("image_size", "images"), [(16, 500), (32, 500), (64, 125), (224, 10), (1024, 1)])
def test_a_batch_of_larger_images_takes_no_more_memory(image_size: int, images: int) -> None:
    assert eval_batch_size(image_size) == images


def test_the_splits(checkpoint: Checkpoint, tiny_data: Path) -> None:
    sizes = {
        split: evaluate(checkpoint, split=split, data_dir=tiny_data, device="cpu").images
        for split in ("train", "val", "test")
    }
    assert sizes == {"train": 100, "val": 100, "test": 100}, "half of the 200 images are held out, as in training"


def test_unknown_splits(checkpoint: Checkpoint, tiny_data: Path) -> None:
    plain = Checkpoint(**{**vars(checkpoint), "config": {}})
    for split in ("val", "tset"):
        with pytest.raises(UserError) as caught:
            evaluate(plain, split=split, data_dir=tiny_data)
        assert caught.value.code == "evaluate.split"
        assert_one_sentence(str(caught.value), repr(split))


def test_the_dataset_of_an_evaluation_is_named(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.dataset = DatasetInfo(name="CIFAR-100", verified=True)
    checkpoint.save(tmp_path / "model.pth")
    words = [str(tmp_path / "model.pth"), "--dataset", "synthetic", "--json", str(tmp_path / "figures.json")]
    assert main(["evaluate", *words]) == 0
    assert "evaluated on SYNTHETIC" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["dataset"]["synthetic"] is True


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "link.json"])
def test_weights_and_their_metadata_are_not_overwritten(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    save_weights(checkpoint, tmp_path / "model.safetensors")
    (tmp_path / "link.json").symlink_to(tmp_path / "model.json")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words = [str(tmp_path / "model.safetensors"), "--json", str(tmp_path / name), "--dataset", "synthetic"]
    assert main(["evaluate", *words]) == 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_evaluation_commands_use_fp32() -> None:
    """The headline figures are the same on all hardware."""
    assert EvalOptions().precision == "fp32"


def test_other_names_of_results_are_written_beside_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_weights(checkpoint, tmp_path / "model.safetensors")
    words = [str(tmp_path / "model.safetensors"), "--json", str(tmp_path / "model.txt"), "--dataset", "synthetic"]
    assert main(["evaluate", *words]) == 0
    assert json.loads((tmp_path / "model.txt").read_text())["images"] > 0
