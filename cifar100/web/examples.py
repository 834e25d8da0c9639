"""Example images for the web app, drawn by code, so that none is from the dataset or under copyright."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256

Draw = ImageDraw.ImageDraw
Color = tuple[int, int, int]


def example_files() -> dict[str, bytes]:
    """PNG files by name."""
    return {f"{name}.png": _file(draw) for name, draw in _DRAWINGS.items()}


def _file(draw: Callable[[Draw], None]) -> bytes:
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    draw(ImageDraw.Draw(image))
    soft = image.filter(ImageFilter.GaussianBlur(3)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 4, (SIDE, SIDE, 1))  # no camera gives flat areas
    content = io.BytesIO()
    Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def _shade(pen: Draw, top: Color, bottom: Color, rows: tuple[int, int] = (0, 512)) -> None:
    first, last = rows
    for y in range(first, last):
        part = (y - first) / (last - first)
        pen.line(((0, y), (512, y)), fill=tuple(round(a + part * (b - a)) for a, b in zip(top, bottom, strict=True)))


def _ball(pen: Draw, center: tuple[int, int], radius: int, dark: Color, light: Color) -> None:
    """A sphere, lit from the upper left."""
    x, y = center
    for step in range(40):
        part = step / 40
        r = radius * (1 - part)
        cx, cy = x - 0.35 * radius * part, y - 0.4 * radius * part
        color = tuple(round(a + part**1.3 * (b - a)) for a, b in zip(dark, light, strict=True))
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=color)


def _orange(pen: Draw) -> None:
    pen.ellipse((90, 400, 450, 490), fill=(215, 210, 205))
    _ball(pen, (256, 262), 195, (200, 92, 0), (255, 190, 80))
    pen.ellipse((248, 88, 268, 100), fill=(90, 110, 30))


def _sea(pen: Draw) -> None:
    _shade(pen, (70, 130, 210), (195, 220, 240), (0, 250))
    _shade(pen, (30, 90, 140), (15, 60, 110), (250, 512))
    draws = np.random.default_rng(1)
    for _ in range(260):
        x, y = int(draws.integers(0, 512)), int(draws.integers(255, 512))
        length = 10 + (y - 250) // 4
        pen.line((x, y, x + length, y), fill=(60 + y // 6, 125 + y // 8, 175), width=2 + y // 170)


def _sunflower(pen: Draw) -> None:
    _shade(pen, (50, 110, 40), (25, 70, 25))
    pen.rectangle((246, 300, 268, 512), fill=(60, 120, 40))
    for ring, (length, color) in enumerate(((215, (225, 150, 5)), (190, (250, 195, 20)))):
        for number in range(22):
            angle = 2 * math.pi * (number + ring / 2) / 22
            tip = (256 + length * math.cos(angle), 240 + length * math.sin(angle))
            sides = [(256 + 130 * math.cos(angle + s), 240 + 130 * math.sin(angle + s)) for s in (-0.19, 0.19)]
            pen.polygon([(256, 240), sides[0], tip, sides[1]], fill=color)
    _ball(pen, (256, 240), 98, (50, 28, 10), (110, 65, 25))


def _road(pen: Draw) -> None:
    _shade(pen, (90, 150, 220), (205, 225, 240), (0, 220))
    _shade(pen, (110, 130, 60), (140, 140, 80), (220, 512))
    pen.polygon([(245, 220), (267, 220), (470, 512), (42, 512)], fill=(85, 85, 90))
    for near in (0.06, 0.16, 0.32, 0.6):
        y, far = 220 + 292 * near, 220 + 292 * near * 1.45
        pen.polygon(
            [(254, y), (258, y), (256 + 12 * near * 1.5, far), (256 - 12 * near * 1.5, far)], fill=(240, 235, 200)
        )


def _skyscraper(pen: Draw) -> None:
    _shade(pen, (80, 140, 220), (200, 220, 240))
    for left, top, width, color in ((30, 260, 110, 90), (380, 220, 110, 105), (180, 40, 150, 70)):
        pen.rectangle((left, top, left + width, 512), fill=(color, color + 8, color + 20))
        for x in range(left + 10, left + width - 12, 24):
            for y in range(top + 14, 505, 26):
                pen.rectangle((x, y, x + 12, y + 14), fill=(150, 180, 205))


_DRAWINGS: dict[str, Callable[[Draw], None]] = {
    "orange": _orange,
    "sea": _sea,
    "sunflower": _sunflower,
    "road": _road,
    "skyscraper": _skyscraper,
}
