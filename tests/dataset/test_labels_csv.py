"""CSV label files: detection of the columns, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import assert_one_sentence
from own_images import SILENT, photos, settings

from cifar100.cli.main import main
from cifar100.dataset import csv_columns, find, read, resolve_data_dir
from cifar100.dataset.layout import Layout
from cifar100.support.errors import UserError


def touch(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A directory with images/0.jpg to images/5.jpg."""
    return touch(tmp_path, *(f"images/{number}.jpg" for number in range(6)))


def layout_of(place: Path) -> Layout:
    found = find(place)
    assert isinstance(found, Layout)
    return found


def names(layout: Layout) -> dict[str, dict[str, list[str]]]:
    """{split: {class: sorted file names}}."""
    return {
        name: {known: sorted(Path(str(file)).name for file in files) for known, files in split.files.items()}
        for name, split in layout.splits.items()
    }


PAIR = {"all": {"cat": ["0.jpg", "1.jpg"], "dog": ["2.jpg"]}}


@pytest.mark.parametrize(
    "table",
    [
        "id,breed\n0,cat\n1,cat\n2,dog\n",
        "filename,label\n0.jpg,cat\n1.jpg,cat\n2.jpg,dog\n",
        "path;class\nimages/0.jpg;cat\n./images/1.jpg;cat\nimages\\2.jpg;dog\n",
        "label\tfile\ncat\t0.jpg\ncat\t1.jpg\ndog\t2.jpg\n",
        "file,label\r\n0.jpg, cat\r\n1.jpg,cat \r\n2.jpg,dog\r\n\r\n",
        "\ufeffimage_id,width,class_name\n0,640,cat\n1,640,cat\n2,480,dog\n",
        ",filepaths,class id,labels\n0,data/images/0.jpg,7,cat\n1,data/images/1.jpg,7,cat\n2,data/images/2.jpg,8,dog\n",
        '"file","label"\n"0.jpg","cat"\n"1.jpg","cat"\n"2.jpg","dog"\n',
        "images/0.jpg,cat\nimages/1.jpg,cat\nimages/2.jpg,dog\n",
        ",id,label\n2,0,cat\n1,1,cat\n0,2,dog\n",  # an index column whose values are names of images too
        "0,cat\n1,cat\n2,dog\n",
        "file,label\n0.JPG,cat\n1.png,cat\nIMAGES/2.jpeg,dog\n",
        "file,label\n0.jpg,cat\n0.jpg,cat\n1.jpg,cat\n2.jpg,dog\nmissing.jpg,dog\n3.jpg,\n",
    ],
)
def test_the_columns_are_detected(flat: Path, table: str) -> None:
    (flat / "labels.csv").write_text(table, encoding="utf-8", newline="")
    layout = layout_of(flat)
    assert names(layout) == PAIR
    assert any("3 images without a label" in word for word in layout.ignored) or "3.jpg," in table
    assert names(layout_of(flat / "labels.csv")) == PAIR


def test_a_missing_image_is_not_replaced_by_one_of_the_same_name_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "cats/0.png", "dogs/0.png", "dogs/3.png")
    table = "file,label\nphotos/cats/0.png,cat\nphotos/cats/3.png,cat\nphotos/dogs/0.png,dog\n"
    (tmp_path / "labels.csv").write_text(table)
    layout = layout_of(tmp_path / "labels.csv")
    assert names(layout) == {"all": {"cat": ["0.png"], "dog": ["0.png"]}}
    assert "labels.csv: 1 rows name no existing image" in layout.remarks


def test_images_of_another_split_are_not_taken_for_missing_ones(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [f"{split}/{number}.jpg,{('cat', 'dog')[(number + len(split)) % 2]}" for number in range(4)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,label", *rows]))
    touch(tmp_path, *(f"train/{number}.jpg" for number in range(4)))
    assert names(layout_of(tmp_path)) == {"all": {"cat": ["1.jpg", "3.jpg"], "dog": ["0.jpg", "2.jpg"]}}


@pytest.mark.parametrize("directory", ["/", "gs://bucket/flowers/", "train/", "C:\\photos\\", "Images/"])
def test_directories_that_are_named_differently_are_ignored(flat: Path, directory: str) -> None:
    rows = [f"{directory}{number}.jpg,{label}" for number, label in enumerate(("cat", "cat", "dog"))]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows]))
    assert names(layout_of(flat)) == PAIR


def test_the_columns_and_counts_are_reported(flat: Path) -> None:
    (flat / "labels.csv").write_text("id,breed\n0,cat\n1,dog\n9,dog\n")
    shown = "\n".join(layout_of(flat).describe())
    for part in ("'id'", "'breed'", "1 rows name no existing", "4 images without a label", "cat 1, dog 1"):
        assert part in shown


def test_columns_that_are_not_used_are_reported(flat: Path) -> None:
    (flat / "labels.csv").write_text("id,label,fold,is_train,set\n0,cat,1,1,a\n1,dog,2,0,a\n")
    assert "labels.csv: columns not used: 'fold', 'is_train', 'set'" in layout_of(flat).remarks


def test_a_column_of_splits(flat: Path) -> None:
    rows = ["0,cat,train", "1,dog,train", "2,cat,valid", "3,dog,test", "4,cat,test"]
    (flat / "labels.csv").write_text("\n".join(["id,label,data set", *rows]))
    layout = layout_of(flat)
    assert names(layout) == {
        "train": {"cat": ["0.jpg"], "dog": ["1.jpg"]},
        "test": {"cat": ["4.jpg"], "dog": ["3.jpg"]},
    }
    assert "1 image of split val" in layout.ignored


def test_files_for_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, f"{split}/0.jpg", f"{split}/1.jpg")
        (tmp_path / f"{split}.csv").write_text("id,label\n0,cat\n1,dog\n")
    (tmp_path / "sample_submission.csv").write_text("id,label\n0,cat\n1,cat\n")
    layout = layout_of(tmp_path)
    pair = {"cat": ["0.jpg"], "dog": ["1.jpg"]}
    assert names(layout) == {"train": pair, "test": pair}
    for name, split in layout.splits.items():
        assert {Path(str(file)).parent.name for files in split.files.values() for file in files} == {name}


def test_directories_of_splits_under_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "train_images/tr0.jpg", "train_images/tr1.jpg", "test_images/te0.jpg", "test_images/te1.jpg")
    (tmp_path / "train.csv").write_text("image_id,label\ntr0,cat\ntr1,dog\n")
    assert names(layout_of(tmp_path)) == {"all": {"cat": ["tr0.jpg"], "dog": ["tr1.jpg"]}}
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("image_id,label\ntr0,cat\ntr1,dog\nte0,cat\nte1,dog\n")
    assert names(layout_of(tmp_path)) == {
        "train": {"cat": ["tr0.jpg"], "dog": ["tr1.jpg"]},
        "test": {"cat": ["te0.jpg"], "dog": ["te1.jpg"]},
    }


@pytest.mark.parametrize(
    ("table", "labeled"),
    [
        ("file,label\ncat/0.jpg,cat\ndog/0.jpg,dog\n", False),  # the same labels as the class folders
        ("file,photographer\ncat/0.jpg,ann\ndog/0.jpg,bob\n", False),
        ("name,height\nx,1\n", False),
        ("\xff", False),
        ("file,label\ncat/0.jpg,tabby\ndog/0.jpg,husky\n", True),
    ],
)
def test_class_folders_are_used_unless_a_file_has_other_labels(tmp_path: Path, table: str, labeled: bool) -> None:
    touch(tmp_path, "cat/0.jpg", "dog/0.jpg")
    (tmp_path / "about.csv").write_text(table, encoding="latin-1")
    layout = layout_of(tmp_path)
    assert layout.classes == (["husky", "tabby"] if labeled else ["cat", "dog"])
    if not labeled:
        assert layout.ignored == ("about.csv",)


@pytest.mark.parametrize(
    ("table", "code", "expected"),
    [
        (b"id,healthy,rust,scab\n0,1,0,0\n1,0,1,0\n", "dataset.csv_columns", ["'healthy', 'rust', 'scab'", "'label'"]),
        (b"id\n0\n1\n", "dataset.csv_no_class", ["no class column"]),
        (b"id,label\n0,cat\n0,dog\n", "dataset.csv", ["'cat'", "'dog'", "images/0.jpg"]),
        (b"id,label\n0,caf\xe9\n", "dataset.csv", ["UTF-8"]),
        (b"", "dataset.csv", ["is empty"]),
        (b"old_id,new_id,label\n0,1,cat\n1,0,dog\n", "dataset.csv_columns", ["'new_id', 'old_id'", "remove one"]),
        (b"id,label\n0,cat, black\n", "dataset.csv", ["2 columns", "'0'", "quote"]),
        (b"id,label" + b",x" * 1000 + b"\n0,cat\n", "dataset.csv", ["1,000 columns"]),
        (b"id,label,note\n" + b"0,cat,\n" * 40, "dataset.csv", ["100 cells", "remove the columns"]),
        (b"id,label,split\n0,cat,train\n1,dog,hold\n", "dataset.csv", ["'split' contains 'hold'", "train, val"]),
        (b"id,label\n0,c\0t\n" + b'1,"' + bytes(200_000), "dataset.csv", ["labels.csv"]),
    ],
)
def test_an_invalid_label_file_is_refused(
    flat: Path, monkeypatch: pytest.MonkeyPatch, table: bytes, code: str, expected: list[str]
) -> None:
    monkeypatch.setattr(csv_columns, "MAX_CELLS", 100)
    (flat / "labels.csv").write_bytes(table)
    with pytest.raises(UserError) as caught:
        find(flat)
    assert caught.value.code == code
    assert_one_sentence(str(caught.value), flat / "labels.csv", *expected)


def test_class_names_may_be_numbers_of_any_length(flat: Path) -> None:
    (flat / "labels.csv").write_text(f"id,label\n0,{'1' * 5000}\n1,2\n")
    assert layout_of(flat).classes == ["2", "1" * 5000]


def test_two_files_that_label_the_same_images_are_refused(flat: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (flat / name).write_text("id,label\n0,cat\n1,dog\n")
    with pytest.raises(UserError) as caught:
        find(flat)
    assert_one_sentence(str(caught.value), "'a.csv', 'b.csv'")
    assert layout_of(flat / "a.csv").classes == ["cat", "dog"]


def test_an_ambiguous_file_name_is_refused(flat: Path) -> None:
    touch(flat, "images2/0.jpg")
    (flat / "labels.csv").write_text("id,label\n0,cat\n1,dog\n")
    with pytest.raises(UserError) as caught:
        find(flat)
    assert_one_sentence(str(caught.value), flat / "labels.csv", "'images/0.jpg'", "'images2/0.jpg'")


def test_a_file_without_existing_images_is_ignored_unless_named(flat: Path) -> None:
    (flat / "labels.csv").write_text("id,label\nx,cat\n")
    assert find(flat) is None
    with pytest.raises(UserError) as caught:
        find(flat / "labels.csv")
    assert_one_sentence(str(caught.value), flat / "labels.csv")


def test_a_label_file_gives_the_same_dataset_as_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files in class folders, and in a single directory with a CSV file."""
    folders = photos(tmp_path / "folders", {"cat": 5, "dog": 4})
    (tmp_path / "flat").mkdir()
    rows = ["file,label"]
    for path in sorted(folders.glob("*/*")):
        name = f"{path.parent.name}_{path.name}"
        (tmp_path / "flat" / name).write_bytes(path.read_bytes())
        rows.append(f"{name},{path.parent.name}")
    (tmp_path / "flat" / "labels.csv").write_text("\n".join(rows))
    first, second = (read(tmp_path / name, settings(), say=SILENT) for name in ("folders", "flat"))
    assert first.classes == second.classes
    assert first.train.fingerprint == second.train.fingerprint
    assert first.test.fingerprint == second.test.fingerprint
    assert main(["data", "check", str(tmp_path / "flat" / "labels.csv")]) == 0
    assert "cat 5, dog 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("paths", "table", "expected"),
    [
        (  # the classes are names of several images too
            ("part1/0.png", "part2/0.png", "part2/1.png"),
            "file,label\npart1/0.png,1\npart2/0.png,0\npart2/1.png,0\n",
            {"1": ["0.png"], "0": ["0.png", "1.png"]},
        ),
        (
            ("images/0.jpg", "images/1.jpg"),
            "photos/0.jpg,cat\nphotos/1.jpg,dog\n",
            {"cat": ["0.jpg"], "dog": ["1.jpg"]},
        ),
        (("images/rex.jpg", "images/tom.jpg"), "rex.jpg,dog\ntom.jpg,cat\n", {"dog": ["rex.jpg"], "cat": ["tom.jpg"]}),
        (("a/1.JPG", "b/1.jpg"), "file,label\na/1.jpg,cat\nb/1.jpg,dog\n", {"cat": ["1.JPG"], "dog": ["1.jpg"]}),
        (
            ("1.jpg", "cats/1.jpg"),
            "file,label\nphotos/1.jpg,dog\nphotos/cats/1.jpg,cat\n",
            {"dog": ["1.jpg"], "cat": ["1.jpg"]},
        ),
        (
            ("0.jpg", "1.jpg"),
            '"label", "file"\n"cat, black", "0.jpg"\n"dog", "1.jpg"\n',
            {"cat, black": ["0.jpg"], "dog": ["1.jpg"]},
        ),
        (
            ("cafe\u0301.jpg", "1.jpg"),
            "file,label\ncaf\u00e9.jpg,cat\n1.jpg,dog\n",
            {"cat": ["cafe\u0301.jpg"], "dog": ["1.jpg"]},
        ),
    ],
)
def test_cells_that_could_be_misread(
    tmp_path: Path, paths: tuple[str, ...], table: str, expected: dict[str, list[str]]
) -> None:
    touch(tmp_path, *paths)
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    assert names(layout_of(tmp_path / "labels.csv")) == {"all": expected}


def test_a_test_file_without_labels_is_not_used(tmp_path: Path) -> None:
    touch(tmp_path, "train_images/0.png", "train_images/1.png", "test_images/2.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n0,2\n1,0\n")
    (tmp_path / "test.csv").write_text("id_code\n2\n")
    layout = layout_of(tmp_path)
    assert names(layout) == {"all": {"2": ["0.png"], "0": ["1.png"]}}
    assert any("test.csv" in word for word in layout.ignored)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(UserError) as caught:
        find(tmp_path)
    assert caught.value.code == "dataset.csv_no_class"


def test_the_split_may_be_the_last_word_of_a_file_name(flat: Path) -> None:
    (flat / "labels_train.csv").write_text("file,label\n0.jpg,cat\n1.jpg,dog\n")
    (flat / "labels_test.csv").write_text("file,label\n2.jpg,cat\n")
    assert names(layout_of(flat)) == {"train": {"cat": ["0.jpg"], "dog": ["1.jpg"]}, "test": {"cat": ["2.jpg"]}}


def test_split_files_without_a_header(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg", "test/0.jpg")
    (tmp_path / "train.csv").write_text("0.jpg,cat\n1.jpg,dog\n")
    (tmp_path / "test.csv").write_text("0.jpg,cat\n")
    assert names(layout_of(tmp_path)) == {"train": {"cat": ["0.jpg"], "dog": ["1.jpg"]}, "test": {"cat": ["0.jpg"]}}


def test_three_files_for_three_directories_with_the_same_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg", "val/0.jpg", "test/0.jpg")
    (tmp_path / "train.csv").write_text("id,label\n0,cat\n1,dog\n")
    for name in ("val.csv", "test.csv"):
        (tmp_path / name).write_text("id,label\n0,cat\n")
    layout = layout_of(tmp_path)
    assert names(layout) == {"train": {"cat": ["0.jpg"], "dog": ["1.jpg"]}, "test": {"cat": ["0.jpg"]}}
    assert str(layout.splits["test"].files["cat"][0]) == str(tmp_path / "test" / "0.jpg")


def test_two_files_may_divide_one_directory(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train_images/{number}.jpg" for number in range(3)))
    (tmp_path / "train.csv").write_text("id,label\n0,cat\n1,dog\n")
    (tmp_path / "val.csv").write_text("id,label\n2,cat\n")
    assert names(layout_of(tmp_path)) == {"train": {"cat": ["0.jpg"], "dog": ["1.jpg"]}, "test": {"cat": ["2.jpg"]}}


def test_labels_of_missing_val_images_are_not_given_to_test_images(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg", "test/0.jpg")
    (tmp_path / "train.csv").write_text("file,label\ntrain/0.jpg,cat\ntrain/1.jpg,dog\n")
    (tmp_path / "val.csv").write_text("file,label\nval/0.jpg,dog\n")
    assert names(layout_of(tmp_path)) == {"all": {"cat": ["0.jpg"], "dog": ["1.jpg"]}}


def test_class_folders_beside_two_files_that_agree_with_them(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.jpg", "dog/0.jpg")
    for name in ("train.csv", "all.csv"):
        (tmp_path / name).write_text("file,label\ncat/0.jpg,cat\ndog/0.jpg,dog\n")
    assert names(layout_of(tmp_path)) == {"all": {"cat": ["0.jpg"], "dog": ["0.jpg"]}}


def test_an_ambiguous_file_column_is_not_replaced_by_the_class_column(tmp_path: Path) -> None:
    touch(tmp_path, "images/0.jpg", "images/1.jpg", "images/5.jpg", "images2/5.jpg")
    (tmp_path / "labels.csv").write_text("id,label\n0,0\n1,1\n5,0\n")
    with pytest.raises(UserError, match=r"images2/5\.jpg"):
        find(tmp_path / "labels.csv")


def test_a_file_of_test_labels_labels_no_train_images(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg")
    for name, classes in (("train.csv", "cat dog"), ("test.csv", "dog cat")):
        first, second = classes.split()
        (tmp_path / name).write_text(f"file,label\n0.jpg,{first}\n1.jpg,{second}\n")
    assert names(layout_of(tmp_path)) == {"all": {"cat": ["0.jpg"], "dog": ["1.jpg"]}}


def test_a_split_column_beside_class_folders_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.jpg", "cat/1.jpg", "dog/0.jpg")
    (tmp_path / "labels.csv").write_text(
        "file,label,split\ncat/0.jpg,cat,train\ncat/1.jpg,cat,test\ndog/0.jpg,dog,train\n"
    )
    assert names(layout_of(tmp_path)) == {"train": {"cat": ["0.jpg"], "dog": ["0.jpg"]}, "test": {"cat": ["1.jpg"]}}


def test_a_linked_directory_of_images_and_a_hidden_label_file(tmp_path: Path) -> None:
    touch(tmp_path, "disk/0.jpg", "disk/1.jpg", "photos/other.txt")
    (tmp_path / "photos" / "images").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "photos" / "latest").symlink_to(tmp_path / "disk", target_is_directory=True)
    table = tmp_path / "photos" / ".labels.csv"
    for first, second in (("0", "1"), ("images/0", "images/1"), ("latest/0", "latest/1")):
        table.write_text(f"file,label\n{first}.jpg,cat\n{second}.jpg,dog\n")
        layout = layout_of(table)
        assert not any("without a label" in word for word in layout.ignored), "each image counts once"
        assert names(layout) == {"all": {"cat": ["0.jpg"], "dog": ["1.jpg"]}}
    touch(tmp_path, "photos/.store/2.jpg", "photos/.store/3.jpg")
    (tmp_path / "photos" / "own").symlink_to(tmp_path / "photos" / ".store", target_is_directory=True)
    table.write_text("file,label\nown/2.jpg,cat\nown/3.jpg,dog\n")
    assert names(layout_of(table)) == {"all": {"cat": ["2.jpg"], "dog": ["3.jpg"]}}


def test_test_labels_without_their_images_are_not_given_to_train_images(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg", "train/2.jpg")
    (tmp_path / "test.csv").write_text("file,label\n0.jpg,dog\n1.jpg,cat\n2.jpg,cat\n")
    with pytest.raises(UserError) as caught:
        find(tmp_path / "test.csv")
    assert caught.value.code == "dataset.csv"
    (tmp_path / "train.csv").write_text("file,label\n0.jpg,cat\n1.jpg,dog\n")
    layout = layout_of(tmp_path)
    assert names(layout) == {"all": {"cat": ["0.jpg"], "dog": ["1.jpg"]}}
    assert any("test.csv" in word for word in layout.ignored)
    touch(tmp_path, "test/0.jpg", "test/1.jpg")
    layout = layout_of(tmp_path / "test.csv")
    assert names(layout) == {"all": {"dog": ["0.jpg"], "cat": ["1.jpg"]}}, "train/2.jpg is not test/2.jpg"


@pytest.mark.parametrize(("directory", "file"), [("test", "val.csv"), ("val", "test.csv")])
def test_val_and_test_may_name_the_same_split(tmp_path: Path, directory: str, file: str) -> None:
    touch(tmp_path, "train/0.jpg", "train/1.jpg", f"{directory}/0.jpg")
    (tmp_path / "train.csv").write_text("id,label\n0,cat\n1,dog\n")
    (tmp_path / file).write_text("id,label\n0,cat\n")
    layout = layout_of(tmp_path)
    assert names(layout) == {"train": {"cat": ["0.jpg"], "dog": ["1.jpg"]}, "test": {"cat": ["0.jpg"]}}


@pytest.mark.parametrize("classes", [("猫", "犬"), ("кошка", "собака"), ("0", "1")])
@pytest.mark.parametrize("table", ["file,date\n0.jpg,2024-01\n1.jpg,2024-02\n", "file,width,height\n0.jpg,64,48\n"])
def test_class_folders_without_latin_letters_are_classes(tmp_path: Path, classes: tuple[str, ...], table: str) -> None:
    for name, number in zip(classes, (0, 1), strict=True):
        touch(tmp_path, f"{name}/{number}.jpg")
    (tmp_path / "photos.csv").write_text(table)
    assert set(layout_of(tmp_path).classes) == set(classes)


@pytest.mark.parametrize("content", [b"", b"caf\xe9,1\n2,3\n", b"a\n1,2,3\n"])
def test_an_unreadable_csv_file_without_images_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """CIFAR-100 is downloaded into ./data, whatever other files are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR100_DATA_DIR", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prices.csv").write_bytes(content)
    assert resolve_data_dir() is None
