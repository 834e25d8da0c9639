"""Duplicates: detection without false positives, and the accuracy without them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import untrained
from narrow_cifar100 import small_network
from PIL import Image
from scipy import ndimage

from cifar100.cli.main import main
from cifar100.dataset import synthetic
from cifar100.dataset.base import Dataset, DatasetSpec, Split
from cifar100.evaluation import metrics
from cifar100.evaluation.duplicates import (
    CombinedSplits,
    accuracy_without_duplicates,
    duplicated_test_rows,
    exact_duplicates,
    near_duplicates,
)
from cifar100.report.data import analyze_dataset, summary, write_page
from cifar100.support.errors import UserError


def images(count: int, seed: int) -> np.ndarray:
    """Distinct images with coarse and fine structure: uint8 [count, 32, 32, 3]."""
    noise = np.random.default_rng(seed).normal(size=(count, 32, 32, 3))
    shapes = 700 * ndimage.gaussian_filter(noise, (0, 5, 5, 0)) + 120 * ndimage.gaussian_filter(noise, (0, 1, 1, 0))
    return (shapes + 128).clip(0, 255).astype(np.uint8)


def changed(image: np.ndarray, kind: str) -> np.ndarray:
    """A near duplicate of the image."""
    pil_image = Image.fromarray(image)
    if kind == "mirrored":
        return image[:, ::-1]
    if kind == "shifted":
        return np.roll(image, (1, -1), axis=(0, 1))
    if kind == "brighter":
        return (image * 0.8 + 40).astype(np.uint8)
    if kind == "noisy":
        return (image + np.random.default_rng(1).normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)
    assert kind == "blurred"
    return np.asarray(pil_image.resize((24, 24), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC))


KINDS = ["mirrored", "shifted", "brighter", "noisy", "blurred"]


@pytest.fixture
def dataset() -> Dataset:
    """300 train and 40 test images of 4 classes. The first five test images are near duplicates of train images;
    the sixth is an exact duplicate with another label. Two train images are equal."""
    train, test = images(300, 0), images(40, 1)
    train_labels, test_labels = np.arange(300) % 4, np.arange(40) % 4
    for row, kind in enumerate(KINDS):
        test[row] = changed(train[10 * row], kind)
    test[5], test_labels[5] = train[7], (train_labels[7] + 1) % 4
    train[299] = train[3]
    published = DatasetSpec("custom images", ("ant", "<b>bee</b>", "cat", "dog"))
    return Dataset(published, Split(train, train_labels, ""), Split(test, test_labels, ""), "memory")


def test_exact_duplicates_are_found(dataset: Dataset) -> None:
    rows = CombinedSplits(dataset)
    pairs = exact_duplicates(rows.images)
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 299), (7, 305)]
    assert [rows.location(pair) for pair in pairs] == ["train", "across"]
    assert [rows.labels_conflict(pair) for pair in pairs] == [False, True]
    assert duplicated_test_rows(pairs, rows).tolist() == [5]


def test_only_near_duplicates_are_found(dataset: Dataset) -> None:
    rows = CombinedSplits(dataset)
    pairs = near_duplicates(rows.images)
    assert sorted((pair.first, pair.second) for pair in pairs) == [(10 * row, 300 + row) for row in range(5)]
    assert {pair.second - 300 for pair in pairs if pair.mirrored} == {KINDS.index("mirrored")}
    assert duplicated_test_rows(pairs, rows).tolist() == [0, 1, 2, 3, 4]
    assert [pair.correlation for pair in pairs] == sorted((pair.correlation for pair in pairs), reverse=True)


def test_the_block_size_does_not_affect_the_result(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images, steps = CombinedSplits(dataset).images, []
    whole = near_duplicates(images)
    monkeypatch.setattr("cifar100.evaluation.duplicates.BLOCK", 37)
    parts = near_duplicates(images, advance=steps.append)
    assert [(pair.first, pair.second, pair.mirrored) for pair in parts] == [
        (pair.first, pair.second, pair.mirrored) for pair in whole
    ]
    assert sum(steps) == len(images)


def test_uniform_images_have_no_duplicates() -> None:
    shades = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    assert near_duplicates(shades) == []


def test_accuracy_without_duplicates(dataset: Dataset) -> None:
    logits = np.random.default_rng(0).normal(size=(40, 4))
    labels = dataset.test.labels
    exact, near = accuracy_without_duplicates(logits, labels, dataset)
    assert (exact.num_excluded, exact.num_images, near.num_excluded, near.num_images) == (1, 39, 6, 34)
    kept = np.arange(40) != 5
    assert exact.top1 == metrics.top_k_accuracy(logits[kept], labels[kept])
    assert near.top1 == metrics.top_k_accuracy(logits[6:], labels[6:])
    assert near.top1_of_excluded == metrics.top_k_accuracy(logits[:6], labels[:6])
    assert f"{near.top1:.2%}" in str(near)
    only = Dataset(dataset.spec, dataset.train, dataset.train, "")
    with pytest.raises(UserError) as caught:
        accuracy_without_duplicates(np.zeros((300, 4)), dataset.train.labels, only)
    assert caught.value.code == "evaluate.all_duplicates"


def test_the_dataset_report(dataset: Dataset, tmp_path: Path) -> None:
    found = analyze_dataset(dataset)
    train = dataset.train.images.reshape(-1, 3) / 255
    assert found.mean == pytest.approx(train.mean(axis=0))
    assert found.std == pytest.approx(train.std(axis=0))
    text = summary(found)
    assert "test images with an exact duplicate in train: 1 (2.50%)" in text
    assert "test images with an exact or near duplicate in train: 6 (15.00%)" in text
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>bee</b>" not in page
    assert "&lt;b&gt;bee" in page
    assert page.count("<figure>") == 7
    assert "http://" not in page, "the page works offline"
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert str(tmp_path) not in page
    assert "6 (15.00%)" in page
    assert "<th>exact duplicates</th><td>1 (0)</td><td>0 (0)</td><td>1 (1)</td>" in page


def test_the_commands(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "report", str(tiny_data), "--out", "page.html"]) == 0
    assert "published 0.5071 0.4867 0.4408" in capsys.readouterr().out
    assert (tmp_path / "page.html").is_file()
    assert main(["data", "report", str(tiny_data), "--out", "nowhere/page.html"]) == 2
    monkeypatch.setattr("cifar100.checkpoints.checkpoint.build_model", small_network)
    untrained(weights=small_network().state_dict()).save(tmp_path / "model.pth")
    words = ["evaluate", "model.pth", "--data-dir", str(tiny_data), "--device", "cpu", "--json", "figures.json"]
    capsys.readouterr()
    assert main([*words, "--without-duplicates", "--views", "2"]) == 0, "former names of the flags"
    output = capsys.readouterr().out
    assert "exact or near" in output
    assert "agreement" in output
    assert {"tta", "exclude_duplicates"} <= json.loads((tmp_path / "figures.json").read_text()).keys()
    assert main([*words, "--exclude-duplicates", "--split", "train"]) == 2


def test_images_that_are_too_similar_have_no_near_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar100.evaluation.duplicates.MAX_CANDIDATES", 3)
    split = synthetic.make().test.take(np.arange(12))
    images = np.concatenate([split.images] * 2)
    images[12:, 0, 0] ^= 1
    doubled = Split(images, np.concatenate([split.labels] * 2), "")
    found = analyze_dataset(replace(synthetic.make(), train=doubled, test=doubled))
    assert found.near is None
    text = summary(found)
    assert "look alike" in text
    assert "near duplicates:" not in text
    write_page(found, tmp_path / "report.html")
    assert "look alike" in (tmp_path / "report.html").read_text()
