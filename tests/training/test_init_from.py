"""--init-from: training from pretrained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import assert_identical, assert_one_sentence, untrained
from own_images import photos

from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.checkpoints.weights import load_pretrained, save_weights
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.model import ResNet, resnet18, resnet34
from cifar100.recipes import recipe
from cifar100.support.errors import UserError
from cifar100.train import train


@pytest.fixture
def pretrained(tmp_path: Path) -> Checkpoint:
    """Weights of a resnet18 for CIFAR-100, in pretrained.safetensors."""
    torch.manual_seed(7)
    checkpoint = untrained(weights=resnet18().state_dict())
    save_weights(checkpoint, tmp_path / "pretrained.safetensors")
    return checkpoint


def test_all_weights_are_loaded_if_the_classes_are_the_same(tmp_path: Path, pretrained: Checkpoint) -> None:
    model = resnet18()
    message = load_pretrained(tmp_path / "pretrained.safetensors", model, pretrained.classes)
    assert_identical(model.state_dict(), pretrained.weights)
    assert "122 of 122 tensors" in message


@pytest.mark.parametrize("classes", [["cat", "dog"], [f"other {i}" for i in range(100)]])
def test_other_classes_get_a_new_classifier(tmp_path: Path, pretrained: Checkpoint, classes: list[str]) -> None:
    model = resnet18(len(classes))
    fresh = model.fc.weight.clone()
    message = load_pretrained(tmp_path / "pretrained.safetensors", model, classes)
    assert torch.equal(model.fc.weight, fresh)
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], pretrained.weights["layer4.1.conv2.weight"])
    assert "120 of 122 tensors" in message
    assert "re-initialized" in message


def test_matching_weights_of_another_architecture_are_loaded(tmp_path: Path, pretrained: Checkpoint) -> None:
    model = resnet34()
    load_pretrained(tmp_path / "pretrained.safetensors", model, pretrained.classes)
    assert torch.equal(model.state_dict()["layer1.1.conv2.weight"], pretrained.weights["layer1.1.conv2.weight"])


@pytest.mark.usefixtures("pretrained")
def test_a_network_without_matching_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_pretrained(tmp_path / "pretrained.safetensors", ResNet((1, 1, 1, 1), 1, 8), ["a"])
    assert_one_sentence(str(caught.value), "pretrained.safetensors", "none of its layers fits")


@pytest.mark.usefixtures("narrow")
def test_a_run_resumes_without_the_initial_weights(tiny_data: Path, tmp_path: Path) -> None:
    short = {"epochs": 2, "batch_size": 64, "warmup_epochs": 1, "lr": 0.02, "report": False}
    config = Config().replace(**short, data_dir=tiny_data, run_dir=tmp_path / "first")
    train(config)
    source = tmp_path / "first" / "last.pth"
    config = config.replace(init_from=source, seed=3)

    whole = train(config.replace(run_dir=tmp_path / "whole")).folder
    assert f"initialized from {source}: 74 of 74 tensors" in next(whole.glob("training_log_*")).read_text()

    config = config.replace(run_dir=tmp_path / "parts")
    train(config.replace(stop_after=1))
    source.unlink()
    resumed = train(config, resume=True).folder
    assert_identical(load_checkpoint(whole / "last.pth").weights, load_checkpoint(resumed / "last.pth").weights)


def test_a_missing_weights_file_is_reported_before_anything_is_written(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(Config().replace(init_from=tmp_path / "none.pth", data_dir=tiny_data, run_dir=tmp_path / "run"))
    assert_one_sentence(str(caught.value), "none.pth")
    assert not (tmp_path / "run").exists()


def test_the_finetune_recipe_starts_from_the_bundled_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe("finetune").optim
    assert (settings.epochs, settings.batch_size, settings.lr) == (30, 64, 0.01), "those that were measured"
    assert recipe("finetune").augment.cutout_size == 0
    data = photos(tmp_path / "data", {"cat": 4, "dog": 4})
    words = ["--recipe", "finetune", "--epochs", "1", "--data-dir", str(data), "--run-dir", str(tmp_path / "run")]
    assert main(["train", *words, "--train-sizes", "8", "--no-report", "--device", "cpu"]) == 0
    assert "initialized from pretrained: 120 of 122 tensors" in capsys.readouterr().out
