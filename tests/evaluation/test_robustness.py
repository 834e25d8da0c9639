"""Evaluation on corrupted images: results, stored files, resuming, and the files of CIFAR-100-C."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence, untrained
from narrow_cifar100 import small_network

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.cli.main import main
from cifar100.compute.device import select_device
from cifar100.config import AugmentConfig, Config
from cifar100.dataset import Dataset, load_dataset
from cifar100.evaluation import cifar100_c
from cifar100.evaluation.corruption_results import (
    CELLS,
    FIGURES,
    IDENTITY,
    ResultStore,
    Robustness,
    read_results,
    results_path,
)
from cifar100.evaluation.corruptions import CORRUPTIONS, corrupt
from cifar100.evaluation.robustness import evaluate_corruptions
from cifar100.report import build
from cifar100.report.build import saved_robustness
from cifar100.support.errors import RunFailed, UserError

CPU = select_device("cpu", "fp32")
AUGMENT = AugmentConfig()


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr("cifar100.checkpoints.checkpoint.build_model", small_network)
    torch.manual_seed(0)
    return untrained(weights=small_network().state_dict(), mean=list(AUGMENT.mean), std=list(AUGMENT.std))


@pytest.fixture(scope="module")
def dataset(tiny_data: Path) -> Dataset:
    return load_dataset(Config().replace(data_dir=tiny_data))


def run(checkpoint: Checkpoint, dataset: Dataset, folder: Path, **options: Any) -> Robustness:
    return evaluate_corruptions(folder / "best_model.pth", checkpoint, dataset, AUGMENT, CPU, **options)


def test_results_equal_a_direct_evaluation_of_corrupted_images(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    result = run(checkpoint, dataset, tmp_path, limit=20)
    rows = np.linspace(0, 99, 20).round().astype(int)
    images, labels = torch.from_numpy(dataset.test.images[rows]), torch.from_numpy(dataset.test.labels[rows])
    model = checkpoint.build().eval()
    hits = []
    for kind in CORRUPTIONS:
        corrupted = corrupt(images, kind, 5, sample_ids=rows.tolist())
        with torch.no_grad():
            right = model(normalize(corrupted, AUGMENT.mean, AUGMENT.std)).argmax(dim=1) == labels
        hits.append(right.double().mean().item())
    assert [result.cells[kind, 5]["top1"] for kind in CORRUPTIONS] == hits
    assert result.errors[:, 4].tolist() == [1 - hit for hit in hits]
    tops = [cell["top1"] for cell in result.cells.values()]
    assert result.mean_corruption_error == pytest.approx(1 - np.mean(tops))
    assert f"{100 - 100 * np.mean(tops):.2f}" in str(result)
    (kept,) = read_results(tmp_path / "best_model.pth", checkpoint)
    assert kept == result
    other = Checkpoint(**{**vars(checkpoint), "weights": small_network().state_dict()})
    assert read_results(tmp_path / "best_model.pth", other) == [], "results of other weights are ignored"


def test_resumes_an_interrupted_evaluation(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0

    def stop(line: str) -> None:
        nonlocal done
        done += line.startswith("  ")
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, dataset, tmp_path, limit=4, say=stop)
    (kept,) = read_results(tmp_path / "best_model.pth", checkpoint)
    assert len(kept.cells) == 7
    assert kept.mean_corruption_error is None
    assert np.isnan(kept.errors).sum() == 75 - 7
    assert "fog" in str(kept)
    messages: list[str] = []
    whole = run(checkpoint, dataset, tmp_path, limit=4, say=messages.append)
    assert messages[0].startswith("68 of 75 cells to do, 4 images each: about 0:")
    assert {cell: whole.cells[cell] for cell in kept.cells} == kept.cells, "not evaluated twice"
    assert {name: cell["top1"] for name, cell in whole.cells.items()} == {
        name: cell["top1"] for name, cell in run(checkpoint, dataset, tmp_path / "..", limit=4).cells.items()
    }
    run(checkpoint, dataset, tmp_path, limit=2)
    kept_limits = [one.identity["images"] for one in read_results(tmp_path / "best_model.pth", checkpoint)]
    assert kept_limits == [4, 2], "one evaluation per number of images"


def test_two_evaluations_in_one_directory_keep_each_others_results(tmp_path: Path) -> None:
    one, other = (dict.fromkeys(IDENTITY, 0) | {"weights": name, "sha256": name} for name in ("a.pth", "b.pth"))
    stores = [ResultStore(tmp_path / "corruptions.json", identity) for identity in (one, other)]
    for cell in CELLS[:2]:
        for store in stores:
            store.results.clean = dict.fromkeys(FIGURES, 0.5)
            store.results.cells[cell] = dict.fromkeys(FIGURES, 0.5)
            store.save()
    for identity in (one, other):
        assert len(ResultStore(tmp_path / "corruptions.json", identity).results.cells) == 2


def test_results_for_pretrained_and_hub_weights_are_in_the_working_directory(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pretrained", "hf://user/model", "hf:/user/model/other.onnx"):
        assert results_path(Path(name)) == Path("corruptions.json")
    assert results_path(Path("logs/best_model.pth")) == Path("logs/corruptions.json")
    shipped = tmp_path / "shipped" / "resnet18.safetensors"
    shipped.parent.mkdir()
    monkeypatch.setattr(build, "PRETRAINED", shipped)
    fingerprint = dataset.test.fingerprint
    assert saved_robustness(Path("pretrained"), checkpoint, fingerprint) is None
    for path, limit in ((shipped, 4), (Path("pretrained"), 6)):
        run(checkpoint, dataset, path.parent, limit=limit)
        known = saved_robustness(Path("pretrained"), checkpoint, fingerprint)
        assert known is not None
        assert known.identity["images"] == limit, "the user's results on more images are preferred to the bundled ones"
        assert saved_robustness(Path("pretrained"), checkpoint, "another dataset") is None


def write_published(folder: Path, dataset: Dataset, kinds: list[str]) -> None:
    """Write files in the layout of CIFAR-100-C, darker with each severity; with 100 images instead of 10,000."""
    dark = [(dataset.test.images // (1 + level)) for level in range(5)]
    for kind in kinds:
        np.save(folder / f"{kind}.npy", np.concatenate(dark))
    np.save(folder / "labels.npy", np.tile(dataset.test.labels, 5))


@pytest.fixture
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100_c, "NUM_IMAGES", 100)


@pytest.mark.usefixtures("small_cells")
def test_published_files_are_read_by_severity(checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    write_published(tmp_path, dataset, ["fog", "snow"])
    messages: list[str] = []
    result = run(checkpoint, dataset, tmp_path, corruptions_dir=tmp_path, say=messages.append)
    assert "gaussian_noise" in messages[1]
    assert len(result.cells) == 10
    for name in ("top1", "top5", "loss"):
        assert result.cells["fog", 1][name] == pytest.approx(result.clean[name]), "the first block is not darkened"
    assert result.cells["fog", 3]["loss"] == result.cells["snow", 3]["loss"] != result.cells["fog", 4]["loss"]
    assert result.mean_corruption_error is None
    assert result.identity["source"] == "published"


@pytest.mark.usefixtures("small_cells")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fog.npy", np.zeros((500, 32, 32), np.uint8), "uint8 [500, 32, 32]"),
        ("fog.npy", np.zeros((500, 32, 32, 3), np.float32), "float32"),
        ("fog.npy", np.array([print], object), "cannot be read as a numpy array"),
        ("labels.npy", np.zeros(100, np.int64), "not 500 class ids"),
        ("labels.npy", np.full(500, 100), "outside 0..99"),
        ("labels.npy", np.zeros(500), "float64"),
        ("labels.npy", b"PK", "cannot be read as a numpy array"),
        ("labels.npy", None, "There is no"),
        ("fog.npy", None, "none of the files of CIFAR-100-C"),
    ],
)
def test_invalid_published_files(
    name: str, content: Any, message: str, checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    write_published(tmp_path, dataset, ["fog"])
    if content is None:
        (tmp_path / name).unlink()
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        run(checkpoint, dataset, tmp_path, corruptions_dir=tmp_path)
    assert error.value.code == "robustness.files"
    assert_one_sentence(str(error.value), message)


@pytest.mark.usefixtures("small_cells")
def test_published_files_need_the_labels_and_the_number_of_the_test_images(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    write_published(tmp_path, dataset, ["fog"])
    with pytest.raises(UserError) as error:  # in another order, so they would be other images
        run(checkpoint, dataset, tmp_path, corruptions_dir=tmp_path, limit=10)
    assert error.value.code == "robustness.limit"
    np.save(tmp_path / "labels.npy", np.arange(500) % 10)  # CIFAR-10-C
    with pytest.raises(UserError) as error:
        run(checkpoint, dataset, tmp_path, corruptions_dir=tmp_path)
    assert error.value.code == "robustness.files"


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "cifar100-corruptions", "version": 1, "evaluations": [3]}'])
def test_damaged_results_are_not_overwritten(
    content: str, checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "corruptions.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        run(checkpoint, dataset, tmp_path, limit=2)
    assert error.value.code == "robustness.results"
    assert_one_sentence(str(error.value), path)
    assert path.read_text() == content


def test_an_unwritable_directory_fails_before_the_evaluation(
    checkpoint: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    messages: list[str] = []
    with pytest.raises(RunFailed, match="could not be written"):
        run(checkpoint, dataset, tmp_path / "nowhere", limit=2, say=messages.append)
    assert len(messages) == 1


def test_the_digest_depends_only_on_names_and_values() -> None:
    one = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    assert state_dict_sha256(one) == state_dict_sha256(
        {"b": torch.ones(2), "a": torch.arange(6.0).reshape(3, 2).t().contiguous().t().reshape(2, 3)}
    )
    assert state_dict_sha256(one) != state_dict_sha256({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)})


def test_robustness_command(
    checkpoint: Checkpoint, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best_model.pth"
    checkpoint.save(path)
    words = ["robustness", str(path), "--data-dir", str(tiny_data), "--device", "cpu"]
    assert main([*words, "--limit", "3"]) == 0
    printed = capsys.readouterr().out
    assert "75 of 75 cells to do, 3 images each" in printed
    assert "mean corruption error" in printed
    written = json.loads((tmp_path / "corruptions.json").read_text())
    assert written["evaluations"][0]["weights"] == "best_model.pth"
    assert len(written["evaluations"][0]["cells"]) == 75
    assert main([*words, "--limit", "0"]) == 2
    assert "--limit is 0" in capsys.readouterr().err
    assert main([*words, "--corruptions-dir", str(tmp_path)]) == 2
