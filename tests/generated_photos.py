"""Generate image files of various sizes, modes and formats, such as users of the app upload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MAX_RATIO = 40  # longer side : shorter side


def write_photos(folder: Path, count: int, seed: int = 3) -> list[str]:
    """Write `count` files, cycling through `KINDS`, with sides of 4 to 1,260 pixels to a new directory; return their
    names."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    names = []
    for number in range(count):
        width, height = (int(2**exponent) for exponent in draws.uniform(2, 10.3, 2))
        if max(width, height) > MAX_RATIO * min(width, height):
            width = height
        pixels = scene(width, height, draws)
        suffix, save = list(KINDS.values())[number % len(KINDS)]
        names.append(f"{number:03d}.{suffix}")
        save(pixels, folder / names[-1], draws)
    return names


def scene(width: int, height: int, draws: np.random.Generator) -> np.ndarray:
    """Smooth color gradients with noise, uint8 [H, W, 4]."""
    shape = [max(2, side // int(draws.integers(2, 24))) for side in (height, width)]
    coarse = draws.normal(size=(*shape, 4))
    coarse = ((coarse - coarse.min()) / np.ptp(coarse) * 255).astype(np.uint8)
    planes = [Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(4)]
    smooth = np.stack([np.asarray(plane) for plane in planes], axis=-1).astype(np.float64)
    return (smooth + draws.normal(0, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)


Save = Callable[[np.ndarray, Path, np.random.Generator], None]


def _rgb(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, :3])


def _gray(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0])


def _orientation(draws: np.random.Generator) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = int(draws.integers(2, 9))
    return exif


def _gray16(pixels: np.ndarray, path: Path, draws: np.random.Generator) -> None:
    values = pixels[:, :, 0].astype(np.uint16) * 257 ^ draws.integers(0, 256, pixels.shape[:2], dtype=np.uint16)
    Image.fromarray(values).save(path)


def _gray_alpha(pixels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    Image.merge("LA", (_gray(pixels), Image.fromarray(pixels[:, :, 3]))).save(path)


KINDS: dict[str, tuple[str, Save]] = {
    "RGB": ("png", lambda pixels, path, _: _rgb(pixels).save(path)),
    "RGBA": ("png", lambda pixels, path, _: Image.fromarray(pixels).save(path)),
    "gray": ("png", lambda pixels, path, _: _gray(pixels).save(path)),
    "gray, alpha": ("png", _gray_alpha),
    "gray, 16 bits": ("png", _gray16),
    "palette": ("png", lambda pixels, path, _: _rgb(pixels).quantize(64).save(path)),
    "palette, alpha": ("png", lambda pixels, path, _: Image.fromarray(pixels).quantize(64).save(path)),
    "1 bit": ("png", lambda pixels, path, _: _gray(pixels).convert("1").save(path)),
    "PNG, rotated": (
        "png",
        lambda pixels, path, draws: _rgb(pixels).save(path, exif=_orientation(draws)),
    ),
    "JPEG 4:4:4": ("jpg", lambda pixels, path, _: _rgb(pixels).save(path, quality=80, subsampling=0)),
    "JPEG 4:2:0": ("jpg", lambda pixels, path, _: _rgb(pixels).save(path, quality=60, subsampling=2)),
    "JPEG, rotated": (
        "jpg",
        lambda pixels, path, draws: _rgb(pixels).save(path, quality=85, exif=_orientation(draws)),
    ),
    "JPEG, gray": ("jpg", lambda pixels, path, _: _gray(pixels).save(path, progressive=True)),
    "JPEG, CMYK": ("jpg", lambda pixels, path, _: _rgb(pixels).convert("CMYK").save(path, quality=90)),
    "JPEG, progressive": ("jpg", lambda pixels, path, _: _rgb(pixels).save(path, progressive=True, subsampling=1)),
    "WebP": ("webp", lambda pixels, path, _: _rgb(pixels).save(path, quality=80)),
    "WebP, alpha": ("webp", lambda pixels, path, _: Image.fromarray(pixels).save(path, lossless=True)),
    "WebP, rotated": (
        "webp",
        lambda pixels, path, draws: _rgb(pixels).save(path, exif=_orientation(draws).tobytes()),
    ),
    "GIF": ("gif", lambda pixels, path, _: _rgb(pixels).save(path)),
    "BMP": ("bmp", lambda pixels, path, _: _rgb(pixels).save(path)),
}
