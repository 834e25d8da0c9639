"""The same rows in any format are the same dataset, and so the same run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image
from pyarrow import parquet

from cifar100.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.config import Config
from cifar100.dataset import Dataset, read, synthetic
from cifar100.dataset.published import CIFAR10
from cifar100.device import choose_compute
from cifar100.errors import UserError
from cifar100.loader import TrainLoader
from cifar100.model import ResNet
from cifar100.optim import build_optimizer
from cifar100.step import TrainStep

Rows = tuple[np.ndarray, np.ndarray]


def some(seed: int, count: int, classes: int) -> Rows:
    """Random images uint8 [N, 32, 32, 3] and labels [N], of every class where N allows."""
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
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    return pyarrow.table({"img": encoded, column: labels})


def cifar100_parquet(folder: Path, train: Rows, test: Rows) -> None:
    """As uoft-cs/cifar100 has it, train in two files."""
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
    """Rows written in a format and read back; every format gets them in another order."""
    images, labels = some(0, 120, classes)
    order = np.random.default_rng(len(write.__name__)).permutation(120)
    target = tmp_path / write.__name__ / folder
    target.mkdir(parents=True)
    write(target, (images[order], labels[order]), some(1, 100, classes))
    return read(tmp_path / write.__name__)


@pytest.mark.parametrize(("write", "classes", "folder"), FORMATS)
def test_every_format_gives_back_what_was_written(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
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


@pytest.mark.parametrize("classes", [100, 10])
def test_every_format_of_the_same_rows_is_the_same_run(tmp_path: Path, classes: int) -> None:
    datasets = [written(tmp_path, write, number) for write, number, _ in FORMATS if number == classes]
    assert len(datasets) == 4
    assert len({dataset.train.fingerprint for dataset in datasets}) == 1
    weights = []
    for dataset in datasets:
        torch.manual_seed(0)
        model, compute = ResNet((1, 1, 1, 1), classes, 8), choose_compute("cpu")
        config = Config()
        optimizer = build_optimizer(model, config.optim)
        step = TrainStep(compute.place(model), optimizer, compute, label_smoothing=0.1)
        loader = TrainLoader(dataset.train, config.augment, batch_size=16, seed=3, device=compute.device)
        for number, (images, labels) in enumerate(loader):
            step(images, labels, learning_rate=0.01, number=number)
        weights.append(model.state_dict())
    assert all(torch.equal(first, other[name]) for other in weights for name, first in weights[0].items())


@pytest.mark.parametrize(("write", "classes", "folder"), FORMATS)
def test_the_published_images_are_of_one_size(tmp_path: Path, write: Write, classes: int, folder: str) -> None:
    written(tmp_path, write, classes, folder)
    with pytest.raises(UserError) as error:
        read(tmp_path / write.__name__, Config().replace(image_size=48))
    assert_one_sentence(str(error.value), "48x48", "32x32", "--image-size")


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


def as_image(**size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size.get("width", 32), size.get("height", 32))).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"image": [1], "fine_label": [0]}, "no columns img and fine_label"),
        ({"img": [{"bytes": as_image()}]}, "no columns img and fine_label"),
        ({"img": ["text"], "fine_label": [0]}, "not of the expected columns"),
        ({"img": [{"file": b"x"}], "fine_label": [0]}, "not of the expected columns"),
        ({"img": [{"bytes": None}], "fine_label": [0]}, "a row has no image"),
        ({"img": [{"bytes": b"no png"}], "fine_label": [0]}, "an image does not decode"),
        ({"img": [{"bytes": as_image()[:50]}], "fine_label": [0]}, "an image does not decode"),
        ({"img": [{"bytes": as_image(width=64)}], "fine_label": [0]}, "an image is 64x32"),
        ({"img": [{"bytes": as_image()}], "fine_label": [100]}, "A label is 100; with 100 classes"),
        ({"img": [{"bytes": as_image()}], "fine_label": [-1]}, "A label is -1"),
        ({"img": [{"bytes": as_image()}], "fine_label": [0.5]}, "is float64, not class ids"),
        ({"img": [{"bytes": as_image()}], "fine_label": [None]}, "not class ids"),
        ({"img": [{"bytes": as_image()}], "fine_label": ["apple"]}, "not class ids"),
        ({"img": [{"bytes": as_image()}], "label": [3]}, "train is CIFAR-100's and test is CIFAR-10's"),
    ],
)
def test_a_parquet_file_that_is_not_the_dataset(tmp_path: Path, table: dict[str, list[object]], said: str) -> None:
    written(tmp_path, cifar100_parquet, 100)
    path = tmp_path / "cifar100_parquet" / "test-00000-of-00002.parquet"
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(UserError) as error:
        read(path.parent)
    assert said in str(error.value)
    assert str(path if "train is" not in said else path.parent) in str(error.value)


def test_a_parquet_file_damaged_anywhere_is_a_sentence(tmp_path: Path) -> None:
    """A bounded, seeded fuzzer: bytes cut off or changed; never anything but success or our error."""
    written(tmp_path, cifar10_parquet, 10)
    path = tmp_path / "cifar10_parquet" / "test-00000-of-00001.parquet"
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), list[str]()
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.2 else damaged)
        try:
            read(path.parent)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(message.isprintable() for message in refused)


def test_made_up_images_are_never_verified() -> None:
    dataset = synthetic.make()
    assert dataset.is_synthetic
    assert not dataset.is_verified
    assert "SYNTHETIC" in str(dataset)
