"""Any image -> what the network was trained on: RGB pixels, uint8 [S, S, 3]. The one way in, files and arrays alike.

Only numpy and Pillow are needed; a PyTorch tensor is taken without importing torch.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cifar100.support.errors import UserError

MOST_PIXELS = 80_000_000
"""Of a file; a small one can claim any number."""

# Pillow knows more, and hands some (EPS) to other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "AVIF", "JPEG2000")

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What follows `ftyp` in a HEIF file (ISO/IEC 23008-12). Pillow reads none of them."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the value of its EXIF orientation tag."""


@cache
def image_suffixes() -> tuple[str, ...]:
    """The file name suffixes of the formats that are read (".jpg", ".png", …), lower case, sorted."""
    formats = {*FORMATS, "MPO"}  # MPO is what Pillow calls a JPEG of several pictures
    return tuple(sorted(suffix for suffix, kind in Image.registered_extensions().items() if kind in formats))


def is_heif(start: bytes) -> bool:
    """Whether a file that starts with these bytes (12 or more) is HEIF: HEIC, the format of iPhones, for example."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS


def to_model_input(image: Any, size: int = 32) -> np.ndarray:
    """An image of any kind and size -> uint8 [size, size, 3]: upright, RGB, the shorter side resized, centre cropped.

    `image` is a path; the bytes of a file; a PIL image of any mode (16-bit is scaled to 8; transparency is laid on
    white; of an animation the first frame is taken); an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8, uint16
    or float in 0..1; or a tensor, [3, H, W] or [1, H, W] or as an array. An image that is `size` x `size` already keeps
    its exact pixels. Raises UserError, in one sentence, for anything else and for a file that is no image.
    """
    return resize_center_crop(to_rgb(image), size, name=image if isinstance(image, str | Path) else "")


def resize_center_crop(rgb: Image.Image, size: int, *, name: str | Path = "") -> np.ndarray:
    """What `to_model_input` does to an upright RGB image of any size; `name` is for what it raises."""
    width, height = rgb.size
    if (width, height) != (size, size):
        scale = size / min(width, height)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        if max(wide, high) > 100 * size:
            said = f"{name}: " if name else ""
            raise UserError(f"{said}The image is {width}x{height}: too long and thin to be cropped to a square.")
        left, top = (wide - size) // 2, (high - size) // 2
        # Pillow's filters widen with the reduction, which is antialiasing
        rgb = rgb.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return np.asarray(rgb)


def to_rgb(image: Any, *, name: str | Path = "the image", most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The image as an upright RGB PIL image of its own size; accepts and raises what `to_model_input` does.

    `name` is what bytes are called in what it raises; a file of more than `most_pixels` is refused undecoded.
    """
    if isinstance(image, str | Path):
        return _from_file(Path(image), image, most_pixels)
    if isinstance(image, bytes):
        return _from_file(io.BytesIO(image), name, most_pixels)
    if isinstance(image, Image.Image):
        try:
            return _from_pil(image)
        except UserError:
            raise
        except Exception as error:  # one that was opened and not decoded yet
            raise UserError(f"The image is damaged and cannot be decoded ({type(error).__name__}).") from None
    if hasattr(image, "detach") and hasattr(image, "cpu"):  # a tensor
        array = image.detach().cpu()
        array = (array.float() if array.dtype.is_floating_point else array).numpy()
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)  # [C, H, W], as PyTorch lays images out
        return _from_array(array)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise UserError(f"An image is a path, bytes, a PIL image, an array or a tensor; this is a {type(image).__name__}.")


def _from_file(file: Path | io.BytesIO, name: str | Path, most_pixels: int) -> Image.Image:
    name = str(name)
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            opened = Image.open(file, formats=FORMATS)
        with opened as image:
            if image.width * image.height > most_pixels:
                raise Image.DecompressionBombError
            return _from_pil(image)
    except FileNotFoundError:
        raise UserError(f"There is no image {name}.") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder, not an image.") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name} has more pixels than any photo needs; it is not opened.") from None
    except UnidentifiedImageError:
        if is_heif(_start_of(file)):
            raise UserError(
                "image.heic", f"{name} is HEIC (HEIF), the photo format of iPhones, which is not read: save it as JPEG."
            ) from None
        raise UserError("image.format", f"{name} is not an image that can be read.") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except OSError as error:
        system = error.errno is not None  # those of Pillow's decoders have no number
        why = f"cannot be read ({error.strerror})" if system else "is damaged and cannot be decoded (OSError)"
        raise UserError(f"{name} {why}.") from None
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise UserError(f"{name} is damaged and cannot be decoded ({type(error).__name__}).") from None


def _start_of(file: Path | io.BytesIO) -> bytes:
    try:
        if isinstance(file, io.BytesIO):
            return file.getvalue()[:12]
        with file.open("rb") as opened:
            return opened.read(12)
    except OSError:
        return b""


def _from_pil(image: Image.Image) -> Image.Image:
    if image.width == 0 or image.height == 0:
        raise UserError("The image has no pixels.")
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image = _upright(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        array = np.asarray(image).astype(np.float64)
        return _from_array(array, top=1.0 if image.mode == "F" else _white(image, array))
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, if that can be read.

    `ImageOps.exif_transpose` also writes the EXIF anew, and fails on tags that have nothing to do with the pixels.
    """
    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # Pillow raises many kinds for damaged EXIF; the pixels are whole
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _white(image: Image.Image, array: np.ndarray) -> float:
    """The value of white in an integer image of more than 8 bits: by its pixels if they are those of 8 bits, else by
    the bits per sample that its file states, else 16 bits."""
    if array.max() <= 255:  # mode I holds 32 bits, and 16-bit files often hold 8-bit images
        return 255.0
    tag = getattr(image, "tag_v2", {}).get(258)  # TIFF: BitsPerSample
    bits = tag[0] if isinstance(tag, tuple) and tag else tag
    white = 2.0**bits - 1 if isinstance(bits, int) and 8 < bits <= 16 else 65535.0
    return white if array.max() <= white else 65535.0


def _from_array(array: np.ndarray, *, top: float | None = None) -> Image.Image:
    """uint8, uint16, or numbers in 0..top; `top` is 1 for floats where it is not given."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(f"An image array is [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; this is {list(array.shape)}.")
    if array.dtype == np.uint16:
        top = 65535.0
    elif array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        top = top or 1.0
    elif array.dtype != np.uint8:
        raise UserError(f"An image array is uint8, uint16 or float in 0..1; this is {array.dtype}.")
    if top is not None:
        lowest, highest = float(array.min()), float(array.max())
        if not (lowest >= -1e-3 and highest <= top * 1.001):  # a NaN fails too
            raise UserError(
                f"Pixels as numbers must lie in 0..{top:g}; these run from {lowest:g} to {highest:g}. "
                "An image that was normalised already cannot be taken: give it as it was."
            )
        array = (array.astype(np.float64) * (255 / top)).round().clip(0, 255).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    pixels = np.ascontiguousarray(array[:, :, 0] if mode == "L" else array)
    image = Image.fromarray(pixels)
    return image.convert("RGB") if mode != "RGBA" else _from_pil(image)
