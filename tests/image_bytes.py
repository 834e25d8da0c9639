"""Image files as bytes, also of JPEGs and PNGs that cost much to decode."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def image_bytes(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def jpeg_with_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated `count` times."""
    content = image_bytes(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    at = content.rindex(b"\xff\xda")
    return content[:at] + content[at:-2] * count + content[-2:]


def png_with_declared_size(width: int, height: int) -> bytes:
    """A PNG of one pixel whose header declares this size."""
    content = bytearray(image_bytes(Image.new("RGB", (1, 1))))
    struct.pack_into(">II", content, 16, width, height)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)
