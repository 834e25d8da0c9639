"""Images of your own: found, decoded once, split, trained on; and what odd folders and files must not do."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence
from PIL import Image

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset import cache, decode, load_dataset, read, resolve_data_dir
from cifar100.dataset.base import Split
from cifar100.dataset.published import CIFAR10
from cifar100.evaluation.evaluate import evaluate
from cifar100.images.convert import to_model_input
from cifar100.model import ResNet
from cifar100.support.errors import UserError
from cifar100.support.progress import progress
from cifar100.train import train

SILENT: Callable[[str], None] = lambda _text: None  # noqa: E731


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] | None = None) -> bytes:
    """A picture as the bytes of a file; every seed another, of another size."""
    rng = np.random.default_rng(seed)
    width, height = size or rng.integers(20, 60, 2).tolist()
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def photos(place: Path, classes: dict[str, int], *, seed: int = 0) -> Path:
    """Class folders of so many pictures each, PNG and JPEG by turns."""
    for name, count in classes.items():
        (place / name).mkdir(parents=True)
        for number in range(count):
            seed += 1
            kind = ("PNG", "JPEG")[number % 2]
            (place / name / f"{number}.{kind[:3].lower()}").write_bytes(encoded(seed, kind))
    return place


def settings(**values: Any) -> Config:
    return Config().replace(image_size=24, report=False, **values)


def as_set(*splits: Split) -> set[tuple[int, bytes]]:
    return {(int(label), image.tobytes()) for s in splits for image, label in zip(s.images, s.labels, strict=True)}


def rows_of(folder: Path, names: list[str], size: int = 24) -> set[tuple[int, bytes]]:
    """What the files in these class folders are once read."""
    return {
        (label, to_model_input(path, size).tobytes())
        for label, name in enumerate(names)
        for path in (folder / name).iterdir()
    }


# Layouts


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("train", "valid"), ("Train", "TEST")])
def test_train_and_test_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    for seed, name in enumerate(names):
        photos(tmp_path / name, {"cat": 3 + seed, "dog": 2}, seed=100 * seed)
    dataset = read(tmp_path, settings(), say=SILENT)
    assert dataset.classes == ("cat", "dog")
    assert as_set(dataset.train) == rows_of(tmp_path / names[0], ["cat", "dog"])
    assert as_set(dataset.test) == rows_of(tmp_path / names[1], ["cat", "dog"])
    assert (len(dataset.train), len(dataset.test), dataset.image_size) == (5, 6, 24)


def test_own_images_are_neither_made_up_nor_a_published_set(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, {"cat": 3, "dog": 3}), settings(), say=SILENT)
    assert not dataset.is_synthetic
    assert not dataset.is_verified
    assert str(dataset) == f"own images (2 classes, 24x24): 4 train and 2 test images from {tmp_path}"


def test_photos_of_the_classes_of_a_published_set_are_still_your_own(tmp_path: Path) -> None:
    classes = dict.fromkeys(CIFAR10.classes, 2)
    photos(photos(tmp_path / "train", classes).parent / "test", classes, seed=50)
    dataset = read(tmp_path, settings(), say=SILENT)
    assert "own images (10 classes, 24x24)" in str(dataset)
    for path in tmp_path.glob("*/*/*"):
        path.write_bytes(encoded(path.stat().st_ino, size=(32, 32)))
    assert "CIFAR-10 layout, but NOT the published images" in str(read(tmp_path, say=SILENT))
    dataset = read(tmp_path / "train", say=SILENT)
    assert "own images (10 classes, 32x32)" in str(dataset), "the published split is not there"


def test_a_test_folder_goes_before_val_and_what_is_not_used_is_named(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val", "test", "extra")):
        photos(tmp_path / name, {"cat": 2, "dog": 2}, seed=10 * seed)
    dataset = read(tmp_path, settings(), say=SILENT)
    assert as_set(dataset.test) == rows_of(tmp_path / "test", ["cat", "dog"])
    assert dataset.notes == ("not used: extra, val",)


def test_images_in_no_class_folder_are_told(tmp_path: Path) -> None:
    for part in ("", "train", "test"):
        if part:
            photos(tmp_path / part, {"cat": 2, "dog": 2}, seed=len(part))
        (tmp_path / part / "photo.jpg").write_bytes(encoded(5))
    for folder, count in ((tmp_path, "3 images"), (tmp_path / "train", "1 image")):
        (tmp_path / "README.txt").write_text("is no image")
        assert read(folder, settings(), say=SILENT).notes[0] == f"not used: {count} in no class folder"


def test_classes_are_in_natural_order_and_images_may_lie_deeper(tmp_path: Path) -> None:
    photos(tmp_path, dict.fromkeys(("10", "9", "a2", "a10", "B"), 2))
    (tmp_path / "9" / "monday" / "camera").mkdir(parents=True)
    (tmp_path / "9" / "monday" / "camera" / "x.PNG").write_bytes(encoded(99))
    dataset = read(tmp_path, settings(), say=SILENT)
    assert dataset.classes == ("9", "10", "B", "a2", "a10")
    assert np.bincount(np.concatenate([dataset.train.labels, dataset.test.labels])).tolist() == [3, 2, 2, 2, 2]


# The split


def test_a_share_of_each_class_is_split_off(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 20, "dog": 10, "owl": 2})
    dataset = read(tmp_path, settings(), say=SILENT)
    assert np.bincount(dataset.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(dataset.train.labels).tolist() == [16, 8, 1]
    assert as_set(dataset.train, dataset.test) == rows_of(tmp_path, ["cat", "dog", "owl"])
    assert not as_set(dataset.train) & as_set(dataset.test)
    half = read(tmp_path, settings(test_fraction=0.5), say=SILENT)
    assert np.bincount(half.test.labels).tolist() == [10, 5, 1]
    assert "50 % of each class" in half.notes[0]


def test_the_split_hangs_on_content_and_split_seed_alone(tmp_path: Path) -> None:
    photos(tmp_path / "a", {"cat": 20, "dog": 20})
    for name in ("cat", "dog"):  # other names, in another order
        (tmp_path / "b" / name).mkdir(parents=True)
        for number, path in enumerate(sorted((tmp_path / "a" / name).iterdir(), reverse=True)):
            shutil.copy(path, tmp_path / "b" / name / f"{number:02}{path.suffix}")
    first, renamed, again, other = (
        read(tmp_path / place, settings(**more), say=SILENT)
        for place, more in (("a", {}), ("b", {}), ("a", {"seed": 5}), ("a", {"split_seed": 1}))
    )
    for same in (renamed, again):
        np.testing.assert_array_equal(first.train.images, same.train.images)
        np.testing.assert_array_equal(first.test.images, same.test.images)
    assert as_set(first.test) != as_set(other.test)
    assert len(first.test) == len(other.test)


def test_the_split_is_the_same_at_every_size(tmp_path: Path) -> None:
    """Flat colours tell which images those are whatever their size."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for shade in range(0, 200, 10):
            Image.new("RGB", (40, 30), (shade, name == "cat", 0)).save(tmp_path / name / f"{shade}.png")
    small, large = (read(tmp_path, Config().replace(image_size=size), say=SILENT).test for size in (16, 40))
    assert set(small.images[:, 0, 0, 0].tolist()) == set(large.images[:, 0, 0, 0].tolist())
    assert large.images.shape == (8, 40, 40, 3)


def test_images_keep_their_side_when_others_come(tmp_path: Path) -> None:
    place = photos(tmp_path, {"cat": 40, "dog": 40})
    before = as_set(read(place, settings(), say=SILENT).test)
    for number in range(5):
        (place / "cat" / f"new {number}.png").write_bytes(encoded(700 + number))
    after = as_set(read(place, settings(), say=SILENT).test)
    assert len(before - after) <= 2, "of 16, where a fresh choice would leave three in the set"


def test_copies_of_an_image_stay_on_one_side(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    for path in list(tmp_path.glob("*/*")):
        for number in range(3):
            shutil.copy(path, path.with_stem(f"{path.stem} ({number})"))
    dataset = read(tmp_path, settings(), say=SILENT)
    assert len(dataset.train) + len(dataset.test) == 48, "copies are counted"
    assert not as_set(dataset.train) & as_set(dataset.test)


def test_images_in_train_and_test_are_told(tmp_path: Path) -> None:
    photos(tmp_path / "train", {"cat": 3, "dog": 3})
    photos(tmp_path / "test", {"cat": 2, "dog": 3}, seed=50)
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "again.png")
    dataset = read(tmp_path, settings(), say=SILENT)
    assert dataset.notes == ("in train and in test alike: 1 image, so test figures flatter",)


# Folders that cannot be used


def nothing(place: Path) -> None:
    (place / "cat").mkdir()


def no_class_folders(place: Path) -> None:
    (place / "a.png").write_bytes(encoded(1))
    (place / "b.png").write_bytes(encoded(2))


def an_empty_class(place: Path) -> None:
    photos(place, {"cat": 2, "dog": 2, "owl\x1b[31m": 0})


def only_text(place: Path) -> None:
    photos(place, {"cat": 2, "dog": 0})
    (place / "dog" / "notes.txt").write_text("woof")


def all_damaged(place: Path) -> None:
    photos(place, {"cat": 2, "dog": 2})
    for path in (place / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:50])


def a_single_image(place: Path) -> None:
    photos(place, {"cat": 2, "dog": 1})
    shutil.copy(place / "dog" / "0.png", place / "dog" / "copy.png")


def one_class(place: Path) -> None:
    photos(place, {"cat": 3})


def only_train(place: Path) -> None:
    photos(place / "train", {"cat": 3, "dog": 3})


def only_test(place: Path) -> None:
    photos(place / "test", {"cat": 3, "dog": 3})


def other_classes_in_test(place: Path) -> None:
    photos(place / "train", {"cat": 3, "dog": 3})
    photos(place / "test", {"cat": 3, "dog": 3, "[red]owl\n": 1})


def fewer_classes_in_val(place: Path) -> None:
    photos(place / "train", {f"class {number}": 1 for number in range(9)})
    photos(place / "val", {"class 1": 1})


def an_empty_class_in_test(place: Path) -> None:
    photos(place / "train", {"cat": 3, "dog": 3})
    photos(place / "test", {"cat": 3, "dog": 0})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, ["holds no dataset that is understood", "a folder of images for each class"]),
        (no_class_folders, ["2 images straight in it", "a folder named by the class"]),
        (an_empty_class, [r"no readable image for owl\x1b[31m"]),
        (only_text, ["no readable image for dog"]),
        (all_damaged, ["no readable image for dog"]),
        (a_single_image, ["dog holds a single image (copies not counted)", "at least two"]),
        (one_class, ["holds one class, cat; at least two are needed"]),
        (only_train, ["holds train with folders in it", "test/ (or val/, or valid/)"]),
        (only_test, ["holds test with folders in it"]),
        (other_classes_in_test, [r"test holds classes that", r"train does not: [red]owl\n."]),
        (fewer_classes_in_val, ["train holds classes that", "class 0, class 2, class 3, class 4, class 5 and 3 more"]),
        (an_empty_class_in_test, ["test: no readable image for dog"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_cannot_be_learnt_from_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], said: list[str]
) -> None:
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        read(tmp_path, settings(), say=SILENT)
    assert_one_sentence(str(caught.value), tmp_path, *said)
    assert main(["data", "check", str(tmp_path)]) == 2
    assert said[0] in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["", "dog", "dog/deep"])
def test_a_folder_that_may_not_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    photos(tmp_path, {"cat": 2, "dog": 2, "dog/deep": 1})
    scandir, listdir = os.scandir, os.listdir

    def refuse(call: Any) -> Any:
        def guarded(path: Any) -> Any:
            if Path(path) == tmp_path / closed:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path)

        return guarded

    monkeypatch.setattr(os, "scandir", refuse(scandir))
    monkeypatch.setattr(os, "listdir", refuse(listdir))
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)") as caught:
        read(tmp_path, settings(), say=SILENT)
    assert_one_sentence(str(caught.value), (tmp_path / closed).parts[-1])


def test_data_without_images_is_no_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./data that holds other things is a place to download to, and not read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    (tmp_path / "data" / "cifar-100-python").mkdir(parents=True)
    (tmp_path / "data" / "cifar-100-python" / "train").write_text("x")
    (tmp_path / "data" / "a.png").write_bytes(encoded(1))
    assert resolve_data_dir() is None
    photos(tmp_path / "data", {"cat": 1})
    assert resolve_data_dir() == Path("data")


# Files that cannot be used


@pytest.fixture
def with_bad_files(tmp_path: Path) -> Path:
    """Two classes of four images, and files of every bad kind among them."""
    place = photos(tmp_path / "my photos", {"cat": 4, "dog": 4})
    (place / "cat" / "empty.jpg").touch()
    (place / "cat" / "text.png").write_text("not an image")
    (place / "cat" / "cut\x1b[31m.jpg").write_bytes(encoded(50, "JPEG")[:400])
    (place / "dog" / "cut too.jpg").write_bytes(encoded(50, "JPEG")[:400])
    (place / "dog" / "long.png").write_bytes(encoded(51, size=(5000, 2)))
    (place / "dog" / "broken.png").symlink_to("nowhere")
    (place / "dog" / "loop").symlink_to("..")
    (place / "dog" / "self").symlink_to("self")
    os.mkfifo(place / "dog" / "pipe.jpg")
    for hidden in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/.hidden.jpg", "dog/desktop.ini"):
        (place / hidden).write_text("x")
    for folder in (".git", "cat/.cache", "__MACOSX"):
        (place / folder).mkdir()
        (place / folder / "x.png").write_text("x")
    return place


def test_unreadable_files_are_left_out_and_listed_and_hidden_ones_are_not(with_bad_files: Path) -> None:
    dataset = read(with_bad_files, settings(), say=SILENT)
    good = {path for path in with_bad_files.glob("*/*") if re.fullmatch(r"\d\.(png|jpe)", path.name)}
    assert as_set(dataset.train, dataset.test) == {
        (path.parent.name == "dog", to_model_input(path, 24).tobytes()) for path in good
    }
    said = dataset.unreadable
    assert len(said) == 9
    for name, why in [
        ("cat/empty.jpg", "is empty"),
        ("cat/text.png", "is not an image that can be read"),
        (r"cat/cut\x1b[31m.jpg", "is damaged and cannot be decoded"),
        ("dog/cut too.jpg", "is damaged and cannot be decoded"),
        ("dog/long.png", "5000x2: too long and thin"),
        ("dog/broken.png", "is not a file"),
        ("dog/loop", "is a link to a folder, which is not followed"),
        ("dog/self", "is not a file"),
        ("dog/pipe.jpg", "is not a file"),
    ]:
        assert any(f"{with_bad_files}/{name}" in text and why in text for text in said), name
    assert dataset.notes[-7:] == ("9 files left out:", *(f"  {text}" for text in said[:5]), "  and 4 more")


def test_they_are_listed_again_when_the_images_come_from_the_cache(with_bad_files: Path) -> None:
    first, second = (read(with_bad_files, settings(), say=SILENT) for _ in range(2))
    assert first.notes == second.notes
    assert first.unreadable == second.unreadable


def test_strict_refuses_them_and_changes_nothing_else(with_bad_files: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(with_bad_files, settings(strict=True), say=SILENT)
    assert_one_sentence(str(caught.value), "--strict: 9 files cannot be used", f"{with_bad_files}/cat/")
    clean = read(with_bad_files, settings(), say=SILENT)
    for text in clean.unreadable:
        name = re.search(r"/(cat|dog)/(.*?)(:| is )", text)
        assert name
        next((with_bad_files / name[1]).glob(f"{name[2][:3]}*")).unlink()
    strict = read(with_bad_files, settings(strict=True), say=SILENT)
    assert strict.train.fingerprint == clean.train.fingerprint


def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = photos(tmp_path, {"cat": 3, "dog": 3})
    real = open

    def guarded(path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).endswith("cat/0.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(decode, "open", guarded, raising=False)
    dataset = read(place, settings(), say=SILENT)
    assert dataset.unreadable == (f"{place}/cat/0.png cannot be read (Permission denied).",)


def mutated(valid: bytes, rng: np.random.Generator) -> bytes:
    """`valid` with some bytes changed, removed or inserted, a part of it doubled, or its end cut off."""
    forged = bytearray(valid)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(forged)))
        match rng.integers(0, 8):
            case 0:
                del forged[place : place + int(rng.integers(1, 9))]
            case 1:
                forged[place:place] = rng.bytes(int(rng.integers(1, 9)))
            case 2:
                forged[place:place] = forged[place : place + 64]
            case 3:
                del forged[max(place, 20) :]
            case _:
                forged[min(place, int(rng.integers(1, 200)))] = int(rng.integers(0, 256))
    return bytes(forged)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
def test_damaged_images_are_read_or_left_out_and_never_anything_else(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A bounded, seeded fuzzer: 250 files a round, each damaged in its own way."""
    photos(tmp_path, {"cat": 2, "dog": 2})
    rng, valid = np.random.default_rng(0), encoded(7, kind)
    for number in range(250):
        (tmp_path / "cat" / f"mutated_{number}.img").write_bytes(mutated(valid, rng))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        dataset = read(tmp_path, settings(), say=SILENT)
    assert not warned
    read_too = len(dataset.train) + len(dataset.test) - 4
    assert read_too + len(dataset.unreadable) == 250
    assert len(dataset.unreadable) > 20
    for text in dataset.unreadable:
        assert_one_sentence(text, tmp_path / "cat" / "mutated_")
    assert (capfd.readouterr().err, caplog.text) == ("", "")


# The cache


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache that is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "cifar100"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    import cifar100.images.convert

    names: list[str] = []
    real = cifar100.images.convert.to_rgb
    monkeypatch.setattr(cifar100.images.convert, "to_rgb", lambda path: (names.append(Path(path).name), real(path))[1])
    return names


def test_what_was_decoded_is_not_decoded_again(tmp_path: Path, kept: Path, opened: list[str]) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    first = read(place, settings(), say=SILENT)
    assert len(opened) == 10
    (place / "cat").rename(place / "moved")
    (place / "moved").rename(place / "cat")
    second = read(place.rename(tmp_path / "q"), settings(split_seed=3, test_fraction=0.4), say=SILENT)
    assert len(opened) == 10, "the names and the split do not matter to it"
    assert as_set(first.train, first.test) == as_set(second.train, second.test)
    assert first.originals == second.originals
    read(tmp_path / "q", settings().replace(image_size=16), say=SILENT)
    assert len(opened) == 20, "the size does"
    (tmp_path / "q" / "dog" / "0.png").write_bytes(encoded(999))
    changed = read(tmp_path / "q", settings(), say=SILENT)
    assert len(opened) == 30, "and the content"
    assert as_set(changed.train, changed.test) != as_set(first.train, first.test)
    assert sorted(path.suffix for path in kept.iterdir()) == [".pixels"] * 3


@pytest.mark.parametrize("make", [an_empty_class, only_text, an_empty_class_in_test])
def test_an_empty_class_is_told_before_anything_is_decoded(
    tmp_path: Path, opened: list[str], make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match="no readable image"):
        read(tmp_path, settings(), say=SILENT)
    assert opened == []


def test_an_interrupted_decoding_goes_on_where_it_was(
    tmp_path: Path, kept: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = photos(tmp_path / "p", {"cat": 50, "dog": 50})
    with monkeypatch.context() as patch:
        real = decode._decode_into
        patch.setattr(decode, "_decode_into", lambda *given: real(*given) if len(opened) < 70 else interrupt())
        with pytest.raises(KeyboardInterrupt):
            read(place, settings(), say=SILENT)
    before = len(opened)
    assert 30 < before < 100
    dataset = read(place, settings(), say=SILENT)
    read(place, settings(), say=SILENT)
    assert len(opened) == 100
    assert as_set(dataset.train, dataset.test) == rows_of(place, ["cat", "dog"])


def interrupt() -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["a pixel", "the end", "a size", "nothing left", "a folder"])
def test_a_damaged_cache_is_not_believed(tmp_path: Path, kept: Path, opened: list[str], damage: str) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    first = read(place, settings(), say=SILENT)
    (path,) = kept.iterdir()
    content = bytearray(path.read_bytes())
    content[{"a pixel": 500, "a size": 40}.get(damage, 0)] ^= 1
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"the end": content[:-1], "nothing left": b""}.get(damage, content))
    second = read(place, settings(), say=SILENT)
    assert len(opened) == 20
    np.testing.assert_array_equal(first.train.images, second.train.images)
    if damage != "a folder":
        read(place, settings(), say=SILENT)
        assert len(opened) == 20, "it was mended"


def test_a_cache_that_cannot_be_written_is_only_mentioned(tmp_path: Path, kept: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    kept.parent.write_text("in the way")
    said: list[str] = []
    assert len(read(place, settings(), say=said.append).test) == 2
    assert "could not be kept in the cache (Not a directory)" in said[-1]


def test_without_a_home_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, and so ignored")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert main(["data", "check", str(photos(tmp_path / "p", {"cat": 5, "dog": 5}))]) == 0
    assert "there is no home folder" in capsys.readouterr().out


def test_the_cache_keeps_within_its_bound(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [photos(tmp_path / str(n), {"cat": 5, "dog": 5}, seed=100 * n) for n in range(4)]
    monkeypatch.setattr(cache, "LARGEST", 3 * cache.block_bytes(10, 24) - 1)
    names = []
    for age, place in enumerate(places[:2]):
        read(place, settings(), say=SILENT)
        names += [path for path in kept.iterdir() if path not in names]
        os.utime(names[-1], (age, age))
    read(places[0], settings(), say=SILENT)  # used, so it is the younger now
    (kept / f".{names[0].name}.123.tmp").write_text("what a killed process left")
    os.utime(kept / f".{names[0].name}.123.tmp", (0, 0))
    read(places[2], settings(), say=SILENT)
    left = set(kept.iterdir())
    assert names[0] in left
    assert names[1] not in left
    assert len(left) == 2
    monkeypatch.setattr(cache, "LARGEST", 1000)
    said: list[str] = []
    read(places[3], settings(), say=said.append)
    assert "more than its 0.0 MiB" in said[-1]
    assert set(kept.iterdir()) == left


# Memory and progress


def test_too_many_images_for_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = photos(tmp_path, {"cat": 5, "dog": 5})
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 10 * 3 * 24 * 24 - 1)
    with pytest.raises(UserError) as caught:
        read(place, settings(), say=SILENT)
    assert_one_sentence(str(caught.value), "10 images of 24x24 pixels", "an --image-size of at most 23")


def test_memory_stays_below_twice_the_images(tmp_path: Path, kept: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 10, "dog": 10})
    config, needed = Config().replace(image_size=512), 20 * 3 * 512 * 512
    said: list[str] = []
    read(place, config, say=said.append)
    assert said == [f"Reading 20 files in {place} as 512x512 images: 15.0 MiB of memory"]
    tracemalloc.start()
    try:
        read(place, config, say=SILENT)  # from the cache, so that no decoder is measured
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert needed < peak < 2.2 * needed


def test_this_machine_has_memory() -> None:
    available = decode.available_memory()
    assert available is None or 1 << 26 < available < 1 << 50


def test_progress_off_a_terminal_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar100.support.progress.LINE_SECONDS", 0)
    said: list[str] = []
    with progress("decoding", 2000, said.append) as tell:
        tell(1500)
        tell(500)
    assert said == ["  decoding: 1,500 of 2,000", "  decoding: 2,000 of 2,000"]


def test_progress_on_a_terminal_is_a_bar(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 20, "dog": 20})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar100", "data", "check", str(place)],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm-256color", "XDG_CACHE_HOME": str(tmp_path / "xdg")},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait(timeout=600) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"decoding .*40/40", text)
    assert "own images (2 classes, 32x32): 32 train and 8 test images" in text


# In use


@pytest.fixture
def small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with a fiftieth of the work of resnet18, in the test's folder."""
    for module in ("cifar100.train", "cifar100.checkpoints.checkpoint"):
        monkeypatch.setattr(import_module(module), "build_model", lambda _, classes: ResNet((1, 1, 1, 1), classes, 8))
    monkeypatch.chdir(tmp_path)


SHORT = ["--epochs", "2", "--warmup-epochs", "0", "--batch-size", "8", "--lr", "0.01", "--device", "cpu", "--no-report"]
BEST = "logs/cifar100/best_model.pth"


@pytest.mark.usefixtures("small_network")
def test_train_evaluate_and_predict_on_images_of_your_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = photos(tmp_path / "my photos", {"[red]cat": 12, "dog\x1b[31m": 12, "10": 12})
    (place / "10" / "bad.jpg").touch()
    split = ["--image-size", "24", "--test-fraction", "0.5", "--split-seed", "3"]
    assert main(["train", "--data-dir", str(place), *split, *SHORT]) == 0
    told = capsys.readouterr().out
    for line in (
        f"Data      own images (3 classes, 24x24): 18 train and 18 test images from {place}",
        "          the test images are 50 % of each class, chosen by what the files hold (split seed 3)",
        "          1 file left out:",
        "          no superclasses: their accuracy is left out",
        f"cifar100 evaluate {BEST} --data-dir '{place}'",
    ):
        assert line in told
    assert "SYNTHETIC" not in told
    assert "NOT the published" not in told
    assert "\x1b" not in told
    run = tmp_path / "logs" / "cifar100"
    assert "1 file left out" in next(run.glob("training_log_*.txt")).read_text()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["superclass_top1"] for row in rows] == ["", ""]
    assert (run / "curves.png").is_file()
    final = json.loads((run / "evaluation.json").read_text())
    assert final["superclass_top1"] is None
    assert set(final["per_class"]) == {"[red]cat", "dog\x1b[31m", "10"}
    best = load_checkpoint(run / "best_model.pth")
    assert (best.image_size, best.classes) == (24, ["10", "[red]cat", "dog\x1b[31m"])

    assert main(["evaluate", BEST, "--data-dir", str(place), "--samples", "3"]) == 0
    told = capsys.readouterr().out
    assert "split         test, 18 images" in told
    assert "superclass    left out: these classes have no superclasses" in told
    assert "top-5         100.00%  (of 3 classes: always)" in told
    assert "1 file left out" in told
    assert r"dog\x1b[31m" in told
    assert "it may know some of these" not in told

    assert main(["predict", "--checkpoint", BEST, str(place / "10" / "0.png")]) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"^ +\d+\.\d\d%", told, re.MULTILINE)) == 3
    assert "\x1b" not in told


@pytest.mark.usefixtures("small_network")
def test_evaluation_takes_size_and_split_from_the_checkpoint(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 10, "dog": 10})
    config = settings(data_dir=place, test_fraction=0.3, split_seed=4, val_fraction=0.2, epochs=1, cutout_size=0)
    folder = train(config).folder
    data = read(place, config, say=SILENT)
    for split, images in (("test", 6), ("train", 12), ("val", 2)):
        assert evaluate(folder / "last.pth", split=split, data_dir=place, device="cpu").images == images
    saved = json.loads((folder / "evaluation.json").read_text())
    again = evaluate(folder / "last.pth", data_dir=place, device="cpu")
    assert again.loss == pytest.approx(saved["loss"], rel=1e-6)
    assert again.labels.tolist() == data.test.labels.tolist()
    assert not any("may know" in note for note in again.notes)
    (place / "cat" / "new.png").write_bytes(encoded(500))
    assert any("may know" in note for note in evaluate(folder / "last.pth", data_dir=place, device="cpu").notes)
    photos(place, {"owl": 3}, seed=900)
    with pytest.raises(UserError, match="knows 2 classes and the dataset has 3"):
        evaluate(folder / "last.pth", data_dir=place)


@pytest.mark.usefixtures("small_network")
def test_resume_refuses_another_size_or_split_and_lets_strict_differ(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 10, "dog": 10})
    config = settings(data_dir=place, epochs=2, stop_after=1, cutout_size=0)
    train(config)
    for change in ({"image_size": 32}, {"test_fraction": 0.4}, {"split_seed": 1}):
        flag = f"--{next(iter(change)).replace('_', '-')}"
        with pytest.raises(UserError, match=f"the same settings, but {flag} was"):
            train(config.replace(**change), resume=True)
    assert train(config.replace(strict=True), resume=True).stopped_by is None


def test_data_check_says_what_is_there(with_bad_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_bad_files / "cat" / "3.jpe").unlink()
    assert main(["data", "check", str(with_bad_files), "--image-size", "16"]) == 1
    told = capsys.readouterr().out
    assert "own images (2 classes, 16x16): 5 train and 2 test images" in told
    assert re.search(r"train +5 images  2 to 3 a class  fingerprint [0-9a-f]{64}", told)
    assert "9 files left out" in told
    sizes = [Image.open(path).size for path in with_bad_files.glob("*/[0-9].*")]
    wide, high = zip(*sizes, strict=True)
    assert f"{min(wide)} to {max(wide)} wide, {min(high)} to {max(high)} high" in told
    assert re.search(r"cache: .*cifar100, \d+\.\d MiB of at most 10\.0 GiB; it may be deleted", told)


def test_data_check_of_images_that_are_all_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos(tmp_path / "p", {"cat": 2, "dog": 2}))]) == 0
    assert "left out" not in capsys.readouterr().out


def test_preview_and_samples_of_a_few_images_with_odd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cifar100.utils.images_per_second", lambda _loader: 1.0)
    names = ["船", "[red]\x1b[31m\n$x$", os.fsdecode(b"\xff\xfe"), "x" * 200]
    place = photos(tmp_path / "p", dict.fromkeys(names, 2))
    assert main(["data", "preview", "--data-dir", str(place), "--image-size", "24"]) == 0
    told = capsys.readouterr().out
    assert "4 classes, with their ids" in told
    assert r"[red]\x1b[31m\n$x$" in told
    assert Image.open("augmentations.png").height > 100
    assert main(["data", "samples", "s", "--data-dir", str(place), "--image-size", "24", "--count", "4"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert {Image.open(path).size for path in Path("s").iterdir()} == {(24, 24)}
    assert "Reading 8 files" in printed.err


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_set_written_out_as_images_is_recognised(tmp_path: Path) -> None:
    real = load_dataset(say=SILENT)
    for name, split in (("train", real.train), ("test", real.test)):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            folder = tmp_path / name / real.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png", compress_level=1)

    for _ in range(2):  # decoded, and out of the cache
        dataset = read(tmp_path, say=SILENT)
        assert dataset.is_verified
        assert dataset.superclasses == real.superclasses
        np.testing.assert_array_equal(dataset.train.images, real.train.images)
        np.testing.assert_array_equal(dataset.test.labels, real.test.labels)
