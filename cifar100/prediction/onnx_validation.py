"""Read an ONNX file only if it is, byte for byte, what `cifar100 export` writes for its metadata.

An ONNX graph is a program, and files come from strangers. Everything in a file is compared with `onnx_format.layout`
but the numbers in its tensors, which must be finite and match the digest in the metadata. So no program is run but
ours, in time and memory that the metadata bound.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.checkpoints.validation import field_problem
from cifar100.prediction.onnx_format import DEPTHS, FLOAT, FORMAT, METADATA_START, VERSION, Stored, layout
from cifar100.support.errors import UserError
from cifar100.support.files import not_a_file
from cifar100.support.provenance import DatasetInfo, read_records

MAX_BYTES = 1 << 29  # resnet34 in fp32 has 81 MiB
MAX_METADATA_BYTES = 10_000_000
MAX_MAP_ITEMS = 1 << 24
"""Numbers in the class activation maps of one image."""

MAX_WIDTH = 64

OPTIONAL: dict[str, Any] = {"dataset": DatasetInfo(), "selection": None, "calibration": None}
OPTIONAL |= {"evaluation": {}, "superclasses": [], "superclass_of": [], "assumed": [], "versions": {}}
"""What the metadata may leave out."""


def read_onnx(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The content of an exported file, and the facts in its metadata (see `cifar100.export.metadata`).

    Raises UserError if there is no such file, or it is damaged, or not written by this version of `cifar100 export`.
    """
    name = str(path)
    if not os.path.isfile(path):
        raise UserError("onnx.missing", f"There is no model {name}.{not_a_file(path)}")
    try:
        if os.path.getsize(path) > MAX_BYTES:
            size = os.path.getsize(path) / 2**20
            raise UserError("onnx.size", f"{name} has {size:,.0f} MiB; no model of ours is that large.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError("onnx.unreadable", f"{name} cannot be read ({error.strerror or error}).") from None
    facts, text = _facts(name, content)
    view, digest, place = memoryview(content), hashlib.sha256(), 0
    for piece in layout(facts, text):
        if isinstance(piece, bytes):
            if view[place : place + len(piece)] != piece:
                raise UserError("onnx.graph", f"{name} is not opened: it is not the graph that cifar100 exports.")
            place += len(piece)
        else:
            numbers = view[place : place + piece.num_bytes]
            if piece.kind == FLOAT and not _is_finite(numbers):
                raise UserError("onnx.values", f"{name} is not opened: {piece.name} holds numbers that are not finite.")
            digest.update(numbers)
            place += piece.num_bytes
    if place != len(content) or digest.hexdigest() != facts["sha256"]:
        raise UserError("onnx.digest", f"{name} is damaged: its weights do not match the digest in its metadata.")
    return content, facts


def _is_finite(numbers: memoryview) -> bool:
    return len(numbers) % 4 == 0 and bool(np.isfinite(np.frombuffer(numbers, "<f4")).all())


def onnx_content(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file of a network: its metadata, which get the digest, and the numbers of its tensors by name."""
    parts = {}
    for piece in layout(facts, ""):
        if isinstance(piece, Stored):
            array = arrays[piece.name]
            assert (array.shape, array.nbytes) == (piece.shape, piece.num_bytes), f"another {piece.name}"
            parts[piece.name] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    digest = hashlib.sha256(b"".join(parts.values())).hexdigest()
    pieces = layout(facts, json.dumps({**facts, "sha256": digest}))
    return b"".join(parts[piece.name] if isinstance(piece, Stored) else piece for piece in pieces)


def _facts(name: str, content: bytes) -> tuple[dict[str, Any], str]:
    """The metadata at the end of a file, and their text."""
    start = content.find(b"{", content.rfind(METADATA_START)) if METADATA_START in content else -1
    if start < 0 or len(content) - start > MAX_METADATA_BYTES:
        raise UserError("onnx.format", f"{name} is damaged, or not an ONNX file that cifar100 export wrote.")
    try:
        text = content[start:].decode()
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("onnx.metadata", f"{name} is damaged: its metadata are not JSON.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError("onnx.metadata", f"{name} is not opened: its metadata are not those of cifar100 export.")
    if facts.get("version") != VERSION:
        raise UserError(
            "onnx.version", f"{name} is of another version than {VERSION}, which is read: export the weights again."
        )
    why = _problem(facts)
    if why:
        raise UserError("onnx.metadata", f"{name} is damaged: {why}.")
    return OPTIONAL | facts | read_records(facts), text


def _problem(facts: dict[str, Any]) -> str:
    """What is wrong with the metadata, as the rest of a sentence; "" if nothing is."""
    why = field_problem(facts)
    if why:
        return why
    if facts["model"] not in DEPTHS:
        return f"its metadata name no network that is known, which are {' and '.join(DEPTHS)}"
    if facts.get("takes") not in ("uint8", "float") or facts.get("precision") not in ("fp32", "int8"):
        return "its metadata do not say what it takes, or its precision"
    if type(facts.get("width")) is not int or not 1 <= facts["width"] <= MAX_WIDTH:
        return f"its width is not from 1 to {MAX_WIDTH}"
    if "image_size" not in facts or len(facts["classes"]) * (-(-facts["image_size"] // 8)) ** 2 > MAX_MAP_ITEMS:
        return "its class activation maps are larger than any of ours"
    return "" if isinstance(facts.get("sha256"), str) else "it has no digest of its weights"
