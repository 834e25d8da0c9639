"""The files that transformers.js needs to load a model from the hub: their content, and the package under Node.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import narrow_network, random_checkpoint
from PIL import Image

from cifar100.cli.main import main
from cifar100.evaluation.metrics import softmax
from cifar100.inference import Predictor, load_predictor
from cifar100.support.provenance import TemperatureFit

PACKAGE = "@huggingface/transformers@4.3.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cifar100", "transformers.js-4.3.1")
"""In the user's cache, before the tests set their own: the package is installed only once."""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pth, a narrow network with a temperature, and model/, which `cifar100 push --folder` wrote."""
    folder = tmp_path_factory.mktemp("pushed")
    random_checkpoint(calibration=TemperatureFit(temperature=1.5)).save(folder / "best.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar100.checkpoints.checkpoint.build_model", narrow_network)
        patch.setattr("cifar100.export.CALIBRATION_IMAGES", 128)
        words = ["--checkpoint", str(folder / "best.pth"), "--folder", str(folder / "model")]
        assert main(["push", "someone/model", *words]) == 0
    return folder


@pytest.fixture
def predictor(pushed: Path, narrow_checkpoints: None) -> Predictor:
    return load_predictor(pushed / "best.pth", device="cpu", precision="fp32")


def test_config_files(pushed: Path) -> None:
    config = json.loads((pushed / "model" / "config.json").read_text())
    assert config["model_type"] == "resnet"
    assert config["id2label"]["1"] == "aquarium fish"
    assert {config["label2id"][name] for name in config["id2label"].values()} == set(range(100))
    preprocessor = json.loads((pushed / "model" / "preprocessor_config.json").read_text())
    assert preprocessor["crop_size"] == {"height": 32, "width": 32}
    assert preprocessor["do_normalize"] is False, "the graph normalizes"


@pytest.mark.parametrize(("name", "tolerance"), [("model", 1e-5), ("model_quantized", 0.2)])
def test_the_graphs_compute_calibrated_probabilities(
    pushed: Path, predictor: Predictor, name: str, tolerance: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    session = onnxruntime.InferenceSession(pushed / "model" / "onnx" / f"{name}.onnx")
    floats = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    (logits,) = session.run(None, {"pixel_values": floats})
    expected = np.array(list(predictor.probabilities(list(pixels))))
    np.testing.assert_allclose(softmax(np.asarray(logits)), expected, atol=tolerance)


def test_without_onnx_the_other_files_are_pushed(
    tmp_path: Path, narrow_checkpoints: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    random_checkpoint().save(tmp_path / "best.pth")
    words = ["--checkpoint", str(tmp_path / "best.pth"), "--folder", str(tmp_path / "model")]
    assert main(["push", "someone/model", *words]) == 0
    assert "pip install 'cifar100[onnx]'" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.safetensors", "model.json", "README.md"}


SCRIPT = """
import { env, pipeline } from "@huggingface/transformers";
const [folder, ...images] = process.argv.slice(2);
Object.assign(env, { allowRemoteModels: false, localModelPath: folder });
const answers = {};
for (const dtype of ["fp32", "q8"]) {
    const classify = await pipeline("image-classification", "model", { dtype });
    answers[dtype] = [];
    for (const image of images) answers[dtype].push(await classify(image, { top_k: 3 }));
}
console.log(JSON.stringify(answers));
"""


@pytest.mark.slow
def test_transformers_js_predicts_the_same(pushed: Path, predictor: Predictor) -> None:
    if not (CACHE / "installed").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("there is no npm")
        words = ["install", "--prefix", str(CACHE), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        subprocess.run([npm, *words], check=True, timeout=600, capture_output=True)
        (CACHE / "installed").touch()
    (CACHE / "run.mjs").write_text(SCRIPT)
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    paths = []
    for number, image in enumerate(images):
        paths.append(pushed / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    done = subprocess.run(
        ["node", str(CACHE / "run.mjs"), f"{pushed}/", *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    expected = predictor.predict_batch(list(images), 3)
    for answer, predicted in zip(answers["fp32"], expected, strict=True):
        assert [item["label"] for item in answer] == [item.class_name.replace("_", " ") for item in predicted]
        np.testing.assert_allclose(
            [item["score"] for item in answer], [item.probability for item in predicted], atol=1e-4
        )
    for answer, precise in zip(answers["q8"], answers["fp32"], strict=True):
        scores = {item["label"]: item["score"] for item in precise}
        assert answer[0]["score"] == pytest.approx(scores[answer[0]["label"]], abs=0.05)


def test_an_int8_graph_that_disagrees_is_not_pushed(
    tmp_path: Path, narrow_checkpoints: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cifar100.export.CALIBRATION_IMAGES", 128)
    monkeypatch.setattr("cifar100.export.check.MIN_AGREEMENT", 1.01)
    random_checkpoint().save(tmp_path / "best.pth")
    words = ["--checkpoint", str(tmp_path / "best.pth"), "--folder", str(tmp_path / "model")]
    assert main(["push", "someone/model", *words]) == 0
    assert [path.name for path in (tmp_path / "model" / "onnx").iterdir()] == ["model.onnx"]
    assert "Without onnx/model_quantized.onnx" in capsys.readouterr().out
