"""Resource limits of image files: decompression bombs are refused with one message, and large photos are read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence
from image_bytes import image_bytes, jpeg_with_scans, png_with_declared_size
from PIL import Image, TiffImagePlugin

from cifar100.images import limits
from cifar100.images.convert import to_model_input, to_rgb
from cifar100.support.errors import UserError


def gif_comments(blocks: bytes) -> bytes:
    """A GIF with extension blocks before its image."""
    content = image_bytes(Image.new("P", (40, 30)), "GIF")
    start = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    return content[:start] + blocks + content[start:]


def jpeg_markers() -> bytes:
    content = image_bytes(Image.new("RGB", (64, 64), "red"), "JPEG")
    return content[:2] + b"\xff\xef\x00\x02" * 2_000_000 + content[2:]


def png_chunks() -> bytes:
    content, chunk = image_bytes(Image.new("RGB", (64, 64), "red"), "PNG"), b"tEXta\0b"
    return content[:33] + (struct.pack(">I", 3) + chunk + struct.pack(">I", zlib.crc32(chunk))) * 500_000 + content[33:]


def tiff(tags: bytes, count: int, pages: int = 0) -> bytes:
    """A TIFF with `count` additional tags, and `pages` additional pages."""
    content = bytearray(image_bytes(Image.effect_noise((40, 30), 50).convert("RGB"), "TIFF"))
    at = struct.unpack_from("<I", content, 4)[0]
    own = struct.unpack_from("<H", content, at)[0]
    entries = bytes(content[at + 2 : at + 2 + 12 * own])
    content += bytes(len(content) % 2)
    struct.pack_into("<I", content, 4, len(content))
    content += struct.pack("<H", own + count) + entries + tags
    for _ in range(pages):
        content += struct.pack("<IH", len(content) + 4, 3)
        content += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 4), (257, 4), (273, 8)))
    return bytes(content) + bytes(4)


def large_tags() -> bytes:
    tags = b"".join(struct.pack("<HHII", 2000 + i, 1, 1_000_000, 8) for i in range(60_000))
    return tiff(tags, 60_000) + bytes(1_000_000)


def tiff_values(changed_tag: int, kind: int, order: str = "<") -> bytes:
    """A TIFF of 8x8 pixels with one tag of 20 million values."""
    count = 20_000_000
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 3, 273: 200, 277: 1, 278: 1, 279: 64, 320: 0}
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, value in tags.items():
        values = (tag, kind, count, 200) if tag == changed_tag else (tag, 4, 1, value)
        content += struct.pack(f"{order}HHII", *values)
    return content.ljust(200, b"\0") + bytes(count * {1: 1, 2: 1, 3: 2, 4: 4}[kind])


def big_tiff() -> bytes:
    return b"II+\0\x08\0\0\0" + struct.pack("<QQHHQQ", 16, 1, 273, 4, 20_000_000, 60) + bytes(80_000_000)


def icon(width: int, height: int) -> bytes:
    png = image_bytes(Image.new("1", (width, height)), "PNG")
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png), 22) + png


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "many comments in a GIF": lambda: gif_comments(b"!\xfe\x01x\0" * 1_900_000),
    "a long comment in a GIF": lambda: gif_comments(b"!\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"),
    "many scans in a JPEG": lambda: jpeg_with_scans(5400, 1000),
    "many segments in a JPEG": jpeg_markers,
    "many text chunks in a PNG": png_chunks,
    "many large tags in a TIFF": large_tags,
    "a TIFF with many strips": lambda: tiff_values(273, 4),
    "a TIFF with many strips, big-endian": lambda: tiff_values(273, 3, ">"),
    "a TIFF with many strips as bytes": lambda: tiff_values(273, 1),
    "a TIFF with many strips as text": lambda: tiff_values(273, 2),
    "a TIFF with a long color table": lambda: tiff_values(320, 1),
    "a BigTIFF with many strips": big_tiff,
    "an icon with too many pixels": lambda: icon(13_000, 13_600),
    "a PNG with too many pixels": lambda: png_with_declared_size(10_000, 9_000),
    "a WebP that needs too much memory": lambda: image_bytes(Image.new("RGBA", (1000, 1000)), "WEBP", method=0),
}


@pytest.mark.parametrize("kind", EXPENSIVE)
def test_an_expensive_file_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(limits, "MAX_HEADER_SECONDS", 0.2)
    monkeypatch.setattr(limits, "MAX_HEADER_READS", 100_000)
    monkeypatch.setattr(limits, "MAX_DECODED_BYTES", 10 << 20)
    content, start = EXPENSIVE[kind](), time.thread_time()
    with pytest.raises(UserError) as caught:
        to_model_input(content)
    assert caught.value.code == "image.cost"
    assert_one_sentence(str(caught.value))
    assert time.thread_time() - start < 1


def test_decoding_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HEADER_SECONDS", 0.1)
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.2)
    with pytest.raises(UserError) as caught:
        to_model_input(b"P3 2000 2000 255\n" + b"1 " * 12_000_000)  # plain PPM, which Pillow parses slowly
    assert caught.value.code == "image.cost"


def test_a_tiff_with_one_row_per_strip_and_large_metadata_is_read() -> None:
    one_row = TiffImagePlugin.ImageFileDirectory_v2()
    one_row[278] = 1
    image = Image.new("L", (4, 20_000), 128)
    content = image_bytes(image, "TIFF", tiffinfo=one_row, description="x" * 1_000_000, icc_profile=bytes(600_000))
    assert to_rgb(content).size == (4, 20_000)


def test_pages_after_the_first_are_not_parsed() -> None:
    content, start = tiff(b"", 0, pages=40_000), time.thread_time()
    assert to_model_input(content).std() > 0
    assert time.thread_time() - start < 0.5


def test_an_ordinary_progressive_jpeg_is_read() -> None:
    assert to_model_input(image_bytes(Image.new("RGB", (600, 400), "red"), "JPEG", progressive=True)).shape == (
        32,
        32,
        3,
    )


PEAK = """
import sys
from pathlib import Path
from cifar100.images.convert import to_model_input
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before, content = peak(), Path(sys.argv[1]).read_bytes()
print(to_model_input(content).mean(), peak() - before)
"""

SIZE = (2500, 2000)
LARGE: dict[str, Callable[[], bytes]] = {
    "16-bit gray PNG": lambda: image_bytes(Image.fromarray(np.full(SIZE[::-1], 30_000, np.uint16)), "PNG"),
    "RGBA PNG": lambda: image_bytes(Image.new("RGBA", SIZE, (9, 9, 9, 99)), "PNG"),
    "float TIFF": lambda: image_bytes(
        Image.fromarray(np.full(SIZE[::-1], 0.5, np.float32)), "TIFF", compression="tiff_deflate"
    ),
    "PGM with a maxval of 254": lambda: b"P5 2500 2000 254\n" + bytes(5_000_000),
}


@pytest.mark.parametrize("kind", LARGE)
def test_memory_is_bounded_by_bytes_per_pixel(tmp_path: Path, kind: str) -> None:
    """12 bytes per pixel are 0.9 GiB at 80 megapixels, the maximum of any format."""
    path = tmp_path / "image"
    path.write_bytes(LARGE[kind]())
    printed = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True).stdout
    assert float(printed.split()[1]) * (1 << 20) < 12 * SIZE[0] * SIZE[1] + path.stat().st_size + (40 << 20)


def test_a_48_megapixel_jpeg_is_reduced_while_decoding() -> None:
    gradient = Image.linear_gradient("L").resize((6000, 8000)).convert("RGB")
    photo = image_bytes(
        gradient, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    )
    rgb = to_rgb(photo)
    assert rgb.info["original_size"] == (8000, 6000)
    assert min(rgb.size) >= limits.MIN_REDUCED_SIDE
    small = to_model_input(gradient.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(to_model_input(photo) - small).max() <= 2


def test_other_large_images_are_reduced_after_decoding() -> None:
    gradient = Image.linear_gradient("L").resize((6000, 5000)).convert("RGB")
    rgb = to_rgb(gradient)
    assert (rgb.info["original_size"], rgb.size) == ((6000, 5000), (3000, 2500))
    plain = np.asarray(gradient.resize((38, 32), Image.Resampling.BICUBIC).crop((3, 0, 35, 32))).astype(int)
    assert np.abs(to_model_input(gradient) - plain).max() <= 2


def test_pgm_samples_are_scaled_by_maxval() -> None:
    assert to_model_input(b"P5 1 1 100\n\x32", size=1).tolist() == [[[128] * 3]]
    assert to_model_input(b"P6 1 1 1000\n" + struct.pack(">HHH", 1000, 500, 0), size=1).tolist() == [[[255, 128, 0]]]
    with pytest.raises(UserError) as caught:
        to_model_input(b"P5 9 9 100\n\x32")
    assert caught.value.code == "image.damaged"


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe.png"
        os.mkfifo(path)
    with pytest.raises(UserError) as caught:
        to_model_input(path)
    assert caught.value.code == "image.special"
    assert_one_sentence(str(caught.value), path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_libtiff_writes_nothing_to_stderr(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(image_bytes(Image.effect_noise((200, 200), 90).convert("RGB"), "TIFF", compression=compression))
    content[200:-400:97] = bytes(byte ^ 0x5A for byte in content[200:-400:97])
    with pytest.raises(UserError) as caught:
        to_rgb(bytes(content))
    assert caught.value.code == "image.unreadable"
    assert capfd.readouterr().err == ""


def test_only_the_scans_of_the_image_itself_are_counted() -> None:
    """Not those of a thumbnail in its metadata, of data after its end, or of a second image."""
    plain = image_bytes(Image.effect_noise((200, 100), 50), "JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(plain) + 2) + plain
    interval = image_bytes(Image.effect_noise((200, 100), 50), "JPEG", restart_marker_rows=1)
    assert limits._num_scans(plain) == 1
    assert limits._num_scans(plain[:2] + thumbnail + plain[2:] + b"\xff\xda" * 200) == 1
    assert limits._num_scans(interval) == 1
    # after a restart, libjpeg may skip the marker 2, but no segment after it
    hidden = b"\xff\x02\xff\xff" + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 9
    assert limits._num_scans(plain[:-2] + hidden + plain[-2:]) == 10
    with pytest.raises(limits.TooExpensive):
        limits._num_scans(plain[:2] + b"\xff\xef\x00\x02" * 200_000 + plain[2:])
    assert limits._num_scans(jpeg_with_scans(64, 7)) == jpeg_with_scans(64, 7).count(b"\xff\xda")
