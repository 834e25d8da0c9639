"""Archives of class folders are read like the folders, without writing to disk; malicious archives are refused."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import assert_one_sentence
from own_images import SILENT, encoded, photos, settings

from cifar100.cli.main import main
from cifar100.dataset import archive as archives
from cifar100.dataset import read
from cifar100.support.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pets"
    for seed, (name, count) in enumerate({"train": 4, "val": 2}.items()):
        photos(place / name, {"cat": count, "dog": count}, seed=100 * seed)
    (place / "train" / "cat" / "notes.txt").write_text("no image")
    return place


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, folder: Path, kind: str, wrapped: bool) -> None:
    archive = Path(
        shutil.make_archive(
            str(tmp_path / "archive"), kind, folder.parent if wrapped else folder, "pets" if wrapped else None
        )
    )
    before = set(tmp_path.rglob("*"))
    first, second = (read(place, settings(), say=SILENT) for place in (folder, archive))
    assert first.train.fingerprint == second.train.fingerprint
    assert first.test.fingerprint == second.test.fingerprint
    assert second.unreadable == (
        f"{archive}/{'pets/' if wrapped else ''}train/cat/notes.txt is not an image that can be read.",
    )
    assert set(tmp_path.rglob("*")) == before


def test_an_archive_with_a_csv_file_of_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(6):
            archive.writestr(f"images/{number}.png", encoded(number))
        archive.writestr("labels.csv", "id,label\n" + "\n".join(f"{n},{'cat' if n % 2 else 'dog'}" for n in range(6)))
    dataset = read(tmp_path / "a.zip", settings(), say=SILENT)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train) + len(dataset.test) == 6


def test_data_check_of_an_archive(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train" / "cat" / "notes.txt").unlink()
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", folder)
    assert main(["data", "check", archive]) == 0
    shown = capsys.readouterr().out
    assert "train images in train/, test images in val/" in shown
    assert "cat 4 + 2, dog 4 + 2" in shown


def test_system_files_links_and_escaping_paths_are_skipped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, name in enumerate(("cat/1.png", "cat/2.png", "./dog/1.png", "dog/2.png")):
            add(archive, name, encoded(number))
        for name in ("../out.png", "/etc/out.png", "cat/../../out.png", "cat/.hidden.png", "__MACOSX/cat/1.png"):
            add(archive, name, encoded(9))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"dog/{ord(kind)}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    dataset = read(tmp_path / "a.tar", settings(), say=SILENT)
    assert len(dataset.train) + len(dataset.test) == 4
    assert len(dataset.unreadable) == 7  # links, devices, and paths that escape the archive
    assert not list(tmp_path.rglob("*.png"))


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_a_tar_archive_without_a_magic_number(tmp_path: Path) -> None:
    content = bytearray()
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")):
        image = encoded(number)
        info = tarfile.TarInfo(name)
        info.size = len(image)
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        header[257:265] = bytes(8)  # the magic "ustar" and the version, which pre-POSIX tar archives lack
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        content += header + image + bytes(-len(image) % tarfile.BLOCKSIZE)
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    assert read(tmp_path / "a.tar", settings(), say=SILENT).classes == ("cat", "dog")


def test_a_damaged_member_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            for name in ("cat", "dog"):
                archive.writestr(f"{name}/{number}.bmp", encoded(number + 10 * len(name), "BMP"))
        start = archive.getinfo("cat/1.bmp").header_offset
    content = bytearray(path.read_bytes())
    content[start + 200 : start + 220] = bytes(20)
    path.write_bytes(content)
    dataset = read(path, settings(), say=SILENT)
    (expected,) = dataset.unreadable
    assert_one_sentence(expected, f"{path}/cat/1.bmp cannot be read (damaged in its archive: BadZipFile)")


def test_a_damaged_file_of_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(6):
            archive.writestr(f"images/{number}.png", encoded(number))
        archive.writestr("labels.csv", "id,label\n" + "\n".join(f"{n},{'cat' if n % 2 else 'dog'}" for n in range(6)))
        start = archive.getinfo("labels.csv").header_offset
    content = bytearray(path.read_bytes())
    content[start + 50] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path, settings(), say=SILENT)
    assert caught.value.code == "dataset.csv"
    assert_one_sentence(str(caught.value), f"{path}/labels.csv")


# Refused archives


def as_zip(*members: tuple[str, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:  # pyright: ignore
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def encrypted() -> bytes:
    content = bytearray(as_zip(("cat/1.png", b"x")))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    return bytes(content)


def pax_bomb() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def deflate64() -> bytes:
    """The compression method of Windows for large files."""
    content = bytearray(as_zip(("cat/1.png", b"x")))
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + place] = 9
    return bytes(content)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: as_zip(("cat/1.png", b"x"))[:-30], "archive.damaged"),
        (lambda: b"PK\x03\x04" + bytes(50), "archive.damaged"),
        (encrypted, "archive.method"),
        (deflate64, "archive.method"),
        (lambda: b"\x04\x22\x4d\x18" + bytes(90), "dataset.format"),
        (lambda: as_zip(("cat/1.bmp", bytes(40_000)), compression=zipfile.ZIP_DEFLATED), "archive.too_large"),
        (pax_bomb, "archive.damaged"),
        (lambda: b"Rar!\x1a\x07\x01\0" + bytes(90), "dataset.format"),
        (lambda: b"BZh9" + bytes(90), "archive.damaged"),
        (lambda: b"\xfd7zXZ\0" + bytes(90), "archive.damaged"),
        (lambda: as_zip(("readme.txt", b"x")), "dataset.format"),
        (lambda: b"not an archive", "dataset.format"),
    ],
)
def test_malicious_and_unsupported_archives_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes], code: str
) -> None:
    monkeypatch.setattr(archives, "FREE_RATIO_BYTES", 20_000)
    path = tmp_path / "a.bin"
    path.write_bytes(make())
    with pytest.raises(UserError) as caught:
        read(path, settings(), say=SILENT)
    assert caught.value.code == code
    assert_one_sentence(str(caught.value), path)


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ((("in.zip", b"PK"),), "'in.zip': unpack it and name that"),
        ((("../cat/1.png", b"x"),), "../cat/1.png is not a path in the archive"),
        ((("cifar-100-python/train", b"x"),), "unpack it and name the directory"),
    ],
)
def test_an_archive_without_class_folders_is_refused_with_a_hint(
    tmp_path: Path, members: tuple[tuple[str, bytes], ...], hint: str
) -> None:
    (tmp_path / "a.zip").write_bytes(as_zip(*members))
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.zip", settings(), say=SILENT)
    assert_one_sentence(str(caught.value), hint)


def test_a_very_long_member_name_is_not_in_the_message(tmp_path: Path) -> None:
    content = bytearray(as_zip(("cat/1.png", bytes(30_000)), ("dog/1.png", b"x")))
    content[26:28] = (20_000).to_bytes(2, "little")  # the length of the first name in its local header
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path, settings())
    assert caught.value.code == "dataset.empty_class"
    assert len(str(caught.value)) < 1000


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_member_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(as_zip(("cat/1.png", b"x"), ("./cat/1.png", b"y")))
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.zip", settings(), say=SILENT)
    assert caught.value.code == "archive.duplicate"
