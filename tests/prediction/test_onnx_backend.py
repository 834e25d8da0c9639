"""A Predictor from an ONNX file: runs without PyTorch, and rejects damaged, foreign and malicious files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import assert_one_sentence
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cifar100.export.graph import onnx_content
from cifar100.inference import load_predictor
from cifar100.model import build_model
from cifar100.prediction.backend import open_backend
from cifar100.prediction.onnx_format import DEPTHS, FLOAT, INT8, METADATA_START, Initializer, layout
from cifar100.prediction.onnx_validation import read_onnx
from cifar100.support.errors import UserError

WITHOUT_TORCH = """
import sys
import numpy as np
from cifar100 import load_predictor
image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
print(load_predictor(sys.argv[1]).predict(image)[0])
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_pytorch_is_not_imported(exports: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exports / "best.onnx")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0].startswith("Prediction(class_name=")
    loaded = set(printed[1].split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnx", "safetensors", "matplotlib", "tyro"}


@pytest.mark.parametrize("model", DEPTHS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_tensors_of_a_layout_match_the_network(model: str, precision: str) -> None:
    facts = {
        "model": model,
        "classes": ["x"] * 7,
        "image_size": 32,
        "takes": "uint8",
        "precision": precision,
        "width": 64,
    }
    tensors = {piece.name: piece for piece in layout(facts, "") if isinstance(piece, Initializer)}
    weights = build_model(model, 7).state_dict().items()
    expected = [tuple(tensor.shape) for name, tensor in weights if tensor.ndim == 4] + [(7, 512, 1, 1)]
    stored = [tensor for tensor in tensors.values() if len(tensor.shape) == 4]
    assert sorted(tensor.shape for tensor in stored) == sorted(expected)
    assert {tensor.kind for tensor in stored if tensor.shape[0] != 7} == {INT8 if precision == "int8" else FLOAT}


@pytest.mark.parametrize("takes", ["uint8", "float"])
def test_exported_files_are_valid_onnx_models(exports: Path, takes: str) -> None:
    """According to onnx.checker; the onnx package also serializes it to the same bytes."""
    exported = onnx.load(exports / "best.onnx")
    facts = json.loads(exported.metadata_props[0].value)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    written = onnx_content(facts | {"takes": takes}, arrays)
    model = onnx.load_from_string(written)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == written


Change = Callable[[ModelProto], object]


def facts(**changes: object) -> Change:
    def change(model: ModelProto) -> None:
        metadata = json.loads(model.metadata_props[0].value) | changes
        model.metadata_props[0].value = json.dumps(metadata)

    return change


def external_data(model: ModelProto) -> None:
    tensor = model.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def extra_tensor(*shape: int) -> Change:
    return lambda model: model.graph.initializer.append(
        TensorProto(name="extra", dims=shape, data_type=TensorProto.FLOAT)
    )


def operator(kind: str, **settings: Any) -> Change:
    return lambda model: model.graph.node.append(helper.make_node(kind, ["images"], ["extra"], **settings))


def wide_padding(model: ModelProto) -> None:
    next(a for a in model.graph.node[4].attribute if a.name == "pads").ints[0] = 1 << 20


def another_input(model: ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"


def fewer_outputs(model: ModelProto) -> None:
    del model.graph.output[1]


def initializer(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def shorter_bias(model: ModelProto) -> None:
    initializer(model, "bias").CopyFrom(numpy_helper.from_array(np.zeros((7,), np.float32), "bias"))


def nan(model: ModelProto) -> None:
    bias = np.full(100, np.nan, np.float32)
    initializer(model, "bias").raw_data = bias.tobytes()


def flipped_bit(model: ModelProto) -> None:
    tensor = initializer(model, "to_maps.weight")
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def broadcasting(model: ModelProto) -> None:
    """Small stored tensors whose broadcast sum takes 2 GiB."""
    for place in range(4):
        shape = [1] * place + [512 if place < 3 else 4] + [1] * (4 - place)
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"wide{place}"))
    for place in range(1, 4):
        before = f"sum{place - 1}" if place > 1 else "wide0"
        model.graph.node.append(helper.make_node("Add", [before, f"wide{place}"], [f"sum{place}"]))


def other_wiring(model: ModelProto) -> None:
    """The same operators and tensors, connected differently."""
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    adds[1].input[1] = adds[1].input[0]


REFUSED: list[tuple[str, Change, str]] = [
    ("external data", external_data, "onnx.graph"),
    ("a loop", operator("Loop", body=helper.make_graph([], "body", [], [])), "onnx.graph"),
    ("an allocation", operator("ConstantOfShape"), "onnx.graph"),
    ("a vendor's operator", operator("Conv", domain="com.evil"), "onnx.graph"),
    ("an escape sequence in an operator", operator("\x1b[31mRed"), "onnx.graph"),
    ("a tensor in an operator", operator("Cast", to=numpy_helper.from_array(np.zeros(3))), "onnx.graph"),
    ("tensors that broadcast", broadcasting, "onnx.graph"),
    ("other wiring", other_wiring, "onnx.graph"),
    ("wide padding", wide_padding, "onnx.graph"),
    ("one more tensor", extra_tensor(512, 512, 3, 3), "onnx.graph"),
    ("a huge declared shape", extra_tensor(1 << 40), "onnx.graph"),
    ("a negative dimension", extra_tensor(-1, 1, 1, 1), "onnx.graph"),
    ("one more convolution", operator("Conv"), "onnx.graph"),
    ("another network", facts(model="resnet34"), "onnx.graph"),
    ("another precision", facts(precision="int8"), "onnx.graph"),
    ("another width", facts(width=16), "onnx.graph"),
    ("fewer classes", facts(classes=["cat", "dog"], superclasses=[], superclass_of=[]), "onnx.graph"),
    ("another size", facts(image_size=64), "onnx.graph"),
    ("another layout", facts(takes="float"), "onnx.graph"),
    ("another input", another_input, "onnx.graph"),
    ("one output", fewer_outputs, "onnx.graph"),
    ("a shorter bias", shorter_bias, "onnx.graph"),
    ("sparse tensors", lambda model: model.graph.sparse_initializer.add(), "onnx.graph"),
    ("functions", lambda model: model.functions.add(name="f", domain="d"), "onnx.metadata"),
    ("no graph", lambda model: model.ClearField("graph"), "onnx.graph"),
    ("a NaN", nan, "onnx.values"),
    ("a flipped bit", flipped_bit, "onnx.digest"),
    ("another digest", facts(sha256="0" * 64), "onnx.digest"),
    ("no digest", facts(sha256=None), "onnx.metadata"),
    ("no metadata", lambda model: model.ClearField("metadata_props"), "onnx.format"),
    ("metadata that are not JSON", lambda m: setattr(m.metadata_props[0], "value", "{"), "onnx.metadata"),
    ("deeply nested metadata", lambda m: setattr(m.metadata_props[0], "value", '{"a":' * 100_000), "onnx.metadata"),
    ("no format", facts(format="other"), "onnx.metadata"),
    ("an earlier version", facts(version=2), "onnx.version"),
    ("a version of lists", facts(version=[[]]), "onnx.version"),
    ("an unknown network", facts(model="vgg"), "onnx.metadata"),
    ("a network that is a dictionary", facts(model={}), "onnx.metadata"),
    ("no classes", facts(classes=[]), "onnx.metadata"),
    ("an evaluation of text", facts(evaluation="good"), "onnx.metadata"),
    (
        "maps too large",
        facts(classes=["x"] * 9000, superclasses=[], superclass_of=[], image_size=1024),
        "onnx.metadata",
    ),
]


@pytest.mark.parametrize(("change", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_modified_exports_are_rejected(exports: Path, tmp_path: Path, change: Change, code: str) -> None:
    model = onnx.load(exports / "best.onnx")
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "model.onnx")
    assert caught.value.code == code


def test_optional_metadata_may_be_missing(exports: Path, tmp_path: Path) -> None:
    model = onnx.load(exports / "best.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    for name in ("superclasses", "superclass_of", "selection", "evaluation", "calibration", "assumed"):
        metadata.pop(name)
    model.metadata_props[0].value = json.dumps(metadata)
    onnx.save(model, tmp_path / "model.onnx")
    info = open_backend(tmp_path / "model.onnx").info
    assert (info.superclasses, info.evaluation, info.temperature) == ((), {}, 1)


def test_a_foreign_graph(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "model.onnx", "cifar100 export")
    assert caught.value.code == "onnx.format"


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04" * 50, b"\xff" * 64, b"text, not a model\n"])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "model.onnx")
    assert caught.value.code == "onnx.format"


def test_truncated_and_damaged_files_are_rejected(exports: Path, tmp_path: Path) -> None:
    content = (exports / "best.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(content)
        if number < 50:
            damaged = damaged[: rng.integers(len(content))]
        else:
            damaged[rng.integers(content.index(METADATA_START))] ^= 1 << rng.integers(8)  # one bit, before the metadata
        (tmp_path / "model.onnx").write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            read_onnx(tmp_path / "model.onnx")
        assert_one_sentence(str(caught.value), "model.onnx")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(1 << 31)  # sparse: uses no disk space
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "2,048 MiB")


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for name, message in (("nothing.onnx", "There is no model"), ("folder.onnx", "It is a directory.")):
        with pytest.raises(UserError) as caught:
            load_predictor(tmp_path / name)
        assert_one_sentence(str(caught.value), name, message)


def test_without_onnxruntime(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError) as caught:
        load_predictor(exports / "best.onnx")
    assert_one_sentence(str(caught.value), "onnxruntime", "pip install 'cifar100[onnx]'")


def test_only_the_cpu_is_supported(exports: Path) -> None:
    options: list[dict[str, Any]] = [{"device": "cuda"}, {"precision": "bf16"}]
    for option in options:
        with pytest.raises(UserError) as caught:
            load_predictor(exports / "best.onnx", **option)
        assert caught.value.code == "predict.onnx_device"
