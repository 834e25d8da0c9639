"""Reads the Python pickles of CIFAR-100 (train, test, meta) and of CIFAR-10 (five batches, a test batch, batches.meta).

Unpickling can run any code that a file names, so nothing is unpickled here but plain values and byte arrays: the two
numpy names that the official files mention are answered by `_Array` below, and every other name is refused.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cifar100.dataset.base import Contents, Dataset, Split, canonical_split, join, read_file
from cifar100.dataset.published import CIFAR10, CIFAR100, Layout, find_layout
from cifar100.support.errors import UserError

LAYOUTS = (
    Layout(
        CIFAR100,
        archive="cifar-100-python.tar.gz",
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        names="meta",
    ),
    Layout(
        CIFAR10,
        archive="cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        names="batches.meta",
    ),
)
IMAGE_BYTES = 3 * 32 * 32


def find(folder: Path) -> tuple[Path, Layout] | None:
    """The folder that holds the files, this one or the archive's own in it, and which they are; None for neither."""
    return find_layout(folder, LAYOUTS)


def read(folder: Path, layout: Layout, content_of: Contents = read_file) -> Dataset:
    """The dataset in this folder. Raises UserError, naming the file, where one is damaged, forged or foreign."""
    published = layout.published
    if published.superclasses:
        labels, expected = "fine_labels", {"fine_label_names": published.classes}
        expected |= {"coarse_label_names": published.superclasses}
    else:
        labels, expected = "labels", {"label_names": published.classes}
    meta = _unpickle(folder / layout.names, content_of)
    for key, ours in expected.items():
        names = meta.get(key)
        if not isinstance(names, list) or tuple(map(_text, names)) != ours:
            raise UserError(f"{folder / layout.names}: its {key} are not {published.name}'s.")
    train = _read_split([folder / name for name in layout.train], labels, len(published.classes), content_of)
    test = _read_split([folder / name for name in layout.test], labels, len(published.classes), content_of)
    return Dataset(published, train, test, source=str(folder))


def _read_split(paths: list[Path], key: str, num_classes: int, content_of: Contents) -> Split:
    images, labels = zip(*(_read_rows(path, key, content_of) for path in paths), strict=True)
    try:
        return canonical_split(join(images), join(labels), num_classes)
    except UserError as error:
        raise UserError(f"{', '.join(str(path) for path in paths)}: {error}") from None


def _read_rows(path: Path, key: str, content_of: Contents) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and class ids int64 [M] of one file."""
    content = _unpickle(path, content_of)
    data, labels = content.get("data"), content.get(key)
    if not isinstance(data, _Array) or len(data.shape) != 2 or data.shape[1] != IMAGE_BYTES:
        raise UserError(f"{path}: its data is not an array of rows of {IMAGE_BYTES} bytes, one 32x32 RGB image each.")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise UserError(f"{path}: its {key} are not a list of class ids.")
    images = np.frombuffer(data.content, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.int64)


class _Array:
    """Stands in for numpy's array while unpickling: accepts bytes and their shape, and allocates nothing itself."""

    shape: tuple[int, ...] = ()
    content: bytes = b""

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _Dtype) or fortran_order or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not of plain bytes")
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array without a proper shape")
        size = 1
        for side in shape:
            size *= side
        if size != len(content):
            raise pickle.UnpicklingError(
                f"an array whose shape is not that of the {len(content):,} bytes that it holds"
            )
        self.shape, self.content = shape, content


class _Dtype:
    """Stands in for numpy's dtype: unsigned bytes, or nothing."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        if code not in ("u1", b"u1"):
            what = repr(code[:20]) if isinstance(code, str | bytes) else f"a {type(code).__name__}"
            raise pickle.UnpicklingError(f"an array of {what}, where bytes are expected")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like: nothing that matters for single bytes


def _reconstruct(*_ignored: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("a byte string in an unknown encoding")
    return text.encode("latin1")


def _check_keys(keys: list[Any]) -> None:
    """Hashing a deeply nested tuple would overflow the C stack."""
    if not all(isinstance(key, str | bytes) for key in keys):
        raise pickle.UnpicklingError("a dictionary with a key that is no text")


# The Python-written unpickler: the C one lets a 20-byte file ask for gigabytes of memo.
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_PythonUnpickler):
    _ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,  # how Python 3 writes bytes at protocol 2
    }

    # Not in the official files, and either allocate what a length claims or hash what may be nested without end.
    dispatch: ClassVar = {
        code: load
        for code, load in _PythonUnpickler.dispatch.items()
        if bytes([code]) not in (pickle.BYTEARRAY8, pickle.DICT, pickle.ADDITEMS, pickle.FROZENSET)
    }

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except (KeyError, TypeError):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the official files do not") from None


def _unpickle(path: Path, content_of: Contents) -> dict[str, Any]:
    """The dictionary that a file holds, its keys as text."""
    content = content_of(path)
    try:
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused: {str(error)[:200]}.") from None
    except Exception as error:  # a forged pickle can make the unpickler raise anything at all
        raise UserError(f"{path}: damaged: it does not unpickle ({type(error).__name__}); get it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no dictionary, as the official file does.")
    return {_text(key): item for key, item in value.items()}


def _text(value: Any) -> str:
    """Text or bytes as text; anything else, which may be nested without end, as its type's name."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else type(value).__name__
