"""cifar100/dataset: locating, reading, verifying and splitting datasets."""

from __future__ import annotations

import io
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import assert_one_sentence, make_synthetic

from cifar100.config import Config
from cifar100.dataset import Dataset, Split, load_dataset, read, resolve_data_dir, synthetic, train_val_split
from cifar100.dataset.base import DatasetSpec, canonical_split, spread_rows
from cifar100.dataset.classes import CLASSES, SUPERCLASSES
from cifar100.support.errors import UserError

META = {
    b"fine_label_names": [name.encode() for name in CLASSES],
    b"coarse_label_names": [name.encode() for name in SUPERCLASSES],
}


PythonPickler: Any = pickle._Pickler  # type: ignore[attr-defined]  # pure Python, so its dispatch can be overridden


class Python2Pickler(PythonPickler):
    """Pickles both text and bytes as Python 2's `str`, as in the official files."""

    dispatch: ClassVar[dict[type, Any]] = dict(PythonPickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        self.write((b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def as_python2(content: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def as_python3(content: Any) -> bytes:
    return pickle.dumps(content, protocol=2)


def as_python3_with_text_keys(content: dict[bytes, Any]) -> bytes:
    return pickle.dumps({key.decode(): value for key, value in content.items()}, protocol=2)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def to_images(data: np.ndarray) -> np.ndarray:
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def write_folder(
    folder: Path, replaced: dict[str, bytes] | None = None, *, write: Callable[[Any], bytes] = as_python3
) -> Path:
    """Write two train images and one test image in the official layout; `replaced` overrides the content of files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "meta": write(META),
        "train": write({b"data": rows(2), b"fine_labels": [9, 4]}),
        "test": write({b"data": rows(1, seed=1), b"fine_labels": [99]}),
    }
    for name, content in (files | (replaced or {})).items():
        (folder / name).write_bytes(content)
    return folder


# Reading


@pytest.mark.parametrize("write", [as_python2, as_python3, as_python3_with_text_keys], ids=lambda write: write.__name__)
@pytest.mark.parametrize("inside", ["", "cifar-100-python"], ids=["dataset directory", "parent directory"])
def test_the_official_layout_round_trips(tmp_path: Path, write: Any, inside: str) -> None:
    data, labels = rows(100), np.random.default_rng(1).permutation(100)
    train = {
        b"data": data,
        b"fine_labels": labels.tolist(),
        b"filenames": [b"x.png"] * 100,
        b"batch_label": b"synthetic",
    }
    write_folder(tmp_path / inside, {"train": write(train)}, write=write)
    dataset = read(tmp_path)
    np.testing.assert_array_equal(dataset.train.labels, np.arange(100))
    np.testing.assert_array_equal(dataset.train.images, to_images(data)[np.argsort(labels)])
    np.testing.assert_array_equal(dataset.test.images, to_images(rows(1, seed=1)))
    assert dataset.test.labels.tolist() == [99]
    assert (dataset.spec.name, dataset.image_size, dataset.classes) == ("CIFAR-100", 32, CLASSES)


def test_python_2_and_python_3_files_are_the_same_dataset(tmp_path: Path) -> None:
    prints = {
        read(write_folder(tmp_path / write.__name__, write=write)).train.fingerprint
        for write in (as_python2, as_python3, as_python3_with_text_keys)
    }
    assert len(prints) == 1


def test_other_images_in_the_official_layout_are_reported(tmp_path: Path) -> None:
    dataset = read(write_folder(tmp_path))
    assert not dataset.is_verified
    assert "NOT the published images" in str(dataset)
    assert "2 train and 1 test" in str(dataset)


@pytest.mark.real_data
def test_the_real_dataset_is_verified_and_read_in_seconds() -> None:
    start = time.perf_counter()
    dataset = load_dataset()
    seconds = time.perf_counter() - start
    assert dataset.is_verified
    assert "verified" in str(dataset)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert np.bincount(dataset.train.labels).tolist() == [500] * 100
    assert np.bincount(dataset.test.labels).tolist() == [100] * 100
    assert seconds < 20  # 1 s on an idle machine of 2026; several times that on a slow or busy one


# The canonical order and the fingerprint


def some_rows(count: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Images, including some duplicates, and their labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    images[-5:] = images[:5]
    return images, rng.integers(0, classes, count)


def test_order_and_fingerprint_do_not_depend_on_the_order_of_the_rows() -> None:
    images, labels = some_rows()
    order = np.random.default_rng(1).permutation(len(labels))
    first, second = canonical_split(images, labels, 5), canonical_split(images[order], labels[order], 5)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.fingerprint == second.fingerprint


def test_the_canonical_order_keeps_every_row_with_its_label() -> None:
    images, labels = some_rows()
    split = canonical_split(images, labels, 5)
    before = sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))
    after = sorted((int(label), image.tobytes()) for image, label in zip(split.images, split.labels, strict=True))
    assert after == before
    assert (np.diff(split.labels) >= 0).all()


def one_pixel(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = images.copy()
    images[3, 2, 1, 0] ^= 1
    return images, labels


def one_label(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = labels.copy()
    labels[3] = (labels[3] + 1) % 5
    return images, labels


def every_label(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images, labels + 1


def two_labels_swapped(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = labels.copy()
    other = int(np.flatnonzero(labels != labels[10])[0])
    labels[[10, other]] = labels[[other, 10]]
    return images, labels


def one_row_fewer(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images[1:], labels[1:]


def another_row_repeated(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.array([0, *range(len(labels) - 1)])  # the first row twice, without the last row
    return images[order], labels[order]


def another_shape(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.reshape(15, 8, 8, 3), labels[:15]


@pytest.mark.parametrize(
    "change",
    [one_pixel, one_label, every_label, two_labels_swapped, one_row_fewer, another_row_repeated, another_shape],
    ids=lambda change: change.__name__,
)
def test_the_fingerprint_depends_on_content_labels_and_repeats(change: Any) -> None:
    images, labels = some_rows()
    other_images, other_labels = change(images, labels)
    before = canonical_split(images, labels, 6).fingerprint
    assert canonical_split(other_images, other_labels, 6).fingerprint != before


def test_the_fingerprint_counts_repeats() -> None:
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 1)])
    labels = np.zeros(3, np.int64)
    first, second = (canonical_split(images[order], labels, 1) for order in ([0, 0, 1], [0, 1, 1]))
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "float32"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1], "[2, 4, 4]"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 1], "[2, 4, 4, 1]"),
        (np.zeros((2, 4, 5, 3), np.uint8), [0, 1], "[2, 4, 5, 3]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "2 images but 1 labels"),
        (np.zeros((0, 4, 4, 3), np.uint8), [], "no images"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 5], "A label is 5"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 0], "A label is -1"),
    ],
)
def test_invalid_splits_are_refused(images: np.ndarray, labels: list[int], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        canonical_split(images, np.array(labels, np.int64), 5)
    assert_one_sentence(str(caught.value), expected)


# The validation split


def dataset_of(images: np.ndarray, labels: np.ndarray, classes: int = 5) -> Dataset:
    split = canonical_split(images, labels, classes)
    return Dataset(DatasetSpec("synthetic", tuple("abcdefgh"[:classes])), split, split, "nowhere")


def as_set(*splits: Split | None) -> list[tuple[int, bytes]]:
    return sorted(
        (int(label), image.tobytes())
        for split in splits
        if split
        for image, label in zip(split.images, split.labels, strict=True)
    )


@pytest.mark.parametrize(("fraction", "each"), [(0.1, 2), (0.25, 5), (0.5, 10), (0.95, 19)])
def test_hold_out_is_stratified(fraction: float, each: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)
    dataset = dataset_of(images, np.arange(100) % 5)
    kept, held = train_val_split(dataset, fraction)
    assert held is not None
    assert np.bincount(held.labels).tolist() == [each] * 5
    assert np.bincount(kept.labels).tolist() == [20 - each] * 5
    assert as_set(kept, held) == as_set(dataset.train)
    assert not set(as_set(kept)) & set(as_set(held))


def test_hold_out_does_not_depend_on_the_order_of_the_file() -> None:
    images, labels = some_rows(200)
    order = np.random.default_rng(1).permutation(200)
    first, second = (train_val_split(dataset_of(images[r], labels[r]), 0.2) for r in (np.arange(200), order))
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_a_hold_out_fraction_of_zero_keeps_the_train_split() -> None:
    dataset = dataset_of(*some_rows())
    assert train_val_split(dataset, 0) == (dataset.train, None)


def test_held_out_splits_have_no_fingerprint() -> None:
    kept, held = train_val_split(dataset_of(*some_rows(200)), 0.5)
    assert held is not None
    assert (kept.fingerprint, held.fingerprint) == ("", "")


@pytest.mark.parametrize("fraction", [0.001, 0.99])
def test_a_too_small_or_too_large_hold_out_fraction_is_an_error(fraction: float) -> None:
    with pytest.raises(UserError) as caught:
        train_val_split(dataset_of(*some_rows()), fraction)
    assert_one_sentence(str(caught.value), f"--val-fraction {fraction}")


# Locating the dataset


@pytest.fixture
def data_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with flag/, environment/ and data/; $CIFAR100_DATA_DIR is environment/."""
    for name in ("flag", "environment", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(tmp_path / "environment"))
    return tmp_path


def test_the_flag_overrides_the_environment_variable_and_data(data_dirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_data_dir(data_dirs / "flag") == data_dirs / "flag"
    assert resolve_data_dir() == data_dirs / "environment"
    monkeypatch.delenv("CIFAR100_DATA_DIR")
    assert resolve_data_dir() is None, "data/ exists but is empty"
    write_folder(data_dirs / "data")
    assert resolve_data_dir() == Path("data")
    monkeypatch.setenv("CIFAR100_DATA_DIR", "")
    assert resolve_data_dir() == Path("data")


def test_a_tilde_is_expanded(data_dirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(data_dirs))
    assert resolve_data_dir(Path("~/flag")) == data_dirs / "flag"


def test_the_synthetic_dataset_is_deterministic_and_labeled_as_synthetic() -> None:
    first, second = make_synthetic(), load_dataset(Config().replace(dataset="synthetic"))
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    assert first.train.fingerprint == second.train.fingerprint
    assert first.train.fingerprint != first.test.fingerprint
    assert not first.is_verified
    assert "SYNTHETIC" in str(first)
    assert np.bincount(first.train.labels).tolist() == [24] * 100
    assert np.bincount(first.test.labels).tolist() == [6] * 100
    assert not set(as_set(first.train)) & set(as_set(first.test))


@pytest.mark.parametrize(
    ("total", "count"), [(10_000, 1000), (10_000, 9999), (7, 7), (7, 6), (5, 100), (3, 1), (3, 0), (1, 9)]
)
def test_spread_rows_are_evenly_spaced(total: int, count: int) -> None:
    rows = spread_rows(total, count)
    assert len(rows) == len(set(rows.tolist())) == min(count, total)
    if len(rows) > 1:
        assert (rows[0], rows[-1]) == (0, total - 1)
        assert np.ptp(np.diff(rows)) <= 1, "rows must be evenly spaced"


def test_a_spread_split_is_balanced() -> None:
    split = synthetic.make().test
    assert set(np.bincount(split.labels[split.spread(200)], minlength=100).tolist()) == {2}
