"""The ONNX files that `cifar100 export` writes, byte by byte.

`layout` returns the bytes of a file with the given metadata, except the values of its tensors. Exporting inserts
these; reading compares a file with the layout, so that no other graph is ever run. A graph takes pixels, normalizes
them, and outputs logits and class activation maps; batch norms are folded into the convolutions. The encoding is
protobuf (https://protobuf.dev/programming-guides/encoding), with the field numbers of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

KEY, FORMAT, VERSION = "cifar100", "cifar100-onnx", 3
"""The key of the metadata, and the "format" and "version" in its JSON."""

METADATA_START = b"\n\x08cifar100\x12"
"""The start of the metadata entry: the key "cifar100" and the tag of its value. The length and the JSON follow, up to
the end of the file."""

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
IR_VERSION, OPSET = 8, 17
FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6
ITEM_BYTES = {FLOAT: 4, UINT8: 1, INT8: 1, INT32: 4}


class Node(NamedTuple):
    """An operator of the graph."""

    op_type: str
    inputs: Sequence[str]
    output: str
    attributes: Mapping[str, int | Sequence[int]] = {}


class Initializer(NamedTuple):
    """An ONNX initializer: a tensor whose values are in the file. `kind` is its TensorProto.DataType."""

    name: str
    kind: int
    shape: tuple[int, ...] = ()

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.kind]


def layout(metadata: Mapping[str, Any], text: str) -> list[bytes | Initializer]:
    """The content of a file: bytes, and an `Initializer` wherever the little-endian values of a tensor belong.

    `text` is the JSON of `metadata`, embedded as it is.

    Required metadata: "model", "classes", "image_size", "takes" (the input format, "uint8" or "float"), "precision"
    ("fp32" or "int8") and "width", the number of channels of the first stage.
    """
    count, size, is_uint8 = len(metadata["classes"]), metadata["image_size"], metadata["takes"] == "uint8"
    nodes, tensors = _float_graph(metadata["model"], count, metadata["width"], is_uint8=is_uint8)
    if metadata["precision"] == "int8":
        nodes, tensors = _int8_graph(nodes, tensors)
    side = -(-size // 8)
    pixels = ["batch", size, size, 3] if is_uint8 else ["batch", 3, size, size]
    start = b"".join(_field(1, _node(node)) for node in nodes) + _field(2, "cifar100")
    end = _field(11, _value("images", UINT8 if is_uint8 else FLOAT, pixels))
    end += _field(12, _value("logits", FLOAT, ["batch", count]))
    end += _field(12, _value("maps", FLOAT, ["batch", count, side, side]))
    headers = [_tensor_header(tensor) for tensor in tensors]
    num_bytes = [tensor.num_bytes for tensor in tensors]
    length = len(start) + sum(map(len, headers)) + sum(num_bytes) + len(end)
    pieces: list[bytes | Initializer] = [_field(1, IR_VERSION) + _field(2, "cifar100") + _start(7, length) + start]
    for header, tensor in zip(headers, tensors, strict=True):
        pieces += [header, tensor]
    return [*pieces, end + _field(8, _field(2, OPSET)) + _field(14, _field(1, KEY) + _field(2, text))]


def _float_graph(model: str, num_classes: int, width: int, *, is_uint8: bool) -> tuple[list[Node], list[Initializer]]:
    """The fp32 graph of a network, in topological order."""
    nodes: list[Node] = []
    tensors = [Initializer("mean", FLOAT, (3, 1, 1)), Initializer("std", FLOAT, (3, 1, 1))]

    def add(op_type: str, output: str, *inputs: str, **attributes: int | Sequence[int]) -> str:
        nodes.append(Node(op_type, inputs, output, attributes))
        return output

    def conv(x: str, name: str, shape: tuple[int, int, int], stride: int = 1) -> str:
        after, before, kernel = shape
        tensors.append(Initializer(f"{name}.weight", FLOAT, (after, before, kernel, kernel)))
        tensors.append(Initializer(f"{name}.bias", FLOAT, (after,)))
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return add("Conv", f"{name}.out", x, f"{name}.weight", f"{name}.bias", **attributes)

    x = "images"
    if is_uint8:
        x = add("Cast", "floats", add("Transpose", "planes", x, perm=[0, 3, 1, 2]), to=FLOAT)
    x = add("Div", "normalized", add("Sub", "centered", x, "mean"), "std")
    x = add("Relu", "stem.relu", conv(x, "stem", (width, 3, 3)))
    before = width
    for stage, depth in enumerate(DEPTHS[model]):
        after = width << stage
        for block in range(depth):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            inner = add("Relu", f"{name}.relu1", conv(x, f"{name}.conv1", (after, before, 3), stride))
            inner = conv(inner, f"{name}.conv2", (after, after, 3))
            shortcut = x if before == after else conv(x, f"{name}.downsample.0", (after, before, 1), stride)
            x = add("Relu", f"{name}.relu2", add("Add", f"{name}.sum", inner, shortcut))
            before = after
    tensors.append(Initializer("to_maps.weight", FLOAT, (num_classes, before, 1, 1)))
    tensors.append(Initializer("bias", FLOAT, (num_classes,)))
    add("Conv", "maps", x, "to_maps.weight", kernel_shape=[1, 1], pads=[0] * 4, strides=[1, 1])
    add("Add", "logits", add("ReduceMean", "pooled", "maps", axes=[2, 3], keepdims=0), "bias")
    return nodes, tensors


def _int8_graph(nodes: list[Node], tensors: list[Initializer]) -> tuple[list[Node], list[Initializer]]:
    """The graph as quantized by onnxruntime: pairs of (De)QuantizeLinear around each operator except the
    normalization and the head. The range of a quantized output starts at 0, which replaces the ReLU."""
    relu_of = {node.inputs[0]: node.output for node in nodes if node.op_type == "Relu"}
    by_name = {tensor.name: tensor for tensor in tensors}
    kept = [by_name[name] for name in ("mean", "std", "to_maps.weight", "bias")]
    made: list[Node] = []

    def pair(x: str) -> str:
        kept.extend([Initializer(f"{x}_scale", FLOAT), Initializer(f"{x}_zero_point", UINT8)])
        made.append(Node("QuantizeLinear", [x, f"{x}_scale", f"{x}_zero_point"], f"{x}_q"))
        made.append(Node("DequantizeLinear", [f"{x}_q", f"{x}_scale", f"{x}_zero_point"], f"{x}_dq"))
        return f"{x}_dq"

    def quantized(name: str, scale: str, zero_point: str, kind: int) -> str:
        shape = by_name[name].shape
        channels = [Initializer(scale, FLOAT, shape[:1]), Initializer(zero_point, kind, shape[:1])]
        kept.extend([Initializer(f"{name}_quantized", kind, shape), *channels])
        made.append(Node("DequantizeLinear", [f"{name}_quantized", scale, zero_point], f"{name}_dq", {"axis": 0}))
        return f"{name}_dq"

    exact = {"images", "planes", "floats", "centered", "maps", "pooled"}  # outputs that stay in fp32
    for node in nodes:
        if node.op_type == "Relu":
            continue
        inputs = list(node.inputs)
        if node.op_type == "Conv" and node.output != "maps":
            x, weight, bias = inputs
            inputs = [f"{x}_dq", quantized(weight, f"{weight}_scale", f"{weight}_zero_point", INT8)]
            inputs.append(quantized(bias, f"{bias}_quantized_scale", f"{bias}_quantized_zero_point", INT32))
        elif node.output == "maps" or node.output.endswith(".sum"):
            inputs = [name if name in by_name else f"{name}_dq" for name in inputs]
        output = relu_of.get(node.output, node.output)
        made.append(Node(node.op_type, inputs, output, node.attributes))
        if output not in exact and output != "logits":
            pair(output)
    return made, kept


# Protobuf


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])


def _start(number: int, length: int) -> bytes:
    """The tag and length of a field with a payload of `length` bytes."""
    return _varint(number << 3 | 2) + _varint(length)


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _start(number, len(content)) + content


def _node(node: Node) -> bytes:
    content = b"".join(_field(1, name) for name in node.inputs) + _field(2, node.output) + _field(3, node.output)
    content += _field(4, node.op_type)
    # AttributeProto: name 1, i 3, ints 8, type 20 (INT 2, INTS 7)
    for name, value in sorted(node.attributes.items()):
        if isinstance(value, int):
            content += _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
        else:
            content += _field(5, _field(1, name) + b"".join(_field(8, item) for item in value) + _field(20, 7))
    return content


def _tensor_header(tensor: Initializer) -> bytes:
    """An initializer without its values."""
    header = b"".join(_field(1, dim) for dim in tensor.shape) + _field(2, tensor.kind) + _field(8, tensor.name)
    header += _start(9, tensor.num_bytes)
    return _start(5, len(header) + tensor.num_bytes) + header


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """A typed input or output; a dimension that is a name is dynamic."""
    dims = b"".join(_field(1, _field(2 if isinstance(dim, str) else 1, dim)) for dim in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))
