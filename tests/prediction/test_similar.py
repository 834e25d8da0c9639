"""`Predictor.embed` and `cifar100 similar`."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import random_checkpoint
from PIL import Image

from cifar100.cli.main import main
from cifar100.inference import load_predictor
from cifar100.prediction.predictor import Predictor
from cifar100.support.errors import UserError


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor("pretrained", device="cpu", precision="fp32")


def test_embeddings_are_the_normalized_input_of_the_last_layer(predictor: Predictor) -> None:
    """Their product with the weights of the last layer is proportional to the logits without the bias."""
    from cifar100.checkpoints.weights import load_weights

    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    features = predictor.embed(images)
    assert features.shape == (3, 512)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    head = load_weights("pretrained").build().fc
    with torch.inference_mode():
        weighed = (torch.from_numpy(features) @ head.weight.T).numpy()
    logits = predictor.backend.logits(images) - head.bias.detach().numpy()
    for mine, expected in zip(weighed, logits, strict=True):
        assert np.corrcoef(mine, expected)[0, 1] == pytest.approx(1, abs=1e-4)


def test_embed_accepts_images_in_batches(predictor: Predictor) -> None:
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "green", "blue")]
    np.testing.assert_allclose(predictor.embed(images, batch_size=2), predictor.embed(images), atol=1e-5)
    assert len(predictor.embed([])) == 0
    with pytest.raises(UserError):
        predictor.embed(np.zeros((32, 32, 3), np.uint8))


def test_exported_models_have_no_features(exports: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_predictor(exports / "best.onnx").embed([np.zeros((32, 32, 3), np.uint8)])
    assert caught.value.code == "predict.no_features"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six noise images and an invalid file; query.png is a copy of one of the images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    Path("photos").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((48, 48)).save(f"photos/{number}.png")
    Path("photos/bad.png").write_text("no image")
    Image.open("photos/3.png").save("query.png")
    return Path("photos")


def test_the_same_image_is_the_most_similar(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["similar", "query.png", "--in", str(photos), "--count", "4", "--sheet", "sheet.png", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr()
    first, *lines = printed.out.splitlines()
    assert load_predictor("pretrained", device="cpu").info.digest in first
    found = [line.split() for line in lines]
    similarities = [float(value) for value, _ in found]
    assert found[0] == ["1.0000", "photos/3.png"]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[1] < 0.999
    assert len(found) == 4
    assert "bad.png" in printed.err
    with Image.open("sheet.png") as sheet:
        assert min(sheet.size) > 128, "five images in rows"


def test_the_sheet_contains_a_query_from_standard_input(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--in", str(photos), "--count", "1", "--device", "cpu", "--sheet"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("query.png").read_bytes())))
    assert main(["similar", "-", *words, "piped.png"]) == 0
    assert main(["similar", "query.png", *words, "named.png"]) == 0
    with Image.open("piped.png") as piped, Image.open("named.png") as named:
        assert piped.size == named.size


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["query.png", "--in", "photos", "--count", "0"], 2),
        (["query.png", "--in", "empty"], 2),
        (["query.png", "--in"], 2),
    ],
)
def test_invalid_searches(photos: Path, words: list[str], code: int) -> None:
    Path("empty").mkdir()
    assert main(["similar", *words, "--device", "cpu"]) == code


def test_a_missing_query_fails(photos: Path) -> None:
    assert main(["similar", "none.png", "--in", str(photos), "--device", "cpu"]) == 1


def test_a_custom_checkpoint(photos: Path, narrow_checkpoints: None) -> None:
    random_checkpoint().save(Path("own.pth"))
    assert load_predictor("own.pth", device="cpu").embed(["query.png"]).shape == (1, 64)
    assert main(["similar", "query.png", "--in", str(photos), "--checkpoint", "own.pth", "--device", "cpu"]) == 0
