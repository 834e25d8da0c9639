"""Read an ONNX file only if it is, byte for byte, what `cifar100 export` writes for its metadata.

An ONNX graph is a program, and files are untrusted. A file is compared byte by byte with `onnx_format.layout`, except
the values of its tensors, which must be finite and match the SHA-256 in the metadata. So only our graph is ever run, in
time and memory that the metadata bound.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.checkpoints.validation import field_problem
from cifar100.prediction.onnx_format import DEPTHS, FLOAT, FORMAT, METADATA_START, VERSION, layout
from cifar100.support.errors import UserError
from cifar100.support.files import content_hint, not_a_file
from cifar100.support.provenance import DatasetInfo, read_records

MAX_BYTES = 1 << 29  # resnet34 in fp32 has 81 MiB
MAX_METADATA_BYTES = 10_000_000
MAX_MAP_ITEMS = 1 << 24
"""Maximum number of values in the class activation maps of one image."""

MAX_WIDTH = 64

OPTIONAL: dict[str, Any] = {"dataset": DatasetInfo(), "selection": None, "calibration": None}
OPTIONAL |= {"evaluation": {}, "superclasses": [], "superclass_of": [], "assumed": [], "versions": {}}
"""Metadata that may be missing, with their defaults."""


def read_onnx(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The content of an exported file, and its metadata (see `cifar100.export.build_metadata`).

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
    metadata, text = _metadata(name, content)
    view, digest, start = memoryview(content), hashlib.sha256(), 0
    for piece in layout(metadata, text):
        if isinstance(piece, bytes):
            if view[start : start + len(piece)] != piece:
                raise UserError("onnx.graph", f"{name} is not opened: it is not the graph that cifar100 exports.")
            start += len(piece)
        else:
            values = view[start : start + piece.num_bytes]
            if piece.kind == FLOAT and not _is_finite(values):
                raise UserError(
                    "onnx.values", f"{name} is not opened: {piece.name} contains values that are not finite."
                )
            digest.update(values)
            start += piece.num_bytes
    if start != len(content) or digest.hexdigest() != metadata["sha256"]:
        raise UserError("onnx.digest", f"{name} is damaged: its weights do not match the digest in its metadata.")
    return content, metadata


def _is_finite(values: memoryview) -> bool:
    return len(values) % 4 == 0 and bool(np.isfinite(np.frombuffer(values, "<f4")).all())


def _metadata(name: str, content: bytes) -> tuple[dict[str, Any], str]:
    """The metadata at the end of a file, and their JSON."""
    start = content.find(b"{", content.rfind(METADATA_START)) if METADATA_START in content else -1
    if start < 0 or len(content) - start > MAX_METADATA_BYTES:
        hint = content_hint(content[:64])
        raise UserError("onnx.format", f"{name} is damaged, or not an ONNX file that cifar100 export wrote.{hint}")
    try:
        text = content[start:].decode()
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("onnx.metadata", f"{name} is damaged: its metadata are not JSON.") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise UserError("onnx.metadata", f"{name} is not opened: its metadata are not those of cifar100 export.")
    if metadata.get("version") != VERSION:
        raise UserError(
            "onnx.version", f"{name} is of another version than {VERSION}, which is read: export the weights again."
        )
    reason = _problem(metadata)
    if reason:
        raise UserError("onnx.metadata", f"{name} is damaged: {reason}.")
    known = {name: value for name, value in metadata.items() if value is not None}
    return OPTIONAL | known | read_records(metadata), text


def _problem(metadata: dict[str, Any]) -> str:
    """What is wrong with the metadata, as the rest of a sentence; "" if nothing is."""
    reason = field_problem(metadata)
    if reason:
        return reason
    if metadata["model"] not in DEPTHS:
        return f"its metadata name no network that is known, which are {' and '.join(DEPTHS)}"
    if metadata.get("takes") not in ("uint8", "float") or metadata.get("precision") not in ("fp32", "int8"):
        return "its metadata do not contain its input format or its precision"
    if type(metadata.get("width")) is not int or not 1 <= metadata["width"] <= MAX_WIDTH:
        return f"its width is not from 1 to {MAX_WIDTH}"
    side = -(-metadata.get("image_size", 0) // 8)
    if not side or len(metadata["classes"]) * side**2 > MAX_MAP_ITEMS:
        return "its class activation maps are larger than any of ours"
    return "" if isinstance(metadata.get("sha256"), str) else "it has no digest of its weights"
