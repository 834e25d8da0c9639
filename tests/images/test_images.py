"""images/convert.py: every kind of image is converted to uint8 RGB pixels or refused with one sentence."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from image_bytes import image_bytes
from PIL import Image, ImageCms

from cifar100.images.convert import FORMATS, image_suffixes, to_model_input, to_rgb
from cifar100.images.fit import FITS, Fit
from cifar100.support.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
GRAY = IMAGE[:, :, 0]
GRAY_AS_RGB = np.repeat(GRAY[:, :, None], 3, axis=2)
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def assert_is(result: np.ndarray, expected: Any, *, within: int = 0, size: int = 32) -> None:
    """Assert that the pixels equal `expected`, an image or a color, within a tolerance."""
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - np.asarray(expected)).max() <= within


def blocks(*colors: tuple[int, int, int], width: int, height: int) -> np.ndarray:
    """An image of vertical color bars of equal width."""
    return np.repeat(np.array([colors], np.uint8), width // len(colors), axis=1).repeat(height, axis=0)


# PIL images of every mode


def palette(*, transparent: bool = False) -> Image.Image:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([*BLUE, *RED])
    if transparent:
        image.info["transparency"] = 1
    return image


def quantized(alpha: int) -> Image.Image:
    """An RGBA image quantized by Pillow to 8 colors: a palette with its own alpha channel."""
    return Image.new("RGBA", (32, 32), (*RED, alpha)).quantize(8)


def lab(color: tuple[int, int, int]) -> Image.Image:
    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (32, 32), color), srgb, profile, outputMode="LAB")  # type: ignore[arg-type]
    assert image is not None
    assert image.mode == "LAB"
    return image


def rgb_with_a_transparent_color() -> Image.Image:
    image = Image.new("RGB", (32, 32), RED)
    image.info["transparency"] = RED
    return image


def solid(mode: str, color: Any) -> Callable[[], Image.Image]:
    return lambda: Image.new(mode, (32, 32), color)


MODES: list[tuple[str, Callable[[], Image.Image], tuple[int, int, int], int]] = [
    ("1", solid("1", 1), WHITE, 0),
    ("L", solid("L", 77), (77, 77, 77), 0),
    ("P", palette, RED, 0),
    ("P transparent", lambda: palette(transparent=True), WHITE, 0),
    ("P quantized, opaque", lambda: quantized(255), RED, 0),
    ("P quantized, transparent", lambda: quantized(0), WHITE, 0),
    ("LA", solid("LA", (77, 255)), (77, 77, 77), 0),
    ("LA transparent", solid("LA", (77, 0)), WHITE, 0),
    ("La transparent", solid("La", (0, 0)), WHITE, 0),
    ("PA opaque", lambda: palette().convert("PA"), RED, 0),
    ("PA transparent", lambda: palette(transparent=True).convert("RGBA").convert("PA"), WHITE, 0),
    ("RGB", solid("RGB", (10, 20, 30)), (10, 20, 30), 0),
    ("RGB with a transparent color", rgb_with_a_transparent_color, WHITE, 0),
    ("RGBA", solid("RGBA", (10, 20, 30, 255)), (10, 20, 30), 0),
    ("RGBA transparent", solid("RGBA", (10, 20, 30, 0)), WHITE, 0),
    ("RGBA half", solid("RGBA", (0, 0, 255, 128)), (127, 127, 255), 1),
    ("RGBa", solid("RGBa", (0, 0, 0, 0)), WHITE, 0),
    ("RGBX", solid("RGBX", (10, 20, 30, 0)), (10, 20, 30), 0),
    ("CMYK", solid("CMYK", (0, 255, 255, 0)), RED, 0),
    ("YCbCr", lambda: Image.new("RGB", (32, 32), BLUE).convert("YCbCr"), BLUE, 2),
    ("HSV", solid("HSV", (0, 255, 255)), RED, 0),
    ("LAB", lambda: lab((200, 100, 50)), (200, 100, 50), 6),
    ("I;16", solid("I;16", 257 * 77), (77, 77, 77), 0),
    ("I;16B", lambda: Image.frombytes("I;16B", (32, 32), struct.pack(">H", 257 * 77) * 1024), (77, 77, 77), 0),
    ("I", solid("I", 257 * 77), (77, 77, 77), 0),
    ("F", solid("F", 0.2), (51, 51, 51), 0),
]


@pytest.mark.parametrize(("make", "expected", "within"), [row[1:] for row in MODES], ids=[row[0] for row in MODES])
def test_pil_images_of_any_mode(make: Callable[[], Image.Image], expected: tuple[int, int, int], within: int) -> None:
    assert_is(to_model_input(make()), expected, within=within)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    assert_is(to_model_input(Image.fromarray(IMAGE)), IMAGE)


def test_the_input_image_is_not_modified() -> None:
    image = Image.fromarray(IMAGE)
    to_model_input(image, 16)
    np.testing.assert_array_equal(np.asarray(image), IMAGE)


def test_to_rgb_keeps_the_size() -> None:
    image = to_rgb(Image.new("L", (70, 50)))
    assert (image.mode, image.size) == ("RGB", (70, 50))


# Files


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("webp", {"lossless": True}), ("jpg", {})])
def test_image_files(tmp_path: Path, kind: type, suffix: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(IMAGE).save(path, **options)
    expected = IMAGE if suffix != "jpg" else np.asarray(Image.open(path))
    assert_is(to_model_input(kind(path)), expected)


def test_the_format_is_detected_by_content_not_suffix(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "image.jpg", "PNG")
    assert_is(to_model_input(tmp_path / "image.jpg"), IMAGE)


def test_a_16_bit_png_file(tmp_path: Path) -> None:
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / "grey.png")
    assert_is(to_model_input(tmp_path / "grey.png"), GRAY_AS_RGB)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (np.int32, 200, 200),  # 8-bit values in a 32-bit file
        (np.int32, 257 * 77, 77),
        (np.uint16, 200, 200),
        (np.uint16, 257 * 77, 77),
    ],
)
def test_a_tiff_of_more_than_8_bits(tmp_path: Path, dtype: Any, value: int, expected: int) -> None:
    Image.fromarray(np.full((32, 32), value, dtype)).save(tmp_path / "deep.tif")
    assert_is(to_model_input(tmp_path / "deep.tif"), (expected, expected, expected))


def test_a_tiff_of_12_bits_is_scaled_by_its_bits() -> None:
    pixels = b"\x80\x08\x00" * (32 * 32 // 2)  # two 12-bit samples of 2048 per three bytes
    tags = {256: 32, 257: 32, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 32, 279: len(pixels)}
    entries = [(tag, 3, struct.pack("<HH", value, 0)) for tag, value in tags.items()]
    assert_is(to_model_input(tiff_ifd(*entries) + pixels), (128, 128, 128))


def test_a_32_bit_tiff_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError) as caught:
        to_model_input(tmp_path / "deep.tif")
    assert_one_sentence(str(caught.value), tmp_path / "deep.tif", "70000")


def test_a_transparent_palette_png_file(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([*BLUE, *RED])
    image.putpixel((3, 5), 0)
    image.save(tmp_path / "palette.png", transparency=1)
    result = to_model_input(tmp_path / "palette.png")
    assert tuple(result[5, 3]) == BLUE
    assert tuple(result[0, 0]) == WHITE


UPRIGHT = np.array([[RED, GREEN], [BLUE, BLACK]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
# By EXIF orientation: the sides of the upright image at which the first row and the first column of the file lie.
STORED: dict[int, np.ndarray] = {
    1: UPRIGHT,  # top, left
    2: UPRIGHT[:, ::-1],  # top, right
    3: UPRIGHT[::-1, ::-1],  # bottom, right
    4: UPRIGHT[::-1],  # bottom, left
    5: UPRIGHT.swapaxes(0, 1),  # left, top
    6: UPRIGHT[:, ::-1].swapaxes(0, 1),  # right, top
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: UPRIGHT[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options", "within"), [("png", {}, 0), ("jpg", {"quality": 95, "subsampling": 0}, 4)]
)
def test_the_exif_orientation_is_applied(
    tmp_path: Path, suffix: str, options: dict[str, Any], within: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=exif, **options)
    assert_is(to_model_input(path), UPRIGHT, within=within)
    with Image.open(path) as image:
        assert_is(to_model_input(image), UPRIGHT, within=within)


def tiff_ifd(*entries: tuple[int, int, bytes]) -> bytes:
    """A TIFF header with one IFD of entries (tag, type, 4 bytes of value), as used in EXIF."""
    tags = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)


@pytest.mark.parametrize(
    "damaged", [(256, 8, struct.pack("<hh", -5, 0)), (34665, 4, b"\xff\xff\xff\x7f"), (34853, 4, bytes(4))]
)
@pytest.mark.parametrize(
    ("suffix", "options", "within"),
    [("png", {}, 0), ("jpg", {"quality": 95, "subsampling": 0}, 4), ("webp", {"lossless": True}, 0)],
)
def test_damaged_exif_keeps_the_pixels_and_the_orientation(
    tmp_path: Path, damaged: tuple[int, int, bytes], suffix: str, options: dict[str, Any], within: int
) -> None:
    exif = b"Exif\0\0" + tiff_ifd((274, 3, struct.pack("<HH", 6, 0)), damaged)
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    stored.save(tmp_path / f"photo.{suffix}", exif=exif, **options)
    assert_is(to_model_input(tmp_path / f"photo.{suffix}"), UPRIGHT, within=within)


def test_invalid_exif_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png", exif=b"Exif\0\0MM")
    assert_is(to_model_input(tmp_path / "photo.png"), IMAGE)


@pytest.fixture
def animation(tmp_path: Path) -> Path:
    first, second = Image.new("RGB", (32, 32), RED), Image.new("RGB", (32, 32), GREEN)
    first.save(tmp_path / "animation.gif", save_all=True, append_images=[second])
    return tmp_path / "animation.gif"


def test_the_first_frame_of_an_animation_is_read(animation: Path) -> None:
    assert_is(to_model_input(animation), RED)
    with Image.open(animation) as image:
        image.seek(1)
        assert_is(to_model_input(image), RED)


# Arrays and tensors

WITH_ALPHA = np.dstack([IMAGE, np.full((32, 32), 255, np.uint8)])
UNIT = IMAGE / 255

ARRAYS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "HWC": (IMAGE, IMAGE),
    "HW": (GRAY, GRAY_AS_RGB),
    "HW1": (GRAY[:, :, None], GRAY_AS_RGB),
    "HWC RGBA, opaque": (WITH_ALPHA, IMAGE),
    "HWC RGBA, transparent": (WITH_ALPHA * np.array([1, 1, 1, 0], np.uint8), np.full_like(IMAGE, 255)),
    "not contiguous": (np.asfortranarray(IMAGE)[:, ::-1], IMAGE[:, ::-1]),
    "uint16": (IMAGE.astype(np.uint16) * 257, IMAGE),
    "uint16 HW": (GRAY.astype(np.uint16) * 257, GRAY_AS_RGB),
    "float64": (UNIT, IMAGE),
    "float32": (UNIT.astype(np.float32), IMAGE),
    "float16": (UNIT.astype(np.float16), IMAGE),
    "float HW": (GRAY / 255, GRAY_AS_RGB),
    "float RGBA": (WITH_ALPHA / 255, IMAGE),
    "float, rounding error": (UNIT * 1.0000001, IMAGE),
    "bool": (IMAGE > 127, np.where(IMAGE > 127, 255, 0)),
    "bool HW": (GRAY > 127, np.where(GRAY_AS_RGB > 127, 255, 0)),
}


@pytest.mark.parametrize(("array", "expected"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    assert_is(to_model_input(array), expected)


HWC = torch.from_numpy(IMAGE)
CHW = HWC.permute(2, 0, 1)

TENSORS: dict[str, tuple[torch.Tensor, np.ndarray, int]] = {
    "CHW": (CHW, IMAGE, 0),
    "CHW contiguous": (CHW.contiguous(), IMAGE, 0),
    "HWC": (HWC, IMAGE, 0),
    "HW": (HWC[:, :, 0], GRAY_AS_RGB, 0),
    "1HW": (HWC[None, :, :, 0], GRAY_AS_RGB, 0),
    "HW1": (HWC[:, :, :1], GRAY_AS_RGB, 0),
    "CHW float": (CHW / 255, IMAGE, 0),
    "CHW bf16": ((CHW / 255).bfloat16(), IMAGE, 1),
    "HWC bf16": ((HWC / 255).bfloat16(), IMAGE, 1),
    "CHW float with a gradient": ((CHW / 255).requires_grad_(), IMAGE, 0),
    "CHW bool": (CHW > 127, np.where(IMAGE > 127, 255, 0), 0),
}


@pytest.mark.parametrize(("tensor", "expected", "within"), TENSORS.values(), ids=TENSORS.keys())
def test_tensors(tensor: torch.Tensor, expected: np.ndarray, within: int) -> None:
    assert_is(to_model_input(tensor), expected, within=within)


def test_a_wide_tensor_equals_the_wide_array() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    expected = to_model_input(wide)
    assert_is(to_model_input(torch.from_numpy(wide)), expected)
    assert_is(to_model_input(torch.from_numpy(wide).permute(2, 0, 1)), expected)


# Sizes


@pytest.mark.parametrize("size", [1, 20, 32, 64])
@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (7, 100), (3000, 40), (40, 3000), (33, 32), (1000, 999)])
def test_any_size_becomes_square(shape: tuple[int, int], size: int) -> None:
    assert_is(to_model_input(np.full((*shape, 3), (10, 20, 30), np.uint8), size), (10, 20, 30), size=size)


def test_a_wide_image_is_center_cropped_without_scaling() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    assert_is(to_model_input(wide), wide[:, 16:48])
    assert_is(to_model_input(wide.swapaxes(0, 1)), wide.swapaxes(0, 1)[16:48])


@pytest.mark.parametrize("factor", [2, 10, 31])
def test_the_shorter_side_is_resized_and_the_center_cropped(factor: int) -> None:
    wide = blocks(RED, GREEN, BLUE, width=96, height=32).repeat(factor, axis=0).repeat(factor, axis=1)
    result = to_model_input(wide)
    assert_is(result, to_model_input(wide.swapaxes(0, 1)).swapaxes(0, 1))
    np.testing.assert_array_equal(result[:, 4:-4], np.broadcast_to(GREEN, (32, 24, 3)))


def test_the_aspect_ratio_is_kept() -> None:
    image = np.zeros((128, 256, 3), np.uint8)
    image[32:96, 96:160] = 255  # a centered square of half the height
    result = to_model_input(image) > 127
    assert result.any(axis=(1, 2)).sum() == result.any(axis=(0, 2)).sum() == 16


def test_the_shorter_side_is_not_cropped() -> None:
    image = np.zeros((320, 960, 3), np.uint8)
    image[:10], image[-10:] = RED, BLUE
    result = to_model_input(image)
    assert result[0, :, 0].min() > 200
    assert result[-1, :, 2].min() > 200


def test_a_long_image_is_cropped_to_its_center() -> None:
    image = np.concatenate([np.full((40, 1000, 3), c, np.uint8) for c in (RED, GREEN, BLUE)], axis=1)
    assert_is(to_model_input(image), GREEN)


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_fine_checkerboard_becomes_gray(period: int) -> None:
    y, x = np.mgrid[:480, :480] // period
    board = ((x + y) % 2 * 255).astype(np.uint8)
    assert_is(to_model_input(board), (127, 127, 127), within=8)


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_the_whole_image_and_pads_with_gray(turned: bool) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    result = to_model_input(wide.swapaxes(0, 1) if turned else wide, fit="pad")
    result = result.swapaxes(0, 1) if turned else result
    np.testing.assert_array_equal(result[8:24], wide)
    assert (np.concatenate([result[:8], result[24:]]) == 128).all()


def test_stretch_fills_the_square_with_the_whole_image() -> None:
    wide = blocks(RED, BLUE, width=640, height=64)
    result = to_model_input(wide, fit="stretch").astype(int)
    assert np.abs(result[:, :14] - RED).max() <= 2
    assert np.abs(result[:, 18:] - BLUE).max() <= 2


@pytest.mark.parametrize("fit", FITS)
def test_no_fit_changes_a_square(fit: Fit) -> None:
    square = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert_is(to_model_input(square, fit=fit), square)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_pad_and_stretch_accept_a_very_thin_image(fit: Fit) -> None:
    assert to_model_input(Image.new("RGB", (4000, 2)), fit=fit).shape == (32, 32, 3)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001], ids=["quiet", "signaling"])
def test_nan_is_refused_without_a_warning(tmp_path: Path, bits: int) -> None:
    pixels = np.zeros((40, 40), np.float32)
    pixels.view(np.uint32)[3, 3] = bits
    Image.fromarray(pixels).save(tmp_path / "nan.tif")
    with pytest.raises(UserError) as caught:
        to_model_input(tmp_path / "nan.tif")
    assert caught.value.code == "image.range"


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        to_model_input(IMAGE, fit="squash")  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "image.fit"


# Refused input


def test_postscript_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file is PostScript, which Pillow would run in Ghostscript if that is installed."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # discards the cached path of Ghostscript
    Image.fromarray(IMAGE).save(tmp_path / "image.eps")
    with pytest.raises(UserError) as caught:
        to_model_input(tmp_path / "image.eps")
    assert_one_sentence(str(caught.value), "image.eps")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_recognized_by_its_content(tmp_path: Path, brand: bytes) -> None:
    content = b"\0\0\0\x18ftyp" + brand + bytes(100)
    (tmp_path / "IMG_1.JPG").write_bytes(content)
    for image in (content, tmp_path / "IMG_1.JPG"):
        with pytest.raises(UserError) as caught:
            to_model_input(image)
        assert caught.value.code == "image.heic"
        assert_one_sentence(str(caught.value), "HEIC", "JPEG")


def test_git_lfs_pointers_and_web_pages_are_recognized() -> None:
    for content, hint in (
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<HTML>404", "web page"),
    ):
        with pytest.raises(UserError, match=hint):
            to_model_input(content)


def test_image_suffixes_are_those_of_the_supported_formats() -> None:
    suffixes = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".jp2", ".tga", ".ico", ".mpo", ".avif"} <= set(suffixes)
    assert not {".heic", ".eps", ".pdf", ".psd", ".txt"} & set(suffixes)


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in ("JPEG2000", "AVIF", "WEBP")])
def test_every_format_is_read(tmp_path: Path, format: str) -> None:
    Image.new("RGB", (32, 32), RED).save(tmp_path / "x", format)
    assert_is(to_model_input(tmp_path / "x"), RED, within=2)


def test_a_damaged_pil_image_is_refused() -> None:
    content = image_bytes(Image.fromarray(IMAGE).resize((300, 300)), "JPEG")
    with pytest.raises(UserError) as caught:
        to_model_input(Image.open(io.BytesIO(content[:1500])))
    assert_one_sentence(str(caught.value))


PIXELS = np.full((8, 8, 3), 0.5)


def with_one(value: float) -> np.ndarray:
    array = PIXELS.copy()
    array[3, 3, 1] = value
    return array


REFUSED: dict[str, tuple[Any, str]] = {
    "one axis": (np.zeros(32, np.uint8), "[32]"),
    "a batch": (np.zeros((2, 32, 32, 3), np.uint8), "[2, 32, 32, 3]"),
    "two channels": (np.zeros((32, 32, 2), np.uint8), "[32, 32, 2]"),
    "five channels": (np.zeros((32, 32, 5), np.uint8), "[32, 32, 5]"),
    "channels first": (np.zeros((3, 32, 32), np.uint8), "[3, 32, 32]"),
    "no rows": (np.zeros((0, 32, 3), np.uint8), "[0, 32, 3]"),
    "no columns": (np.zeros((32, 0), np.uint8), "[32, 0, 1]"),
    "a scalar": (np.array(1.0), "[]"),
    "a batch of tensors": (torch.zeros(2, 3, 32, 32), "[2, 3, 32, 32]"),
    "NaN": (with_one(np.nan), "nan"),
    "infinite": (with_one(np.inf), "inf"),
    "below 0": (with_one(-0.1), "-0.1"),
    "above 1": (with_one(1.1), "1.1"),
    "0..255 as floats": (IMAGE.astype(np.float32), "0..1"),
    "NaN in a tensor": (torch.full((3, 8, 8), torch.nan), "nan"),
    "NaN in an F image": (Image.fromarray(np.full((8, 8), np.nan, np.float32)), "nan"),
    "F image of 0..255": (Image.new("F", (8, 8), 200), "200"),
    "negative I image": (Image.new("I", (8, 8), -5), "-5"),
    "int64": (np.zeros((8, 8, 3), np.int64), "int64"),
    "int8": (np.zeros((8, 8, 3), np.int8), "int8"),
    "complex": (np.zeros((8, 8, 3), np.complex64), "complex64"),
    "objects": (np.full((8, 8, 3), None), "object"),
    "text": (np.full((8, 8, 3), "x"), "<U1"),
    "an int64 tensor": (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
    "None": (None, "NoneType"),
    "a number": (5, "int"),
    "bytes that are not an image": (b"\x89PNG", "not an image that can be read"),
    "a list": ([[0, 1], [1, 0]], "list"),
    "an open file": (io.BytesIO(), "BytesIO"),
    "no pixels": (Image.new("RGB", (0, 5)), "no pixels"),
    "too long and thin": (Image.new("RGB", (4000, 2)), "4000x2"),
}


@pytest.mark.parametrize(("image", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_images_are_refused(image: Any, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        to_model_input(image)
    assert_one_sentence(str(caught.value), reason)


def test_a_transparent_16_bit_gray_png_is_white(tmp_path: Path) -> None:
    pixels = np.full((32, 32), 30_000, np.uint16)
    pixels[:, 16:] = 10_000
    Image.fromarray(pixels).save(tmp_path / "gray.png", transparency=30_000)
    shown = to_model_input(tmp_path / "gray.png")
    assert (shown[:, :16] == 255).all()
    assert (shown[:, 16:] == 39).all()
