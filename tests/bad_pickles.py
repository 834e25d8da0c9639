"""Pickles that no official file is, for `test_bad_input.py`: hostile, forged, damaged, greedy.

Each table is {case: what a file of the dataset holds}, or {case: (that, what the sentence about it says)}.
"""

from __future__ import annotations

import functools
import os
import pickle
import struct
from typing import Any

import numpy as np
from test_dataset import META, as_python3, rows

from cifar100.dataset.classes import CLASSES


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class Forged:
    """Pickles to what numpy writes for an array, with whatever claims are made here."""

    def __init__(self, shape: Any, dtype: Any, content: Any, *, fortran: bool = False) -> None:
        self.state = (1, shape, dtype, fortran, content)

    def __reduce__(self) -> tuple[Any, ...]:
        function, arguments, _ = np.zeros(1).__reduce__()
        return function, arguments, self.state


def content(data: Any = None, labels: Any = (9, 4), **more: Any) -> bytes:
    """A train file of two images, with some of it replaced."""
    data = rows(2) if data is None else data
    return as_python3({b"data": data, b"fine_labels": list(labels) if isinstance(labels, tuple) else labels} | more)


def in_dict(value: bytes) -> bytes:
    """{"data": what these opcodes leave on the stack}."""
    return b"\x80\x02}U\x04data" + value + b"s."


VALID = content()
BYTES = np.dtype(np.uint8)
HUGE = struct.pack("<Q", 1 << 28)

CODE = {
    "os.system": content(Calls(os.system, "touch pwned")),
    "builtins.eval": content(Calls(eval, "open('pwned', 'w')")),
    "exec beside honest data": content(batch_label=Calls(exec, "open('pwned', 'w')")),
    "the file is a call": as_python3(Calls(os.system, "touch pwned")),
    "functools.partial": content(Calls(functools.partial, os.system, "touch pwned")),
    "INST": in_dict(b"(S'touch pwned'\nios\nsystem\n"),
    "OBJ": in_dict(b"(cos\nsystem\nS'touch pwned'\no"),
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "a name that is none": b"\x80\x04K\x01K\x02\x93.",
    "a module of the allowed names": in_dict(b"cnumpy\nload\n(S'pwned'\ntR"),
    "_codecs.open": in_dict(b"c_codecs\nlookup\n(S'rot13'\ntR"),
    "persistent id": in_dict(b"Ppwned\n"),
    "a name with escape codes": b"\x80\x04\x8c\x0cos\x1b[31m\n\nred\x8c\x06system\x93.",
    "an array of code": content(np.array([Calls(os.system, "touch pwned")], dtype=object)),
}

RUNS_CODE = [*CODE][:8]
"""Those that a plain `pickle.loads` obeys."""

ARRAYS = {
    "float": content(np.zeros((2, 3072), np.float32)),
    "signed": content(np.zeros((2, 3072), np.int8)),
    "object": content(np.array([[{}]], dtype=object)),
    "structured": content(np.zeros(2, dtype=[("a", "u1", 3072)])),
    "huge declared shape": content(Forged((1 << 40, 3072), BYTES, b"x")),
    "endless declared shape": content(Forged((10**4000, 3072), BYTES, b"x")),
    "shape larger than its bytes": content(Forged((3, 3072), BYTES, bytes(6144))),
    "shape smaller than its bytes": content(Forged((1, 3072), BYTES, bytes(6144))),
    "negative shape": content(Forged((-2, -3072), BYTES, bytes(6144))),
    "shape of text": content(Forged(("2", "3072"), BYTES, bytes(6144))),
    "shape of booleans": content(Forged((True, 3072), BYTES, bytes(3072))),
    "shape no tuple": content(Forged(6144, BYTES, bytes(6144))),
    "text for bytes": content(Forged((2, 3072), BYTES, "x" * 6144)),
    "list for bytes": content(Forged((2, 3072), BYTES, [0] * 6144)),
    "no dtype": content(Forged((2, 3072), "u1", bytes(6144))),
    "fortran order": content(np.asfortranarray(rows(2))),
    "never filled": in_dict(b"cnumpy\nndarray\n)\x81"),
    "never filled, reconstructed": in_dict(b"cnumpy.core.multiarray\n_reconstruct\n)R"),
    "the class itself": in_dict(b"cnumpy\nndarray\n"),
    "too narrow": content(rows(2)[:, 1:]),
    "too wide": content(np.zeros((2, 3073), np.uint8)),
    "flat": content(rows(2).ravel()),
    "four axes": content(rows(2).reshape(2, 3, 32, 32)),
    "bytes": content(bytes(6144)),
    "a list": content([[0] * 3072] * 2),
    "no data": as_python3({b"fine_labels": [9, 4]}),
    "an empty dictionary": as_python3({}),
    "deeply nested lists": in_dict(b"]" * 100_000 + b"a" * 99_999),
}

LABELS = {
    "too large": content(labels=(9, 100)),
    "huge": content(labels=(9, 10**30)),
    "negative": content(labels=(-1, 4)),
    "floats": content(labels=(9.0, 4.0)),
    "text": content(labels=("9", "4")),
    "booleans": content(labels=(True, False)),
    "nested": content(labels=([9], [4])),
    "too few": content(labels=(9,)),
    "too many": content(labels=(9, 4, 4)),
    "none": content(labels=()),
    "an array": content(labels=np.array([9, 4], np.uint8)),
    "one number": content(labels=9),
    "missing": as_python3({b"data": rows(2)}),
}

DAMAGED = {
    "empty": b"",
    "one byte": b"\x80",
    "only the end": b".",
    "text": b"this is no pickle\n",
    "zeros": bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "a future protocol": b"\x80\x63}.",
    "an unknown opcode": b"\x80\x02}\xff.",
    "nothing on the stack": b"\x80\x02s.",
    "copyreg extension": in_dict(b"\x82\x01"),
    "an array's state of the wrong length": in_dict(b"cnumpy\nndarray\n)\x81K\x01\x85b"),
    **{f"cut after {part:.0%}": VALID[: int(len(VALID) * part)] for part in (0.1, 0.5, 0.9)},
    "cut before the end": VALID[:-1],
}

NO_DICTIONARY = {
    "a list": as_python3([1, 2]),
    "None": as_python3(None),
    "a bare array": as_python3(rows(2)),
    "deeply nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}

OTHERWISE = {
    "no images": (pickle.dumps({b"data": rows(0), b"fine_labels": []}, protocol=3), "There is not one image"),
    "a memo that was never put": (in_dict(b"h\x07"), "refused: Memo value not found"),
    "keys that are no text": (b"\x80\x02}(K\x01K\x02K\x03K\x04u.", "a key that is no text"),
    "a nested key": (b"\x80\x02})" + b"\x85" * 3000 + b"K\x01s.", "a key that is no text"),
    "cut in a name": (VALID[:20], "refused"),
}

GREEDY = {
    "LONG_BINPUT": (b"\x80\x02}r\xff\xff\xff\x7f.", "is not an array"),
    "PUT": (b"}p99999999999\n.", "is not an array"),
    "BINUNICODE": (in_dict(b"X\xff\xff\xff\xff"), "damaged"),
    "BINUNICODE8": (in_dict(b"\x8d" + HUGE), "damaged"),
    "BINSTRING": (in_dict(b"T\xff\xff\xff\x7f"), "damaged"),
    "negative BINSTRING": (in_dict(b"T\xff\xff\xff\xff"), "refused"),
    "BINBYTES": (in_dict(b"B\xff\xff\xff\xff"), "damaged"),
    "BINBYTES8": (in_dict(b"\x8e" + HUGE), "damaged"),
    "endless BINBYTES8": (in_dict(b"\x8e" + b"\xff" * 8), "refused"),
    "BYTEARRAY8": (in_dict(b"\x96" + HUGE), "damaged"),
    "endless BYTEARRAY8": (in_dict(b"\x96" + b"\xff" * 8), "damaged"),
    "LONG4": (in_dict(b"\x8b\xff\xff\xff\x7f"), "damaged"),
    "FRAME": (b"\x80\x04\x95" + HUGE + b"}.", "is not an array"),
    "a long of many digits": (in_dict(b"L" + b"9" * 100_000 + b"L\n"), "damaged"),
}

DOUBLED = b")" + b"\x86".join([b"2"] * 50) + b"\x86"  # ((…, …), (…, …)): 50 deep, 2**50 leaves once written out

ENDLESS = {
    "a key two million deep": ("train", b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."),
    "a key of 2**50 leaves": ("train", b"\x80\x02}" + DOUBLED + b"K\x01s."),
    "a dtype of 2**50 leaves": ("train", b"\x80\x02}U\x04datacnumpy\ndtype\n" + DOUBLED + b"\x85Rs."),
    "a name of 2**50 leaves": ("meta", b"\x80\x02}U\x10fine_label_names]" + DOUBLED + b"as."),
}

META_FILES = {
    "empty": as_python3({}),
    "another order": as_python3(META | {b"fine_label_names": [name.encode() for name in reversed(CLASSES)]}),
    "one less": as_python3(META | {b"coarse_label_names": META[b"coarse_label_names"][:-1]}),
    "None": as_python3(META | {b"fine_label_names": None}),
    "not text": as_python3(META | {b"fine_label_names": [b"\xff"] * 100}),
}
