"""The table of invalid inputs for `test_bad_input.py`.

A row has a command, a corruption of the working directory, the expected error code and exit code, and what the message
must name. The working directory initially has data/, an interrupted run in logs/cifar100/, good.pth, photo.png and an
empty home/.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import torch
from conftest import untrained
from image_bytes import image_bytes, png_with_declared_size
from narrow_cifar100 import small_network
from PIL import Image
from pyarrow import parquet
from test_formats import cifar10_binary, cifar100_binary, cifar100_parquet, some

from cifar100.checkpoints.checkpoint import FORMAT, VERSION, load_checkpoint
from cifar100.dataset.classes import CLASSES, SUPERCLASSES

MAX_UNPACKED_BYTES = 1 << 22  # the limit of an archive in these tests
ESCAPE = "\x1b[31m\n\u202e"  # ANSI code for red, line feed, right-to-left override

Corrupt = Callable[[], object]


class Row(NamedTuple):
    """One invalid input."""

    name: str
    words: str
    """A command line with shell quoting; `NAME=value` before the subcommand sets an environment variable."""
    corrupt: Corrupt
    error: str
    """The error code; "" if there is none, as for errors of individual images."""
    names: str = ""
    """Text that the message must contain; if "", any word of the command line."""
    exit_code: int = 2


def rows(what: str, words: str, *cases: tuple[str, Corrupt, str], names: str = "", exit_code: int = 2) -> list[Row]:
    """Rows with the same command."""
    return [Row(f"{what}: {name}", words, corrupt, error, names, exit_code) for name, corrupt, error in cases]


# Corruptions


def nothing() -> None:
    """No corruption: the command line itself is invalid."""


def written(path: str, content: bytes | str) -> Corrupt:
    """Write or replace a file."""

    def corrupt() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return corrupt


def changed(path: str, change: Callable[[bytes], bytes]) -> Corrupt:
    return lambda: Path(path).write_bytes(change(Path(path).read_bytes()))


def deleted(path: str, then: Callable[[Path], object] = lambda _: None) -> Corrupt:
    """Delete a file, then call `then` with its path."""

    def corrupt() -> None:
        Path(path).unlink()
        then(Path(path))

    return corrupt


def unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # can be opened but not read, even by root


def too_large(path: str) -> Corrupt:
    return lambda: os.truncate(path, 1 << 31)  # a sparse file


def cut(part: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * part)]


def flip(place: float) -> Callable[[bytes], bytes]:
    """Flip one bit at a relative position in the content."""

    def flipped(content: bytes) -> bytes:
        i = int(len(content) * place)
        return content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]

    return flipped


# Datasets: pickles, binary, parquet


class Calls:
    """An object whose pickle calls `function` when loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def pickled(value: object) -> Callable[[str], Corrupt]:
    content = pickle.dumps(value, protocol=2)
    return lambda path: written(path, content)


def split_file(data: Any = None, labels: Any = (9, 4)) -> Corrupt:
    """Replace data/train by a pickle of these pixels and labels."""
    data = np.zeros((2, 3072), np.uint8) if data is None else data
    return pickled({b"data": data, b"fine_labels": list(labels)})("data/train")


DEEP = b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."
META = {"fine_label_names": list(CLASSES), "coarse_label_names": list(SUPERCLASSES)}

PICKLES = [
    *rows(
        "pickle",
        "data check data",
        ("code only", pickled(Calls(os.system, "touch pwned"))("data/train"), "dataset.empty"),
        ("code in meta", pickled(Calls(os.system, "touch pwned"))("data/meta"), "dataset.names"),
        ("empty", written("data/train", b""), "dataset.damaged"),
        ("text", written("data/train", "this is not a pickle\n"), "dataset.damaged"),
        ("truncated", changed("data/train", cut(0.9)), "dataset.damaged"),
        ("an unknown opcode", written("data/train", b"\x80\x02}\xff."), "dataset.damaged"),
        ("a length of gigabytes", written("data/train", b"\x80\x02X\xff\xff\xff\xff"), "dataset.damaged"),
        ("a memo of gigabytes", written("data/train", b"\x80\x02}r\xff\xff\xff\x7f."), "dataset.empty"),
        ("an integer of many digits", written("data/train", b"L" + b"9" * 100_000 + b"L\n."), "dataset.damaged"),
        ("deeply nested", written("data/train", DEEP), "dataset.empty"),
        ("floats", split_file(np.zeros((2, 3072), np.float32)), "dataset.labels"),
        ("too narrow", split_file(np.zeros((2, 3071), np.uint8)), "dataset.damaged"),
        ("no data", split_file([]), "dataset.damaged"),
        ("a label too large", split_file(labels=(9, 100)), "dataset.labels"),
        ("a huge label", split_file(labels=(9, 10**30)), "dataset.labels"),
        ("a negative label", split_file(labels=(-1, 4)), "dataset.labels"),
        ("too few labels", split_file(labels=(9,)), "dataset.labels"),
        ("labels of text", split_file(labels=("9", "4")), "dataset.labels"),
        ("no names", pickled({})("data/meta"), "dataset.names"),
        ("other names", pickled(META | {"fine_label_names": list(CLASSES[::-1])})("data/meta"), "dataset.names"),
        names="data/",
    ),
    *rows(
        "pickles",
        "data check data",
        ("a file is missing", deleted("data/meta"), "dataset.format"),
        ("a directory in place of a file", deleted("data/meta", Path.mkdir), "dataset.format"),
        ("a recursive symlink", deleted("data/meta", lambda path: path.symlink_to(path.name)), "dataset.format"),
        ("unreadable", deleted("data/test", unreadable), "dataset.unreadable"),
        ("too large", too_large("data/test"), "dataset.unreadable"),
        names="data",
    ),
    Row("pickles: train", "train --data-dir data", written("data/train", b""), "dataset.damaged", "data/train"),
    Row(
        "pickles: evaluate",
        "evaluate good.pth --data-dir data",
        written("data/test", b""),
        "dataset.damaged",
        "data/test",
    ),
    Row("pickles: preview", "data preview --data-dir data", written("data/test", b""), "dataset.damaged", "data/test"),
]


def other(write: Callable[..., None], classes: int, change: Corrupt) -> Corrupt:
    """Write six train and two test images in another format to other/, then apply `change`."""

    def corrupt() -> None:
        Path("other").mkdir()
        write(Path("other"), some(0, 6, classes), some(1, 2, classes))
        change()

    return corrupt


def binary(*cases: tuple[str, Corrupt, str]) -> list[Row]:
    made = [(name, other(cifar100_binary, 100, change), error) for name, change, error in cases]
    return rows("binary", "data check other", *made, names="other")


def binary_cifar10(*cases: tuple[str, Corrupt, str]) -> list[Row]:
    made = [(name, other(cifar10_binary, 10, change), error) for name, change, error in cases]
    return rows("binary CIFAR-10", "data check other", *made, names="other")


NAMES = "other/fine_label_names.txt"

BINARY = [
    *binary(
        ("truncated", changed("other/test.bin", cut(0.9)), "dataset.damaged"),
        ("an extra byte", changed("other/test.bin", lambda c: c + b"x"), "dataset.damaged"),
        ("empty", written("other/train.bin", b""), "dataset.empty"),
        ("label too large", changed("other/test.bin", lambda c: b"\0\x64" + c[2:]), "dataset.labels"),
        ("other names", changed(NAMES, lambda c: c.replace(b"apple", b"pear")), "dataset.names"),
        ("names that are not text", written(NAMES, bytes(range(256))), "dataset.names"),
        ("a file is missing", deleted("other/test.bin"), "dataset.format"),
        ("unreadable", deleted("other/test.bin", unreadable), "dataset.unreadable"),
        ("too large", too_large("other/train.bin"), "dataset.unreadable"),
    ),
    *binary_cifar10(
        (
            "truncated by one byte",
            changed("other/data_batch_3.bin", lambda c: c[:-1]),
            "dataset.damaged",
        ),
        ("label too large", changed("other/test_batch.bin", lambda c: b"\x0a" + c[1:]), "dataset.labels"),
        ("other names", written("other/batches.meta.txt", "cat\ndog\n"), "dataset.names"),
        ("a file is missing", deleted("other/data_batch_5.bin"), "dataset.format"),
    ),
]

TEST = "other/test-00000-of-00002.parquet"


def columns(path: str = TEST, /, **table: Any) -> Corrupt:
    return lambda: parquet.write_table(pyarrow.table(table), path)


def parquets(*cases: tuple[str, Corrupt, str]) -> list[Row]:
    made = [(name, other(cifar100_parquet, 100, change), error) for name, change, error in cases]
    return rows("parquet", "data check other", *made, names="other")


IMAGE = image_bytes(Image.new("RGB", (32, 32)))
ONE = [{"bytes": IMAGE}]
NONE = pyarrow.array([], pyarrow.struct({"bytes": pyarrow.binary()}))
HUGE = pyarrow.array([2**64 - 1], pyarrow.uint64())

PARQUET = parquets(
    ("no images", columns(image=[1], fine_label=[0]), "dataset.columns"),
    ("no labels", columns(img=ONE), "dataset.columns"),
    ("no columns", columns(), "dataset.columns"),
    ("a column with escape codes", columns(**{ESCAPE: [1]}), "dataset.columns"),
    ("text for images", columns(img=["text"], fine_label=[0]), "dataset.damaged"),
    ("images with other fields", columns(img=[{"file": b"x"}], fine_label=[0]), "dataset.damaged"),
    ("a row without bytes", columns(img=[{"bytes": None}], fine_label=[0]), "dataset.damaged"),
    ("a row without image", columns(img=[None, *ONE], fine_label=[0, 1]), "dataset.damaged"),
    ("text for bytes", columns(img=[{"bytes": "text"}], fine_label=[0]), "dataset.damaged"),
    ("bytes that are not an image", columns(img=[{"bytes": b"no png"}], fine_label=[0]), "dataset.damaged"),
    ("a truncated image", columns(img=[{"bytes": IMAGE[:50]}], fine_label=[0]), "dataset.damaged"),
    (
        "an image too wide",
        columns(img=[{"bytes": image_bytes(Image.new("RGB", (64, 32)))}], fine_label=[0]),
        "dataset.shape",
    ),
    ("label too large", columns(img=ONE, fine_label=[100]), "dataset.labels"),
    ("label huge", columns(img=ONE, fine_label=HUGE), "dataset.labels"),
    ("label negative", columns(img=ONE, fine_label=[-1]), "dataset.labels"),
    ("label a fraction", columns(img=ONE, fine_label=[0.5]), "dataset.labels"),
    ("label missing", columns(img=ONE, fine_label=[None]), "dataset.labels"),
    ("label text", columns(img=ONE, fine_label=["apple"]), "dataset.labels"),
    ("label a list", columns(img=ONE, fine_label=[[1]]), "dataset.labels"),
    ("no rows", columns(img=NONE, fine_label=pyarrow.array([], "int64")), "dataset.empty"),
    ("test split of CIFAR-10", columns(img=ONE, label=[3]), "dataset.mixed"),
    ("CIFAR-10 and CIFAR-100", columns("other/train-9.parquet", img=ONE, label=[3]), "dataset.mixed"),
    ("truncated", changed(TEST, cut(0.5)), "dataset.damaged"),
    ("truncated by one byte", changed(TEST, lambda c: c[:-1]), "dataset.damaged"),
    ("empty", written(TEST, b""), "dataset.damaged"),
    ("text", written(TEST, "img,fine_label\n"), "dataset.damaged"),
    ("a directory in place of a file", deleted(TEST, Path.mkdir), "dataset.unreadable"),
    ("a recursive symlink", deleted(TEST, lambda path: path.symlink_to(path.name)), "dataset.unreadable"),
    ("unreadable", deleted(TEST, unreadable), "dataset.unreadable"),
    ("too large", too_large(TEST), "dataset.unreadable"),
    ("a file is missing", deleted(TEST), "dataset.format"),
)


# Archives

PIXELS = bytes(3074)
INSIDE = "cifar-100-binary/train.bin"


def member(name: str, content: bytes = b"", **expected: Any) -> bytes:
    """A member of a tar archive; `expected` overrides fields of its header."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in expected.items():
        setattr(header, field, value)
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tarred(*more: bytes, folder: str = "cifar-100-binary", without: str = "") -> bytes:
    """The binary version of CIFAR-100 as a tar archive, without the file `without` and with additional members."""
    files = {"train.bin": PIXELS, "test.bin": PIXELS, "fine_label_names.txt": "\n".join(CLASSES).encode()}
    valid = [member(f"{folder}/{name}", content) for name, content in files.items() if name != without]
    return b"".join([*valid, *more, bytes(1024)])


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def with_replaced_member(content: bytes = b"", **expected: Any) -> bytes:
    """An archive with a replaced member."""
    return zipped(tarred(member(INSIDE, content, **expected), without="train.bin"))


def with_extra_member(content: bytes = b"", **expected: Any) -> bytes:
    """An archive with an additional member."""
    return zipped(tarred(member("more", content, **expected)))


def archives(what: str, *cases: tuple[str, bytes, str]) -> list[Row]:
    made = [(name, written("x.tar.gz", content), error) for name, content, error in cases]
    return rows(what, "data check x.tar.gz", *made)


WHOLE = zipped(tarred())
CODE = [
    member(f"cifar-100-python/{name}", pickle.dumps(Calls(os.system, "touch pwned"), protocol=2))
    for name in ("meta", "train", "test")
]
BOMB = bytes(8 * MAX_UNPACKED_BYTES)

BOMBS = archives(
    "archive bomb",
    ("a huge file, declared", with_replaced_member(size=1 << 40), "archive.damaged"),
    ("a huge member, declared", with_extra_member(size=1 << 40), "archive.damaged"),
    ("a huge extended header, declared", with_extra_member(type=tarfile.XHDTYPE, size=1 << 33), "archive.damaged"),
    ("a huge file", with_replaced_member(BOMB), "archive.too_large"),
    ("a huge member", with_extra_member(BOMB), "archive.too_large"),
    ("huge trailing data", zipped(tarred() + BOMB), "archive.too_large"),
    ("many members", zipped(tarred(b"".join(member(str(number)) for number in range(1000)))), "archive.too_large"),
)

ARCHIVES = [
    *BOMBS,
    *archives(
        "archive",
        ("empty", b"", "dataset.format"),
        ("text", b"not an archive", "dataset.format"),
        ("an error page", b"<!DOCTYPE html><title>404</title>", "dataset.format"),
        ("a zip file", b"PK\x03\x04" + bytes(50), "archive.damaged"),
        ("text, compressed", zipped(b"not an archive" * 100), "archive.damaged"),
        ("nothing, compressed", zipped(b""), "archive.damaged"),
        ("truncated in the middle", cut(0.5)(WHOLE), "archive.damaged"),
        ("truncated in its header", WHOLE[:5], "archive.damaged"),
        ("truncated in its checksum", WHOLE[:-6], "archive.damaged"),
        ("wrong checksum", flip(0.9999)(WHOLE), "archive.damaged"),
        ("damaged", flip(0.5)(WHOLE), "archive.damaged"),
        ("trailing data", WHOLE + b"more", "archive.damaged"),
        ("tar truncated in a file", zipped(tarred()[:1000]), "archive.damaged"),
        ("tar truncated in a header", zipped(tarred()[:4200]), "dataset.format"),
        ("tar with a damaged header", zipped(flip(0.001)(tarred())), "archive.damaged"),
        ("no members", zipped(bytes(1024)), "dataset.format"),
        ("a file is missing", zipped(tarred(without="train.bin")), "dataset.format"),
        ("other files", zipped(tarred(folder="photos")), "dataset.format"),
        ("path traversal", zipped(tarred(folder="../cifar-100-binary")), "dataset.format"),
        ("absolute paths", zipped(tarred(folder="/cifar-100-binary")), "dataset.format"),
        ("a symbolic link", with_replaced_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "dataset.format"),
        ("a hard link", with_replaced_member(type=tarfile.LNKTYPE, linkname="/etc/passwd"), "dataset.format"),
        ("a device", with_replaced_member(type=tarfile.CHRTYPE, devmajor=1, devminor=5), "dataset.format"),
        ("a pipe", with_replaced_member(type=tarfile.FIFOTYPE), "dataset.format"),
        ("a directory in place of a file", with_replaced_member(type=tarfile.DIRTYPE), "dataset.format"),
        ("a sparse file", with_replaced_member(type=tarfile.GNUTYPE_SPARSE), "dataset.format"),
        ("a file twice", zipped(tarred(member(INSIDE, PIXELS))), "archive.duplicate"),
        ("a file twice, as ./", zipped(tarred(member(f"./{INSIDE}", PIXELS))), "archive.duplicate"),
        ("a negative size", with_replaced_member(size=-1), "archive.damaged"),
        ("a damaged file in it", with_replaced_member(PIXELS[1:]), "dataset.damaged"),
        ("a label out of range in it", with_replaced_member(b"\xff" * 3074), "dataset.labels"),
        ("code in it", zipped(tarred(*CODE)), "dataset.names"),
    ),
    *rows(
        "archive in a folder",
        "data check some",
        ("damaged", written("some/cifar-10-python.tar.gz", b"x"), "dataset.format"),
        ("a folder", lambda: Path("some/cifar-10-python.tar.gz").mkdir(parents=True), "dataset.format"),
        ("another name", written("some/photos.tar.gz", WHOLE), "dataset.format"),
    ),
    Row("archive: train", "train --data-dir x.tar.gz", written("x.tar.gz", WHOLE[:-6]), "archive.damaged"),
]


# Downloads, folders, disks


def on_mirror(content: bytes) -> Corrupt:
    """Make the mirror serve this content as the archive."""
    return written("home/cifar-100-python.tar.gz", content)


DOWNLOADS = [
    *rows(
        "download",
        "data download --to new",
        ("no network", nothing, "download.failed"),
        ("wrong MD5", on_mirror(WHOLE), "download.failed"),
        ("an empty file", on_mirror(b""), "download.failed"),
        names="home",
    ),
    *rows(
        "download",
        "data download --to new",
        ("another dataset exists", lambda: shutil.copytree("data", "new"), "download.other_dataset"),
        ("a file exists", written("new", "mine"), "download.unwritable"),
        ("a damaged archive exists", written("new/cifar-100-python.tar.gz", WHOLE[:-6]), "archive.damaged"),
    ),
    Row("download: below a file", "data download --to photo.png/data", nothing, "download.unwritable"),
    Row("download: invalid URL", "HF_ENDPOINT=nonsense data download --to new", nothing, "download.failed", "home"),
    Row(
        "download: to train",
        "train",
        lambda: shutil.rmtree("data"),
        "download.failed",
        "home",
    ),
]

LONG = "x" * 300

FOLDERS = [
    *(
        Row(f"data: {words[:50]}", words, nothing, error, words.partition(" ")[0].partition("=")[2])
        for words, error in [
            ("train --data-dir missing", "dataset.not_found"),
            ("CIFAR100_DATA_DIR=missing train", "dataset.not_found"),
            ("CIFAR100_DATA_DIR=home data check", "dataset.format"),
            ("train --data-dir missing.tar.gz", "dataset.not_found"),
            ("train --data-dir ~nobody-of-this-name/data", "dataset.not_found"),
            (f"data check 'missing{ESCAPE}'", "dataset.not_found"),
            (f"data check {LONG}", "dataset.not_found"),
            ("data check photo.png/data", "dataset.not_found"),
            ("data check /dev/zero", "dataset.not_found"),
            ("data check photo.png", "dataset.format"),
            ("train --data-dir home", "dataset.format"),
            ("data samples --data-dir home", "dataset.format"),
        ]
    ),
    *(
        Row(f"run folder: {folder[:9]}", f"train --data-dir data --run-dir {folder}", corrupt, error)
        for folder, corrupt, error in [
            ("photo.png", nothing, "run_dir.write"),
            ("photo.png/run", nothing, "run_dir.write"),
            ("/proc/run", nothing, "run_dir.write"),
            (LONG, nothing, "run_dir.write"),
            (".", nothing, "config.run_dir"),
            ("mine", written("mine/config.json", "{}"), "run_dir.foreign"),
        ]
    ),
    *(
        Row(f"results: {words}", words, nothing, error, exit_code=code)
        for words, error, code in [
            ("data samples photo.png --data-dir data --count 1", "data.write", 2),
            ("data preview --data-dir data --out missing/x.png", "output.directory", 2),
            ("data preview --data-dir data --out home", "output.is_directory", 2),
            ("evaluate good.pth --data-dir data --json missing/x", "output.directory", 2),
            ("evaluate good.pth --data-dir data --json home", "output.is_directory", 2),
        ]
    ),
]

FULL_DISK = [
    Row(f"full disk: {words}", words, nothing, "output.write", path, 1)
    for words, path in [
        ("evaluate good.pth --data-dir data --json x.json", "x.json"),
        ("data preview --data-dir data --out x.png", "x.png"),
        ("data samples new --data-dir data --count 1", "new/worm_0.png"),
    ]
]


# Settings

SETTINGS = [
    Row(f"setting: {words}", words, nothing, error)
    for words, error in [
        ("train --val-fraction 1.0", "config.val_fraction"),
        ("train --data-dir data --val-fraction 0.01", "config.val_fraction"),
        ("train --crop-padding -1", "config.crop_padding"),
        ("train --cutout-size -1", "config.cutout_size"),
        ("train --data-dir data --cutout-size 40", "config.cutout_size"),
        ("train --flip-probability 1.5", "config.flip_probability"),
        ("train --cutout-probability nan", "config.cutout_probability"),
        ("train --std 0.2 0 0.2", "config.std"),
        ("train --mean nan 0 0", "config.mean"),
        ("train --mean 129.3 124.1 112.4", "config.mean"),
        ("train --std 68.2 65.4 70.4", "config.std"),
        ("train --epochs 0", "config.epochs"),
        ("train --batch-size 0", "config.batch_size"),
        ("train --lr 0", "config.lr"),
        ("train --image-size 15", "config.image_size"),
        ("train --image-size 1025", "config.image_size"),
        ("train --data-dir data --image-size 48", "dataset.image_size"),
        ("train --test-fraction 0", "config.test_fraction"),
        ("train --test-fraction 1", "config.test_fraction"),
        ("train --split-seed -1", "config.split_seed"),
        ("train --alternating-flip --pipeline albumentations", "config.alternating_flip"),
        ("train --policy trivial --pipeline albumentations", "config.policy"),
        ("train --rand-ops 0", "config.rand_ops"),
        ("train --rand-magnitude 31", "config.rand_magnitude"),
        ("train --rand-magnitude -1", "config.rand_magnitude"),
        ("train --muon-lr 0", "config.muon_lr"),
        ("train --train-sizes 16 4", "config.train_sizes"),
        ("train --lr inf", "config.lr"),
        ("train --mixup-probability 0.6 --cutmix-probability 0.5", "config.cutmix_probability"),
        ("train --cutmix-alpha 0", "config.cutmix_alpha"),
        ("train --ema-decay 1", "config.ema_decay"),
        ("train --momentum 1", "config.momentum"),
        ("train --momentum 0", "config.nesterov"),
        ("train --weight-decay -1e-4", "config.weight_decay"),
        ("train --warmup-epochs -1", "config.warmup_epochs"),
        ("train --label-smoothing 1", "config.label_smoothing"),
        ("train --seed -1", "config.seed"),
        ("train --num-workers -1", "config.num_workers"),
        ("train --eval-every 0", "config.eval_every"),
        ("train --checkpoint-every -1", "config.checkpoint_every"),
        ("train --save-seconds -1", "config.save_seconds"),
        ("train --stop-after -1", "config.stop_after"),
        ("train --device cpu --precision fp16", "device.precision"),
        ("data preview --batch-size 0", "config.batch_size"),
        ("data samples --data-dir data --count 0", "data.count"),
        ("data samples --data-dir data --count 2", "data.count"),
        ("model --num-classes 0", "config.value"),
        ("model --image-size 0", "config.value"),
        ("predict photo.png --checkpoint good.pth --batch-size 0", "predict.batch_size"),
        ("predict photo.png --checkpoint good.pth --json --csv", "predict.format"),
        ("predict photo.png --checkpoint good.pth --montage no/m.png", "output.directory"),
        ("predict photo.png --checkpoint good.pth --explain data", "output.is_directory"),
        ("app --port 0", "app.port"),
        ("robustness good.pth --data-dir data --limit 0", "robustness.limit"),
        ("compare home", "compare.no_run"),
    ]
]
SETTINGS.append(Row("setting: predict", "predict", nothing, "predict.no_images", "image"))
SETTINGS.append(
    Row(
        "setting: predict photo.png --checkpoint good.pth --top-k 0",
        "predict photo.png --checkpoint good.pth --top-k 0",
        nothing,
        "predict.top_k",
        "top_k",
    )
)
SETTINGS.append(
    Row(
        "setting: evaluate good.pth --data-dir data --split val",
        "evaluate good.pth --data-dir data --split val",
        nothing,
        "evaluate.split",
        "'val'",
    )
)
SETTINGS.append(Row("setting: fly", "fly", nothing, "cli.command", "fly"))
SETTINGS.append(Row("setting: data gett", "data gett", nothing, "cli.command", "data get"))
SETTINGS.append(Row("setting: predct", "predct", nothing, "cli.command", "'predict'"))

CONFIG, LAST, LOGS = "logs/cifar100/config.json", "logs/cifar100/last.pth", "logs/cifar100"


def setting(name: str, value: object) -> Corrupt:
    """Change a setting in the config.json of the run."""

    def change(content: bytes) -> bytes:
        saved = json.loads(content)
        return json.dumps(saved | {"settings": saved["settings"] | {name: value}}).encode()

    return changed(CONFIG, change)


def last(field: str, change: Callable[[Any], Any]) -> Corrupt:
    """Change a field of last.pth of the run."""

    def corrupt() -> None:
        checkpoint = load_checkpoint(LAST)
        setattr(checkpoint, field, change(getattr(checkpoint, field)))
        checkpoint.save(Path(LAST))

    return corrupt


def only(field: str, change: Callable[[Any], Any]) -> Corrupt:
    """Like `last`, and delete the other checkpoint."""

    def corrupt() -> None:
        last(field, change)()
        Path(LOGS, "best_model.pth").unlink()

    return corrupt


def momentum(value: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda kept: kept | {"state": {number: {"momentum_buffer": value} for number in kept["state"]}}


def damage_all_checkpoints() -> None:
    for path in Path(LOGS).glob("*.pth"):
        path.write_bytes(path.read_bytes()[:1000])


RESUME = rows(
    "resume",
    "train --resume --data-dir data",
    *(
        (f"config.json {name}", corrupt, error)
        for name, corrupt, error in [
            ("truncated", changed(CONFIG, cut(0.5)), "resume.config"),
            ("empty", written(CONFIG, b""), "resume.config"),
            ("not text", written(CONFIG, b"\xff\xfe\0"), "resume.config"),
            ("a list", written(CONFIG, "[]"), "resume.config"),
            ("without settings", written(CONFIG, "{}"), "resume.config"),
            ("deeply nested", written(CONFIG, "[" * 100_000), "resume.config"),
            ("a recipe of lists", written(CONFIG, '{"settings": {}, "recipe": [[]]}'), "resume.config"),
            ("settings a list", written(CONFIG, '{"recipe": "fast", "settings": [1]}'), "resume.config"),
            ("an unknown setting", setting("colour", "red"), "resume.config"),
            ("escape codes", setting(ESCAPE, 1), "resume.config"),
            ("out of range", setting("epochs", -1), "resume.config"),
            ("text for a number", setting("epochs", "many"), "resume.config"),
            ("a list for a name", setting("model", ["resnet18"]), "resume.config"),
            ("null for a number", setting("lr", None), "resume.config"),
            ("a number for a path", setting("run_dir", 5), "resume.config"),
        ]
    ),
    ("no run", lambda: shutil.rmtree(LOGS), "resume.no_checkpoint"),
    ("all checkpoints are damaged", damage_all_checkpoints, "resume.no_checkpoint"),
    ("weights only", lambda: shutil.copy("good.pth", LAST), "resume.weights_only"),
    ("weights of another shape", only("weights", lambda w: w | {"fc.bias": torch.zeros(3)}), "resume.no_checkpoint"),
    (
        "weights not finite",
        only("weights", lambda w: w | {"fc.bias": torch.full((100,), torch.nan)}),
        "resume.no_checkpoint",
    ),
    ("rows that are numbers", only("history", lambda _: [1, 2]), "resume.no_checkpoint"),
    ("a huge tensor", only("weights", lambda w: w | {"a": torch.zeros(1).expand(10**11)}), "resume.no_checkpoint"),
    ("unknown settings", last("config", lambda _: {"colour": "red"}), "config.unknown"),
    *(
        (f"a checkpoint with {name}", corrupt, "resume.state")
        for name, corrupt in [
            ("an unknown field of the loop", last("loop", lambda loop: loop | {"colour": 1})),
            ("an epoch that is text", last("loop", lambda loop: loop | {"epoch": "one"})),
            ("a negative epoch", last("loop", lambda loop: loop | {"epoch": -3})),
            ("steps without images", last("loop", lambda loop: loop | {"step": 5, "seen": 0})),
            ("a fractional epoch", last("loop", lambda loop: loop | {"epoch": 0.5})),
            ("an epoch that is True", last("loop", lambda loop: loop | {"epoch": True})),
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
        (f"an optimizer with {name}", last("optimizer", change), "resume.optimizer")
        for name, change in [
            ("unknown fields", lambda _: {"colour": 1}),
            ("other groups", lambda _: {"state": {}, "param_groups": []}),
            ("other shapes", momentum(torch.zeros(3))),
            ("text as momentum", momentum("x")),
            ("nonfinite values", momentum(torch.full((8,), torch.nan))),
            ("a huge tensor", momentum(torch.zeros(1).expand(10**11))),
            ("unknown parameters", lambda kept: kept | {"state": {10**6: {}}}),
        ]
    ),
    names=LOGS,
)
RESUME += [
    Row("resume: other settings", "train --resume --data-dir data", setting("lr", 0.5), "resume.settings", "--lr"),
    Row(
        "resume: other images",
        "train --resume --data-dir data",
        last("dataset", lambda info: replace(info, fingerprint="another")),
        "resume.dataset",
        "--resume",
    ),
]
RESUME += rows(
    "resume",
    "train --resume --data-dir data",
    (
        "an unwritable log",
        lambda: Path(f"{LOGS}/training_log_9.txt").mkdir(),
        "log.write",
    ),
    names=LOGS,
    exit_code=1,
)


# Checkpoints

OURS = {"format": FORMAT, "version": VERSION}


def with_torch(content: Any, **options: Any) -> Corrupt:
    return lambda: torch.save(content, "bad.pth", **options)


def good_but(change: Callable[[bytes], bytes]) -> Corrupt:
    """Write a damaged copy of good.pth to bad.pth."""
    return lambda: Path("bad.pth").write_bytes(change(Path("good.pth").read_bytes()))


def with_weights(**changes: torch.Tensor | None) -> Corrupt:
    """A checkpoint with tensors replaced, or removed if `None`; "__" in a keyword stands for "." in the name."""

    def corrupt() -> None:
        given = {name.replace("__", "."): tensor for name, tensor in changes.items()}
        weights = {name: it for name, it in (small_network().state_dict() | given).items() if it is not None}
        untrained(weights=weights).save(Path("bad.pth"))

    return corrupt


def with_extra_tensor() -> None:
    torch.save(small_network().state_dict() | {"layer1.0.se.weight": torch.zeros(1)}, "bad.pth")


def with_fields(**changes: Any) -> Corrupt:
    """A checkpoint with changed fields."""

    def corrupt() -> None:
        valid = load_checkpoint("good.pth")
        torch.save(OURS | valid.to_dict() | changes, "bad.pth")

    return corrupt


def without_field(name: str) -> Corrupt:
    """A checkpoint without a field."""

    def corrupt() -> None:
        content = OURS | load_checkpoint("good.pth").to_dict()
        del content[name]
        torch.save(content, "bad.pth")

    return corrupt


CAT_AND_DOG: dict[str, Any] = {"classes": ["cat", "dog"], "superclasses": [], "superclass_of": []}


def billion_laughs() -> list[Any]:
    """A "billion laughs" value: a few hundred bytes as a pickle, 10^10 strings when expanded."""
    value: list[Any] = ["lol"] * 10
    for _ in range(9):
        value = [value] * 10
    return value


def rewritten(change: Callable[[str, bytes], bytes]) -> None:
    """Rewrite the members of the good checkpoint by `change(name, content)`."""
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w") as bad:
        for part in good.infolist():
            bad.writestr(part.filename, change(part.filename, good.read(part)))


def tuples_of_tuples() -> None:
    """A key that takes 2^40 steps to hash."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(40))
    crafted = b"\x80\x02}(K\x01\x85q\x00" + pairs + b"K\x01u."
    rewritten(lambda name, content: crafted if name.endswith("data.pkl") else content)


def as_torchscript() -> None:
    """The members that identify a TorchScript file (`torch.jit.save` is deprecated and warns)."""
    with zipfile.ZipFile("bad.pth", "w") as bad:
        for part in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            bad.writestr(f"bad/{part}", b"")


def overlapping() -> None:
    """Many overlapping members, which would take long to verify."""
    with zipfile.ZipFile("bad.pth", "w") as bad:
        bad.writestr("archive/data.pkl", bytes(100_000))
        bad.filelist *= 1000


def escaping_member() -> None:
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w") as bad:
        for part in good.infolist():
            bad.writestr(part.filename, good.read(part))
        bad.writestr(f"archive/{ESCAPE}", b"marker")
    content = Path("bad.pth").read_bytes()
    Path("bad.pth").write_bytes(content.replace(b"marker", b"harker", 1))


def compressed() -> None:
    """A compressed checkpoint, which could unpack to an arbitrary size."""
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("bad.pth", "w", zipfile.ZIP_DEFLATED) as bad:
        for part in good.infolist():
            bad.writestr(part.filename, good.read(part))


HOSTILE = Calls(os.system, "touch pwned")

CHECKPOINTS = [
    *rows(
        "checkpoint",
        "predict photo.png --checkpoint bad.pth",
        ("missing", nothing, "checkpoint.missing"),
        ("a folder", lambda: Path("bad.pth").mkdir(), "checkpoint.missing"),
        *(
            (name, written("bad.pth", content), "checkpoint.format")
            for name, content in [
                ("empty", b""),
                ("an error page", b"<!DOCTYPE html><title>404</title>"),
                ("a pickle with code", pickle.dumps(HOSTILE)),
            ]
        ),
        *(
            (name, good_but(change), error)
            for name, change, error in [
                ("truncated in the middle", cut(0.5), "checkpoint.damaged"),
                ("without its start", lambda content: content[5000:], "checkpoint.format"),
                ("with a bit flipped", flip(0.5), "checkpoint.damaged"),
            ]
        ),
        ("compressed", compressed, "checkpoint.compressed"),
        ("code", with_torch(HOSTILE), "checkpoint.objects"),
        ("code, legacy format", with_torch(HOSTILE, _use_new_zipfile_serialization=False), "checkpoint.objects"),
        ("code for a size", with_torch(OURS | {"config": Calls(bytearray, 10**12)}), "checkpoint.objects"),
        ("a whole model", with_torch(small_network()), "checkpoint.objects"),
        ("a TorchScript program", as_torchscript, "checkpoint.program"),
        ("tuples of tuples", tuples_of_tuples, "checkpoint.damaged"),
        ("overlapping members", overlapping, "checkpoint.damaged"),
        ("a member name with escape codes", escaping_member, "checkpoint.damaged"),
        ("a list", with_torch([1, 2, 3]), "checkpoint.content"),
        ("keys that are not text", with_torch({1: torch.zeros(3)}), "checkpoint.content"),
        ("a list for weights", with_torch({"state_dict": [1, 2]}), "checkpoint.content"),
        ("another network", with_torch({"encoder.weight": torch.zeros(3, 3)}), "checkpoint.content"),
        ("only a head with another name", with_torch({"linear.weight": torch.zeros(3, 3)}), "checkpoint.weights"),
        ("a scalar head", with_torch({"fc.weight": torch.tensor(1.0)}), "checkpoint.content"),
        (
            "too many classes",
            with_torch({"fc.weight": torch.zeros(1).expand(10**9, 1)}),
            "checkpoint.content",
        ),
        (
            "only our format field",
            with_torch({"format": FORMAT}),
            "checkpoint.version",
        ),
        ("only our format and version", with_torch(OURS), "checkpoint.field"),
        ("a version of lists", with_torch(OURS | {"version": billion_laughs()}), "checkpoint.version"),
        ("a later version", with_torch(OURS | {"version": 99}), "checkpoint.version"),
        ("a head of other classes", with_weights(fc__bias=torch.zeros(8)), "checkpoint.weights"),
        ("a missing tensor", with_weights(layer4__0__bn2__weight=None), "checkpoint.weights"),
        ("a tensor name with escape codes", with_weights(**{f"a{ESCAPE}": torch.zeros(1)}), "checkpoint.weights"),
        ("a bare state dict with an extra tensor", with_extra_tensor, "checkpoint.weights"),
        (
            "a NaN",
            with_weights(fc__bias=torch.full((100,), torch.nan)),
            "checkpoint.values",
        ),
        ("infinity", with_weights(fc__bias=torch.full((100,), torch.inf)), "checkpoint.values"),
        (
            "values that overflow in fp32",
            with_weights(fc__bias=torch.full((100,), 1e300, dtype=torch.float64)),
            "checkpoint.values",
        ),
        ("negative variances", with_weights(bn1__running_var=torch.full((8,), -1.0)), "checkpoint.values"),
        ("complex weights", with_weights(fc__bias=torch.zeros(100, dtype=torch.complex64)), "checkpoint.values"),
        ("8-bit weights", with_weights(fc__bias=torch.zeros(100).to(torch.float8_e4m3fn)), "checkpoint.values"),
        ("weights on the meta device", with_weights(fc__bias=torch.zeros(100, device="meta")), "checkpoint.objects"),
        ("sparse weights", with_weights(fc__bias=torch.zeros(100).to_sparse()), "checkpoint.objects"),
        ("a huge extra tensor", with_weights(extra=torch.zeros(1).expand(10**11)), "checkpoint.weights"),
        *[
            (f"no {name}", without_field(name), "checkpoint.field")
            for name in ("weights", "model", "classes", "mean", "std")
        ],
        ("weights a list", with_fields(weights=[1, 2]), "checkpoint.field"),
        ("weights that are not tensors", with_fields(weights={"fc.weight": 1}), "checkpoint.field"),
        ("weights with integer keys", with_fields(weights={1: torch.zeros(1)}), "checkpoint.field"),
        ("an unknown network", with_fields(model=f"resnet50{ESCAPE}"), "model.unknown"),
        ("too many class names", with_fields(classes=["a"] * 100_001), "checkpoint.field"),
        ("a long name", with_fields(classes=["a" * 10_001]), "checkpoint.field"),
        ("lists of lists", with_fields(config={"val_fraction": billion_laughs()}), "checkpoint.field"),
        ("a set", with_fields(config={"lr": {1}}), "checkpoint.field"),
        ("a tensor for a setting", with_fields(config={"lr": torch.zeros(1)}), "checkpoint.field"),
        ("a number for a name", with_fields(config={1: 2}), "checkpoint.field"),
        ("a huge number", with_fields(config={"lr": 10**400}), "checkpoint.field"),
        ("superclasses of fewer classes", with_fields(superclass_of=[0]), "checkpoint.field"),
        ("no such superclass", with_fields(superclass_of=[99] * 100), "checkpoint.field"),
        ("superclasses numbers", with_fields(superclasses=[1] * 20), "checkpoint.field"),
        ("an evaluation of text", with_fields(evaluation={"images": "many"}), "checkpoint.field"),
        ("figures of text", with_fields(metrics={"top1": "x"}), "checkpoint.field"),
        (
            "a temperature of True",
            with_fields(calibration={"temperature": True}),
            "checkpoint.field",
        ),
        ("a network that is a list", with_fields(model=["resnet18"]), "checkpoint.field"),
        ("classes empty", with_fields(classes=[]), "checkpoint.field"),
        ("classes a number", with_fields(classes=7), "checkpoint.field"),
        ("classes numbers", with_fields(classes=[1, 2, 3]), "checkpoint.field"),
        ("image size 0", with_fields(image_size=0), "checkpoint.field"),
        ("image size True", with_fields(image_size=True), "checkpoint.field"),
        ("mean of two channels", with_fields(mean=[0.1, 0.2]), "checkpoint.field"),
        ("mean NaN", with_fields(mean=[float("nan")] * 3), "checkpoint.field"),
        ("std near 0", with_fields(std=[1e-45] * 3), "checkpoint.field"),
        ("a dataset of text", with_fields(dataset="CIFAR-100 (verified)"), "checkpoint.field"),
        ("a dataset of lists", with_fields(dataset={"name": ["CIFAR-100"]}), "checkpoint.field"),
        ("a negative number of images", with_fields(dataset={"num_train": -1}), "checkpoint.field"),
        ("a number of images that is True", with_fields(dataset={"num_train": True}), "checkpoint.field"),
        ("history of numbers", with_fields(history=[1, 2]), "checkpoint.field"),
        names="bad.pth",
    ),
    Row(
        "checkpoint: weights that overflow in the forward pass",
        "predict photo.png --checkpoint bad.pth",
        with_weights(fc__weight=torch.full((100, 64), 3e38)),
        "model.output",
        "output",
    ),
    Row("checkpoint: a name with escape codes", f"evaluate 'bad{ESCAPE}.pth'", nothing, "checkpoint.missing"),
    Row("checkpoint: a too long name", f"evaluate {LONG}.pth", nothing, "checkpoint.missing"),
    Row(
        "checkpoint: of other classes",
        "evaluate bad.pth --data-dir data",
        lambda: untrained(weights=small_network(num_classes=2).state_dict(), **CAT_AND_DOG).save(Path("bad.pth")),
        "evaluate.classes",
        "2 classes",
    ),
]


# Images


NOISE = Image.effect_noise((300, 300), 50)
IMAGES = [
    *rows(
        "image",
        "predict bad.png --checkpoint good.pth",
        ("missing", nothing, ""),
        ("a folder", lambda: Path("bad.png").mkdir(), ""),
        ("empty", written("bad.png", b""), ""),
        ("truncated JPEG", written("bad.png", cut(0.5)(image_bytes(NOISE, "JPEG"))), ""),
        ("truncated PNG", written("bad.png", cut(0.5)(image_bytes(NOISE))), ""),
        ("PNG without its pixels", written("bad.png", png_with_declared_size(300, 300)), ""),
        ("a decompression bomb", written("bad.png", png_with_declared_size(20_000, 20_000)), ""),
        ("a smaller decompression bomb", written("bad.png", png_with_declared_size(10_000, 9_000)), ""),
        ("no pixels", written("bad.png", png_with_declared_size(0, 5)), ""),
        ("too long and thin", written("bad.png", image_bytes(Image.effect_noise((1, 5000), 50))), ""),
        ("unreadable", lambda: unreadable(Path("bad.png")), ""),
        names="bad.png",
        exit_code=1,
    ),
    Row(
        "image: a name with escape codes", f"predict 'bad{ESCAPE}.png' --checkpoint good.pth", nothing, "", exit_code=1
    ),
    Row(
        "image: text with escape codes in its name",
        f"predict 'bad{ESCAPE}.png' --checkpoint good.pth",
        written(f"bad{ESCAPE}.png", "text"),
        "",
        exit_code=1,
    ),
    Row("image: an unsupported URL", "predict ftp://127.0.0.1/a.png --checkpoint good.pth", nothing, "", exit_code=1),
    Row("image: a too long name", f"predict {LONG} --checkpoint good.pth", nothing, "", exit_code=1),
]


MODELS = [
    Row("ONNX: empty", "predict photo.png --checkpoint bad.onnx", written("bad.onnx", b""), "onnx.format"),
    Row("hub: invalid address", "predict photo.png --checkpoint hf://someone", nothing, "hub.address", "someone"),
    Row("export: missing", "export bad.pth --format onnx", nothing, "checkpoint.missing"),
    Row("export: suffix", "export good.pth --format onnx --out a.pt", nothing, "export.suffix"),
    Row("export: no folder", "export good.pth --format pt2 --out a/b.pt2", nothing, "output.directory"),
    Row("export: no images", "export good.pth --format pt2 --images 0", nothing, "export.images"),
]

TABLE = [*PICKLES, *BINARY, *PARQUET, *ARCHIVES, *DOWNLOADS, *FOLDERS, *FULL_DISK, *SETTINGS, *RESUME]
TABLE += [*CHECKPOINTS, *IMAGES, *MODELS]

WORDING = {
    "pickle: too few labels": "data/train: There are 2 images but 1 labels",
    "parquet: a column with escape codes": r"it has \x1b[31m\n\u202e.",
    "archive: a file twice": f"x.tar.gz contains {INSIDE} twice",
    "download: wrong MD5": "not eb9058c3a382ffc7106e4002c42a8d85, and was deleted",
    "data: train --data-dir missing": "--data-dir is missing, which does not exist",
    "setting: train --momentum 1": "--momentum is 1.0; it must be at least 0 and below 1",
    "setting: fly": "There is no command 'fly'; cifar100 --help lists the commands.",
    "checkpoint: a tensor name with escape codes": r"a\x1b[31m\n\u202e is (1,)",
    "image: a name with escape codes": r"\x1b[31m\n\u202e.png",
    "full disk: data preview --data-dir data --out x.png": "x.png could not be written (File too large)",
}
"""Parts of the messages of a few rows; the wording of other messages is not tested."""
