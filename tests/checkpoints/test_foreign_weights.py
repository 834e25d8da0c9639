"""Third-party weights: read in every common format, with all assumptions reported."""

from __future__ import annotations

import argparse
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_identical, assert_one_sentence, narrow_network
from own_images import photos
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import cifar100.checkpoints.checkpoint
from cifar100.checkpoints.model_card import model_card
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.cli.main import main
from cifar100.config import AugmentConfig
from cifar100.dataset.classes import CLASSES
from cifar100.dataset.published import CIFAR10
from cifar100.export import export, write_unchecked
from cifar100.export.web import model_json
from cifar100.inference import load_predictor
from cifar100.prediction.onnx_validation import read_onnx
from cifar100.support.errors import UserError
from cifar100.web.html import about_model

Weights = dict[str, Tensor]
EVERYTHING = ["classes", "image_size", "mean", "std"]

pytestmark = pytest.mark.usefixtures("narrow")


def network(num_classes: int = 10) -> Weights:
    torch.manual_seed(0)
    return cifar100.checkpoints.checkpoint.build_model("resnet18", num_classes).state_dict()


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def with_metadata(weights: Weights) -> dict[str, Any]:
    """Metadata that training scripts save with the weights: neither tensors nor plain values."""
    settings = argparse.Namespace(lr=0.1, out=Path("out"))
    return {"net": weights, "acc": np.float64(95.4), "epoch": np.int64(3), "args": settings, "curve": np.zeros(3)}


FILES: dict[str, tuple[Callable[[Weights], Any], list[str]]] = {
    "bare": (dict, []),
    "parameters": (
        lambda weights: {n: nn.Parameter(t, requires_grad=t.is_floating_point()) for n, t in weights.items()},
        [],
    ),
    "with metadata objects": (with_metadata, []),
    "Lightning": (
        lambda weights: {"state_dict": prefixed("model.", weights) | {"criterion.weight": torch.ones(10)}, "loops": {}},
        ["criterion.weight"],
    ),
    "an unknown wrapper": (lambda weights: {"checkpoint": {"student": weights, "optimizer": {"state": {}}}}, []),
    "an unknown prefix": (lambda weights: prefixed("learner.backbone.", weights), []),
    "with other tensors": (lambda weights: weights | {"loss.center": torch.ones(3), "epoch": 7}, ["loss.center"]),
    "with a huge tensor": (lambda weights: weights | {"junk": torch.zeros(1).half().expand(10**11)}, ["junk"]),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read(tmp_path: Path, kind: str, zipped: bool) -> None:
    make, left_aside = FILES[kind]
    torch.save(make(network()), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    checkpoint = load_weights(tmp_path / "weights.pth")
    assert_identical(checkpoint.weights, network())
    assert (checkpoint.assumed, checkpoint.left_aside) == (EVERYTHING, left_aside)
    assert not any(tensor.requires_grad for tensor in checkpoint.weights.values())


def test_ema_weights_are_preferred_and_the_other_weights_reported(tmp_path: Path) -> None:
    ema = {name: tensor + 1 for name, tensor in network().items()}
    torch.save({"state_dict": network(), "state_dict_ema": ema, "optimizer": {"state": {}}}, tmp_path / "w.pth")
    checkpoint = load_weights(tmp_path / "w.pth")
    assert_identical(checkpoint.weights, ema)
    assert checkpoint.left_aside == ["state_dict.*"]
    assert "ignored tensors: state_dict.*" in checkpoint.notes


def test_a_shared_dictionary_is_searched_once(tmp_path: Path) -> None:
    repeated = {number: dict.fromkeys(range(1000), 0) for number in range(3)}
    for _ in range(2):
        repeated = dict.fromkeys(range(3000), repeated)  # 10 ** 10 entries in 40 KB
    torch.save(repeated, tmp_path / "w.pth")
    start = time.process_time()
    with pytest.raises(UserError, match="without weights"):
        load_weights(tmp_path / "w.pth")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("w.pth", b"", "It is empty"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("w.onnx", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("w.pth", b"\n<!DOCTYPE html><title>404</title>", "web page"),
        ("w.pth", b'\x10\0\0\0\0\0\0\0{"fc.weight": 1}', "rename it to end in .safetensors"),
        ("w.pth", pickle.dumps({"fc.weight": [1.0]}), "torch.save(model.state_dict(), PATH)"),
    ],
)
def test_files_that_are_not_weights_are_recognized(tmp_path: Path, name: str, content: bytes, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / name)
    assert_one_sentence(str(caught.value), tmp_path / name, hint)


def test_a_run_directory_is_refused_with_the_path_of_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "best_model.pth").touch()
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path)
    assert_one_sentence(str(caught.value), f"name {tmp_path / 'best_model.pth'}.")


def test_weights_as_numpy_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar100.checkpoints.torch_file.MAX_PICKLE_BYTES", 1 << 16)
    torch.save({name: tensor.numpy() for name, tensor in network().items()}, tmp_path / "w.pth")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "w.pth")
    assert caught.value.code == "checkpoint.too_long"
    assert_one_sentence(str(caught.value), "NumPy", "torch.save(model.state_dict(), PATH)")


def test_safetensors_without_json(tmp_path: Path) -> None:
    save_file(prefixed("model.", network()) | {"head.scale": torch.ones(1)}, tmp_path / "weights.safetensors")
    checkpoint = load_weights(tmp_path / "weights.safetensors")
    assert_identical(checkpoint.weights, network())
    assert (checkpoint.assumed, checkpoint.left_aside) == (EVERYTHING, ["head.scale"])


def test_tensors_that_change_the_network_are_not_ignored(tmp_path: Path) -> None:
    torch.save(network() | {"layer1.0.attention.weight": torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "weights.pth")
    assert_one_sentence(str(caught.value), "weights.pth", "layer1.0.attention.weight")


def test_our_own_files_need_no_assumptions(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "theirs.pth")
    facts: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "classes": CIFAR10.classes}
    checkpoint = load_weights(tmp_path / "theirs.pth", **facts)
    assert (checkpoint.mean, checkpoint.std) == ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    assert checkpoint.assumed == ["image_size"]
    checkpoint.assumed = []
    save_weights(checkpoint, tmp_path / "ours.safetensors")
    assert load_weights(tmp_path / "ours.safetensors").notes == []
    for name, value in facts.items():
        with pytest.raises(UserError) as caught:
            load_weights(tmp_path / "ours.safetensors", **{name: value})
        assert caught.value.code == "weights.known"


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"classes": ["cat", "dog"]}, "weights.classes"),
        ({"mean": [0.5, 0.5]}, "weights.given"),
        ({"mean": [float("nan")] * 3}, "weights.given"),
        ({"std": [0.0] * 3}, "weights.given"),
    ],
)
def test_invalid_facts_are_refused(tmp_path: Path, facts: dict[str, Any], code: str) -> None:
    torch.save(network(), tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "weights.pth", **facts)
    assert caught.value.code == code


def test_a_network_with_10_classes_is_evaluated_on_cifar10(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from test_formats import cifar10_binary, some

    torch.save(network(), tmp_path / "weights.pth")
    (tmp_path / "data").mkdir()
    cifar10_binary(tmp_path / "data", some(0, 10, 10), some(1, 10, 10))
    words = ["evaluate", str(tmp_path / "weights.pth"), "--data-dir", str(tmp_path / "data")]
    figures = []
    for more in ([], ["--mean", "0.1", "0.2", "0.3"]):
        assert main([*words, "--json", str(tmp_path / "figures.json"), *more]) == 0
        figures.append(json.loads((tmp_path / "figures.json").read_text()))
    assumed, given = figures
    assert set(assumed["per_class"]) == set(CIFAR10.classes)
    assert (assumed["assumed"], assumed["mean"]) == (EVERYTHING, list(AugmentConfig().mean))
    assert (given["assumed"], given["mean"]) == (["classes", "image_size", "std"], [0.1, 0.2, 0.3])
    assert assumed["loss"] != given["loss"]
    output = capsys.readouterr().out
    assert "the file does not say how (--mean, --std)" in output
    assert "the file does not name them (--classes)" in output


@pytest.mark.parametrize(
    ("classes", "first"),
    [
        (["cifar10"], "airplane"),
        (["names.txt"], "name 0"),
        (["bom.txt"], "name 0"),
        ([",".join("abcdefghij")], "a"),
        (list("klmnopqrst"), "k"),
    ],
)
def test_classes_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], classes: list[str], first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "weights.pth")
    for file, encoding in (("names.txt", "utf-8"), ("bom.txt", "utf-8-sig")):
        Path(file).write_text("".join(f"name {number}\n" for number in range(10)), encoding=encoding)
    Image.new("RGB", (32, 32), "teal").save("photo.png")
    words = ["predict", "photo.png", "--checkpoint", "weights.pth", "--json", "--top-k", "10"]
    assert main([*words, "--classes", *classes]) == 0
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert first in {item["class_name"] for item in answer["predictions"]}
    assert answer["assumed"] == ["image_size", "mean", "std"]
    assert "--classes" not in output.err


def test_100_classes_are_assumed_to_be_cifar100(tmp_path: Path) -> None:
    torch.save(network(100), tmp_path / "weights.pth")
    predictor = load_predictor(tmp_path / "weights.pth")
    assert predictor.classes == CLASSES
    assert predictor.info.assumed == tuple(EVERYTHING)
    assert any("in alphabetical order" in note for note in predictor.info.notes)


def test_a_network_without_class_names_is_evaluated_on_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(network(3), tmp_path / "weights.pth")
    for split in ("train", "test"):
        photos(tmp_path / "data" / split, {"cat": 2, "dog": 2, "owl": 2}, seed=len(split))
    for data in (tmp_path / "data", tmp_path / "data" / "test"):
        words = ["--data-dir", str(data), "--json", str(tmp_path / "figures.json")]
        assert main(["evaluate", str(tmp_path / "weights.pth"), *words]) == 0
        assert set(json.loads((tmp_path / "figures.json").read_text())["per_class"]) == {"cat", "dog", "owl"}
    assert "the dataset's, in its order" in capsys.readouterr().out


def test_what_was_assumed_is_said_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cifar100.checkpoints.checkpoint, "build_model", narrow_network)
    path = tmp_path / "weights.pth"
    torch.save(network(100), path)
    assumed = load_weights(path)
    assert main(["classes", str(path)]) == 0
    assert "does not name them" in capsys.readouterr().err
    assert "does not name them" in model_card(assumed, "me/m")
    predictor = load_predictor(path, device="cpu")
    assert "does not name them" in about_model(predictor)
    write_unchecked(assumed, "onnx", tmp_path / "weights.onnx")
    assert load_predictor(tmp_path / "weights.onnx").info.notes == predictor.info.notes
    assert len(predictor.info.notes) == 2
    assert model_json(read_onnx(tmp_path / "weights.onnx")[1])["about"]["assumed"] == list(predictor.info.notes)


def test_an_ambiguous_order_of_classes_is_refused(tmp_path: Path) -> None:
    """Here 2 is before 10; torchvision's ImageFolder sorts names as text."""
    torch.save(network(3), tmp_path / "weights.pth")
    photos(tmp_path / "data", {"1": 2, "2": 2, "10": 2})
    words = ["evaluate", str(tmp_path / "weights.pth"), "--data-dir", str(tmp_path / "data")]
    for more in ([], ["--split", "train"]):
        assert main([*words, *more]) == 2
    with pytest.raises(UserError) as caught:
        export(tmp_path / "weights.pth", "safetensors", data_dir=tmp_path / "data", say=lambda _: None)
    assert caught.value.code == "evaluate.class_order"
    assert main([*words, "--classes", "1", "10", "2"]) == 0


def test_an_onnx_file_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "model.onnx")
    assert caught.value.code == "weights.onnx"
    assert_one_sentence(str(caught.value), ".pth", ".safetensors")
