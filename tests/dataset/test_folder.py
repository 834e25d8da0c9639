"""Custom images: reading, splitting, caching, training and evaluation; unusual directories and damaged files."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence, printed_on_a_terminal
from mutations import mutated_bytes
from own_images import SILENT, as_set, encoded, photos, rows_of, settings
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.cli.main import main
from cifar100.config import Config
from cifar100.dataset import decode, load_dataset, read
from cifar100.evaluation.evaluate import evaluate
from cifar100.images.convert import to_model_input
from cifar100.support.errors import UserError
from cifar100.support.progress import progress
from cifar100.support.text import escape_control_chars
from cifar100.train import train

# The split


def test_the_test_split_is_stratified(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 20, "dog": 10, "owl": 2})
    dataset = read(tmp_path, settings(), say=SILENT)
    assert np.bincount(dataset.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(dataset.train.labels).tolist() == [16, 8, 1]
    assert as_set(dataset.train, dataset.test) == rows_of(tmp_path, ["cat", "dog", "owl"])
    assert not as_set(dataset.train) & as_set(dataset.test)
    half = read(tmp_path, settings(test_fraction=0.5), say=SILENT)
    assert np.bincount(half.test.labels).tolist() == [10, 5, 1]
    assert any("50 % of each class" in note for note in half.notes)


def test_the_split_depends_only_on_content_and_split_seed(tmp_path: Path) -> None:
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
    """Each image has a uniform color, which identifies it at any size."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for shade in range(0, 200, 10):
            Image.new("RGB", (40, 30), (shade, name == "cat", 0)).save(tmp_path / name / f"{shade}.png")
    small, large = (read(tmp_path, Config().replace(image_size=size), say=SILENT).test for size in (16, 40))
    assert set(small.images[:, 0, 0, 0].tolist()) == set(large.images[:, 0, 0, 0].tolist())
    assert large.images.shape == (8, 40, 40, 3)


def test_adding_images_barely_changes_the_split(tmp_path: Path) -> None:
    place = photos(tmp_path, {"cat": 40, "dog": 40})
    before = as_set(read(place, settings(), say=SILENT).test)
    for number in range(5):
        (place / "cat" / f"new {number}.png").write_bytes(encoded(700 + number))
    after = as_set(read(place, settings(), say=SILENT).test)
    assert len(before - after) <= 2, "of 16 test images; a new random split would keep about three"


def test_copies_of_an_image_are_in_the_same_split(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    for path in list(tmp_path.glob("*/*")):
        for number in range(3):
            shutil.copy(path, path.with_stem(f"{path.stem} ({number})"))
    dataset = read(tmp_path, settings(), say=SILENT)
    assert len(dataset.train) + len(dataset.test) == 48, "duplicates must be kept"
    assert not as_set(dataset.train) & as_set(dataset.test)


def test_images_in_two_classes_are_counted(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 3, "dog": 3})
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog" / "copy.png")
    notes = read(tmp_path, settings(), say=SILENT).notes
    assert [note for note in notes if note.startswith("1 image in more than one class")]


def test_images_in_both_train_and_test_are_counted(tmp_path: Path) -> None:
    photos(tmp_path / "train", {"cat": 3, "dog": 3})
    photos(tmp_path / "test", {"cat": 2, "dog": 3}, seed=50)
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "again.png")
    dataset = read(tmp_path, settings(), say=SILENT)
    assert dataset.notes[-1] == "1 image in both train and test, so the test accuracy is optimistic"


# Unusable files


@pytest.fixture
def with_bad_files(tmp_path: Path) -> Path:
    """Two classes of four images, among unusable files of every kind."""
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


def test_unreadable_files_are_skipped_and_listed_unless_hidden(with_bad_files: Path) -> None:
    dataset = read(with_bad_files, settings(), say=SILENT)
    good = {path for path in with_bad_files.glob("*/*") if re.fullmatch(r"\d\.(png|jpe)", path.name)}
    assert as_set(dataset.train, dataset.test) == {
        (path.parent.name == "dog", to_model_input(path, 24).tobytes()) for path in good
    }
    messages = dataset.unreadable
    assert len(messages) == 9
    for name, why in [
        ("cat/empty.jpg", "is empty"),
        ("cat/text.png", "is not an image that can be read"),
        ("cat/cut\x1b[31m.jpg", "is damaged and cannot be decoded"),
        ("dog/cut too.jpg", "is damaged and cannot be decoded"),
        ("dog/long.png", "5000x2, too long and thin"),
        ("dog/broken.png", "is not a file"),
        ("dog/loop", "is a link to a directory that contains it"),
        ("dog/self", "is not a file"),
        ("dog/pipe.jpg", "is not a file"),
    ]:
        assert any(f"{with_bad_files}/{name}" in text and why in text for text in messages), name
    listed = [f"  {escape_control_chars(text)}" for text in messages[:5]]
    assert dataset.notes[-7:] == ("9 files skipped:", *listed, "  and 4 more")


def test_skipped_files_are_listed_again_with_a_cache(with_bad_files: Path) -> None:
    first, second = (read(with_bad_files, settings(), say=SILENT) for _ in range(2))
    assert first.notes == second.notes
    assert first.unreadable == second.unreadable


def test_strict_refuses_unreadable_files_and_changes_nothing_else(with_bad_files: Path) -> None:
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


def test_a_file_without_read_permission_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = photos(tmp_path, {"cat": 3, "dog": 3})
    real = Path.read_bytes

    def guarded(path: Path) -> bytes:
        if str(path).endswith("cat/0.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    dataset = read(place, settings(), say=SILENT)
    assert dataset.unreadable == (f"{place}/cat/0.png cannot be read (Permission denied).",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
def test_damaged_images_are_read_or_skipped(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A bounded fuzzer with a fixed seed: 250 randomly damaged files per format."""
    photos(tmp_path, {"cat": 2, "dog": 2})
    rng, valid = random.Random(0), encoded(7, kind)
    for number in range(250):
        (tmp_path / "cat" / f"mutated_{number}.img").write_bytes(mutated_bytes(valid, rng, [valid]))
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
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a cache that only this test uses."""
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


def test_decoded_images_are_cached(tmp_path: Path, cache_dir: Path, opened: list[str]) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    first = read(place, settings(), say=SILENT)
    assert len(opened) == 10
    (place / "cat").rename(place / "moved")
    (place / "moved").rename(place / "cat")
    second = read(place.rename(tmp_path / "q"), settings(split_seed=3, test_fraction=0.4), say=SILENT)
    assert len(opened) == 10, "the cache must not depend on names or on the split"
    assert as_set(first.train, first.test) == as_set(second.train, second.test)
    assert first.original_sizes == second.original_sizes
    read(tmp_path / "q", settings().replace(image_size=16), say=SILENT)
    assert len(opened) == 20, "the cache must depend on the image size"
    (tmp_path / "q" / "dog" / "0.png").write_bytes(encoded(999))
    changed = read(tmp_path / "q", settings(), say=SILENT)
    assert len(opened) == 30, "the cache must depend on the content"
    assert as_set(changed.train, changed.test) != as_set(first.train, first.test)
    assert sorted(path.suffix for path in cache_dir.iterdir()) == [".npz"] * 3


@pytest.mark.parametrize(
    "folders", [{"cat": 2, "dog": 0}, {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/dog": 0}]
)
def test_an_empty_class_is_refused_before_anything_is_decoded(
    tmp_path: Path, opened: list[str], folders: dict[str, int]
) -> None:
    photos(tmp_path, folders)
    with pytest.raises(UserError) as caught:
        read(tmp_path, settings(), say=SILENT)
    assert caught.value.code == "dataset.empty_class"
    assert opened == []


def test_an_interrupted_decoding_is_resumed(
    tmp_path: Path, cache_dir: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = photos(tmp_path / "p", {"cat": 50, "dog": 50})
    with monkeypatch.context() as patch:
        real = decode._decode_file
        patch.setattr(decode, "_decode_file", lambda *given: real(*given) if len(opened) < 70 else interrupt())
        with pytest.raises(KeyboardInterrupt):
            read(place, settings(), say=SILENT)
    before = len(opened)
    assert 30 < before < 100
    dataset = read(place, settings(), say=SILENT)
    read(place, settings(), say=SILENT)
    assert len(opened) == 100
    assert as_set(dataset.train, dataset.test) == rows_of(place, ["cat", "dog"])


def interrupt() -> tuple[np.ndarray, tuple[int, int]]:
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", ["a pixel", "the end", "a size", "nothing left", "a folder"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, cache_dir: Path, opened: list[str], damage: str) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    first = read(place, settings(), say=SILENT)
    (path,) = cache_dir.iterdir()
    content = bytearray(path.read_bytes())
    content[{"a pixel": -600, "a size": 190}.get(damage, 0)] ^= 1
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
        assert len(opened) == 20, "the cache must be rewritten"


def test_an_unwritable_cache_is_only_a_warning(tmp_path: Path, cache_dir: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 5, "dog": 5})
    cache_dir.parent.write_text("in the way")
    messages: list[str] = []
    assert len(read(place, settings(), say=messages.append).test) == 2
    assert "could not be cached (Not a directory)" in messages[-1]


def test_without_a_home_directory_nothing_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, and so ignored")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert main(["data", "check", str(photos(tmp_path / "p", {"cat": 5, "dog": 5}))]) == 0
    assert "there is no home directory" in capsys.readouterr().out


# Memory and progress


def test_too_many_images_for_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = photos(tmp_path, {"cat": 5, "dog": 5})
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 10 * 3 * 24 * 24 - 1)
    with pytest.raises(UserError) as caught:
        read(place, settings(), say=SILENT)
    assert_one_sentence(str(caught.value), "10 images of 24x24 pixels", "an --image-size of at most 23")


def test_memory_stays_below_twice_the_images(tmp_path: Path, cache_dir: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 10, "dog": 10})
    config, needed = Config().replace(image_size=512), 20 * 3 * 512 * 512
    messages: list[str] = []
    read(place, config, say=messages.append)
    assert messages == [f"Reading 20 files in {place} as 512x512 images: 15.0 MiB of memory"]
    tracemalloc.start()
    try:
        read(place, config, say=SILENT)  # from the cache, so that the memory of decoders is not measured
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert needed < peak < 2.2 * needed


def test_available_memory_is_plausible() -> None:
    available = decode.available_memory()
    assert available is None or 1 << 26 < available < 1 << 50


def test_progress_without_a_terminal_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar100.support.progress.LINE_SECONDS", 0)
    messages: list[str] = []
    with progress("decoding", 2000, messages.append) as tell:
        tell(1500)
        tell(500)
    assert messages == ["  decoding: 1,500 of 2,000", "  decoding: 2,000 of 2,000"]


def test_progress_on_a_terminal_is_a_bar(tmp_path: Path, cache_dir: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 20, "dog": 20})
    text = printed_on_a_terminal("-m", "cifar100", "data", "check", str(place), columns=100)
    assert re.search(r"decoding .*40/40", text)
    assert "custom images (2 classes, 32x32): 32 train and 8 test images" in text


# Training and evaluation


@pytest.fixture
def small_network(tmp_path: Path, narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with under 1 % of the FLOPs of resnet18; the working directory is `tmp_path`."""
    monkeypatch.chdir(tmp_path)


SHORT = ["--epochs", "2", "--warmup-epochs", "0", "--batch-size", "8", "--lr", "0.01", "--device", "cpu", "--no-report"]
BEST = "logs/cifar100/best_model.pth"


@pytest.mark.usefixtures("small_network")
def test_train_evaluate_and_predict_on_custom_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = photos(tmp_path / "my photos", {"[red]cat": 12, "dog\x1b[31m": 12, "10": 12})
    (place / "10" / "bad.jpg").touch()
    split = ["--image-size", "24", "--test-fraction", "0.5", "--split-seed", "3"]
    assert main(["train", "--data-dir", str(place), *split, *SHORT]) == 0
    shown = capsys.readouterr().out
    for line in (
        f"Data      custom images (3 classes, 24x24): 18 train and 18 test images from {place}",
        "          the test images are 50 % of each class, chosen by content (split seed 3)",
        "          1 file skipped:",
        "no superclasses",
        f"cifar100 evaluate logs/cifar100/last.pth --data-dir '{place}'",
    ):
        assert line in shown
    assert "SYNTHETIC" not in shown
    assert "NOT the published" not in shown
    assert "\x1b" not in shown
    run = tmp_path / "logs" / "cifar100"
    assert "1 file skipped" in next(run.glob("training_log_*.txt")).read_text()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["superclass_top1"] for row in rows] == ["", ""]
    assert (run / "curves.png").is_file()
    final = json.loads((run / "evaluation.json").read_text())
    assert final["superclass_top1"] is None
    assert set(final["per_class"]) == {"[red]cat", "dog\x1b[31m", "10"}
    best = load_checkpoint(run / "best_model.pth")
    assert (best.image_size, best.classes) == (24, ["10", "[red]cat", "dog\x1b[31m"])

    assert main(["evaluate", BEST, "--data-dir", str(place), "--samples", "3"]) == 0
    shown = capsys.readouterr().out
    assert "split         test, 18 images" in shown
    assert "no superclasses" in shown
    assert "top-5         100.00%  (of 3 classes: always)" in shown
    assert "1 file skipped" in shown
    assert r"dog\x1b[31m" in shown
    assert "perhaps on some of these" not in shown

    assert main(["predict", "--checkpoint", BEST, str(place / "10" / "0.png")]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"^ +\d+\.\d\d%", shown, re.MULTILINE)) == 3
    assert "\x1b" not in shown


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
    assert not any("perhaps on some of these" in note for note in again.notes)
    (place / "cat" / "new.png").write_bytes(encoded(500))
    assert any(
        "perhaps on some of these" in note for note in evaluate(folder / "last.pth", data_dir=place, device="cpu").notes
    )
    photos(place, {"owl": 3}, seed=900)
    with pytest.raises(UserError) as caught:
        evaluate(folder / "last.pth", data_dir=place)
    assert caught.value.code == "evaluate.classes"
    assert "'owl'" in str(caught.value)


@pytest.mark.usefixtures("small_network")
def test_images_of_a_label_file_that_changed_are_split_as_for_training(tmp_path: Path) -> None:
    """Not all of them evaluated: most were trained on."""
    place = tmp_path / "p"
    place.mkdir()
    for number in range(21):
        (place / f"{number}.png").write_bytes(encoded(number))
    table = place / "labels.csv"
    rows = [f"{number}.png,{'cat' if number < 10 else 'dog'}" for number in range(21)]
    table.write_text("\n".join(["file,label", *rows[:20]]))
    folder = train(settings(data_dir=table, epochs=1)).folder
    table.write_text("\n".join(["file,label", *rows]))
    for data_dir in (table, place):
        again = evaluate(folder / "last.pth", data_dir=data_dir, device="cpu")
        assert (again.split, again.images) == ("test", 4)
        assert any("perhaps on some of these" in note for note in again.notes)


@pytest.mark.usefixtures("small_network")
def test_a_model_is_evaluated_on_any_labeled_folder(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cafe\u0301": 8, "cat": 8, "dog": 8})
    run = train(settings(data_dir=place, epochs=1, warmup_epochs=0)).folder / "last.pth"
    holdout = photos(tmp_path / "holdout", {"caf\u00e9": 2, "cat": 5, "dog": 4}, seed=500)

    whole = evaluate(run, data_dir=holdout, device="cpu")
    assert (whole.split, whole.images) == ("all", 11)
    assert np.bincount(whole.labels).tolist() == [2, 5, 4]
    assert any("11 images, all that there are" in note for note in whole.notes)

    shutil.rmtree(holdout / "caf\u00e9")
    shutil.copy(holdout / "cat" / "0.png", holdout / "dog" / "text.png")
    (holdout / "dog" / "text.png").write_text("no image")
    some = evaluate(run, data_dir=holdout, device="cpu")
    assert np.bincount(some.labels, minlength=3).tolist() == [0, 5, 4]
    assert set(some.per_class) == {"cat", "dog"}
    assert "1 file skipped:" in some.notes

    shutil.rmtree(holdout / "dog")
    assert evaluate(run, data_dir=holdout, device="cpu").labels.tolist() == [1] * 5
    (holdout / "cat").rename(holdout / "Cat")
    with pytest.raises(UserError, match="'Cat' and 'cat' are different names: rename one"):
        evaluate(run, data_dir=holdout, device="cpu")
    (holdout / "Cat").rename(holdout / "cat")

    own = evaluate(run, data_dir=place, device="cpu")
    assert (own.split, own.images) == ("test", 6), "on its training data, only the test split must be evaluated"
    assert evaluate(run, split="all", data_dir=place, device="cpu").images == 24


@pytest.mark.usefixtures("small_network")
def test_the_test_split_of_a_folder_is_evaluated(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 8, "dog": 8})
    run = train(settings(data_dir=place, epochs=1, warmup_epochs=0)).folder / "last.pth"
    for name, seed in (("train", 500), ("Testing", 600)):
        photos(tmp_path / "new" / name, {"cat": 4, "dog": 3}, seed=seed)
    for place, split, expected in [
        ("new", None, ("test", 7)),
        ("new", "all", ("all", 14)),
        ("new/Testing", None, ("all", 7)),
    ]:
        found = evaluate(run, split=split, data_dir=tmp_path / place, device="cpu")
        assert (found.split, found.images) == expected
    shutil.rmtree(tmp_path / "new" / "Testing" / "dog")
    found = evaluate(run, data_dir=tmp_path / "new", device="cpu")
    assert (found.split, found.images) == ("test", 4)
    shutil.rmtree(tmp_path / "new" / "train")
    assert evaluate(run, data_dir=tmp_path / "new", device="cpu").images == 4
    with pytest.raises(UserError) as caught:
        evaluate(run, split="train", data_dir=tmp_path / "new", device="cpu")
    assert caught.value.code == "dataset.no_train"


def test_cifar100_classes_are_evaluated_with_their_superclasses(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"apple": 2, "aquarium_fish": 3})
    found = evaluate("pretrained", data_dir=place, device="cpu")
    assert set(found.per_class) == {"apple", "aquarium_fish"}
    assert set(found.per_superclass) == {"fish", "fruit_and_vegetables"}
    assert found.images == 5


@pytest.mark.usefixtures("small_network")
def test_report_of_a_labeled_folder(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 8, "dog": 8})
    run = train(settings(data_dir=place, epochs=1, warmup_epochs=0)).folder / "last.pth"
    holdout = photos(tmp_path / "holdout", {"cat": 5}, seed=500)
    assert main(["report", str(run), "--data-dir", str(holdout), "--out", "page", "--device", "cpu"]) == 0
    page = Path("page/index.html").read_text()
    assert "5 images" in page
    assert main(["evaluate", str(run), "--data-dir", str(holdout), "--without-duplicates", "--device", "cpu"]) == 2


@pytest.mark.usefixtures("small_network")
def test_resume_refuses_another_size_or_split_but_not_another_strict(tmp_path: Path) -> None:
    place = photos(tmp_path / "p", {"cat": 10, "dog": 10})
    config = settings(data_dir=place, epochs=2, stop_after=1, cutout_size=0)
    train(config)
    for change in ({"image_size": 32}, {"test_fraction": 0.4}, {"split_seed": 1}):
        flag = f"--{next(iter(change)).replace('_', '-')}"
        with pytest.raises(UserError, match=f"the same settings, but {flag} was"):
            train(config.replace(**change), resume=True)
    assert train(config.replace(strict=True), resume=True).stopped_by is None


def test_data_check_describes_the_dataset(with_bad_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_bad_files / "cat" / "3.jpe").unlink()
    assert main(["data", "check", str(with_bad_files), "--image-size", "16"]) == 1
    shown = capsys.readouterr().out
    assert "custom images (2 classes, 16x16): 5 train and 2 test images" in shown
    assert re.search(r"train +5 images  2 to 3 per class  fingerprint [0-9a-f]{64}", shown)
    assert "9 files skipped" in shown
    sizes = [Image.open(path).size for path in with_bad_files.glob("*/[0-9].*")]
    wide, high = zip(*sizes, strict=True)
    assert f"{min(wide)} to {max(wide)} wide, {min(high)} to {max(high)} high" in shown
    assert re.search(r"cache: .*cifar100, \d+\.\d MiB; it may be deleted", shown)


def test_data_check_of_images_that_are_all_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos(tmp_path / "p", {"cat": 2, "dog": 2}))]) == 0
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize(("bits", "brightest"), [(12, 16), (16, 255)])
def test_12_bit_values_in_16_bit_images_are_reported(tmp_path: Path, bits: int, brightest: int) -> None:
    for number in range(8):
        values = np.random.default_rng(number).integers(0, 1 << bits, (24, 24)).astype(np.uint16)
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / f"class{number % 2}" / f"{number}.png")
    dataset = read(tmp_path, settings(), say=SILENT)
    assert max(split.images.max() for split in (dataset.train, dataset.test)) == brightest
    assert any(f"brighter than {brightest} of 255" in note for note in dataset.notes) == (bits == 12)


def test_preview_and_samples_with_unusual_class_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cifar100.report.augmentation.images_per_second", lambda _loader: 1.0)
    names = ["船", "[red]\x1b[31m\n$x$", os.fsdecode(b"\xff\xfe"), "x" * 200]
    place = photos(tmp_path / "p", dict.fromkeys(names, 2))
    assert main(["data", "preview", "--data-dir", str(place), "--image-size", "24"]) == 0
    shown = capsys.readouterr().out
    assert "4 classes, with their ids" in shown
    assert r"[red]\x1b[31m\n$x$" in shown
    assert Image.open("augmentations.png").height > 100
    assert main(["data", "samples", "s", "--data-dir", str(place), "--image-size", "24", "--count", "4"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert {Image.open(path).size for path in Path("s").iterdir()} == {(24, 24)}
    assert "Reading 8 files" in printed.err


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_dataset_exported_as_images_is_verified(tmp_path: Path) -> None:
    real = load_dataset(say=SILENT)
    for name, split in (("train", real.train), ("test", real.test)):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            folder = tmp_path / name / real.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png", compress_level=1)

    for _ in range(2):  # decoded, then read from the cache
        dataset = read(tmp_path, say=SILENT)
        assert dataset.is_verified
        assert dataset.superclasses == real.superclasses
        np.testing.assert_array_equal(dataset.train.images, real.train.images)
        np.testing.assert_array_equal(dataset.test.labels, real.test.labels)


def test_a_text_chunk_is_not_taken_for_the_size_of_the_file(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 2, "dog": 2})
    text = PngInfo()
    text.add_text("original_size", "1024x768")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cat" / "text.png", pnginfo=text)
    assert len(read(tmp_path, settings(), say=SILENT).train) == 3


def test_files_of_a_class_without_suffix_are_not_called_missing(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 2, "dog": 2})
    for file in (tmp_path / "dog").iterdir():
        file.rename(file.with_suffix(""))
    with pytest.raises(UserError) as caught:
        read(tmp_path, settings(), say=SILENT)
    assert caught.value.code == "dataset.empty_class"
    assert_one_sentence(str(caught.value), "dog", ".jpg")
    assert "remove" not in str(caught.value)
