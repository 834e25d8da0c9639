"""What an ONNX file holds, seen before anything of it runs and before what it claims is allocated.

An ONNX graph is a program, and a file may come from a stranger. Only the graphs that `cifar100 export` writes are let
through: a few plain operators, no data outside the file, weights in the shapes of the network that the metadata name.
The file is protobuf, https://protobuf.dev/programming-guides/encoding; the numbers of its fields are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from cifar100.checkpoints.version1 import upgrade
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo, read_records

KEY, FORMAT, VERSION = "cifar100", "cifar100-onnx", 2
"""The metadata's key, and what stands in its JSON under "format" and "version"."""

LARGEST = 1 << 29  # bytes; resnet34 in fp32 has 81 MiB
MOST_FIELDS = 10_000  # of one part; a resnet34 in int8 has some 500 nodes
MOST_CLASSES = 100_000
LARGEST_ATTRIBUTE = 64  # strides, paddings, axes

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
WIDTH = 64

OPERATORS = frozenset(
    ("Add", "Cast", "Conv", "DequantizeLinear", "Div", "QuantizeLinear", "ReduceMean", "Relu", "Sub", "Transpose")
)

# Numbers of fields
GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
OP_TYPE, ATTRIBUTE, DOMAIN = 4, 5, 7
INT, INTS, PARTS_OF_ATTRIBUTE = 3, 8, (5, 6, 10, 11, 14, 15, 22, 23)  # tensors, graphs, types, sparse tensors
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14


class _Refused(Exception):
    """Why a file is not opened."""


def read_onnx(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The content of an exported file, and the facts in its metadata (see `cifar100.export.metadata`).

    Raises UserError, in one sentence, where there is no such file, or it is damaged, foreign, or not to be run.
    """
    name = str(path)
    if not os.path.isfile(path):
        raise UserError(f"There is no model {name}.{' It is a folder.' if os.path.isdir(path) else ''}")
    try:
        if os.path.getsize(path) > LARGEST:
            raise UserError(f"{name} has {os.path.getsize(path) / 2**20:,.0f} MiB; no model of ours is that large.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror or error}).") from None
    try:
        return content, inspect(memoryview(content))
    except _Refused as error:
        raise UserError(f"{name} is not opened: {error}.") from None


def inspect(content: memoryview) -> dict[str, Any]:
    """The facts in the metadata of a model that may be run. Raises _Refused otherwise."""
    if not content:
        raise _Refused("it is empty")
    graphs, facts = [], None
    for number, value in _fields(content):
        if number in (TRAINING, FUNCTIONS):
            raise _Refused("it holds functions of its own, which no export of cifar100 has")
        if number == GRAPH:
            graphs.append(_message(value))
        elif number == METADATA:
            entry = dict(_fields(_message(value)))
            if bytes(_message(entry.get(1, b""))) == KEY.encode():
                facts = _facts(bytes(_message(entry.get(2, b""))))
    if len(graphs) != 1:
        raise _Refused("it is damaged, or no ONNX file: it holds no graph" if not graphs else "it holds several graphs")
    shapes, convolutions = _look_at(graphs[0])
    if facts is None:
        raise _Refused("it has no metadata of cifar100: no class names, no image size; write it with cifar100 export")
    _compare(shapes, convolutions, facts)
    return facts


def _look_at(graph: memoryview) -> tuple[list[tuple[int, ...]], int]:
    """The shapes of a graph's stored tensors, and how many convolutions it makes; _Refused for what must not run."""
    shapes, convolutions = [], 0
    for number, value in _fields(graph):
        if number == SPARSE_INITIALIZER:
            raise _Refused("it holds sparse tensors, which no export of cifar100 has")
        if number == INITIALIZER:
            shapes.append(_shape(_message(value)))
        elif number == NODE:
            for part, of_node in _fields(_message(value)):
                if part == OP_TYPE:
                    operator = _text(of_node)
                    if operator not in OPERATORS:
                        raise _Refused(f"its operator {operator[:40]} is in no export of cifar100")
                    convolutions += operator == "Conv"
                elif part == DOMAIN and _text(of_node) not in ("", "ai.onnx"):
                    raise _Refused(f"it has operators of {_text(of_node)[:40]}, which no export of ours has")
                elif part == ATTRIBUTE:
                    _check_attribute(_message(of_node))
    return shapes, convolutions


def _check_attribute(attribute: memoryview) -> None:
    for number, value in _fields(attribute):
        if number in PARTS_OF_ATTRIBUTE:
            raise _Refused("an operator in it holds tensors or graphs of its own, which no export of cifar100 has")
        if number in (INT, INTS):
            for whole in _integers(value):
                if abs(whole) > LARGEST_ATTRIBUTE:
                    raise _Refused(f"an operator in it has a setting of {whole}, which no export of cifar100 has")


def _shape(tensor: memoryview) -> tuple[int, ...]:
    shape: list[int] = []
    for number, value in _fields(tensor):
        if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
            raise _Refused("its weights lie outside the file, which is not allowed; export it again as one file")
        if number == DIMS:
            shape += _integers(value)
    return tuple(shape)


def _facts(text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise _Refused("its metadata are damaged") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise _Refused("its metadata are not those of an export of cifar100")
    version = facts.get("version")
    if version not in (1, VERSION):
        raise _Refused(f"it is of version {version!r:.20}; this cifar100 reads versions up to {VERSION}: update it")
    facts = upgrade(facts) if version == 1 else facts
    classes, size = facts.get("classes"), facts.get("image_size")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise _Refused("its classes are no list of names")
    if len(classes) > MOST_CLASSES:
        raise _Refused(f"it names {len(classes):,} classes; more than {MOST_CLASSES:,} are not believed")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 1024:
        raise _Refused("its image_size is no size in pixels")
    if facts.get("takes") not in ("uint8", "float"):
        raise _Refused("its metadata are damaged")
    try:
        facts |= {"dataset": DatasetInfo(), "selection": None, "calibration": None} | read_records(facts)
    except ValueError as error:
        raise _Refused(str(error)) from None
    if facts.get("model") not in DEPTHS:
        raise _Refused(f"its metadata name no network that is known, which are {' and '.join(DEPTHS)}")
    return facts


def _compare(shapes: list[tuple[int, ...]], convolutions: int, facts: dict[str, Any]) -> None:
    """Raise _Refused where the tensors are not those of the network that the facts name."""
    model, classes = facts["model"], len(facts["classes"])
    width = next((shape[0] for shape in shapes if len(shape) == 4 and shape[1] == 3), 0)
    if not 1 <= width <= WIDTH:
        raise _Refused(f"it has no first convolution of a {model}")
    expected = convolution_shapes(model, classes, width)
    found = [shape for shape in shapes if len(shape) == 4 or prod(shape) > max(8 * WIDTH, classes)]
    if sorted(found) != sorted(expected) or convolutions != len(expected):
        raise _Refused(f"its tensors are not those of a {model} of {classes:,} classes")


def convolution_shapes(model: str, classes: int, width: int = WIDTH) -> list[tuple[int, ...]]:
    """[out, in, height, width] of each convolution of a network as it is exported, the head among them."""
    shapes = [(width, 3, 3, 3)]
    before = width
    for stage, depth in enumerate(DEPTHS[model]):
        out = width << stage
        shapes += [(out, before, 3, 3)] + [(out, out, 3, 3)] * (2 * depth - 1)
        if stage:
            shapes.append((out, before, 1, 1))
        before = out
    return [*shapes, (classes, before, 1, 1)]


# Protobuf


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field: an int, or the bytes of anything longer."""
    at = count = 0
    while at < len(message):
        count += 1
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5) or count > MOST_FIELDS:
            raise _Refused("it is damaged, or no ONNX file")
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, at = _varint(message, at)
        if size > len(message) - at:
            raise _Refused("it is damaged, or no ONNX file: it ends too early")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= len(message):
            raise _Refused("it is damaged, or no ONNX file: it ends too early")
        byte = message[at]
        value |= (byte & 127) << 7 * place
        at += 1
        if byte < 128:
            return value, at
    raise _Refused("it is damaged, or no ONNX file")


def _message(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, int):
        raise _Refused("it is damaged, or no ONNX file")
    return memoryview(value)


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode(errors="replace")


def _integers(value: int | memoryview) -> Iterator[int]:
    """Of a repeated int64: one, or many packed; as two's complement."""
    at = 0
    while isinstance(value, memoryview) and at < len(value):
        whole, at = _varint(value, at)
        yield whole - (1 << 64) if whole >> 63 else whole
    if isinstance(value, int):
        yield value - (1 << 64) if value >> 63 else value
