"""Limits on the cost of an image file. Target: 1 GiB of memory and 10 s of CPU time for a file of up to 100 MB.

Files above MAX_FILE_BYTES are refused. The cost of decoding is estimated from the header, before anything is decoded.
Work that Pillow does in Python, such as parsing millions of metadata blocks, is limited by counting its reads.
"""

from __future__ import annotations

import io
import os
import re
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cifar100.images.pillow_logging import silence_libtiff
from cifar100.support.errors import UserError
from cifar100.support.files import not_a_file

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 1 << 28
MAX_PIXELS = 80_000_000
MAX_DECODED_BYTES = 800 << 20
MAX_ICON_PIXELS = 16_000_000
MAX_HEADER_READS = 1_000_000
"""Before the first pixel; each may allocate an object."""

MAX_READ_FACTOR = 8
"""Bytes that may be read, relative to the size of the file."""

MAX_HEADER_SECONDS, MAX_SECONDS = 2.0, 8.0
"""CPU time until the header is read, and in total; after that the next read fails."""

MAX_SCANNED_PIXELS = 4_000_000_000
"""Number of scans of a JPEG times its pixels: each scan processes all of them."""

MAX_JPEG2000_BYTES = 16_000_000
"""Compressed bytes to decode, at 3 MB/s."""

MAX_TAG_VALUES = 500_000
"""Values in the tags of a TIFF file, such as one for each strip."""

ONE_BYTE_TYPES = (1, 2, 6, 7)
"""TIFF field types with one byte per value: BYTE, ASCII, SBYTE, UNDEFINED."""

IMAGE_DESCRIPTION_TAG, XMP_TAG = 270, 700
"""In ImageDescription, and in XMP and all higher tags (such as the ICC profile), one-byte values are not counted."""

LARGE_PIXELS = 24_000_000
"""Larger images are reduced by an integer factor before they are resized."""

MIN_REDUCED_SIDE = 2048
MIN_JPEG2000_SIDE = 1024

WORKSPACE = {"WEBP": 12, "AVIF": 16, "JPEG2000": 12, "TIFF": 8}
"""Bytes per pixel that a decoder needs besides the decoded image; measured with Pillow 12.3."""

MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes per pixel in Pillow's memory; 4 in other modes."""


class TooExpensive(Exception):
    """Decoding a file would exceed a limit; the message is the predicate of a sentence whose subject is the file."""


class GuardedFile(io.BytesIO):
    """The content of a file; raises TooExpensive if it is read too often, too much or for too long."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads_left: float = MAX_HEADER_READS
        self.bytes_left = MAX_READ_FACTOR * len(content) + (1 << 20)
        self.deadline = time.thread_time() + MAX_HEADER_SECONDS

    def header_is_read(self) -> None:
        """Switch to the limits for decoding the pixels. Some formats are read byte by byte."""
        self.reads_left = float("inf")
        self.deadline += MAX_SECONDS - MAX_HEADER_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.reads_left -= 1
        self.bytes_left -= len(content)
        if self.reads_left < 0 or self.bytes_left < 0:
            raise TooExpensive("has too much metadata")
        if time.thread_time() > self.deadline:
            raise TooExpensive("takes too long to decode")
        return content


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises OSError if it cannot be read, TooExpensive if it is too large, and
    UserError if it is a device or a pipe, which might never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError("image.special", f"{path} is not an image.{not_a_file(path)}")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
            raise TooExpensive(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
        return file.read()


def check_icon(content: bytes) -> None:
    """Raise TooExpensive if an icon contains large images: Pillow decodes the first one when it opens the file."""
    if content[:4] != b"\0\0\1\0":
        return
    for place in range(int.from_bytes(content[4:6], "little")):
        at = int.from_bytes(content[18 + 16 * place :][:4], "little")
        is_png = content[at : at + 4] == b"\x89PNG"
        order, sizes = ("big", content[at + 16 :][:8]) if is_png else ("little", content[at + 4 :][:8])
        width, height = (int.from_bytes(sizes[i : i + 4], order, signed=not is_png) for i in (0, 4))
        if abs(width * height) > MAX_ICON_PIXELS:
            raise TooExpensive("is an icon with too many pixels")


def check_tags(content: bytes) -> None:
    """Raise TooExpensive if a TIFF file lists millions of strips or other values: Pillow makes an object of each."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        return
    is_big = 43 in content[2:4]  # BigTIFF
    start, number, entry = ("8xQ", "Q", "HHQ8x") if is_big else ("4xI", "H", "HHI4x")
    try:
        (offset,) = struct.unpack_from(order + start, content)
        (count,) = struct.unpack_from(order + number, content, offset)
        size, offset = struct.calcsize(order + entry), offset + struct.calcsize(order + number)
        tags = [struct.unpack_from(order + entry, content, offset + size * i) for i in range(min(count, 1 << 16))]
    except struct.error:  # truncated
        return
    num_values = sum(
        length
        for tag, field_type, length in tags
        if field_type not in ONE_BYTE_TYPES or (tag != IMAGE_DESCRIPTION_TAG and tag < XMP_TAG)
    )
    if num_values > MAX_TAG_VALUES:
        raise TooExpensive("has too much metadata")


_JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""The markers with a segment. libjpeg skips or rejects others, such as the bytes 0xFF of compressed data."""

_START_OF_SCAN, _END_OF_IMAGE, _MAX_SEGMENTS = 0xDA, 0xD9, 100_000


def _num_scans(content: bytes) -> int:
    """The number of scans of a JPEG, without those of thumbnails in its metadata and of data after its end."""
    scans, position = 0, 2
    for _ in range(_MAX_SEGMENTS):
        match = _JPEG_SEGMENT.search(content, position)
        if match is None or match[0][1] == _END_OF_IMAGE:
            return scans
        scans += match[0][1] == _START_OF_SCAN
        position = match.end() + int.from_bytes(content[match.end() : match.end() + 2])  # the length of the segment
    raise TooExpensive("has too much metadata")


def prepare(image: Image.Image, content: bytes) -> int:
    """Configure an opened image to decode at a reduced size if it is large and its format supports it. Returns the
    estimated memory to decode and convert it, in bytes. Raises TooExpensive if it exceeds the limits."""
    size = pixels = image.width * image.height
    coefficients = 0
    if image.format == "TIFF":
        silence_libtiff()
    if image.format in ("JPEG", "MPO"):
        scans = _num_scans(content)
        if scans * pixels > MAX_SCANNED_PIXELS:
            raise TooExpensive(f"has {scans:,} scans of {pixels / 1e6:,.0f} megapixels, which take too long to decode")
        if pixels > LARGE_PIXELS:
            image.draft(None, (MIN_REDUCED_SIDE, MIN_REDUCED_SIDE))
        coefficients = 6 * pixels if scans > 1 else 0  # all of them, at full size
        pixels = image.width * image.height
    elif pixels > MAX_PIXELS:
        raise TooExpensive("has too many pixels")
    elif image.format == "JPEG2000":
        halvings = max(0, (min(image.size) // MIN_JPEG2000_SIDE).bit_length() - 1)
        if len(content) >> 2 * halvings > MAX_JPEG2000_BYTES:
            raise TooExpensive("takes too long to decode")
        if halvings:
            image.reduce = halvings  # pyright: ignore[reportAttributeAccessIssue] - in this format it is a setting
        pixels >>= 2 * halvings
    per_pixel = WORKSPACE.get(image.format or "", 0) + MODE_BYTES.get(image.mode, 4) + 4  # 4 for the RGB image
    cost = coefficients + pixels * per_pixel
    if cost > MAX_DECODED_BYTES:
        raise TooExpensive(f"has {size / 1e6:,.0f} megapixels, which need too much memory to decode")
    return cost
