"""Contact sheets: many pictures on one, each with what it was named. Drawn with Pillow alone."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cifar100.support.text import escape_control_chars

SIDE = 128
"""Of a picture on the sheet, in pixels."""

MOST = 240
"""Pictures on a sheet; more would be no sheet to look at."""

GAP, LINE, BAR = 10, 17, 5
PAPER, INK, FAINT, COLOUR = (255, 255, 255), (20, 20, 30), (110, 110, 120), (35, 110, 200)


class Entry(NamedTuple):
    """One image on a sheet."""

    pictures: tuple[np.ndarray, ...]
    """uint8 [S, S, 3] each: shown side by side; of any S."""
    name: str
    label: str
    """What it was named."""
    probability: float
    """In 0..1, drawn as a bar."""


def contact_sheet(entries: Sequence[Entry]) -> bytes:
    """A PNG file of these, the first `MOST` of them, in rows about as long as the sheet is high. One at least."""
    entries = entries[:MOST]
    across = max(len(entry.pictures) for entry in entries)
    wide, high = across * SIDE + GAP, SIDE + BAR + 2 * LINE + GAP
    columns = min(len(entries), max(1, round(math.sqrt(len(entries) * high / wide))))
    rows = math.ceil(len(entries) / columns)
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for place, entry in enumerate(entries):
        left, top = GAP + place % columns * wide, GAP + place // columns * high
        width = wide - GAP
        for number, picture in enumerate(entry.pictures):
            sheet.paste(_enlarged(picture), (left + number * SIDE, top))
        bottom = top + SIDE
        draw.rectangle((left, bottom, left + width - 1, bottom + BAR - 1), fill=(228, 228, 232))
        draw.rectangle((left, bottom, left + round((width - 1) * entry.probability), bottom + BAR - 1), fill=COLOUR)
        share = f" {entry.probability:.0%}"
        label = _fitting(escape_control_chars(entry.label), width - font.getlength(share), font)
        draw.text((left, bottom + BAR), label + share, fill=INK, font=font)
        draw.text(
            (left, bottom + BAR + LINE), _fitting(escape_control_chars(entry.name), width, font), fill=FAINT, font=font
        )
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _enlarged(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    return image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _fitting(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its start left out where it is too long for this width: the end of a path says most."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[max(1, len(text) // 20) :]
    return f"…{text}"
