"""The same rows in any format are the same dataset, and so the same run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cifar100.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.config import Config
from cifar100.dataset import Dataset, read, synthetic
from cifar100.dataset.published import CIFAR10
from cifar100.errors import UserError
from cifar100.loader import TrainLoader

Rows = tuple[np.ndarray, np.ndarray]


def some(seed: int, count: int, classes: int) -> Rows:
    """Random images uint8 [N, 32, 32, 3] and labels [N]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, classes, count)


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


Write = Callable[[Path, Rows, Rows], None]
FORMATS: list[tuple[Write, int, str]] = [
    (cifar100_pickles, 100, "cifar-100-python"),
    (cifar100_binary, 100, "cifar-100-binary"),
    (cifar10_pickles, 10, "cifar-10-batches-py"),
    (cifar10_binary, 10, "cifar-10-batches-bin"),
]


def written(tmp_path: Path, write: Write, classes: int, folder: str = "") -> Dataset:
    """Rows written in a format and read back; every format gets them in another order."""
    images, labels = some(0, 60, classes)
    order = np.random.default_rng(len(write.__name__)).permutation(60)
    target = tmp_path / write.__name__ / folder
    target.mkdir(parents=True)
    write(target, (images[order], labels[order]), some(1, 20, classes))
    return read(tmp_path / write.__name__)


@pytest.mark.parametrize(("write", "classes", "folder"), FORMATS)
def test_every_format_gives_back_what_was_written(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
    dataset = written(tmp_path, write, classes, folder)
    images, labels = some(0, 60, classes)
    expected = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
    found = [
        (int(label), image.tobytes()) for image, label in zip(dataset.train.images, dataset.train.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert len(dataset.classes) == classes
    assert bool(dataset.superclasses) == (classes == 100)
    assert "NOT the published images" in str(dataset)


@pytest.mark.parametrize("classes", [100, 10])
def test_two_formats_of_the_same_rows_are_the_same_run(tmp_path: Path, classes: int) -> None:
    first, second = (written(tmp_path, write, number) for write, number, _ in FORMATS if number == classes)
    assert first.train.fingerprint == second.train.fingerprint
    np.testing.assert_array_equal(first.train.images, second.train.images)
    batches = [
        next(iter(TrainLoader(dataset.train, Config().augment, batch_size=16, seed=3, device="cpu")))  # type: ignore[arg-type]
        for dataset in (first, second)
    ]
    assert all((a == b).all() for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize(("write", "classes", "folder"), [row for row in FORMATS if "binary" in row[0].__name__])
def test_a_binary_file_that_is_cut_short(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
    written(tmp_path, write, classes)
    (name,) = [path for path in (tmp_path / write.__name__).iterdir() if path.name.startswith("test")]
    name.write_bytes(name.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{name.name}: .* not whole rows .* cut short"):
        read(tmp_path / write.__name__)


def test_a_binary_label_out_of_range(tmp_path: Path) -> None:
    written(tmp_path, cifar10_binary, 10)
    path = tmp_path / "cifar10_binary" / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(UserError, match=r"test_batch.bin: A label is 10; with 10 classes they run from 0 to 9"):
        read(path.parent)


def test_other_class_names_are_refused(tmp_path: Path) -> None:
    written(tmp_path, cifar100_binary, 100)
    path = tmp_path / "cifar100_binary" / "fine_label_names.txt"
    path.write_text(path.read_text().replace("apple", "pineapple"))
    with pytest.raises(UserError, match="its names are not CIFAR-100's classes"):
        read(path.parent)


def test_made_up_images_are_never_verified() -> None:
    dataset = synthetic.make()
    assert dataset.is_synthetic
    assert not dataset.is_verified
    assert "SYNTHETIC" in str(dataset)
