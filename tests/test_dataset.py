"""cifar100/dataset: finding, reading, proving and splitting, and what hostile files must not do."""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import assert_one_sentence

from cifar100.classes import CLASSES, SUPERCLASSES
from cifar100.config import Config
from cifar100.dataset import Dataset, Split, find_folder, hold_out, load_dataset, read, synthetic
from cifar100.dataset.base import Published, canonical_split
from cifar100.errors import UserError

META = {
    b"fine_label_names": [name.encode() for name in CLASSES],
    b"coarse_label_names": [name.encode() for name in SUPERCLASSES],
}


PythonPickler: Any = pickle._Pickler  # type: ignore[attr-defined]  # the one that can be taught


class Python2Pickler(PythonPickler):
    """Writes text and bytes alike as Python 2's `str`, which is what the official files hold."""

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
    """A folder in the official layout, of two train and one test image; `replaced` gives files other contents."""
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
@pytest.mark.parametrize("inside", ["", "cifar-100-python"], ids=["the folder itself", "the folder above"])
def test_an_official_folder_comes_back_as_it_was_written(tmp_path: Path, write: Any, inside: str) -> None:
    data, labels = rows(100), np.random.default_rng(1).permutation(100)
    train = {
        b"data": data,
        b"fine_labels": labels.tolist(),
        b"filenames": [b"x.png"] * 100,
        b"batch_label": b"made up",
    }
    write_folder(tmp_path / inside, {"train": write(train)}, write=write)
    dataset = read(tmp_path)
    np.testing.assert_array_equal(dataset.train.labels, np.arange(100))
    np.testing.assert_array_equal(dataset.train.images, to_images(data)[np.argsort(labels)])
    np.testing.assert_array_equal(dataset.test.images, to_images(rows(1, seed=1)))
    assert dataset.test.labels.tolist() == [99]
    assert (dataset.published.name, dataset.image_size, dataset.classes) == ("CIFAR-100", 32, CLASSES)


def test_python_2_and_python_3_files_are_the_same_dataset(tmp_path: Path) -> None:
    prints = {
        read(write_folder(tmp_path / write.__name__, write=write)).train.fingerprint
        for write in (as_python2, as_python3, as_python3_with_text_keys)
    }
    assert len(prints) == 1


def test_the_official_layout_with_other_images_says_so(tmp_path: Path) -> None:
    dataset = read(write_folder(tmp_path))
    assert not dataset.is_verified
    assert "NOT the published images" in str(dataset)
    assert "2 train and 1 test" in str(dataset)


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("CIFAR100_DATA_DIR"), reason="$CIFAR100_DATA_DIR is not set")
def test_the_real_set_is_recognised_and_read_within_two_seconds() -> None:
    dataset, fastest = load_dataset(), float("inf")
    for _ in range(3):
        start = time.perf_counter()
        load_dataset()
        fastest = min(fastest, time.perf_counter() - start)
    assert dataset.is_verified
    assert "verified" in str(dataset)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert np.bincount(dataset.train.labels).tolist() == [500] * 100
    assert np.bincount(dataset.test.labels).tolist() == [100] * 100
    assert fastest < 2


# The canonical order and the fingerprint


def some_rows(count: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Images of which some are there twice, and their labels."""
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


def one_row_less(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images[1:], labels[1:]


def another_row_repeated(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.array([0, *range(len(labels) - 1)])  # the first twice, the last not at all
    return images[order], labels[order]


def another_shape(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.reshape(15, 8, 8, 3), labels[:15]


@pytest.mark.parametrize(
    "change",
    [one_pixel, one_label, every_label, two_labels_swapped, one_row_less, another_row_repeated, another_shape],
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
    ("images", "labels", "said"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "float32"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1], "[2, 4, 4]"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 1], "[2, 4, 4, 1]"),
        (np.zeros((2, 4, 5, 3), np.uint8), [0, 1], "[2, 4, 5, 3]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "2 images but 1 labels"),
        (np.zeros((0, 4, 4, 3), np.uint8), [], "not one image"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 5], "A label is 5"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 0], "A label is -1"),
    ],
)
def test_what_is_no_split_is_refused(images: np.ndarray, labels: list[int], said: str) -> None:
    with pytest.raises(UserError) as caught:
        canonical_split(images, np.array(labels, np.int64), 5)
    assert_one_sentence(str(caught.value), said)


# Holding out


def dataset_of(images: np.ndarray, labels: np.ndarray, classes: int = 5) -> Dataset:
    split = canonical_split(images, labels, classes)
    return Dataset(Published("made up", tuple("abcdefgh"[:classes])), split, split, "nowhere")


def as_set(*splits: Split | None) -> list[tuple[int, bytes]]:
    return sorted(
        (int(label), image.tobytes())
        for split in splits
        if split
        for image, label in zip(split.images, split.labels, strict=True)
    )


@pytest.mark.parametrize(("fraction", "each"), [(0.1, 2), (0.25, 5), (0.5, 10), (0.95, 19)])
def test_hold_out_takes_the_same_share_of_every_class(fraction: float, each: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)
    dataset = dataset_of(images, np.arange(100) % 5)
    kept, held = hold_out(dataset, fraction)
    assert held is not None
    assert np.bincount(held.labels).tolist() == [each] * 5
    assert np.bincount(kept.labels).tolist() == [20 - each] * 5
    assert as_set(kept, held) == as_set(dataset.train)
    assert not set(as_set(kept)) & set(as_set(held))


def test_hold_out_is_the_same_choice_whatever_the_order_of_the_file() -> None:
    images, labels = some_rows(200)
    order = np.random.default_rng(1).permutation(200)
    first, second = (hold_out(dataset_of(images[r], labels[r]), 0.2) for r in (np.arange(200), order))
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_hold_out_of_nothing_leaves_the_train_split_as_it_is() -> None:
    dataset = dataset_of(*some_rows())
    assert hold_out(dataset, 0) == (dataset.train, None)


def test_what_is_held_out_is_no_published_set() -> None:
    kept, held = hold_out(dataset_of(*some_rows(200)), 0.5)
    assert held is not None
    assert (kept.fingerprint, held.fingerprint) == ("", "")


@pytest.mark.parametrize("fraction", [0.001, 0.99])
def test_hold_out_of_too_little_or_too_much_is_an_error(fraction: float) -> None:
    with pytest.raises(UserError) as caught:
        hold_out(dataset_of(*some_rows()), fraction)
    assert_one_sentence(str(caught.value), f"--val-fraction {fraction}")


# Finding


@pytest.fixture
def three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with flag/, environment/ and data/; $CIFAR100_DATA_DIR names the second."""
    for name in ("flag", "environment", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIFAR100_DATA_DIR", str(tmp_path / "environment"))
    return tmp_path


def test_the_flag_comes_first_then_the_environment_then_data(
    three_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_folder(three_places / "flag") == three_places / "flag"
    assert find_folder() == three_places / "environment"
    monkeypatch.delenv("CIFAR100_DATA_DIR")
    assert find_folder() is None, "data/ is there, and empty"
    write_folder(three_places / "data")
    assert find_folder() == Path("data")
    monkeypatch.setenv("CIFAR100_DATA_DIR", "")
    assert find_folder() == Path("data")


def test_a_tilde_is_the_home_folder(three_places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(three_places))
    assert find_folder(Path("~/flag")) == three_places / "flag"


@pytest.mark.parametrize(
    "named",
    ["missing", "a file", "~nobody-of-this-name/data", "missing\x1b[31m\nred"],
    ids=["missing", "a file", "no such home", "control characters"],
)
@pytest.mark.parametrize("by", ["--data-dir", "$CIFAR100_DATA_DIR"])
def test_a_named_folder_that_is_none_is_an_error(
    three_places: Path, monkeypatch: pytest.MonkeyPatch, named: str, by: str
) -> None:
    (three_places / "a file").write_text("x")
    monkeypatch.setenv("CIFAR100_DATA_DIR", named)
    with pytest.raises(UserError) as caught:
        find_folder(Path(named) if by == "--data-dir" else None)
    assert_one_sentence(str(caught.value), by, named.partition("\x1b")[0])


@pytest.mark.parametrize("place", ["flag", "environment"])
def test_a_named_folder_without_the_data_is_an_error(three_places: Path, place: str) -> None:
    with pytest.raises(UserError) as caught:
        load_dataset(Config().replace(data_dir=three_places / "flag" if place == "flag" else None))
    assert place in str(caught.value)
    assert "holds no dataset" in str(caught.value)


def test_a_folder_that_lacks_one_file_holds_no_dataset(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "meta").unlink()
    with pytest.raises(UserError, match="holds no dataset"):
        read(tmp_path)


def test_the_synthetic_set_is_always_the_same_and_says_what_it_is() -> None:
    first, second = synthetic.make(), load_dataset(Config().replace(dataset="synthetic"))
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    assert first.train.fingerprint == second.train.fingerprint
    assert first.train.fingerprint != first.test.fingerprint
    assert not first.is_verified
    assert "SYNTHETIC" in str(first)
    assert np.bincount(first.train.labels).tolist() == [24] * 100
    assert np.bincount(first.test.labels).tolist() == [6] * 100
    assert not set(as_set(first.train)) & set(as_set(first.test))


# Hostile files


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class Forged:
    """Pickles to what numpy writes for an array, with whatever claims are made here."""

    def __init__(self, shape: Any, dtype: Any, content: Any, *, fortran: bool = False) -> None:
        self.state = (1, shape, dtype, fortran, content)

    def __reduce__(self) -> tuple[Any, ...]:
        function, arguments, _ = np.zeros(1).__reduce__()
        return function, arguments, self.state


def content(data: Any = None, labels: Any = (9, 4), **more: Any) -> bytes:
    """A train file of two images, with some of it replaced."""
    data = rows(2) if data is None else data
    return as_python3({b"data": data, b"fine_labels": list(labels) if isinstance(labels, tuple) else labels} | more)


def in_dict(value: bytes) -> bytes:
    """{"data": what these opcodes leave on the stack}."""
    return b"\x80\x02}U\x04data" + value + b"s."


VALID = content()
BYTES = np.dtype(np.uint8)
HUGE = struct.pack("<Q", 1 << 28)

CODE = {
    "os.system": content(Calls(os.system, "touch pwned")),
    "builtins.eval": content(Calls(eval, "open('pwned', 'w')")),
    "exec beside honest data": content(batch_label=Calls(exec, "open('pwned', 'w')")),
    "the file is a call": as_python3(Calls(os.system, "touch pwned")),
    "functools.partial": content(Calls(functools.partial, os.system, "touch pwned")),
    "INST": in_dict(b"(S'touch pwned'\nios\nsystem\n"),
    "OBJ": in_dict(b"(cos\nsystem\nS'touch pwned'\no"),
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "a name that is none": b"\x80\x04K\x01K\x02\x93.",
    "a module of the allowed names": in_dict(b"cnumpy\nload\n(S'pwned'\ntR"),
    "_codecs.open": in_dict(b"c_codecs\nlookup\n(S'rot13'\ntR"),
    "copyreg extension": in_dict(b"\x82\x01"),
    "persistent id": in_dict(b"Ppwned\n"),
    "a name with escape codes": b"\x80\x04\x8c\x0cos\x1b[31m\n\nred\x8c\x06system\x93.",
    "an array of code": content(np.array([Calls(os.system, "touch pwned")], dtype=object)),
}

ARRAYS = {
    "float": content(np.zeros((2, 3072), np.float32)),
    "signed": content(np.zeros((2, 3072), np.int8)),
    "object": content(np.array([[{}]], dtype=object)),
    "structured": content(np.zeros(2, dtype=[("a", "u1", 3072)])),
    "huge declared shape": content(Forged((1 << 40, 3072), BYTES, b"")),
    "endless declared shape": content(Forged((10**4000, 3072), BYTES, b"")),
    "shape larger than its bytes": content(Forged((3, 3072), BYTES, bytes(6144))),
    "shape smaller than its bytes": content(Forged((1, 3072), BYTES, bytes(6144))),
    "negative shape": content(Forged((-2, -3072), BYTES, bytes(6144))),
    "shape of text": content(Forged(("2", "3072"), BYTES, bytes(6144))),
    "shape of booleans": content(Forged((True, 3072), BYTES, bytes(3072))),
    "shape no tuple": content(Forged(6144, BYTES, bytes(6144))),
    "text for bytes": content(Forged((2, 3072), BYTES, "x" * 6144)),
    "list for bytes": content(Forged((2, 3072), BYTES, [0] * 6144)),
    "no dtype": content(Forged((2, 3072), "u1", bytes(6144))),
    "fortran order": content(np.asfortranarray(rows(2))),
    "never filled": in_dict(b"cnumpy\nndarray\n)\x81"),
    "never filled, reconstructed": in_dict(b"cnumpy.core.multiarray\n_reconstruct\n)R"),
    "the class itself": in_dict(b"cnumpy\nndarray\n"),
    "state of the wrong length": in_dict(b"cnumpy\nndarray\n)\x81K\x01\x85b"),
    "too narrow": content(rows(2)[:, 1:]),
    "too wide": content(np.zeros((2, 3073), np.uint8)),
    "flat": content(rows(2).ravel()),
    "four axes": content(rows(2).reshape(2, 3, 32, 32)),
    "no images": content(np.zeros((0, 3072), np.uint8), ()),
    "bytes": content(bytes(6144)),
    "a list": content([[0] * 3072] * 2),
    "no data": as_python3({b"fine_labels": [9, 4]}),
}

LABELS = {
    "too large": content(labels=(9, 100)),
    "huge": content(labels=(9, 10**30)),
    "negative": content(labels=(-1, 4)),
    "floats": content(labels=(9.0, 4.0)),
    "text": content(labels=("9", "4")),
    "booleans": content(labels=(True, False)),
    "nested": content(labels=([9], [4])),
    "too few": content(labels=(9,)),
    "too many": content(labels=(9, 4, 4)),
    "none": content(labels=()),
    "an array": content(labels=np.array([9, 4], np.uint8)),
    "one number": content(labels=9),
    "missing": as_python3({b"data": rows(2)}),
}

FORMS = {
    "empty": b"",
    "one byte": b"\x80",
    "only the end": b".",
    "text": b"this is no pickle\n",
    "zeros": bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "a list": as_python3([1, 2]),
    "None": as_python3(None),
    "a bare array": as_python3(rows(2)),
    "an empty dictionary": as_python3({}),
    "a future protocol": b"\x80\x63}.",
    "an unknown opcode": b"\x80\x02}\xff.",
    "nothing on the stack": b"\x80\x02s.",
    "a memo that was never put": in_dict(b"h\x07"),
    "keys that are no text": b"\x80\x02}(K\x01K\x02K\x03K\x04u.",
    "deeply nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deeply nested lists as data": in_dict(b"]" * 100_000 + b"a" * 99_999),
    "a nested key": b"\x80\x02})" + b"\x85" * 3000 + b"K\x01s.",
    **{f"cut after {part:.0%}": VALID[: int(len(VALID) * part)] for part in (0.001, 0.01, 0.1, 0.5, 0.9, 0.999)},
    "cut before the end": VALID[:-1],
}

TINY_BUT_GREEDY = {
    "LONG_BINPUT": b"\x80\x02}r\xff\xff\xff\x7f.",
    "PUT": b"}p99999999999\n.",
    "BINUNICODE": in_dict(b"X\xff\xff\xff\xff"),
    "BINUNICODE8": in_dict(b"\x8d" + HUGE),
    "BINSTRING": in_dict(b"T\xff\xff\xff\x7f"),
    "negative BINSTRING": in_dict(b"T\xff\xff\xff\xff"),
    "BINBYTES": in_dict(b"B\xff\xff\xff\xff"),
    "BINBYTES8": in_dict(b"\x8e" + HUGE),
    "endless BINBYTES8": in_dict(b"\x8e" + b"\xff" * 8),
    "BYTEARRAY8": in_dict(b"\x96" + HUGE),
    "endless BYTEARRAY8": in_dict(b"\x96" + b"\xff" * 8),
    "LONG4": in_dict(b"\x8b\xff\xff\xff\x7f"),
    "FRAME": b"\x80\x04\x95" + HUGE + b"}.",
    "a long of many digits": in_dict(b"L" + b"9" * 100_000 + b"L\n"),
}

HOSTILE = {
    f"{table}: {name}": forged
    for table, cases in [
        ("code", CODE),
        ("array", ARRAYS),
        ("labels", LABELS),
        ("form", FORMS),
        ("greedy", TINY_BUT_GREEDY),
    ]
    for name, forged in cases.items()
}


def assert_refused(folder: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read(folder)
    assert_one_sentence(str(caught.value), folder / name)


@pytest.mark.parametrize("forged", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", ["train", "meta"])
def test_a_hostile_file_is_refused_in_one_sentence_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, forged: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "data", {name: forged})
    assert_refused(folder, name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name",
    ["os.system", "builtins.eval", "exec beside honest data", "functools.partial", "INST", "OBJ", "STACK_GLOBAL"],
)
def test_the_hostile_files_would_run_code_if_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    value = pickle.loads(CODE[name])
    if name == "functools.partial":
        value[b"data"]()
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("forged", TINY_BUT_GREEDY.values(), ids=TINY_BUT_GREEDY.keys())
def test_a_tiny_file_cannot_ask_for_much_memory(tmp_path: Path, forged: bytes) -> None:
    folder = write_folder(tmp_path, {"train": forged})
    tracemalloc.start()
    try:
        assert_refused(folder, "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


DOUBLED = b")" + b"\x86".join([b"2"] * 50) + b"\x86"  # ((…, …), (…, …)): 50 deep, 2**50 leaves once written out


@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("train", b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."),
        ("train", b"\x80\x02}" + DOUBLED + b"K\x01s."),
        ("train", b"\x80\x02}U\x04datacnumpy\ndtype\n" + DOUBLED + b"\x85Rs."),
        ("meta", b"\x80\x02}U\x10fine_label_names]" + DOUBLED + b"as."),
    ],
    ids=["a key two million deep", "a key of 2**50 leaves", "a dtype of 2**50 leaves", "a name of 2**50 leaves"],
)
def test_a_tiny_file_cannot_crash_or_hang_the_reader(tmp_path: Path, name: str, forged: bytes) -> None:
    folder = write_folder(tmp_path, {name: forged})
    program = (
        "import resource, sys; from pathlib import Path; from cifar100.dataset import read; "
        "resource.setrlimit(resource.RLIMIT_CPU, (4, 4)); read(Path(sys.argv[1]))"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, f"ended by signal {-ran.returncode}"
    assert ran.stderr.splitlines()[-1].startswith(f"cifar100.errors.UserError: {folder / name}")


@pytest.mark.parametrize(
    "meta",
    [
        {},
        META | {b"fine_label_names": [name.encode() for name in reversed(CLASSES)]},
        META | {b"coarse_label_names": META[b"coarse_label_names"][:-1]},
        META | {b"fine_label_names": None},
        META | {b"fine_label_names": [b"\xff"] * 100},
    ],
    ids=["empty", "another order", "one less", "None", "not text"],
)
def test_a_meta_file_of_another_dataset_is_refused(tmp_path: Path, meta: dict[bytes, Any]) -> None:
    assert_refused(write_folder(tmp_path, {"meta": as_python3(meta)}), "meta")


def mutated(valid: bytes, pixels: range, rng: np.random.Generator) -> bytes:
    """`valid` with one to three bytes outside the pixels changed, removed or inserted, or with its end cut off."""
    forged = bytearray(valid)
    places = [i for i in range(len(valid)) if i not in pixels]
    for place in sorted(rng.choice(places, rng.integers(1, 4), replace=False), reverse=True):
        match rng.integers(0, 8):
            case 0:
                del forged[place]
            case 1:
                forged.insert(place, int(rng.integers(0, 256)))
            case 2:
                del forged[place:]
            case _:
                forged[place] = int(rng.integers(0, 256))
    return bytes(forged)


def test_a_damaged_file_is_read_or_refused_and_never_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.full((1, 3072), ord("x"), np.uint8)
    valid = as_python2({b"data": data, b"fine_labels": [9], b"filenames": [b"a.png"], b"batch_label": b"made up"})
    start = valid.index(b"x" * 3072)
    rng, outcomes = np.random.default_rng(0), {"read": 0, "refused": 0}
    folder = write_folder(tmp_path / "data")
    for number in range(200):
        (folder / "train").write_bytes(mutated(valid, range(start, start + 3072), rng))
        try:
            dataset = read(folder)
        except UserError as error:
            assert_one_sentence(str(error), folder / "train")
            outcomes["refused"] += 1
        except Exception as error:
            pytest.fail(f"mutation {number}: {error!r}")
        else:
            assert dataset.train.images.shape == (1, 32, 32, 3)
            outcomes["read"] += 1
    assert min(outcomes.values()) > 10, outcomes
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
