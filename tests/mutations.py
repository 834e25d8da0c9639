"""Mutations of files for the fuzzers: of their bytes, and of the values in them."""

from __future__ import annotations

import copy
import io
import math
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

MAGIC = [b"\0", b"\xff", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"\xff" * 8]
MAGIC += [struct.pack(order + "I", 1 << n) for order in "<>" for n in (16, 24, 30, 31)]


def mutated_bytes(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """`content` with one to four mutations: bits, numbers, and sections removed, inserted, repeated or replaced."""
    crafted = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not crafted:
            break
        at = rng.randrange(min(len(crafted), 512)) if rng.random() < 0.5 else rng.randrange(len(crafted))
        length = rng.choice([1, 2, 4, 16, 256, 4096])
        match rng.randrange(9):
            case 0:
                crafted[at] ^= 1 << rng.randrange(8)
            case 1:
                crafted[at] = rng.randrange(256)
            case 2:
                number = rng.choice(MAGIC)
                crafted[at : at + len(number)] = number
            case 3:
                del crafted[at : at + length]
            case 4:
                crafted[at:at] = rng.randbytes(length)
            case 5:
                crafted[at:at] = crafted[at : at + length] * rng.choice([1, 2, 10, 1000])
            case 6:
                del crafted[at:]
            case 7:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                crafted[at : at + length] = other[start : start + length]
            case _:
                crafted[at : at + length] = bytes(length)
    return bytes(crafted)


def with_png_checksums(content: bytes) -> bytes:
    """Recompute the checksums of the chunks of a damaged PNG file."""
    crafted, at = bytearray(content), 8
    while at + 12 <= len(crafted):
        length = int.from_bytes(crafted[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(crafted):
            break
        crafted[end : end + 4] = zlib.crc32(crafted[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(crafted)


def with_damaged_member(content: bytes, rng: random.Random, damage: Callable[[bytes], bytes]) -> bytes:
    """A zip archive with one damaged member, whose checksum is recomputed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(target, "w") as crafted:
        parts = whole.infolist()
        pickles = [part.filename for part in parts if part.filename.endswith("data.pkl")]
        chosen = rng.choice(pickles) if pickles and rng.random() < 0.8 else rng.choice(parts).filename
        for part in parts:
            inside = whole.read(part)
            crafted.writestr(part.filename, damage(inside) if part.filename == chosen else inside)
    return target.getvalue()


def billion_laughs(depth: int) -> list[Any]:
    """A "billion laughs" value of 10 ** depth strings, which takes few bytes in a format with references."""
    value: list[Any] = ["lol"] * 10
    for _ in range(depth - 1):
        value = [value] * 10
    return value


def strange_value(rng: random.Random) -> Any:
    """An unusual value of a JSON type."""
    numbers = [0, -1, 1, 3, 255, 2**31, 2**63, 10**400, 1e308, -1e-320, math.nan, math.inf, 0.5]
    texts = ["", "x" * 20_000, "\x1b[31m\u202e\n", "resnet34", "../x", "0", "NaN"]
    others = [None, True, False, [], {}, [[]], {"a": []}, [None], {"": 0}, billion_laughs(3), {"lr": {"lr": {}}}]
    return copy.deepcopy(rng.choice([rng.choice(numbers), rng.choice(texts), rng.choice(others)]))


def strange_object(rng: random.Random) -> Any:
    """An unusual value that a pickle may contain; sometimes of a JSON type."""
    tensors: list[Callable[[], Any]] = [
        lambda: torch.zeros(1).expand(10**11),
        lambda: torch.zeros(3),
        lambda: torch.tensor(math.nan),
        lambda: torch.zeros(2, 2).to_sparse(),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.zeros(2, dtype=torch.complex64),
        lambda: torch.zeros(2).to(torch.float8_e4m3fn),
        lambda: torch.full((100,), 1e300, dtype=torch.float64),
        lambda: torch.nn.Parameter(torch.zeros(2)),
        lambda: {1, 2},
        lambda: (1, (2, (3,))),
        lambda: b"bytes",
        lambda: bytearray(3),
        lambda: 1j,
        lambda: np.float64(3.5),
        lambda: np.zeros(3),
        lambda: torch.Size([1, 2]),
        lambda: billion_laughs(9),
    ]
    return rng.choice(tensors)() if rng.random() < 0.6 else strange_value(rng)


def mutated_tree(tree: dict[str, Any], rng: random.Random, strange: Callable[[random.Random], Any]) -> dict[str, Any]:
    """A copy of nested dicts and lists with one to three values or keys replaced, removed, repeated or added."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return [copied(item) for item in value] if isinstance(value, list) else value

    tree = copied(tree)
    for _ in range(rng.randint(1, 3)):
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and rng.random() < 0.7:
                place = place[key]
                continue
            match rng.randrange(5):
                case 0 if isinstance(place, dict):
                    del place[key]
                case 1 if isinstance(place, list):
                    place *= rng.choice([0, 2, 100])
                case 2 if isinstance(place, dict):
                    place[rng.choice([rng.choice(["", "x" * 20_000, "\x1b[0m", "lr"]), "layer1.0.conv1.weight"])] = (
                        strange(rng)
                    )
                case _:
                    place[key] = strange(rng)
            break
    return tree
