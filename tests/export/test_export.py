"""cifar100/export: exported files compute what the checkpoint does; a narrow network and synthetic images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import SYNTHETIC_INFO, assert_one_sentence, narrow_network, random_checkpoint

from cifar100 import export as exporting
from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.dataset import synthetic
from cifar100.export import build_metadata, export
from cifar100.export.check import Reference, compare
from cifar100.export.graph import ExportModule
from cifar100.inference import load_predictor
from cifar100.prediction.onnx_backend import OnnxBackend
from cifar100.prediction.onnx_format import KEY
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.provenance import DatasetInfo

pytestmark = pytest.mark.usefixtures("narrow_checkpoints")


def reference(exports: Path, pixels: np.ndarray) -> np.ndarray:
    return Reference(load_checkpoint(exports / "best.pth"), None, 1).forward(pixels)


PIXELS = synthetic.make().test.images[::10]


def assert_check_file(folder: Path, file: str, format: str) -> None:
    """The result of the check at export is stored next to the file, and is good."""
    check = json.loads((folder / f"{file}.check.json").read_text())
    assert (check["file"], check["format"]) == (file, format)
    assert check["bytes"] == (folder / file).stat().st_size
    assert check["images"] == 200
    assert check["on"] == "200 of 600 synthetic test images"
    assert set(check["difference"]) == {"1", "2", "7", "64"}
    assert check["agreement"] > 0.9 if format == "onnx-int8" else check["agreement"] == 1
    assert min(check["images_per_second"].values()) > 0


def test_the_check_is_stored_next_to_the_file(exports: Path) -> None:
    assert_check_file(exports, "best.onnx", "onnx")
    assert_check_file(exports, "best.safetensors", "safetensors")


@pytest.mark.slow
def test_the_checks_of_int8_and_pt2(all_exports: Path) -> None:
    assert_check_file(all_exports, "best.int8.onnx", "onnx-int8")
    assert_check_file(all_exports, "best.pt2", "pt2")


@pytest.mark.parametrize("batch", [1, 2, 7, 60])
def test_onnx_logits_equal_the_checkpoints(exports: Path, batch: int) -> None:
    predictor = load_predictor(exports / "best.onnx")
    logits = predictor.backend.logits(PIXELS[:batch])
    np.testing.assert_allclose(logits, reference(exports, PIXELS[:batch]), atol=1e-4)


@pytest.mark.slow
def test_pt2_needs_only_pytorch(all_exports: Path) -> None:
    facts = {KEY: ""}
    module = torch.export.load(all_exports / "best.pt2", extra_files=facts).module()
    for batch in (1, 7):
        logits, maps = module(torch.from_numpy(PIXELS[:batch]))
        np.testing.assert_allclose(logits, reference(all_exports, PIXELS[:batch]), atol=1e-4)
        assert maps.shape == (batch, 100, 4, 4)
    assert json.loads(facts[KEY])["classes"][0] == "apple"


@pytest.mark.slow
def test_float_input_format(exports: Path) -> None:
    export(exports / "best.pth", "onnx", exports / "float.onnx", input_format="float", images=20)
    np.testing.assert_allclose(
        load_predictor(exports / "float.onnx").backend.logits(PIXELS), reference(exports, PIXELS), atol=1e-4
    )
    backend = OnnxBackend(exports / "float.onnx")
    floats = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)) / np.float32(255)
    logits = np.asarray(backend.session.run(["logits"], {"images": floats})[0])
    np.testing.assert_allclose(logits, reference(exports, PIXELS), atol=1e-4)


def assert_maps_average_to_the_logits(path: Path, bias: np.ndarray) -> None:
    logits, maps = OnnxBackend(path).logits_and_cams(PIXELS[:5])
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, logits, atol=1e-4)


def test_the_maps_average_to_the_logits(exports: Path) -> None:
    assert_maps_average_to_the_logits(
        exports / "best.onnx", load_checkpoint(exports / "best.pth").weights["fc.bias"].numpy()
    )


@pytest.mark.slow
def test_the_maps_of_int8_average_to_the_logits(all_exports: Path) -> None:
    bias = load_checkpoint(all_exports / "best.pth").weights["fc.bias"].numpy()
    assert_maps_average_to_the_logits(all_exports / "best.int8.onnx", bias)
    assert b".py" not in (all_exports / "best.int8.onnx").read_bytes(), "contains a path of this machine"
    assert OnnxBackend(all_exports / "best.int8.onnx").metadata["std"] == [0.2, 0.25, 0.3]


@pytest.mark.slow
def test_int8_is_small_and_accurate(all_exports: Path) -> None:
    assert (all_exports / "best.int8.onnx").stat().st_size < 0.5 * (all_exports / "best.onnx").stat().st_size
    logits, expected = (
        load_predictor(all_exports / "best.int8.onnx").backend.logits(PIXELS),
        reference(all_exports, PIXELS),
    )
    assert np.abs(logits - expected).max() < 0.2 * np.abs(expected).max()
    weights = [t for t in onnx.load(all_exports / "best.int8.onnx").graph.initializer if len(t.dims) == 4]
    assert {onnx.TensorProto.DataType.Name(t.data_type) for t in weights if t.dims[0] != 100} == {"INT8"}


def test_metadata_are_exported(exports: Path) -> None:
    predictor = load_predictor(exports / "best.onnx")
    assert predictor.classes == tuple(load_checkpoint(exports / "best.pth").classes)
    assert (predictor.image_size, predictor.temperature) == (32, 1.5)
    assert predictor.info.dataset == SYNTHETIC_INFO
    assert load_predictor(exports / "best.onnx", calibrated=False).temperature == 1
    facts = OnnxBackend(exports / "best.onnx").metadata
    assert (facts["mean"], facts["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])


def test_the_file_contains_no_local_paths(exports: Path) -> None:
    content = (exports / "best.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b"nowhere" not in content
    assert b".py" not in content


def test_random_pixels_are_used_without_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    random_checkpoint(config={}, dataset=DatasetInfo(name="CIFAR-100")).save(tmp_path / "best.pth")
    result = export(tmp_path / "best.pth", "safetensors")
    assert result.top1 is None
    assert "random pixels only" in str(result)
    with pytest.raises(UserError) as caught:
        export(tmp_path / "best.pth", "onnx-int8")
    assert caught.value.code == "export.calibration_images"
    assert_one_sentence(str(caught.value), "--data-dir")
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_default_dataset_of_another_size_is_not_used(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(tiny_data))
    weights = narrow_network("resnet18", 3).state_dict()
    own: dict[str, Any] = {"classes": list("abc"), "superclasses": [], "superclass_of": [], "weights": weights}
    random_checkpoint(config={}, image_size=48, **own).save(tmp_path / "own.pth")
    messages: list[str] = []
    assert export(tmp_path / "own.pth", "safetensors", say=messages.append).top1 is None
    assert any("48x48" in message for message in messages)
    with pytest.raises(UserError, match="48x48"):
        export(tmp_path / "own.pth", "safetensors", data_dir=tiny_data)


@pytest.mark.parametrize("code", ["dataset.folder", "config.val_fraction"])
def test_an_unusable_default_dataset_is_not_needed(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """One that nobody named: ./data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    Path("data").mkdir()
    checkpoint = load_checkpoint(exports / "best.pth")

    def fail(*_: object, **__: object) -> None:
        raise UserError(code, "This dataset cannot be used.")

    monkeypatch.setattr(exporting, "resolve_data_dir", lambda given: given or Path("data"))
    monkeypatch.setattr(
        exporting, "load_dataset", fail if code == "dataset.folder" else lambda *_, **__: synthetic.make()
    )
    monkeypatch.setattr(exporting, "train_val_split", fail)
    real = replace(checkpoint, config=checkpoint.config | {"dataset": "cifar100"})
    messages: list[str] = []
    assert exporting.own_images(real, None, messages.append) == (None, None)
    assert any("This dataset cannot be used." in message for message in messages)
    with pytest.raises(UserError):
        exporting.own_images(real, Path("data"), messages.append)


def test_a_file_with_other_logits_is_rejected(exports: Path) -> None:
    checkpoint = load_checkpoint(exports / "best.pth")
    checked = Reference(checkpoint, synthetic.make().test, 64)

    def wrong(pixels: np.ndarray) -> np.ndarray:
        return np.roll(checked.forward(pixels), 1, axis=1)  # the classes in another order

    for format, code in (("onnx", "export.parity"), ("onnx-int8", "export.agreement")):
        result = compare(wrong, checked, format=format, file=exports / "best.onnx", seconds=0.01)
        with pytest.raises(RunFailed) as caught:
            result.raise_on_mismatch()
        assert caught.value.code == code
    result = compare(checked.forward, checked, format="onnx", file=exports / "best.onnx", seconds=0.01)
    result.raise_on_mismatch()
    assert (result.agreement, max(result.difference.values())) == (1, 0)


def test_a_full_disk_leaves_the_previous_file(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "best.onnx"
    out.write_bytes(b"the earlier one")
    monkeypatch.setattr("cifar100.export.save_onnx", full)
    with pytest.raises(RunFailed) as caught:
        export(exports / "best.pth", "onnx", out)
    assert caught.value.code == "export.unwritable"
    assert_one_sentence(str(caught.value), out, "No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["best.onnx"]
    assert out.read_bytes() == b"the earlier one"


def test_without_onnxruntime_installed(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError) as caught:
        export(exports / "best.pth", "onnx", tmp_path / "best.onnx")
    assert_one_sentence(str(caught.value), "onnxruntime", "pip install 'cifar100[onnx]'")


def test_other_sizes_and_classes() -> None:
    checkpoint = random_checkpoint(
        image_size=48, classes=list("abc"), weights=narrow_network("x", 3).state_dict(), model="resnet34"
    )
    graph = ExportModule(checkpoint, "float")
    logits, maps = graph(torch.rand(2, 3, 48, 48))
    assert (logits.shape, maps.shape) == ((2, 3), (2, 3, 6, 6))
    assert build_metadata(checkpoint, "float")["preprocessing"].startswith("float32 [B, 3, 48, 48]")


def test_a_link_stays_one(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    target, link = tmp_path / "shared" / "model.safetensors", tmp_path / "current.safetensors"
    target.write_bytes(b"old")
    link.symlink_to(target)
    export(exports / "best.pth", "safetensors", link, say=lambda _: None)
    assert link.is_symlink()
    assert load_predictor(link).predict(np.zeros((32, 32, 3), np.uint8))
    assert target.read_bytes() != b"old"
