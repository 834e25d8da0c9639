"""Fuzzers: any file is read or refused with one message, within limits of time and memory.

Each runs with a fixed seed for its share of FUZZ_SECONDS (10 in total; `make fuzz` takes 600). A failure reports the
number of the case, which the same FUZZ_SEED reproduces, and keeps the file.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import random
import resource
import shutil
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import random_checkpoint
from image_bytes import image_bytes
from mutations import (
    mutated_bytes,
    mutated_tree,
    strange_object,
    strange_value,
    with_damaged_member,
    with_png_checksums,
)
from PIL import Image
from test_formats import cifar10_parquet, cifar100_binary, cifar100_pickles, some

from cifar100.checkpoints.checkpoint import FORMAT, VERSION
from cifar100.checkpoints.model_card import model_card
from cifar100.checkpoints.weights import load_weights
from cifar100.dataset import read
from cifar100.images.convert import to_model_input
from cifar100.inference import load_predictor
from cifar100.support.errors import RunFailed, UserError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
SEED = os.environ.get("FUZZ_SEED", "0")
MAX_CPU_SECONDS = 10
MAX_MEMORY = 1 << 30
HANG_SECONDS = 120

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

Make = Callable[[random.Random], None]


class Fuzzer(NamedTuple):
    """Functions that write a damaged file and read it."""

    make: Make
    read: Callable[[], object]
    file: Path


def peak_memory() -> int:
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def predict_with(path: Path) -> None:
    """Everything that is done with an untrusted model."""
    predictor = load_predictor(path)
    next(predictor.classify([IMAGE], explain=True))
    if path.suffix != ".onnx":
        model_card(load_weights(path), "someone/model")


def checkpoints(folder: Path) -> Fuzzer:
    """Damage .pth files, also in the legacy format: their bytes, members, and the values in them."""
    history = [{"epoch": 1, "top1": 0.5, "split": "test"}]
    whole = random_checkpoint(history=history, loop={"epoch": 1}, optimizer={"state": {}, "param_groups": []})
    content = {"format": FORMAT, "version": VERSION} | whole.to_dict()
    bare = {"state_dict": {f"module.{name}": tensor for name, tensor in whole.weights.items()}, "epoch": 3}
    path, files = folder / "model.pth", []
    for saved in (content, bare):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(saved, buffer, _use_new_zipfile_serialization=zipped)
            files.append(buffer.getvalue())

    def make(rng: random.Random) -> None:
        if rng.random() < 0.5:
            crafted = mutated_tree(rng.choice([content, content, bare]), rng, strange_object)
            torch.save(crafted, path, _use_new_zipfile_serialization=rng.random() < 0.8)
            return
        chosen = rng.choice(files)
        if chosen[:2] == b"PK" and rng.random() < 0.7:
            path.write_bytes(with_damaged_member(chosen, rng, lambda part: mutated_bytes(part, rng, files)))
        else:
            path.write_bytes(mutated_bytes(chosen, rng, files))

    return Fuzzer(make, lambda: predict_with(path), path)


def safetensors(folder: Path) -> Fuzzer:
    """Damage safetensors files and the JSON files that describe them."""
    from cifar100.checkpoints.weights import save_weights

    path = folder / "model.safetensors"
    save_weights(random_checkpoint(), path)
    tensors, description = path.read_bytes(), path.with_suffix(".json")
    expected = json.loads(description.read_text())

    def make(rng: random.Random) -> None:
        damaged = rng.random() < 0.5
        path.write_bytes(mutated_bytes(tensors, rng, [tensors]) if damaged else tensors)
        description.unlink(missing_ok=True)
        match rng.randrange(4):
            case 0 if damaged:
                return
            case 1:
                description.write_bytes(mutated_bytes(json.dumps(expected).encode(), rng, [tensors]))
            case 2 if damaged:
                description.write_text(json.dumps(expected))
            case _:
                description.write_text(json.dumps(mutated_tree(expected, rng, strange_value)))

    return Fuzzer(make, lambda: predict_with(path), path)


def onnx(folder: Path, exports: Path) -> Fuzzer:
    path, content = folder / "model.onnx", (exports / "best.onnx").read_bytes()
    start = content.index(b"{", content.rindex(b"cifar100\x12"))
    facts = json.loads(content[start:])

    def make(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(mutated_bytes(content, rng, [content]))
            return
        import onnx as library

        model = library.load_from_string(content)
        model.metadata_props[0].value = json.dumps(mutated_tree(facts, rng, strange_value))
        path.write_bytes(model.SerializeToString())

    return Fuzzer(make, lambda: predict_with(path), path)


def parquet(folder: Path) -> Fuzzer:
    cifar10_parquet(folder, some(0, 6, 10), some(1, 3, 10))
    path = folder / "test-00000-of-00001.parquet"
    content = path.read_bytes()
    return Fuzzer(lambda rng: _write(path, mutated_bytes(content, rng, [content])), lambda: read(folder), path)


def published(folder: Path) -> Fuzzer:
    """Damage a file of the pickles or of the binary version."""
    for name, write in (("pickles", cifar100_pickles), ("binary", cifar100_binary)):
        (folder / name).mkdir()
        write(folder / name, some(0, 4, 100), some(1, 4, 100))
    names = ("pickles/train", "pickles/meta", "binary/train.bin")
    files = {folder / name: (folder / name).read_bytes() for name in names}
    damaged = next(iter(files))

    def make(rng: random.Random) -> None:
        nonlocal damaged
        damaged.write_bytes(files[damaged])
        damaged = rng.choice([*files])
        damaged.write_bytes(mutated_bytes(files[damaged], rng, [*files.values()]))

    return Fuzzer(make, lambda: read(damaged.parent), folder)


def archives(folder: Path) -> Fuzzer:
    """Damage .tar.gz archives of the published files, and zip and tar archives of class folders."""
    inside = folder / "cifar-100-binary"
    inside.mkdir()
    cifar100_binary(inside, some(0, 4, 100), some(1, 4, 100))
    photos = {
        f"{part}/{name}/{i}.png": _encoded("PNG", i) for part in ("train", "test") for name in "ab" for i in (1, 2)
    }
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(inside, "cifar-100-binary")
    classes = io.BytesIO()
    with zipfile.ZipFile(classes, "w") as archive:
        for name, content in photos.items():
            archive.writestr(name, content)
    in_tar = io.BytesIO()
    with tarfile.open(fileobj=in_tar, mode="w") as archive:
        for name, content in photos.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    shutil.rmtree(inside)
    published, zipped, tarred, path = tar.getvalue(), classes.getvalue(), in_tar.getvalue(), folder / "archive"

    def make(rng: random.Random) -> None:
        nonlocal path
        for old in folder.iterdir():
            old.unlink()
        match rng.randrange(5):
            case 0:
                _write(folder / "a.tar.gz", gzip.compress(mutated_bytes(published, rng, [published]), 1))
            case 1:
                _write(folder / "a.tar.gz", mutated_bytes(gzip.compress(published, 1), rng, [published]))
            case 2:
                _write(folder / "a.zip", mutated_bytes(zipped, rng, [zipped, published]))
            case 3:
                _write(folder / "a.tar", mutated_bytes(tarred, rng, [tarred]))
            case _:
                part = with_damaged_member(zipped, rng, lambda content: mutated_bytes(content, rng, [zipped]))
                _write(folder / "a.zip", part)

    return Fuzzer(make, lambda: read(next(folder.iterdir())), path)


def images(folder: Path) -> Fuzzer:
    files = [_encoded(kind, 1) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "AVIF")]
    files += [
        _encoded("JPEG2000", 1),
        _encoded("JPEG", 2, progressive=True),
        _encoded("TIFF", 3, compression="tiff_lzw"),
    ]
    files += [_encoded("PNG", 4, mode="I;16"), _encoded("TIFF", 5, mode="F"), _encoded("GIF", 6, mode="P")]
    files += [_encoded("PNG", 7, mode="RGBA"), b"P3 2 1 255\n1 2 3 4 5 6", b"P5 4 4 99\n" + bytes(range(16))]
    path = folder / "image"

    def make(rng: random.Random) -> None:
        crafted = mutated_bytes(rng.choice(files), rng, files)
        path.write_bytes(with_png_checksums(crafted) if crafted[:4] == b"\x89PNG" else crafted)

    return Fuzzer(make, lambda: to_model_input(path), path)


def _encoded(format: str, seed: int, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), np.uint8)
    image = Image.fromarray(pixels).resize((60, 48))
    if mode in ("I;16", "F"):
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16 if mode == "I;16" else np.float32))
    return image_bytes(image if mode in ("I;16", "F") else image.convert(mode), format, **options)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


FUZZERS: dict[str, Callable[..., Fuzzer]] = {
    "pth": checkpoints,
    "safetensors": safetensors,
    "onnx": onnx,
    "parquet": parquet,
    "published": published,
    "archives": archives,
    "images": images,
}


@pytest.mark.usefixtures("narrow_checkpoints")
@pytest.mark.parametrize("kind", FUZZERS)
def test_any_file_is_read_or_refused(
    kind: str, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = tmp_path / kind, tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    fuzzer = FUZZERS[kind](folder, exports) if kind == "onnx" else FUZZERS[kind](folder)
    counts, slowest, most = {"read": 0, "refused": 0}, 0.0, 0
    end, number = time.monotonic() + SECONDS / len(FUZZERS), 0
    while time.monotonic() < end:
        fuzzer.make(random.Random(f"{SEED} {kind} {number}"))
        message = ""
        before, start = peak_memory(), time.process_time()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            fuzzer.read()
            counts["read"] += 1
        except (UserError, RunFailed) as error:
            counts["refused"] += 1
            message = str(error)
        except Exception as error:
            pytest.fail(f"{kind}, seed {SEED}, case {number}, {list(folder.iterdir())}: {error!r}")
        finally:
            faulthandler.cancel_dump_traceback_later()
        seconds, grown = time.process_time() - start, peak_memory() - before
        assert len(message) < 1500, f"case {number}: a message of {len(message):,} characters"
        assert seconds < MAX_CPU_SECONDS, f"case {number}: {seconds:.1f} s"
        assert grown < MAX_MEMORY, f"case {number}: {grown >> 20} MiB"
        slowest, most, number = max(slowest, seconds), max(most, grown), number + 1
    assert counts["refused"] > 0, counts
    assert counts["read"] > 0, counts
    assert not list(work.iterdir()), "a file was written"
    with capsys.disabled():
        shown = f"{counts['read']} read, {counts['refused']} refused, slowest {slowest:.1f} s, most {most >> 20} MiB"
        if SECONDS > 10:
            print(f"\nfuzz {kind}: {number} files, {shown}")
