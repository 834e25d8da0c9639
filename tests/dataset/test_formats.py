"""The same rows in any format give the same dataset, and so the same training run."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from conftest import assert_one_sentence
from image_bytes import image_bytes
from PIL import Image
from pyarrow import parquet

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import Dataset, load_dataset, read, resolve_data_dir
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.dataset.published import CIFAR10
from cifar100.model import ResNet
from cifar100.optim.build import build_optimizer
from cifar100.support.errors import UserError
from cifar100.training.step import TrainStep

Rows = tuple[np.ndarray, np.ndarray]


def some(seed: int, count: int, classes: int) -> Rows:
    """Random images uint8 [N, 32, 32, 3] and labels [N], of every class if N is large enough."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(np.arange(count) % classes)


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def cifar100_pickles(folder: Path, train: Rows, test: Rows) -> None:
    for name, (images, labels) in (("train", train), ("test", test)):
        content = {b"data": planes(images), b"fine_labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"fine_label_names": list(CLASSES), b"coarse_label_names": list(SUPERCLASSES)}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))


def cifar100_binary(folder: Path, train: Rows, test: Rows) -> None:
    for name, (images, labels) in (("train.bin", train), ("test.bin", test)):
        coarse = np.array(SUPERCLASS_OF)[labels]
        rows = np.concatenate([coarse[:, None], labels[:, None], planes(images)], axis=1)
        (folder / name).write_bytes(rows.astype(np.uint8).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n")


def cifar10_pickles(folder: Path, train: Rows, test: Rows) -> None:
    thirds = np.array_split(np.arange(len(train[1])), 5)
    files = {f"data_batch_{i}": (train[0][rows], train[1][rows]) for i, rows in enumerate(thirds, 1)}
    for name, (images, labels) in (files | {"test_batch": test}).items():
        content = {b"data": planes(images), b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": list(CIFAR10.classes)}, protocol=2))


def cifar10_binary(folder: Path, train: Rows, test: Rows) -> None:
    thirds = np.array_split(np.arange(len(train[1])), 5)
    files = {f"data_batch_{i}": (train[0][rows], train[1][rows]) for i, rows in enumerate(thirds, 1)}
    for name, (images, labels) in (files | {"test_batch": test}).items():
        rows = np.concatenate([labels[:, None], planes(images)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10.classes) + "\n\n")


def parquet_rows(images: np.ndarray, labels: np.ndarray, column: str) -> pyarrow.Table:
    encoded = [{"bytes": image_bytes(image), "path": None} for image in images]
    return pyarrow.table({"img": encoded, column: labels})


def cifar100_parquet(folder: Path, train: Rows, test: Rows) -> None:
    """The columns of uoft-cs/cifar100, with the train split in two files."""
    halves = [(train[0][rows], train[1][rows]) for rows in np.array_split(np.arange(len(train[1])), 2)]
    for name, rows in (("train-00000", halves[0]), ("train-00001", halves[1]), ("test-00000", test)):
        parquet.write_table(parquet_rows(*rows, "fine_label"), folder / f"{name}-of-00002.parquet")


def cifar10_parquet(folder: Path, train: Rows, test: Rows) -> None:
    for name, rows in (("train", train), ("test", test)):
        parquet.write_table(parquet_rows(*rows, "label"), folder / f"{name}-00000-of-00001.parquet")


def class_folders(folder: Path, train: Rows, test: Rows, names: tuple[str, ...]) -> None:
    for split, (images, labels) in (("train", train), ("test", test)):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            target = folder / split / names[label]
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target / f"{number}.png")


def cifar100_folders(folder: Path, train: Rows, test: Rows) -> None:
    class_folders(folder, train, test, CLASSES)


def cifar10_folders(folder: Path, train: Rows, test: Rows) -> None:
    class_folders(folder, train, test, CIFAR10.classes)


Write = Callable[[Path, Rows, Rows], None]
FORMATS: list[tuple[Write, int, str]] = [
    (cifar100_pickles, 100, "cifar-100-python"),
    (cifar100_binary, 100, "cifar-100-binary"),
    (cifar100_parquet, 100, "cifar100"),
    (cifar10_parquet, 10, "plain_text"),
    (cifar10_pickles, 10, "cifar-10-batches-py"),
    (cifar10_binary, 10, "cifar-10-batches-bin"),
    (cifar100_folders, 100, ""),
    (cifar10_folders, 10, ""),
]


def written(tmp_path: Path, write: Write, classes: int, folder: str = "") -> Dataset:
    """Rows written in a format and read back; their order differs by format."""
    images, labels = some(0, 120, classes)
    order = np.random.default_rng(len(write.__name__)).permutation(120)
    target = tmp_path / write.__name__ / folder
    target.mkdir(parents=True)
    write(target, (images[order], labels[order]), some(1, 100, classes))
    return read(tmp_path / write.__name__)


@pytest.mark.parametrize(("write", "classes", "folder"), FORMATS)
def test_every_format_round_trips(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
    dataset = written(tmp_path, write, classes, folder)
    images, labels = some(0, 120, classes)
    expected = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
    found = [
        (int(label), image.tobytes()) for image, label in zip(dataset.train.images, dataset.train.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert len(dataset.classes) == classes
    assert bool(dataset.superclasses) == (classes == 100)
    assert "NOT the published images" in str(dataset)


ARCHIVES = {
    "cifar-100-python.tar.gz": FORMATS[0],
    "cifar-100-binary.tar.gz": FORMATS[1],
    "cifar-10-python.tar.gz": FORMATS[4],
    "cifar-10-binary.tar.gz": FORMATS[5],
}


def packed(archive: Path, folder: Path, inside: str, **options: Any) -> Path:
    """Archive a directory, with an AppleDouble member as written by macOS and a member outside the archive."""
    with tarfile.open(archive, "w:gz", compresslevel=1, **options) as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
        tar.addfile(tarfile.TarInfo(f"{inside}/._train"), io.BytesIO())
        tar.add(folder / inside, inside)
    return archive


@pytest.mark.parametrize("options", [{}, {"format": tarfile.GNU_FORMAT}, {"pax_headers": {"comment": "x" * 2000}}])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_read_as_its_files_would_be(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    write, classes, inside = ARCHIVES[name]
    unpacked = written(tmp_path, write, classes, inside)
    (tmp_path / "downloads").mkdir()
    archive = packed(tmp_path / "downloads" / name, tmp_path / write.__name__, inside, **options)
    before = set(tmp_path.rglob("*"))
    for place in (archive, archive.parent):
        dataset = read(place)
        assert dataset.train.fingerprint == unpacked.train.fingerprint
        assert dataset.test.fingerprint == unpacked.test.fingerprint
        assert f"{archive}/{inside}" in str(dataset)
    assert set(tmp_path.rglob("*")) == before


def test_an_archive_is_found_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    dataset = written(tmp_path, cifar100_binary, 100, "cifar-100-binary")
    archive = packed(tmp_path / "any name", tmp_path / "cifar100_binary", "./cifar-100-binary")
    assert resolve_data_dir(archive) == archive
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(archive))
    assert load_dataset().train.fingerprint == dataset.train.fingerprint
    monkeypatch.delenv("CIFAR100_DATA_DIR")
    Path("data").mkdir()
    archive.rename("data/cifar-100-binary.tar.gz")
    assert resolve_data_dir() == Path("data")
    assert load_dataset().train.fingerprint == dataset.train.fingerprint


def test_files_take_precedence_over_their_archive(tmp_path: Path) -> None:
    written(tmp_path, cifar100_pickles, 100)
    (tmp_path / "cifar100_pickles" / "cifar-100-python.tar.gz").write_text("not an archive")
    assert len(read(tmp_path / "cifar100_pickles").train) == 120


@pytest.mark.parametrize("classes", [100, 10])
def test_every_format_gives_the_same_training_run(tmp_path: Path, classes: int) -> None:
    datasets = [written(tmp_path, write, number) for write, number, _ in FORMATS if number == classes]
    assert len(datasets) == 4
    assert len({dataset.train.fingerprint for dataset in datasets}) == 1
    weights = []
    for dataset in datasets:
        torch.manual_seed(0)
        model, compute = ResNet((1, 1, 1, 1), classes, 8), select_device("cpu")
        config = Config()
        optimizer = build_optimizer(model, config.optim)
        step = TrainStep(compute.prepare(model), optimizer, compute, config.optim)
        loader = TrainLoader(dataset.train, config.augment, batch_size=16, seed=3, device=compute.device)
        for number, (images, labels) in enumerate(loader):
            step(images, labels, learning_rate=0.01, step_index=number)
        weights.append(model.state_dict())
    assert all(torch.equal(first, other[name]) for other in weights for name, first in weights[0].items())


@pytest.mark.parametrize(("write", "classes", "folder"), FORMATS)
def test_published_datasets_refuse_another_image_size(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
    written(tmp_path, write, classes, folder)
    with pytest.raises(UserError) as error:
        read(tmp_path / write.__name__, Config().replace(image_size=48))
    assert_one_sentence(str(error.value), "48x48", "32x32", "--image-size")
