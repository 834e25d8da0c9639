"""Conversion of any image (file, bytes, PIL image, array or tensor) to model input: RGB pixels, uint8 [S, S, 3].

Requires only numpy and Pillow; PyTorch tensors are supported without importing torch.
"""

from __future__ import annotations

import math
import threading
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from cifar100.images import limits
from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.images.square import to_square
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint

# Pillow supports more, and passes some (EPS) to other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "AVIF", "JPEG2000")

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""The brands after `ftyp` in a HEIF file (ISO/IEC 23008-12), which Pillow does not read."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition for each value of the EXIF orientation tag."""

_QUARTER_TURNS = {_UPRIGHT[value] for value in (5, 6, 7, 8)}
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

STRIP_PIXELS = 1 << 20
"""Number of pixels that are converted at a time."""

MAX_EXIF_BYTES = 1 << 16
"""Maximum size of a JPEG segment; larger EXIF data is not parsed."""

LARGE_BYTES = 1 << 26
"""Images that need more memory are decoded one at a time."""

_large_images = threading.Lock()


@cache
def image_suffixes() -> tuple[str, ...]:
    """The file name suffixes of the supported formats (".jpg", ".png", …), lower case, sorted."""
    formats = {*FORMATS, "MPO"}  # MPO is Pillow's name of a JPEG with several images
    return tuple(sorted(suffix for suffix, kind in Image.registered_extensions().items() if kind in formats))


def to_model_input(image: Any, size: int = 32, fit: Fit = DEFAULT_FIT) -> np.ndarray:
    """An image -> uint8 [size, size, 3]: upright, RGB, made square as `fit` says (`to_square`).

    `image` is a path; the bytes of a file; a PIL image of any mode (16-bit is scaled to 8 bits; transparency is
    composited on white; of an animation, the first frame); an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8,
    uint16 or float in 0..1; or a tensor, [3, H, W] or [1, H, W] or like an array. An image that is `size` x `size`
    is not changed. Raises UserError for anything else and for a file that is not an image.
    """
    return to_square(to_rgb(image), size, fit, name=image if isinstance(image, str | Path) else "")


def to_rgb(image: Any, *, name: str | Path = "the image") -> Image.Image:
    """The image as an upright RGB PIL image of its original size; accepts and raises what `to_model_input` does.

    `name` denotes bytes in error messages. An image of more than 24 megapixels is reduced by an integer factor, to at
    least 2048 pixels on its shorter side; its `info["original_size"]` is then the original (width, height). Raises
    UserError for a file that would need more time or memory than `limits` allows.
    """
    if isinstance(image, str | Path):
        return _from_file(Path(image), image)
    if isinstance(image, bytes):
        return _from_file(image, name)
    if isinstance(image, Image.Image):
        try:
            return _from_pil(image)
        except UserError:
            raise
        except Exception as error:  # one that was opened but not decoded
            raise UserError(
                "image.damaged", f"The image is damaged and cannot be decoded ({type(error).__name__})."
            ) from None
    if hasattr(image, "detach") and hasattr(image, "cpu"):  # a tensor
        array = image.detach().cpu()
        array = (array.float() if array.dtype.is_floating_point else array).numpy()
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)  # [C, H, W], as PyTorch lays images out
        return _from_array(array)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise UserError(
        "image.type", f"An image is a path, bytes, a PIL image, an array or a tensor; this is a {type(image).__name__}."
    )


def _from_file(file: Path | bytes, name: str | Path) -> Image.Image:
    name, start = str(name), b""
    try:
        content = file if isinstance(file, bytes) else limits.read_file(file)
        start = content[:64]
        limits.check_icon(content)
        limits.check_tags(content)
        guarded = limits.GuardedFile(content)
        with warnings.catch_warnings(action="ignore"):
            opened = Image.open(guarded, formats=FORMATS)
        with opened as image:
            guarded.header_is_read()
            size = image.size
            is_large = limits.prepare(image, content) > LARGE_BYTES
            with _large_images if is_large else nullcontext():
                return _from_pil(_rescaled_pnm(image, content) or image, size)
    except FileNotFoundError:
        raise UserError("image.missing", f"There is no image {name}.") from None
    except (limits.TooExpensive, Image.DecompressionBombError, MemoryError) as error:
        reason = str(error) if isinstance(error, limits.TooExpensive) else "has too many pixels"
        raise UserError("image.cost", f"{name} {reason}: save it as a smaller JPEG or PNG.") from None
    except UnidentifiedImageError:
        if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
            raise UserError(
                "image.heic",
                f"{name} is HEIC (HEIF), the photo format of iPhones, which is not supported: save it as JPEG.",
            ) from None
        raise UserError("image.format", f"{name} is not an image that can be read.{content_hint(start)}") from None
    except UserError as error:
        raise UserError(error.code, f"{name}: {error}" if error.code != "image.special" else str(error)) from None
    except OSError as error:
        system = error.errno is not None  # those of Pillow's decoders have no errno
        reason = f"cannot be read ({error.strerror})" if system else "is damaged and cannot be decoded (OSError)"
        raise UserError("image.unreadable", f"{name} {reason}.") from None
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        raise UserError("image.damaged", f"{name} is damaged and cannot be decoded ({type(error).__name__}).") from None


def _rescaled_pnm(image: ImageFile.ImageFile, content: bytes) -> Image.Image | None:
    """A PGM or PPM whose maximum value is neither 255 nor 65535, as 8 bits; Pillow would loop over it in Python."""
    if image.format != "PPM" or image.tile[0].codec_name != "ppm" or 0 in image.size:
        return None
    settings: Any = image.tile[0].args
    (mode, white), offset = settings, image.tile[0].offset
    shape = (image.height, image.width, 3) if mode == "RGB" else (image.height, image.width)
    samples = np.frombuffer(content, ">u2" if white > 255 else "u1", math.prod(shape), offset)
    table = (np.arange(1 << 16 if white > 255 else 1 << 8) * 255 / white).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(table[samples].reshape(shape))


def _from_pil(image: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """The image as RGB, upright; `size` is its size before decoding at a reduced size."""
    width, height = size or image.size
    if width == 0 or height == 0:
        raise UserError("image.empty", "The image has no pixels.")
    if image.tell():  # an animation at a later frame
        image.seek(0)
    image.load()
    method = _UPRIGHT.get(_orientation(image))
    rgb = _flattened(image)
    if rgb.width * rgb.height > limits.LARGE_PIXELS:
        rgb = rgb.reduce(max(1, min(rgb.size) // limits.MIN_REDUCED_SIDE))
    if method is not None:
        rgb = rgb.transpose(method)
        width, height = (height, width) if method in _QUARTER_TURNS else (width, height)
    if rgb.size != (width, height):
        rgb.info["original_size"] = width, height
    return rgb


def _flattened(image: Image.Image) -> Image.Image:
    """A loaded image as RGB: 16 bits and floats scaled to 8 bits, transparency composited on white.

    It is converted in strips, so that a large one needs little additional memory.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    white = _white(image) if image.mode in _DEEP_MODES else None
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        return _to_rgb(image, white)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_to_rgb(strip, white), (0, top))
    return rgb


def _to_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if white is not None:
        with np.errstate(invalid="ignore"):  # a signaling NaN, which is refused as every NaN
            pixels = np.asarray(image).astype(np.float64)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):  # of a 16-bit PNG: the value of transparent pixels
            pixels[pixels == transparent] = white
        return _from_array(pixels, max_value=white)
    if image.mode == "La":  # the only conversion that Pillow supports
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if it is not known.

    `ImageOps.exif_transpose` also rewrites the EXIF data, and fails on invalid tags that are unrelated.
    """
    if len(image.info.get("exif") or b"") > MAX_EXIF_BYTES:
        return 1
    try:
        orientation = image.getexif().get(0x0112)
    except limits.TooExpensive:
        raise
    except Exception:  # Pillow raises many types for damaged EXIF; the pixels are intact
        return 1
    return orientation if isinstance(orientation, int) else 1


def _white(image: Image.Image) -> float:
    """The value of white in a float image, or in an integer one of more than 8 bits: 255 if no pixel is larger, else
    according to the bits per sample of its file, else that of 16 bits."""
    if image.mode == "F":
        return 1.0
    rows = max(1, STRIP_PIXELS // image.width)
    strips = range(0, image.height, rows)
    highest = max(np.asarray(image.crop((0, top, image.width, min(top + rows, image.height)))).max() for top in strips)
    if highest <= 255:  # mode I holds 32 bits, and 16-bit files often hold 8-bit images
        return 255.0
    tag = getattr(image, "tag_v2", {}).get(258)  # TIFF: BitsPerSample
    bits = tag[0] if isinstance(tag, tuple) and tag else tag
    white = 2.0**bits - 1 if isinstance(bits, int) and 8 < bits <= 16 else 65535.0
    return white if highest <= white else 65535.0


def _from_array(array: np.ndarray, *, max_value: float | None = None) -> Image.Image:
    """An array [H, W] or [H, W, C], uint8, uint16 or numbers in 0..`max_value` (of floats 1), as an RGB image."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            "image.shape", f"An image array is [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; this is {list(array.shape)}."
        )
    if array.dtype == np.uint16:
        max_value = 65535.0
    elif array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        max_value = max_value or 1.0
    elif array.dtype != np.uint8:
        raise UserError("image.dtype", f"An image array is uint8, uint16 or float in 0..1; this is {array.dtype}.")
    if max_value is not None:
        lowest, highest = float(array.min()), float(array.max())
        if not (lowest >= -1e-3 and highest <= max_value * 1.001):  # a NaN fails too
            raise UserError(
                "image.range",
                f"Pixel values must be in 0..{max_value:g}; these are from {lowest:g} to {highest:g}. "
                "Pass the image before normalization.",
            )
        array = (array.astype(np.float64) * (255 / max_value)).round().clip(0, 255).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    pixels = np.ascontiguousarray(array[:, :, 0] if mode == "L" else array)
    image = Image.fromarray(pixels)
    return image.convert("RGB") if mode != "RGBA" else _from_pil(image)
