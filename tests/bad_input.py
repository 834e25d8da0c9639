"""Bad input of every kind, in one table, for `test_bad_input.py`.

A row is the command that meets it; what spoils the working folder, in which all is well before (data/, a run that was
stopped in logs/cifar100/, good.pth, photo.png, an empty home/); what the sentence says; and the exit code.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import torch
from conftest import untrained
from PIL import Image
from pyarrow import parquet
from test_formats import cifar10_binary, cifar100_binary, cifar100_parquet, some
from torch import nn

from cifar100.checkpoints.checkpoint import FORMAT, VERSION, load_checkpoint
from cifar100.dataset.classes import CLASSES, SUPERCLASSES
from cifar100.model import ResNet, build_model

LARGEST = 1 << 22  # bytes that an archive may unpack to, here
ESCAPE = "\x1b[31m\n\u202e"  # red, a line break, right to left

Spoil = Callable[[], object]


class Row(NamedTuple):
    """One bad input."""

    name: str
    words: str
    """A command line, as a shell takes it: `NAME=value` before the verb is for the environment."""
    spoil: Spoil
    said: str
    """What the sentence says; … stands for anything."""
    code: int = 2


def rows(what: str, words: str, *cases: tuple[str, Spoil, str], code: int = 2) -> list[Row]:
    """Rows of one kind, which meet the same command."""
    return [Row(f"{what}: {name}", words, spoil, said, code) for name, spoil, said in cases]


# What spoils


def nothing() -> None:
    """The command itself is the mistake."""


def holds(path: str, content: bytes | str) -> Spoil:
    """A file with this content, in place of what was there."""

    def spoil() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def changed(path: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda: Path(path).write_bytes(change(Path(path).read_bytes()))


def lost(path: str, then: Callable[[Path], object] = lambda _: None) -> Spoil:
    """A file that is gone, and what is there instead."""

    def spoil() -> None:
        Path(path).unlink()
        then(Path(path))

    return spoil


def unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # opens, and then fails to be read, for root too


def too_large(path: str) -> Spoil:
    return lambda: os.truncate(path, 1 << 31)  # takes no space on the disk


def cut(part: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * part)]


def flip(place: float) -> Callable[[bytes], bytes]:
    """Change a bit at this part of a file."""

    def flipped(content: bytes) -> bytes:
        i = int(len(content) * place)
        return content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]

    return flipped


# Datasets: pickles, binary, parquet


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def pickled(value: object) -> Callable[[str], Spoil]:
    content = pickle.dumps(value, protocol=2)
    return lambda path: holds(path, content)


def split_file(data: Any = None, labels: Any = (9, 4)) -> Spoil:
    """data/train holds these pixels and labels."""
    data = np.zeros((2, 3072), np.uint8) if data is None else data
    return pickled({b"data": data, b"fine_labels": list(labels)})("data/train")


DEEP = b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."
META = {"fine_label_names": list(CLASSES), "coarse_label_names": list(SUPERCLASSES)}

PICKLES = [
    *rows(
        "pickle",
        "data check data",
        ("code alone", pickled(Calls(os.system, "touch pwned"))("data/train"), "data/train: There is not one image"),
        ("code in meta", pickled(Calls(os.system, "touch pwned"))("data/meta"), "data/meta: its class names"),
        ("empty", holds("data/train", b""), "data/train: damaged"),
        ("text", holds("data/train", "this is no pickle\n"), "data/train: damaged"),
        ("cut short", changed("data/train", cut(0.9)), "data/train: damaged"),
        ("an unknown opcode", holds("data/train", b"\x80\x02}\xff."), "data/train: damaged"),
        ("a length of gigabytes", holds("data/train", b"\x80\x02X\xff\xff\xff\xff"), "data/train: damaged"),
        ("a memo of gigabytes", holds("data/train", b"\x80\x02}r\xff\xff\xff\x7f."), "data/train: There is not one"),
        ("an integer of many digits", holds("data/train", b"L" + b"9" * 100_000 + b"L\n."), "data/train: damaged"),
        ("nested without end", holds("data/train", DEEP), "data/train: There is not one image"),
        ("floats", split_file(np.zeros((2, 3072), np.float32)), "8 images but 2 labels"),
        ("too narrow", split_file(np.zeros((2, 3071), np.uint8)), "not rows of 3072 bytes"),
        ("no data", split_file([]), "not rows of 3072 bytes"),
        ("a label too large", split_file(labels=(9, 100)), "A label is 100"),
        ("a huge label", split_file(labels=(9, 10**30)), "data/train: "),
        ("a negative label", split_file(labels=(-1, 4)), "A label is -1"),
        ("too few labels", split_file(labels=(9,)), "2 images but 1 labels"),
        ("labels of text", split_file(labels=("9", "4")), "2 images but 0 labels"),
        ("no names", pickled({})("data/meta"), "data/meta: its class names"),
        ("other names", pickled(META | {"fine_label_names": list(CLASSES[::-1])})("data/meta"), "data/meta: its class"),
    ),
    *rows(
        "pickles",
        "data check data",
        ("one is missing", lost("data/meta"), "data holds no dataset that is understood: expected cifar-100-python, "),
        ("a folder for a file", lost("data/meta", Path.mkdir), "holds no dataset"),
        ("a link to itself", lost("data/meta", lambda path: path.symlink_to(path.name)), "holds no dataset"),
        ("unreadable", lost("data/test", unreadable), "data/test: cannot be read (Input/output error)"),
        ("too large", too_large("data/test"), "data/test: 2.0 GiB; no file of the dataset is that large"),
    ),
    Row("pickles: trained on", "train --data-dir data", holds("data/train", b""), "data/train: damaged"),
    Row("pickles: evaluated on", "evaluate good.pth --data-dir data", holds("data/test", b""), "data/test: damaged"),
    Row("pickles: shown", "data preview --data-dir data", holds("data/test", b""), "data/test: damaged"),
]


def other(write: Callable[..., None], classes: int, change: Spoil) -> Spoil:
    """other/ holds six train and two test images in another format, and then the change is made."""

    def spoil() -> None:
        Path("other").mkdir()
        write(Path("other"), some(0, 6, classes), some(1, 2, classes))
        change()

    return spoil


def binary(*cases: tuple[str, Spoil, str]) -> list[Row]:
    made = [(name, other(cifar100_binary, 100, change), f"other…{said}") for name, change, said in cases]
    return rows("binary", "data check other", *made)


def binary_cifar10(*cases: tuple[str, Spoil, str]) -> list[Row]:
    made = [(name, other(cifar10_binary, 10, change), f"other…{said}") for name, change, said in cases]
    return rows("binary CIFAR-10", "data check other", *made)


NAMES = "other/fine_label_names.txt"

BINARY = [
    *binary(
        ("cut short", changed("other/test.bin", cut(0.9)), "test.bin: …are not whole rows of 3,074; it is cut short"),
        ("a byte too many", changed("other/test.bin", lambda c: c + b"x"), "6,149 bytes are not whole rows"),
        ("empty", holds("other/train.bin", b""), "train.bin: There is not one image"),
        ("label too large", changed("other/test.bin", lambda c: b"\0\x64" + c[2:]), "A label is 100; with 100 classes"),
        ("other names", changed(NAMES, lambda c: c.replace(b"apple", b"pear")), "are not CIFAR-100's classes"),
        ("names that are no text", holds(NAMES, bytes(range(256))), "its names are not CIFAR-100's classes"),
        ("one is missing", lost("other/test.bin"), "holds no dataset that is understood"),
        ("unreadable", lost("other/test.bin", unreadable), "cannot be read (Input/output error)"),
        ("too large", too_large("other/train.bin"), "2.0 GiB; no file of the dataset is that large"),
    ),
    *binary_cifar10(
        (
            "cut by a byte",
            changed("other/data_batch_3.bin", lambda c: c[:-1]),
            "data_batch_3.bin: …whole rows of 3,073",
        ),
        ("label too large", changed("other/test_batch.bin", lambda c: b"\x0a" + c[1:]), "A label is 10; with 10"),
        ("other names", holds("other/batches.meta.txt", "cat\ndog\n"), "are not CIFAR-10's classes"),
        ("one is missing", lost("other/data_batch_5.bin"), "holds no dataset that is understood"),
    ),
]

TEST = "other/test-00000-of-00002.parquet"


def columns(path: str = TEST, /, **table: Any) -> Spoil:
    return lambda: parquet.write_table(pyarrow.table(table), path)


def parquets(*cases: tuple[str, Spoil, str]) -> list[Row]:
    made = [(name, other(cifar100_parquet, 100, change), f"other…{said}") for name, change, said in cases]
    return rows("parquet", "data check other", *made)


def as_image(width: int = 32, height: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


ONE = [{"bytes": as_image()}]
NONE = pyarrow.array([], pyarrow.struct({"bytes": pyarrow.binary()}))
HUGE = pyarrow.array([2**64 - 1], pyarrow.uint64())

PARQUET = parquets(
    ("no images", columns(image=[1], fine_label=[0]), "no columns img and fine_label (or label); it has image, fine_"),
    ("no labels", columns(img=ONE), "no columns img and fine_label (or label); it has img."),
    ("no columns", columns(), "it has none."),
    ("a column with escape codes", columns(**{ESCAPE: [1]}), r"it has \x1b[31m\n\u202e."),
    ("text for images", columns(img=["text"], fine_label=[0]), "not of the expected columns"),
    ("images of other fields", columns(img=[{"file": b"x"}], fine_label=[0]), "not of the expected columns"),
    ("a row without bytes", columns(img=[{"bytes": None}], fine_label=[0]), "a row has no image"),
    ("a row without image", columns(img=[None, *ONE], fine_label=[0, 1]), "a row has no image"),
    ("text for bytes", columns(img=[{"bytes": "text"}], fine_label=[0]), "a row has no image"),
    ("an image that is none", columns(img=[{"bytes": b"no png"}], fine_label=[0]), "an image does not decode"),
    ("an image cut short", columns(img=[{"bytes": as_image()[:50]}], fine_label=[0]), "an image does not decode"),
    ("an image too wide", columns(img=[{"bytes": as_image(64)}], fine_label=[0]), "an image is 64x32; those of the"),
    ("label too large", columns(img=ONE, fine_label=[100]), "A label is 100; with 100 classes"),
    ("label huge", columns(img=ONE, fine_label=HUGE), "A label is 18446744073709551615; with 100"),
    ("label negative", columns(img=ONE, fine_label=[-1]), "A label is -1"),
    ("label a fraction", columns(img=ONE, fine_label=[0.5]), "its fine_label is float64, not class ids"),
    ("label missing", columns(img=ONE, fine_label=[None]), "not class ids"),
    ("label text", columns(img=ONE, fine_label=["apple"]), "not class ids"),
    ("label a list", columns(img=ONE, fine_label=[[1]]), "not class ids"),
    ("no rows", columns(img=NONE, fine_label=pyarrow.array([], "int64")), "There is not one image"),
    ("CIFAR-10's test", columns(img=ONE, label=[3]), "other: train is CIFAR-100's and test is CIFAR-10's"),
    ("both", columns("other/train-9.parquet", img=ONE, label=[3]), "some are CIFAR-100's and some CIFAR-10's"),
    ("cut short", changed(TEST, cut(0.5)), "damaged, or not of the expected columns"),
    ("cut by a byte", changed(TEST, lambda c: c[:-1]), "damaged, or not of the expected columns"),
    ("empty", holds(TEST, b""), "damaged, or not of the expected columns"),
    ("text", holds(TEST, "img,fine_label\n"), "damaged, or not of the expected columns"),
    ("a folder for a file", lost(TEST, Path.mkdir), "cannot be read"),
    ("a link to itself", lost(TEST, lambda path: path.symlink_to(path.name)), "cannot be read (Too many levels of"),
    ("unreadable", lost(TEST, unreadable), "damaged, or not of the expected columns"),
    ("too large", too_large(TEST), "2.0 GiB; no honest file is that large"),
    ("one is missing", lost(TEST), "other holds no dataset that is understood"),
)


# Archives

PIXELS = bytes(3074)
INSIDE = "cifar-100-binary/train.bin"


def member(name: str, content: bytes = b"", **said: Any) -> bytes:
    """A member of a tar archive, whose header says what is given here."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in said.items():
        setattr(header, field, value)
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tarred(*more: bytes, folder: str = "cifar-100-binary", without: str = "") -> bytes:
    """The binary version as a tar archive, without one of its files, and with more members."""
    files = {"train.bin": PIXELS, "test.bin": PIXELS, "fine_label_names.txt": "\n".join(CLASSES).encode()}
    honest = [member(f"{folder}/{name}", content) for name, content in files.items() if name != without]
    return b"".join([*honest, *more, bytes(1024)])


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def instead(content: bytes = b"", **said: Any) -> bytes:
    """An archive with something else for one of its files."""
    return zipped(tarred(member(INSIDE, content, **said), without="train.bin"))


def beside(content: bytes = b"", **said: Any) -> bytes:
    """An archive with one more member than the dataset's."""
    return zipped(tarred(member("more", content, **said)))


def archives(what: str, *cases: tuple[str, bytes, str]) -> list[Row]:
    made = [(name, holds("x.tar.gz", content), f"x.tar.gz{said}") for name, content, said in cases]
    return rows(what, "data check x.tar.gz", *made)


WHOLE = zipped(tarred())
CODE = [
    member(f"cifar-100-python/{name}", pickle.dumps(Calls(os.system, "touch pwned"), protocol=2))
    for name in ("meta", "train", "test")
]
BOMB = bytes(8 * LARGEST)

BOMBS = archives(
    "archive bomb",
    *(
        (name, content, " unpacks to more than any archive of the dataset")
        for name, content in [
            ("a huge file, declared", instead(size=1 << 40)),
            ("a huge member, declared", beside(size=1 << 40)),
            ("a huge extended header, declared", beside(type=tarfile.XHDTYPE, size=1 << 33)),
            ("a huge file", instead(BOMB)),
            ("a huge member", beside(BOMB)),
            ("a huge end", zipped(tarred() + BOMB)),
            ("many members", zipped(tarred(member("x") * 1000))),
        ]
    ),
)

ARCHIVES = [
    *BOMBS,
    *archives(
        "archive",
        ("empty", b"", " is cut short; download it again"),
        ("text", b"not an archive", " is no .tar.gz archive, or a damaged one"),
        ("an error page", b"<!DOCTYPE html><title>404</title>", " is no .tar.gz archive"),
        ("a zip file", b"PK\x03\x04" + bytes(50), " is a damaged archive"),
        ("text, compressed", zipped(b"not an archive" * 100), " does not unpack to a tar archive"),
        ("nothing, compressed", zipped(b""), " is cut short"),
        ("cut in half", cut(0.5)(WHOLE), " is cut short"),
        ("cut in its header", WHOLE[:5], " is cut short"),
        ("cut in its checksum", WHOLE[:-6], " is cut short"),
        ("its checksum wrong", flip(0.9999)(WHOLE), " is no .tar.gz archive, or a damaged one"),
        ("damaged", flip(0.5)(WHOLE), " is no .tar.gz archive, or a damaged one"),
        ("something after it", WHOLE + b"more", " is no .tar.gz archive, or a damaged one"),
        ("tar cut in a file", zipped(tarred()[:1000]), " is cut short"),
        ("tar cut in a header", zipped(tarred()[:4200]), " is cut short"),
        ("tar without its end", zipped(tarred()[:-1024]), " is cut short"),
        ("tar with a damaged header", zipped(flip(0.001)(tarred())), " does not unpack to a tar archive"),
        ("nothing in it", zipped(bytes(1024)), " holds no dataset that is understood"),
        ("one is missing", zipped(tarred(without="train.bin")), " holds no dataset that is understood"),
        ("other files", zipped(tarred(folder="photos")), " holds no dataset that is understood"),
        ("names that lead out", zipped(tarred(folder="../cifar-100-binary")), " holds no dataset"),
        ("absolute names", zipped(tarred(folder="/cifar-100-binary")), " holds no dataset"),
        ("a symbolic link", instead(type=tarfile.SYMTYPE, linkname="/etc/passwd"), f": its {INSIDE} is no plain file"),
        ("a hard link", instead(type=tarfile.LNKTYPE, linkname="/etc/passwd"), f": its {INSIDE} is no plain file"),
        ("a device", instead(type=tarfile.CHRTYPE, devmajor=1, devminor=5), f": its {INSIDE} is no plain file"),
        ("a pipe", instead(type=tarfile.FIFOTYPE), f": its {INSIDE} is no plain file"),
        ("a folder for a file", instead(type=tarfile.DIRTYPE), f": its {INSIDE} is no plain file"),
        ("a sparse file", instead(type=tarfile.GNUTYPE_SPARSE), f": its {INSIDE} is no plain file"),
        ("a file twice", zipped(tarred(member(INSIDE, PIXELS))), f" has {INSIDE} twice"),
        ("a file twice, as ./", zipped(tarred(member(f"./{INSIDE}", PIXELS))), f" has {INSIDE} twice"),
        ("a negative size", instead(size=-1), " does not unpack to a tar archive"),
        ("a damaged file in it", instead(PIXELS[1:]), f"/{INSIDE}: 3,073 bytes are not whole rows"),
        ("a label out of range in it", instead(b"\xff" * 3074), f"/{INSIDE}: A label is 255"),
        ("code in it", zipped(tarred(*CODE)), "/cifar-100-python/meta: its class names"),
    ),
    *rows(
        "archive in a folder",
        "data check some",
        ("damaged", holds("some/cifar-10-python.tar.gz", b"x"), "some/cifar-10-python.tar.gz is no .tar.gz archive"),
        ("a folder", lambda: Path("some/cifar-10-python.tar.gz").mkdir(parents=True), "some holds no dataset"),
        ("another name", holds("some/photos.tar.gz", WHOLE), "some holds no dataset"),
    ),
    Row("archive: trained on", "train --data-dir x.tar.gz", holds("x.tar.gz", WHOLE[:-6]), "x.tar.gz is cut short"),
]


# Downloads, folders, disks


def at_home(content: bytes) -> Spoil:
    """The home page has this as its archive."""
    return holds("home/cifar-100-python.tar.gz", content)


DOWNLOADS = [
    *rows(
        "download",
        "data get --to new",
        ("no network", nothing, "could not be downloaded. From the Hugging Face hub: cannot be reached. From file:///"),
        ("wrong MD5", at_home(WHOLE), "its archive has MD5 …, not eb9058c3a382ffc7106e4002c42a8d85, and was deleted"),
        ("nothing", at_home(b""), "its archive has MD5 …, and was deleted"),
        ("another is there", lambda: shutil.copytree("data", "new"), "There is another dataset in new already: CIFAR"),
        ("a file is there", holds("new", "mine"), "new cannot be written (File exists)"),
        ("a damaged one is there", holds("new/cifar-100-python.tar.gz", WHOLE[:-6]), "python.tar.gz is cut short"),
    ),
    Row("download: below a file", "data get --to photo.png/data", nothing, "photo.png/data cannot be written"),
    Row("download: no address", "HF_ENDPOINT=nonsense data get --to new", nothing, "hub: cannot be reached"),
    Row(
        "download: to train",
        "train",
        lambda: shutil.rmtree("data"),
        "could not be downloaded. …Three ways on:\n  1. download …put it into data/\n  2. name it, …3. try things out",
    ),
]

LONG = "x" * 300

FOLDERS = [
    *(
        Row(f"data: {words[:50]}", words, nothing, said)
        for words, said in [
            ("train --data-dir missing", "--data-dir is missing, and there is no such folder or archive"),
            ("CIFAR100_DATA_DIR=missing train", "$CIFAR100_DATA_DIR is missing, and there is no such folder"),
            ("CIFAR100_DATA_DIR=home data check", "home holds no dataset that is understood"),
            ("train --data-dir missing.tar.gz", "--data-dir is missing.tar.gz, and there is no such"),
            ("train --data-dir ~nobody-of-this-name/data", "~nobody-of-this-name/data, and there is no such"),
            (f"data check 'missing{ESCAPE}'", r"missing\x1b[31m\n\u202e, and there is no such"),
            (f"data check {LONG}", f"{LONG}, and there is no such"),
            ("data check photo.png/data", "photo.png/data, and there is no such"),
            ("data check /dev/zero", "/dev/zero, and there is no such"),
            ("data check photo.png", "photo.png holds no dataset that is understood"),
            ("train --data-dir home", "home holds no dataset that is understood"),
            ("data samples --data-dir home", "home holds no dataset that is understood"),
        ]
    ),
    *(
        Row(f"run folder: {folder[:9]}", f"train --data-dir data --run-dir {folder}", spoil, said)
        for folder, spoil, said in [
            ("photo.png", nothing, "photo.png cannot be written (File exists); choose another --run-dir"),
            ("photo.png/run", nothing, "photo.png/run cannot be written (Not a directory); choose another --run-dir"),
            ("/proc/run", nothing, "/proc/run cannot be written (…choose another --run-dir"),
            (LONG, nothing, "cannot be written (File name too long); choose another --run-dir"),
            (".", nothing, "--run-dir is the working directory; a run needs a directory of its own"),
            ("mine", holds("mine/config.json", "{}"), "mine holds config.json, which is no run's; choose another"),
        ]
    ),
    *(
        Row(f"results: {words}", words, nothing, said, code)
        for words, said, code in [
            ("data samples photo.png --data-dir data --count 1", "photo.png cannot be written (File exists)", 2),
            ("data preview --data-dir data --out missing/x.png", "missing/x.png could not be written (No such file", 1),
            ("data preview --data-dir data --out home", "home could not be written (Is a directory)", 1),
            ("evaluate good.pth --data-dir data --json missing/x", "--json missing/x: there is no folder missing", 2),
            ("evaluate good.pth --data-dir data --json home", "--json home: it is a folder, not a file", 2),
        ]
    ),
]

FULL_DISK = [
    Row(f"full disk: {words}", words, nothing, f"{path} could not be written (File too large)", 1)
    for words, path in [
        ("evaluate good.pth --data-dir data --json x.json", "x.json"),
        ("data preview --data-dir data --out x.png", "x.png"),
        ("data samples new --data-dir data --count 1", "new/worm_0.png"),
    ]
]


# Settings

SETTINGS = [
    Row(f"setting: {words}", words, nothing, said)
    for words, said in [
        ("train --val-fraction 1.0", "--val-fraction is 1.0; it must be at least 0 and below 1"),
        ("train --data-dir data --val-fraction 0.01", "--val-fraction 0.01 of classes of 1 to 1 train images leaves"),
        ("train --crop-padding -1", "--crop-padding is -1; it must be 0 or more"),
        ("train --cutout-size -1", "--cutout-size is -1; it must be 0 or more"),
        ("train --data-dir data --cutout-size 40", "--cutout-size is 40, larger than the images, which are 32x32"),
        ("train --flip-probability 1.5", "--flip-probability is 1.5; it must lie in 0..1"),
        ("train --cutout-probability nan", "--cutout-probability is nan; it must be a number"),
        ("train --std 0.2 0 0.2", "--std is (0.2, 0.0, 0.2); each channel's must be above 0"),
        ("train --mean nan 0 0", "--mean is (nan, 0.0, 0.0); it must be 3 numbers"),
        ("train --epochs 0", "--epochs is 0; it must be 1 or more"),
        ("train --batch-size 0", "--batch-size is 0; it must be 1 or more"),
        ("train --lr 0", "--lr is 0.0; it must be above 0"),
        ("train --image-size 15", "--image-size is 15"),
        ("train --image-size 1025", "--image-size is 1025"),
        ("train --data-dir data --image-size 48", "48x48…32x32…--image-size"),
        ("train --test-fraction 0", "--test-fraction is 0.0"),
        ("train --test-fraction 1", "--test-fraction is 1.0"),
        ("train --split-seed -1", "--split-seed is -1"),
        ("train --alternating-flip --pipeline albumentations", "--alternating-flip requires --pipeline batched"),
        ("train --policy trivial --pipeline albumentations", "--policy requires --pipeline batched"),
        ("train --rand-ops 0", "--rand-ops is 0; it must be 1 or more"),
        ("train --rand-magnitude 31", "--rand-magnitude is 31; it must lie in 0..30"),
        ("train --rand-magnitude -1", "--rand-magnitude is -1; it must lie in 0..30"),
        ("train --muon-lr 0", "--muon-lr is 0.0; it must be above 0"),
        ("train --train-sizes 16 4", "--train-sizes is (16, 4); each must be 8 or more"),
        ("train --lr inf", "--lr is inf; it must be a number"),
        ("train --mixup-probability 0.6 --cutmix-probability 0.5", "add up to 1.1; at most 1 is allowed"),
        ("train --cutmix-alpha 0", "--cutmix-alpha is 0.0; it must be above 0"),
        ("train --ema-decay 1", "--ema-decay is 1.0; it must be at least 0 and below 1"),
        ("train --sam-rho -1", "--sam-rho is -1.0; it must be 0 or more"),
        ("train --momentum 1", "--momentum is 1.0; it must be at least 0 and below 1"),
        ("train --momentum 0", "--nesterov needs --momentum above 0; add --no-nesterov"),
        ("train --weight-decay -1e-4", "--weight-decay is -0.0001; it must be 0 or more"),
        ("train --warmup-epochs -1", "--warmup-epochs is -1.0; it must be 0 or more"),
        ("train --label-smoothing 1", "--label-smoothing is 1.0; it must be at least 0 and below 1"),
        ("train --seed -1", "--seed is -1; it must lie between 0 and 4294967295"),
        ("train --num-workers -1", "--num-workers is -1; it must be 0 or more"),
        ("train --eval-every 0", "--eval-every is 0; it must be 1 or more"),
        ("train --checkpoint-every -1", "--checkpoint-every is -1; it must be 0 or more"),
        ("train --save-seconds -1", "--save-seconds is -1.0; it must be 0 or more"),
        ("train --stop-after -1", "--stop-after is -1; it must be 0 or more"),
        ("train --device cpu --precision fp16", "--precision fp16 is for GPUs; on the CPU choose bf16 or fp32"),
        ("data preview --batch-size 0", "--batch-size is 0; it must be 1 or more"),
        ("data samples --data-dir data --count 0", "--count is 0; it must be from 1 to 1"),
        ("data samples --data-dir data --count 2", "--count is 2; it must be from 1 to 1"),
        ("model --num-classes 0", "--num-classes is 0; it must be 1 or more"),
        ("model --image-size 0", "--image-size is 0; it must be 1 or more"),
        ("predict", "Which image? Name one"),
        ("predict photo.png --checkpoint good.pth --batch-size 0", "--batch-size is 0; it must be 1 or more"),
        ("predict photo.png --checkpoint good.pth --json --csv", "--json and --csv: choose one"),
        ("predict photo.png --checkpoint good.pth --montage no/m.png", "--montage no/m.png: there is no folder no"),
        ("predict photo.png --checkpoint good.pth --explain data", "--explain data: it is a folder, not a file"),
        ("app --port 0", "--port is 0; ports are from 1 to 65535"),
        ("predict photo.png --checkpoint good.pth --top-k 0", "top_k is 0; it must be a whole number from 1 to 100"),
        ("evaluate good.pth --data-dir data --split val", "no split 'val' to evaluate this checkpoint on"),
        ("fly", "There is no command 'fly'; cifar100 --help lists the commands"),
    ]
]

CONFIG, LAST, LOGS = "logs/cifar100/config.json", "logs/cifar100/last.pth", "logs/cifar100"


def setting(name: str, value: object) -> Spoil:
    """The run's config.json has this setting."""

    def change(content: bytes) -> bytes:
        saved = json.loads(content)
        return json.dumps(saved | {"settings": saved["settings"] | {name: value}}).encode()

    return changed(CONFIG, change)


def last(field: str, change: Callable[[Any], Any]) -> Spoil:
    """The run's last.pth says something else in this field."""

    def spoil() -> None:
        checkpoint = load_checkpoint(LAST)
        setattr(checkpoint, field, change(getattr(checkpoint, field)))
        checkpoint.save(Path(LAST))

    return spoil


def only(field: str, change: Callable[[Any], Any]) -> Spoil:
    """The same, and there is no other checkpoint."""

    def spoil() -> None:
        last(field, change)()
        Path(LOGS, "best_model.pth").unlink()

    return spoil


def momentum(value: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda kept: kept | {"state": {number: {"momentum_buffer": value} for number in kept["state"]}}


def no_more_run() -> None:
    for path in Path(LOGS).glob("*.pth"):
        path.write_bytes(path.read_bytes()[:1000])


RESUME = rows(
    "resume",
    "train --resume --data-dir data",
    *(
        (f"config.json {name}", spoil, f"{CONFIG} cannot be used: …{said}…Mend it, or move it away")
        for name, spoil, said in [
            ("cut short", changed(CONFIG, cut(0.5)), "it is damaged"),
            ("empty", holds(CONFIG, b""), "it is damaged"),
            ("no text", holds(CONFIG, b"\xff\xfe\0"), "it is damaged"),
            ("a list", holds(CONFIG, "[]"), "it is damaged"),
            ("without settings", holds(CONFIG, "{}"), "it is damaged"),
            ("nested without end", holds(CONFIG, "[" * 100_000), "it is damaged"),
            ("a recipe of lists", holds(CONFIG, '{"settings": {}, "recipe": [[]]}'), "it is damaged"),
            ("settings a list", holds(CONFIG, '{"recipe": "fast", "settings": [1]}'), "it is damaged"),
            ("an unknown setting", setting("colour", "red"), "Unknown setting colour; "),
            ("escape codes", setting(ESCAPE, 1), r"Unknown setting \x1b[31m\n\u202e; "),
            ("out of range", setting("epochs", -1), "--epochs is -1; it must be 1 or more"),
            ("text for a number", setting("epochs", "many"), "--epochs is 'many'; it must be a whole number"),
            ("a list for a name", setting("model", ["resnet18"]), "it must be one of resnet18, resnet34"),
            ("null for a number", setting("lr", None), "--lr is None; it must be a number"),
            ("a number for a path", setting("run_dir", 5), "--run-dir is 5, not a path"),
        ]
    ),
    ("other settings", setting("lr", 0.5), "--resume goes on with the same settings, but --lr was 0.1 and is now 0.5"),
    ("no run", lambda: shutil.rmtree(LOGS), f"nothing to go on from in {LOGS}. There is no such folder"),
    ("no checkpoint is whole", no_more_run, f"nothing to go on from in {LOGS}. …last.pth is damaged…best_model.pth is"),
    ("weights only", lambda: shutil.copy("good.pth", LAST), f"{LAST} holds weights only, and nothing to go on from"),
    (
        "other images",
        last("dataset", lambda info: replace(info, fingerprint="another")),
        "the training images are not those of the run",
    ),
    ("weights of others", only("weights", lambda w: w | {"fc.bias": torch.zeros(3)}), f"{LAST}: …fc.bias is (3,) and"),
    ("weights not finite", only("weights", lambda w: w | {"fc.bias": torch.full((100,), torch.nan)}), "its fc.bias ho"),
    ("rows that are numbers", only("history", lambda _: [1, 2]), "its history is not a list of rows"),
    ("a huge tensor", only("weights", lambda w: w | {"a": torch.zeros(1).expand(10**11)}), "a is (100000000000,) and"),
    ("settings of others", last("config", lambda _: {"colour": "red"}), f"{LAST} has settings that this version does"),
    *(
        (f"a checkpoint of {name}", spoil, f"{LAST} is not what a run of this version leaves; move it away")
        for name, spoil in [
            ("another place", last("loop", lambda loop: loop | {"colour": 1})),
            ("a place that is text", last("loop", lambda loop: loop | {"epoch": "one"})),
            ("a place before the start", last("loop", lambda loop: loop | {"epoch": -3})),
            ("steps without images", last("loop", lambda loop: loop | {"step": 5, "seen": 0})),
            ("half an epoch", last("loop", lambda loop: loop | {"epoch": 0.5})),
            ("a place that is True", last("loop", lambda loop: loop | {"epoch": True})),
            ("more epochs than rows", last("loop", lambda loop: loop | {"epoch": 2})),
            ("steps in no time", last("loop", lambda loop: loop | {"step": 1, "seen": 2, "train_seconds": 0.0})),
            *(
                (f"{name} NaN", last("loop", lambda loop, name=name: loop | {name: float("nan")}))
                for name in ("correct", "elapsed_seconds", "best_top1", "loss_sum")
            ),
            ("rows with text", last("history", lambda rows: [row | {"train_seconds": "x"} for row in rows])),
            ("rows with NaN", last("history", lambda rows: [row | {"train_seconds": float("nan")} for row in rows])),
            ("rows of other columns", last("history", lambda _: [{"colour": 1}])),
        ]
    ),
    *(
        (f"an optimizer of {name}", last("optimizer", change), "of the optimizer in …does not fit; move it away")
        for name, change in [
            ("another kind", lambda _: {"colour": 1}),
            ("other groups", lambda _: {"state": {}, "param_groups": []}),
            ("other shapes", momentum(torch.zeros(3))),
            ("text", momentum("x")),
            ("numbers that are not finite", momentum(torch.full((8,), torch.nan))),
            ("a huge tensor", momentum(torch.zeros(1).expand(10**11))),
            ("other numbers", lambda kept: kept | {"state": {10**6: {}}}),
        ]
    ),
)
RESUME += rows(
    "resume",
    "train --resume --data-dir data",
    (
        "an unwritable log",
        lambda: Path(f"{LOGS}/training_log_9.txt").mkdir(),
        "training_log_9.txt could not be written",
    ),
    code=1,
)


# Checkpoints

OURS = {"format": FORMAT, "version": VERSION}


def small_network(name: str = "resnet18", classes: int = 100) -> nn.Module:
    """A fiftieth of the work of resnet18."""
    return ResNet((1, 1, 1, 1), classes, 8) if name == "resnet18" else build_model(name, classes)


def with_torch(content: Any, **options: Any) -> Spoil:
    return lambda: torch.save(content, "bad.pth", **options)


def good_but(change: Callable[[bytes], bytes]) -> Spoil:
    """The good checkpoint, damaged."""
    return lambda: Path("bad.pth").write_bytes(change(Path("good.pth").read_bytes()))


def with_weights(**changes: torch.Tensor | None) -> Spoil:
    """A checkpoint with some tensors replaced, `None`: left out; a name's dots are underlines here."""

    def spoil() -> None:
        given = {name.replace("__", "."): tensor for name, tensor in changes.items()}
        weights = {name: it for name, it in (small_network().state_dict() | given).items() if it is not None}
        untrained(weights=weights).save(Path("bad.pth"))

    return spoil


def plain_and_more() -> None:
    torch.save(small_network().state_dict() | {"layer1.0.se.weight": torch.zeros(1)}, "bad.pth")


def with_fields(**changes: Any) -> Spoil:
    """A checkpoint that says something else."""

    def spoil() -> None:
        honest = load_checkpoint("good.pth")
        torch.save(OURS | honest.to_dict() | changes, "bad.pth")

    return spoil


CAT_AND_DOG: dict[str, Any] = {"classes": ["cat", "dog"], "superclasses": [], "superclass_of": []}


def laughs() -> list[Any]:
    """A few hundred bytes in a file, 10^10 words when written out."""
    value: list[Any] = ["lol"] * 10
    for _ in range(9):
        value = [value] * 10
    return value


def rewritten(change: Callable[[str, bytes], bytes]) -> None:
    """The good checkpoint with its parts changed: by name and content."""
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w") as bad:
        for part in good.infolist():
            bad.writestr(part.filename, change(part.filename, good.read(part)))


def tuples_of_tuples() -> None:
    """A key that takes 2^40 steps to hash."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(40))
    forged = b"\x80\x02}(K\x01\x85q\x00" + pairs + b"K\x01u."
    rewritten(lambda name, content: forged if name.endswith("data.pkl") else content)


def as_torchscript() -> None:
    """The parts of such a file that tell it from others (`torch.jit.save` itself is deprecated, and warns)."""
    with zipfile.ZipFile("bad.pth", "w") as bad:
        for part in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            bad.writestr(f"bad/{part}", b"")


def overlapping() -> None:
    """Many parts that are the same bytes of the file, so that they take long to verify."""
    with zipfile.ZipFile("bad.pth", "w") as bad:
        bad.writestr("archive/data.pkl", bytes(100_000))
        bad.filelist *= 1000


def escaping_part() -> None:
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w") as bad:
        for part in good.infolist():
            bad.writestr(part.filename, good.read(part))
        bad.writestr(f"archive/{ESCAPE}", b"marker")
    content = Path("bad.pth").read_bytes()
    Path("bad.pth").write_bytes(content.replace(b"marker", b"harker", 1))


def compressed() -> None:
    """As small a file as one likes, of tensors as large as one likes."""
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w", zipfile.ZIP_DEFLATED) as bad:
        for part in good.infolist():
            bad.writestr(part.filename, good.read(part))


HOSTILE = Calls(os.system, "touch pwned")

CHECKPOINTS = [
    *rows(
        "checkpoint",
        "predict photo.png --checkpoint bad.pth",
        ("missing", nothing, "There is no checkpoint bad.pth."),
        ("a folder", lambda: Path("bad.pth").mkdir(), "There is no checkpoint bad.pth. It is a folder."),
        *(
            (name, holds("bad.pth", content), "bad.pth is damaged, or not a checkpoint: it is no zip archive")
            for name, content in [
                ("empty", b""),
                ("text", b"best_model\n"),
                ("zeros", bytes(10_000)),
                ("an error page", b"<!DOCTYPE html><title>404</title>"),
                ("a pickle with code", pickle.dumps(HOSTILE)),
            ]
        ),
        *(
            (name, good_but(change), "bad.pth is damaged")
            for name, change in [
                ("cut after 1 %", cut(0.01)),
                ("cut in half", cut(0.5)),
                ("cut at the end", lambda content: content[:-10]),
                ("without its start", lambda content: content[5000:]),
                ("with a bit flipped", flip(0.5)),
            ]
        ),
        ("compressed", compressed, "bad.pth is refused: its parts are compressed"),
        ("code", with_torch(HOSTILE), "bad.pth is refused: it holds posix.system, and only tensors and plain values"),
        ("code as once saved", with_torch(HOSTILE, _use_new_zipfile_serialization=False), "it holds posix.system, and"),
        ("code for weights", with_torch(OURS | {"weights": HOSTILE}), "it holds posix.system, and"),
        ("code for a size", with_torch(OURS | {"config": Calls(bytearray, 10**12)}), "bytearray, and"),
        ("a whole model", with_torch(small_network()), "and 7 more, …torch.save(model.state_dict(), PATH)"),
        ("a TorchScript program", as_torchscript, "bad.pth is a TorchScript file, a compiled program"),
        ("tuples of tuples", tuples_of_tuples, "bad.pth is damaged, or not a checkpoint of cifar100: it does not load"),
        ("parts that overlap", overlapping, "bad.pth is damaged"),
        ("an escaping part", escaping_part, "a part does not match its checksum"),
        ("a list", with_torch([1, 2, 3]), "bad.pth holds a list, not a checkpoint"),
        ("a tensor", with_torch(torch.zeros(3)), "bad.pth holds a Tensor, not a checkpoint"),
        ("None", with_torch(None), "bad.pth holds a NoneType, not a checkpoint"),
        ("numbers", with_torch({"epoch": 3}), "it is a PyTorch file without weights of a network"),
        ("keys that are no text", with_torch({1: torch.zeros(3)}), "without weights of a network"),
        ("a list for weights", with_torch({"state_dict": [1, 2]}), "without weights of a network"),
        ("an empty dictionary", with_torch({}), "without weights of a network"),
        ("another network", with_torch({"encoder.weight": torch.zeros(3, 3)}), "no fc.weight in it"),
        ("only a head by others' name", with_torch({"linear.weight": torch.zeros(3, 3)}), "bn1.bias is missing and"),
        ("a head without axes", with_torch({"fc.weight": torch.tensor(1.0)}), "no fc.weight in it"),
        ("only a head", with_torch({"fc.weight": torch.zeros(7, 512)}), "These are not the weights of a resnet18 of 7"),
        (
            "too many classes",
            with_torch({"fc.weight": torch.zeros(1).expand(10**9, 1)}),
            "its fc.weight is (1000000000, 1)",
        ),
        (
            "only our mark",
            with_torch({"format": FORMAT}),
            "bad.pth is of no version; this cifar100 reads versions up to 2",
        ),
        ("our mark and version", with_torch(OURS), "it names no model"),
        ("a version that is True", with_torch(OURS | {"version": True}), "bad.pth is of no version"),
        ("a version of lists", with_torch(OURS | {"version": laughs()}), "bad.pth is of no version"),
        ("a later version", with_torch(OURS | {"version": 99}), "bad.pth is of version 99"),
        ("an escaping version", with_torch(OURS | {"version": ESCAPE}), "bad.pth is of no version; "),
        ("a head too wide", with_weights(fc__weight=torch.zeros(100, 65)), "is (100, 65) and should be (100, 64)"),
        ("a head of other classes", with_weights(fc__bias=torch.zeros(8)), "fc.bias is (8,) and should be (100,)"),
        ("another kernel", with_weights(conv1__weight=torch.zeros(8, 3, 7, 7)), "conv1.weight is (8, 3, 7, 7) and"),
        ("a tensor missing", with_weights(layer4__0__bn2__weight=None), "layer4.0.bn2.weight is missing and should be"),
        ("a tensor too many", with_weights(extra=torch.zeros(1)), "extra is (1,) and should be absent"),
        ("an escaping name", with_weights(**{f"a{ESCAPE}": torch.zeros(1)}), r"a\x1b[31m\n\u202e is (1,)"),
        ("plain, wrong", plain_and_more, "bad.pth: …layer1.0.se.weight is (1,) and should be absent"),
        (
            "a NaN",
            with_weights(fc__bias=torch.full((100,), torch.nan)),
            "its fc.bias holds numbers that are not finite",
        ),
        ("infinity", with_weights(fc__bias=torch.full((100,), torch.inf)), "its fc.bias holds numbers that are not"),
        ("numbers beyond fp32", with_weights(fc__bias=torch.full((100,), 1e300, dtype=torch.float64)), "not finite"),
        (
            "numbers too large to compute with",
            with_weights(fc__weight=torch.full((100, 64), 3e38)),
            "The network's output is not finite",
        ),
        ("variances below 0", with_weights(bn1__running_var=torch.full((8,), -1.0)), "its bn1.running_var holds varia"),
        ("complex weights", with_weights(fc__bias=torch.zeros(100, dtype=torch.complex64)), "complex64"),
        ("8-bit weights", with_weights(fc__bias=torch.zeros(100).to(torch.float8_e4m3fn)), "float8_e4m3fn"),
        ("weights that are in no file", with_weights(fc__bias=torch.zeros(100, device="meta")), "_rebuild_meta_tensor"),
        ("sparse weights", with_weights(fc__bias=torch.zeros(100).to_sparse()), "_rebuild_sparse_tensor"),
        ("a huge tensor beside", with_weights(extra=torch.zeros(1).expand(10**11)), "extra is (100000000000,) and"),
        ("weights a list", with_fields(weights=[1, 2]), "its weights are no state dict"),
        ("weights no tensors", with_fields(weights={"fc.weight": 1}), "its weights are no state dict"),
        ("weights by number", with_fields(weights={1: torch.zeros(1)}), "its weights are no state dict"),
        ("an unknown network", with_fields(model=f"resnet50{ESCAPE}"), r"resnet50\x1b[31m\n\u202e"),
        ("too many classes of ours", with_fields(classes=["a"] * 100_001), "it names 100,001 classes"),
        ("a long name", with_fields(classes=["a" * 10_001]), "its classes holds a text of 10,001 characters"),
        ("lists of lists", with_fields(config={"val_fraction": laughs()}), "its config holds more values than a"),
        ("a set", with_fields(config={"lr": {1}}), "its config holds a set"),
        ("a tensor for a setting", with_fields(config={"lr": torch.zeros(1)}), "its config holds a Tensor"),
        ("a number for a name", with_fields(config={1: 2}), "its config holds keys that are no names"),
        ("a huge number", with_fields(config={"lr": 10**400}), "its config holds a number of more than 64 bits"),
        ("superclasses of fewer classes", with_fields(superclass_of=[0]), "its superclass_of is of 1 classes, not 100"),
        ("no such superclass", with_fields(superclass_of=[99] * 100), "its superclass_of names superclasses that"),
        ("superclasses numbers", with_fields(superclasses=[1] * 20), "its superclasses are no list of names"),
        ("figures of text", with_fields(metrics={"top1": "x"}), "its metrics has a wrong top1"),
        ("an evaluation of text", with_fields(evaluation={"images": "many"}), "its evaluation has a wrong images"),
        (
            "a temperature of True",
            with_fields(calibration={"temperature": True}),
            "its calibration has a wrong temperature",
        ),
        ("a network that is a list", with_fields(model=["resnet18"]), "it names no model"),
        ("no classes", with_fields(classes=[]), "its classes are no list of names"),
        ("classes a number", with_fields(classes=7), "its classes is a int"),
        ("classes numbers", with_fields(classes=[1, 2, 3]), "its classes are no list of names"),
        ("image size 0", with_fields(image_size=0), "its image_size is no size in pixels"),
        ("image size True", with_fields(image_size=True), "its image_size is no size in pixels"),
        ("image size text", with_fields(image_size="32"), "its image_size is no size in pixels"),
        ("mean of two channels", with_fields(mean=[0.1, 0.2]), "its mean and std are not three numbers each"),
        ("mean text", with_fields(mean=["a", "b", "c"]), "its mean and std are not three numbers each"),
        ("mean NaN", with_fields(mean=[float("nan")] * 3), "its mean and std are not three numbers each"),
        ("std near 0", with_fields(std=[1e-45] * 3), "its std is not above 0"),
        ("std of zero", with_fields(std=[0.0, 0.0, 0.0]), "its std is not above 0"),
        ("a dataset of text", with_fields(dataset="CIFAR-100 (verified)"), "its dataset is a str"),
        ("a dataset of lists", with_fields(dataset={"name": ["CIFAR-100"]}), "its dataset has a wrong name"),
        ("a dataset of fewer images than none", with_fields(dataset={"num_train": -1}), "has a wrong num_train"),
        ("a dataset of True images", with_fields(dataset={"num_train": True}), "its dataset has a wrong num_train"),
        ("history a number", with_fields(history=5), "its history is a int"),
        ("history of numbers", with_fields(history=[1, 2]), "its history is not a list of rows"),
    ),
    Row("checkpoint: its name", f"evaluate 'bad{ESCAPE}.pth'", nothing, r"no checkpoint bad\x1b[31m\n\u202e.pth."),
    Row("checkpoint: its name too long", f"evaluate {LONG}.pth", nothing, "There is no checkpoint xxx"),
    Row(
        "checkpoint: of other classes",
        "evaluate bad.pth --data-dir data",
        lambda: untrained(weights=small_network(classes=2).state_dict(), **CAT_AND_DOG).save(Path("bad.pth")),
        "The checkpoint knows 2 classes and the dataset has 100",
    ),
]


# Images


def as_jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(file, "JPEG")
    return file.getvalue()


def as_png(width: int = 300, height: int = 300) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).save(file, "PNG")
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A small valid PNG file whose header names this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


IMAGES = [
    *rows(
        "image",
        "predict bad.png --checkpoint good.pth",
        ("missing", nothing, "There is no image bad.png"),
        ("a folder", lambda: Path("bad.png").mkdir(), "bad.png is a folder, not an image"),
        ("empty", holds("bad.png", b""), "bad.png is not an image that can be read"),
        ("text", holds("bad.png", b"not an image at all\n" * 20), "bad.png is not an image that can be read"),
        ("JPEG cut short", holds("bad.png", cut(0.5)(as_jpeg())), "bad.png is damaged and cannot be decoded"),
        ("JPEG without its start", holds("bad.png", as_jpeg()[50:]), "bad.png is not an image that can be read"),
        ("PNG cut short", holds("bad.png", cut(0.5)(as_png())), "bad.png is damaged and cannot be decoded"),
        ("PNG of only a header", holds("bad.png", as_png()[:40]), "bad.png"),
        ("PNG without its pixels", holds("bad.png", png_that_claims(300, 300)), "bad.png is damaged and cannot be"),
        ("a bomb", holds("bad.png", png_that_claims(20_000, 20_000)), "bad.png has more pixels than any photo needs"),
        ("a smaller bomb", holds("bad.png", png_that_claims(10_000, 9_000)), "bad.png has more pixels than any photo"),
        ("no pixels", holds("bad.png", png_that_claims(0, 5)), "bad.png"),
        ("no pixels, PPM", holds("bad.png", b"P6 0 5 255\n"), "bad.png"),
        ("too long and thin", holds("bad.png", as_png(1, 5000)), "bad.png: …1x5000: too long and thin"),
        ("unreadable", lambda: unreadable(Path("bad.png")), "bad.png cannot be read (Input/output error)"),
        code=1,
    ),
    Row("image: its name", f"predict 'bad{ESCAPE}.png' --checkpoint good.pth", nothing, r"\x1b[31m\n\u202e.png", 1),
    Row(
        "image: its name, of text",
        f"predict 'bad{ESCAPE}.png' --checkpoint good.pth",
        holds(f"bad{ESCAPE}.png", "text"),
        r"bad\x1b[31m\n\u202e.png is not an image",
        1,
    ),
    Row("image: no address of the web", "predict ftp://127.0.0.1/a.png --checkpoint good.pth", nothing, "not ftp", 1),
    Row("image: its name too long", f"predict {LONG} --checkpoint good.pth", nothing, "cannot be read (File name", 1),
]


MODELS = [
    *rows(
        "ONNX",
        "predict photo.png --checkpoint bad.onnx",
        ("missing", nothing, "There is no model bad.onnx."),
        ("empty", holds("bad.onnx", b""), "bad.onnx is damaged, or not an ONNX file"),
        ("text", holds("bad.onnx", b"best_model\n"), "bad.onnx is damaged, or not an ONNX file"),
        ("zeros", holds("bad.onnx", bytes(10_000)), "bad.onnx is damaged, or not an ONNX file"),
    ),
    Row(
        "hub: no address", "predict photo.png --checkpoint hf://someone", nothing, "hf:/someone is no model on the hub"
    ),
    Row("hub: no place", "push model --checkpoint good.pth", nothing, "model is no place on the hub"),
    Row("export: missing", "export bad.pth --format onnx", nothing, "There is no checkpoint bad.pth."),
    Row("export: suffix", "export good.pth --format onnx --out a.pt", nothing, "--out a.pt: …ends in .onnx"),
    Row("export: no folder", "export good.pth --format pt2 --out a/b.pt2", nothing, "there is no folder a"),
    Row("export: no images", "export good.pth --format pt2 --images 0", nothing, "--images is 0; it must be 1 or more"),
]

TABLE = [*PICKLES, *BINARY, *PARQUET, *ARCHIVES, *DOWNLOADS, *FOLDERS, *FULL_DISK, *SETTINGS, *RESUME]
TABLE += [*CHECKPOINTS, *IMAGES, *MODELS]
