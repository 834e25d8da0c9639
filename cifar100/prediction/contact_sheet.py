"""Contact sheets: many images on one, each with a label and a probability. Drawn with Pillow alone."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cifar100.support.text import escape_control_chars

TILE_SIZE = 128
"""Width and height of an image on the sheet, in pixels."""

MAX_ENTRIES = 240

GAP, LINE_HEIGHT, BAR_HEIGHT = 10, 17, 5
BACKGROUND, TEXT, FAINT, BAR, TRACK = (255, 255, 255), (20, 20, 30), (110, 110, 120), (35, 110, 200), (228, 228, 232)


class Entry(NamedTuple):
    """One image on a sheet."""

    images: tuple[np.ndarray, ...]
    """uint8 [S, S, 3] each, of any S, shown side by side."""
    name: str
    label: str
    """The class, for example."""
    probability: float | None
    """In 0..1, drawn as a bar; None for none."""


def contact_sheet(entries: Sequence[Entry], caption: Sequence[str] = ()) -> bytes:
    """A PNG file of the first `MAX_ENTRIES` entries, about as wide as high, below the lines of the caption.

    At least one entry is needed.
    """
    entries = entries[:MAX_ENTRIES]
    across = max(len(entry.images) for entry in entries)
    width, height = across * TILE_SIZE + GAP, TILE_SIZE + BAR_HEIGHT + 2 * LINE_HEIGHT + GAP
    columns = min(len(entries), max(1, round(math.sqrt(len(entries) * height / width))))
    rows = math.ceil(len(entries) / columns)
    characters = int((columns * width - GAP) / _font().getlength("n"))
    lines = [part for line in caption for part in wrap(escape_control_chars(line), characters, break_on_hyphens=False)]
    top = GAP + LINE_HEIGHT * len(lines)
    sheet = Image.new("RGB", (columns * width + GAP, top + rows * height), BACKGROUND)
    for place, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((GAP, GAP // 2 + place * LINE_HEIGHT), line, fill=FAINT, font=_font())
    for index, entry in enumerate(entries):
        _draw_entry(sheet, entry, GAP + index % columns * width, top + index // columns * height, width - GAP)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _draw_entry(sheet: Image.Image, entry: Entry, left: int, top: int, width: int) -> None:
    draw, font = ImageDraw.Draw(sheet), _font()
    for number, image in enumerate(entry.images):
        tile = Image.fromarray(image).resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC)
        sheet.paste(tile, (left + number * TILE_SIZE, top))
    bottom = top + TILE_SIZE
    if entry.probability is not None:
        draw.rectangle((left, bottom, left + width - 1, bottom + BAR_HEIGHT - 1), fill=TRACK)
        right = left + round((width - 1) * entry.probability)
        draw.rectangle((left, bottom, right, bottom + BAR_HEIGHT - 1), fill=BAR)
    percent = f" {entry.probability:.0%}" if entry.probability is not None else ""
    label = _shortened(escape_control_chars(entry.label), width - font.getlength(percent), font)
    draw.text((left, bottom + BAR_HEIGHT), label + percent, fill=TEXT, font=font)
    name = _shortened(escape_control_chars(entry.name), width, font)
    draw.text((left, bottom + BAR_HEIGHT + LINE_HEIGHT), name, fill=FAINT, font=font)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)


def _shortened(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, without its start if it is too wide: the end of a path says most."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[max(1, len(text) // 20) :]
    return f"…{text}"
