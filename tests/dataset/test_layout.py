"""Directory layouts: which directories are splits or classes, what is ignored, and which layouts are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence
from own_images import SILENT, as_set, encoded, photos, rows_of, settings

from cifar100.cli.main import main
from cifar100.dataset import read, resolve_data_dir
from cifar100.dataset.class_folders import find_layout
from cifar100.dataset.layout import Layout, split_of
from cifar100.dataset.published import CIFAR10
from cifar100.dataset.tree import on_disk
from cifar100.support.errors import UserError

TWO = {"cat": 1, "dog": 1}


def make(place: Path, **folders: Any) -> Path:
    """Create directories of empty files: {"train": {"cat": 2}} makes train/cat/0.jpg and 1.jpg."""
    for name, content in folders.items():
        if isinstance(content, int):
            (place / name).mkdir(parents=True, exist_ok=True)
            for number in range(content):
                (place / name / f"{number}.jpg").touch()
        else:
            make(place / name, **content)
    return place


def layout_of(place: Path) -> Layout:
    layout = find_layout(on_disk(place))
    assert layout is not None
    return layout


def counts(layout: Layout) -> dict[str, dict[str, int]]:
    """{split: {class: number of files}}."""
    return {name: {known: len(files) for known, files in split.files.items()} for name, split in layout.splits.items()}


def places(layout: Layout) -> dict[str, str]:
    return {name: split.place for name, split in layout.splits.items()}


# Names of splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            (name, "train")
            for name in ("train", "Train", "TRAINING", "train_images", "Training Set", "seg_train", "TrainSet")
        ),
        *((name, "test") for name in ("test", "Testing", "test-set", "TEST_DATA", "holdout", "PublicTest")),
        *((name, "val") for name in ("val", "valid", "Validation", "eval", "evaluation", "dev", "val_images")),
        *(
            (name, "")
            for name in ("cat", "trainer", "bullet_train", "train_station", "contest", "latest", "", "images")
        ),
        *((name, "") for name in ("train_test", "train and val")),
    ],
)
def test_names_of_splits(name: str, split: str) -> None:
    assert split_of(name) == split


def test_names_that_only_contain_a_split_name_match_if_loose() -> None:
    assert split_of("animals_train", loose=True) == "train"
    assert split_of("brain-test", loose=True) == "test"
    assert split_of("strain", loose=True) == ""


# Supported layouts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "validation"),
        ("animals_train", "animals_test"),
    ],
)
def test_train_and_test_folders(tmp_path: Path, train: str, test: str) -> None:
    layout = layout_of(make(tmp_path, **{train: {"cat": 3, "dog": 2}, test: {"cat": 2, "dog": 1}}))
    assert counts(layout) == {"train": {"cat": 3, "dog": 2}, "test": {"cat": 2, "dog": 1}}
    assert places(layout) == {"train": f"{train}/", "test": f"{test}/"}
    assert layout.ignored == ()


@pytest.mark.parametrize("unlabeled", [{"test": 3}, {"test": {"images": 3}}, {"test": 0}, {"test": {"unknown": 3}}])
def test_the_first_test_folder_with_the_classes_is_used(tmp_path: Path, unlabeled: dict[str, Any]) -> None:
    layout = layout_of(make(tmp_path, train={"cat": 3, "dog": 2}, val={"cat": 2, "dog": 1}, **unlabeled))
    assert places(layout) == {"train": "train/", "test": "val/"}
    count = 3 if unlabeled["test"] != 0 else 0
    assert [word.startswith(f"test/ ({count} image") for word in layout.ignored] == [True]


def test_test_takes_precedence_over_val_and_ignored_folders_are_listed(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, train=TWO, val=TWO, test=TWO, extra=TWO))
    assert places(layout) == {"train": "train/", "test": "test/"}
    assert layout.ignored == ("extra/ (2 images)", "val/ (2 images)")


def test_an_unlabeled_test_folder_is_ignored(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, train={"cat": 5, "dog": 5}, test=4))
    assert counts(layout) == {"train": {"cat": 5, "dog": 5}}
    assert layout.ignored == ("test/ (4 images, not in class folders)",)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"wrap": {"train": TWO, "test": TWO}}, {"train": "wrap/train/", "test": "wrap/test/"}),
        ({"a": {"b": {"c": {"train": TWO, "test": TWO}}}}, {"train": "a/b/c/train/", "test": "a/b/c/test/"}),
        ({"wrap": {"cat": 2, "dog": 2}}, {"all": "wrap/"}),
        ({"train": {"train": TWO}, "test": {"test": TWO}}, {"train": "train/train/", "test": "test/test/"}),
        (
            {"seg_train": {"seg_train": TWO}, "seg_test": {"seg_test": TWO}, "seg_pred": {"seg_pred": 2}},
            {"train": "seg_train/seg_train/", "test": "seg_test/seg_test/"},
        ),
        ({"images": {"train": TWO, "val": TWO}}, {"train": "images/train/", "test": "images/val/"}),
    ],
)
def test_wrapper_directories_are_skipped(tmp_path: Path, folders: dict[str, Any], expected: dict[str, str]) -> None:
    layout = layout_of(make(tmp_path, **folders))
    assert places(layout) == expected
    assert layout.classes == ["cat", "dog"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, bus=2, car=2, train=2))
    assert counts(layout) == {"all": {"bus": 2, "car": 2, "train": 2}}
    assert len(layout.remarks) == 1


def test_an_unlabeled_test_folder_beside_classes_is_not_a_class(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, cat=2, dog=2, test=3))
    assert counts(layout) == {"all": {"cat": 2, "dog": 2}}
    assert layout.ignored == ("test/ (3 images, not in class folders)",)


def test_a_single_folder_inside_each_class_is_not_a_class(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, train={"n01": {"images": 3}, "n02": {"images": 2}}, val={"images": 4}))
    assert counts(layout) == {"train": {"n01": 3, "n02": 2}}


def test_folders_inside_a_class_with_images_are_merged_and_reported(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, cat=2, dog={".": 1, "poodle": 2, "husky": 3}))
    assert counts(layout) == {"all": {"cat": 2, "dog": 6}}
    assert len(layout.remarks) == 1
    assert all(name in layout.remarks[0] for name in ("dog/", "'husky'", "'poodle'"))


def test_a_single_class_is_a_valid_layout(tmp_path: Path) -> None:
    assert counts(layout_of(make(tmp_path, cat=2))) == {"all": {"cat": 2}}


def test_test_images_alone_are_a_valid_layout(tmp_path: Path) -> None:
    assert counts(layout_of(make(tmp_path, test={"cat": 2}, train=3))) == {"test": {"cat": 2}}


@pytest.mark.parametrize(
    "folders",
    [
        *({}, {"cat": 0}, {".": 3}, {"train": 3, "test": 2}, {"images": 4}),
        {name: {"images": 3, "labels": 0} for name in ("train", "valid")},
    ],
)
def test_images_without_classes_are_not_a_layout(tmp_path: Path, folders: dict[str, Any]) -> None:
    assert find_layout(on_disk(make(tmp_path, **folders))) is None


def test_system_directories_are_not_classes(tmp_path: Path) -> None:
    system = {"$RECYCLE.BIN": 1, "System Volume Information": 0, "lost+found": 0, "@eaDir": {"cat": 1}}
    layout = layout_of(make(tmp_path, cat={".": 2, "@eaDir": {"0.jpg": 1}}, dog=2, **system))
    assert counts(layout) == {"all": {"cat": 2, "dog": 2}}


def test_class_names_that_look_alike_are_reported(tmp_path: Path) -> None:
    shown = "\n".join(layout_of(make(tmp_path, dog=2, **{"red oak": 2, "red_Oak": 2})).describe())
    assert "look alike, but are different classes: 'red oak', 'red_Oak'" in shown


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, **dict.fromkeys(("10", "9", "a2", "a10", "B"), 2)))
    assert layout.classes == ["9", "10", "B", "a2", "a10"]


def test_names_are_normalized_and_stripped_before_comparison(tmp_path: Path) -> None:
    layout = layout_of(make(tmp_path, train={"cafe\u0301": 2, "tea ": 1}, test={"caf\u00e9": 1, "tea": 1}))
    assert counts(layout) == {"train": {"caf\u00e9": 2, "tea": 1}, "test": {"caf\u00e9": 1, "tea": 1}}


def test_a_layout_is_described_with_names_and_counts(tmp_path: Path) -> None:
    make(tmp_path, train={"cat": 3, "dog": 2}, test={"cat": 1, "dog": 1}, more=2)
    shown = "\n".join(layout_of(tmp_path).describe())
    for part in ("train images in train/", "test images in test/", "cat 3 + 1", "dog 2 + 1", "more/ (2 images"):
        assert part in shown
    many = make(tmp_path / "many", **{f"class{number}": 1 for number in range(14)})
    shown = "\n".join(layout_of(many).describe())
    assert "class0 1, class1 1" in shown
    assert "and 4 more" in shown
    assert all(line.isprintable() for line in layout_of(make(tmp_path / "odd", **{"a\nb": 1, "c\x1b": 1})).describe())


# Refused layouts; the message says what to do


@pytest.mark.parametrize(
    ("folders", "code", "phrases"),
    [
        (
            {"fold1": TWO, "fold2": TWO},
            "dataset.nested",
            ["fold1 has no images itself", "'fold1', 'fold2'", "to train"],
        ),
        ({"cats": {"lynx": 1, "puma": 1}, "dogs": TWO}, "dataset.nested", ["'lynx', 'puma'", "move them up into"]),
        ({name: {"train": 1, "test": 1} for name in TWO}, "dataset.nested", ["cat/test to ", "/test/cat"]),
        ({"cat": 2, "dog": {"husky": 1, "poodle": 1}}, "dataset.nested", ["dog", "'husky', 'poodle'"]),
        ({"one": {"train": TWO, "test": TWO}, "two": 1}, "dataset.nested", ["Name ", "one itself"]),
        ({"train": {"a": TWO, "b": TWO}, "test": {"a": TWO, "b": TWO}}, "dataset.nested", ["/a has no images itself"]),
        ({"train": TWO, "test": {"cats": 1, "dogs": 1}}, "dataset.classes", ["'cat', 'dog'", "'cats', 'dogs'"]),
        (
            {"train": {"Elm": 1, "Ash": 1}, "test": {"elm": 1, "ash": 1}},
            "dataset.classes",
            ["'ash' and 'Ash' are diff"],
        ),
        ({"test": TWO, "cat": 2, "dog": 2}, "dataset.splits", ["'test'", "'cat', 'dog'", "train/"]),
        ({"cafe\u0301": 1, "caf\u00e9": 1}, "dataset.same_names", [r"'cafe\u0301'", r"'caf\xe9'"]),
        ({"cat": 1, "cat ": 1}, "dataset.same_names", ["'cat'", "'cat '"]),
    ],
)
def test_an_ambiguous_layout_is_refused(tmp_path: Path, folders: dict[str, Any], code: str, phrases: list[str]) -> None:
    make(tmp_path, **folders)
    with pytest.raises(UserError) as caught:
        find_layout(on_disk(tmp_path))
    assert caught.value.code == code
    assert_one_sentence(str(caught.value), tmp_path, *phrases)


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


def all_heic(place: Path) -> None:
    for name in ("cat", "dog"):
        (place / name).mkdir()
        (place / name / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + name.encode() * 20)


def flat_heic(place: Path) -> None:
    all_heic(place)
    for path in place.glob("*/*"):
        path.rename(place / f"{path.parent.name}.heic")
        path.parent.rmdir()


def labels_of_other_images(place: Path) -> None:
    no_class_folders(place)
    (place / "labels.csv").write_text("id,label\n1,cat\n2,dog\n")


def a_test_folder_of_images(place: Path) -> None:
    photos(place, {"test": 2, "cat": 2})


def several_datasets(place: Path) -> None:
    for name in ("color", "gray"):
        photos(place / name, {"cat": 2, "dog": 2})


def no_suffixes(place: Path) -> None:
    for path in photos(place, {"cat": 2, "dog": 2}).glob("*/*"):
        path.rename(path.with_suffix(""))


def a_single_image(place: Path) -> None:
    photos(place, {"cat": 2, "dog": 1})
    shutil.copy(place / "dog" / "0.png", place / "dog" / "copy.png")


def one_class(place: Path) -> None:
    photos(place, {"cat": 3})


def only_test(place: Path) -> None:
    photos(place / "test", {"cat": 3, "dog": 3})


def other_classes_in_test(place: Path) -> None:
    photos(place / "train", {"cat": 3, "dog": 3})
    photos(place / "test", {"cat": 3, "dog": 3, "[red]\nowl": 1})


def fewer_classes_in_val(place: Path) -> None:
    photos(place / "train", {f"class {number}": 1 for number in range(9)})
    photos(place / "val", {"class 1": 1})


def an_empty_class_in_test(place: Path) -> None:
    photos(place / "train", {"cat": 3, "dog": 3})
    photos(place / "test", {"cat": 3, "dog": 0})


def a_no_break_space(place: Path) -> None:
    photos(place / "train", {"red oak": 3, "dog": 3})
    photos(place / "test", {"red\u00a0oak": 3, "dog": 3})


def an_archive(place: Path) -> None:
    (place / "archive.zip").write_bytes(b"PK")


@pytest.mark.parametrize(
    ("corrupt", "code", "phrases"),
    [
        (nothing, "dataset.format", ["a directory of images for each class"]),
        (no_class_folders, "dataset.format", ["2 images", "a folder named like the class", "labels.csv"]),
        (no_suffixes, "dataset.format", ["4 files", ".jpg"]),
        (an_archive, "dataset.format", ["'archive.zip'", "name that, or unpack"]),
        (an_empty_class, "dataset.empty_class", [r"'owl\x1b[31m'"]),
        (only_text, "dataset.empty_class", ["'dog'"]),
        (all_damaged, "dataset.empty_class", ["'dog'", "dog/0.png is damaged"]),
        (all_heic, "dataset.empty_class", ["'cat', 'dog'", "HEIC", "JPEG"]),
        (a_single_image, "dataset.single_image", ["'dog'", "at least two"]),
        (one_class, "dataset.one_class", ["'cat'", "at least two"]),
        (a_test_folder_of_images, "dataset.one_class", ["'cat'", "Not used: test/ (2 images"]),
        (flat_heic, "dataset.format", ["2 images of HEIC", "save as JPEG"]),
        (labels_of_other_images, "dataset.format", ["'labels.csv' names none of them: the first is 'a.png'"]),
        (several_datasets, "dataset.nested", ["name one, such as "]),
        (only_test, "dataset.no_train", ["train/", "in test/", "evaluate CHECKPOINT --data-dir"]),
        (other_classes_in_test, "dataset.classes", ["test/", r"'[red]\nowl'"]),
        (
            fewer_classes_in_val,
            "dataset.classes",
            ["val/", "'class 0', 'class 2', 'class 3', 'class 4', 'class 5' and 3"],
        ),
        (a_no_break_space, "dataset.classes", [r"'red oak' and 'red\xa0oak' are different names"]),
        (an_empty_class_in_test, "dataset.empty_class", ["test/", "'dog'"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corrupt: Any, code: str, phrases: list[str]
) -> None:
    corrupt(tmp_path)
    with pytest.raises(UserError) as caught:
        read(tmp_path, settings(), say=SILENT)
    assert caught.value.code == code
    assert_one_sentence(str(caught.value), tmp_path, *phrases)
    assert main(["data", "check", str(tmp_path)]) == 2
    assert phrases[0] in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["", "dog", "dog/deep"])
def test_a_folder_without_read_permission_is_refused(
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


def test_recursive_links_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, train={"cat": 2, "dog": 2})
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    (tmp_path / "train" / "cat" / "deeper").symlink_to("../..")
    layout = layout_of(tmp_path)
    assert counts(layout) == {"train": {"cat": 2, "dog": 2}}
    assert [path.split("/")[-1].split()[0] for path in layout.errors] == ["again", "deeper"]


def test_a_broken_link_to_a_class_folder_is_reported(tmp_path: Path) -> None:
    make(tmp_path, train={"cat": 2, "dog": 2})
    (tmp_path / "train" / "owl").symlink_to(tmp_path / "gone")
    (tmp_path / "test").symlink_to(tmp_path / "gone")
    assert [Path(error.split()[0]).name for error in layout_of(tmp_path).errors] == ["test", "owl"]


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    make(tmp_path / "real", cat=2, dog=2)
    (tmp_path / "linked" / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "linked" / "train" / name).symlink_to(tmp_path / "real" / name)
    assert counts(layout_of(tmp_path / "linked")) == {"train": {"cat": 2, "dog": 2}}


# Datasets read from a layout


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val")])
def test_train_and_test_images_come_from_their_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    for seed, name in enumerate(names):
        photos(tmp_path / name, {"cat": 3 + seed, "dog": 2}, seed=100 * seed)
    dataset = read(tmp_path, settings(), say=SILENT)
    assert dataset.classes == ("cat", "dog")
    assert as_set(dataset.train) == rows_of(tmp_path / names[0], ["cat", "dog"])
    assert as_set(dataset.test) == rows_of(tmp_path / names[1], ["cat", "dog"])
    assert (len(dataset.train), len(dataset.test), dataset.image_size) == (5, 6, 24)


def test_a_web_page_named_like_an_archive_is_recognized(tmp_path: Path) -> None:
    for name in ("photos.zip", "photos.tar.gz"):
        (tmp_path / name).write_text("<!DOCTYPE html><title>Sign in</title>")
        with pytest.raises(UserError, match="web page"):
            read(tmp_path / name, settings(), say=SILENT)


def test_custom_images_are_neither_synthetic_nor_published(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, {"cat": 3, "dog": 3}), settings(), say=SILENT)
    assert not dataset.is_synthetic
    assert not dataset.is_verified
    assert str(dataset) == f"custom images (2 classes, 24x24): 4 train and 2 test images from {tmp_path}"
    assert np.bincount(dataset.train.labels).tolist() == [2, 2]


def test_custom_images_of_published_classes_are_still_custom(tmp_path: Path) -> None:
    classes = dict.fromkeys(CIFAR10.classes, 2)
    photos(photos(tmp_path / "train", classes).parent / "test", classes, seed=50)
    dataset = read(tmp_path, settings(), say=SILENT)
    assert "custom images (10 classes, 24x24)" in str(dataset)
    for path in tmp_path.glob("*/*/*"):
        path.write_bytes(encoded(path.stat().st_ino, size=(32, 32)))
    assert "CIFAR-10 layout, but NOT the published images" in str(read(tmp_path, say=SILENT))
    dataset = read(tmp_path / "train", say=SILENT)
    assert "custom images (10 classes, 32x32)" in str(dataset), "train/ alone is not the CIFAR-10 layout"


def test_images_outside_class_folders_are_counted(tmp_path: Path) -> None:
    for part in ("", "train", "test"):
        if part:
            photos(tmp_path / part, {"cat": 2, "dog": 2}, seed=len(part))
        (tmp_path / part / "photo.jpg").write_bytes(encoded(5))
    for folder, count in ((tmp_path, "3 images"), (tmp_path / "train", "1 image")):
        (tmp_path / "README.txt").write_text("is no image")
        assert f"not used: {count} in no class folder" in read(folder, settings(), say=SILENT).notes


def test_a_data_directory_without_class_folders_is_not_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ./data directory with other files is not read as a dataset, so CIFAR-100 is downloaded into it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    (tmp_path / "data" / "cifar-100-python").mkdir(parents=True)
    (tmp_path / "data" / "cifar-100-python" / "train").write_text("x")
    (tmp_path / "data" / "a.png").write_bytes(encoded(1))
    assert resolve_data_dir() is None
    photos(tmp_path / "data", {"cat": 1})
    assert resolve_data_dir() == Path("data")
