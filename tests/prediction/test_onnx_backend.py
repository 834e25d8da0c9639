"""A Predictor from an ONNX file: without PyTorch, and never from a file that is damaged, foreign or hostile."""

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

from cifar100.inference import load_predictor
from cifar100.model import build_model
from cifar100.prediction.onnx_validation import DEPTHS, KEY, convolution_shapes, read_onnx
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
def test_the_shapes_that_are_let_through_are_the_networks(model: str) -> None:
    weights = build_model(model, 7).state_dict().items()
    shapes = [tuple(tensor.shape) for name, tensor in weights if tensor.ndim == 4] + [(7, 512, 1, 1)]
    assert sorted(convolution_shapes(model, 7)) == sorted(shapes)


Change = Callable[[ModelProto], object]


def facts(**changes: object) -> Change:
    def change(model: ModelProto) -> None:
        said = json.loads(model.metadata_props[0].value) | changes
        model.metadata_props[0].value = json.dumps(said)

    return change


def outside(model: ModelProto) -> None:
    tensor = model.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def more(*shape: int) -> Change:
    return lambda model: model.graph.initializer.append(
        TensorProto(name="more", dims=shape, data_type=TensorProto.FLOAT)
    )


def operator(kind: str, **settings: Any) -> Change:
    return lambda model: model.graph.node.append(helper.make_node(kind, ["images"], ["more"], **settings))


def wide_padding(model: ModelProto) -> None:
    next(a for a in model.graph.node[4].attribute if a.name == "pads").ints[0] = 1 << 20


def another_reshape(model: ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"


def fewer_outputs(model: ModelProto) -> None:
    del model.graph.output[1]


def swapped_bias(model: ModelProto) -> None:
    bias = next(t for t in model.graph.initializer if t.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros((7,), np.float32), "bias"))


REFUSED: list[tuple[str, Change, str]] = [
    ("data outside", outside, "its weights lie outside the file"),
    ("a loop", operator("Loop", body=helper.make_graph([], "body", [], [])), "its operator Loop"),
    ("an allocation", operator("ConstantOfShape"), "its operator ConstantOfShape"),
    ("a vendor's operator", operator("Conv", domain="com.evil"), "operators of com.evil"),
    ("a name for a terminal", operator("\x1b[31mRed"), r"\x1b[31mRed"),
    (
        "a tensor in an operator",
        operator("Cast", to=numpy_helper.from_array(np.zeros(3))),
        "tensors or graphs of its own",
    ),
    ("wide padding", wide_padding, "a setting of 1048576"),
    ("one more tensor", more(512, 512, 3, 3), "not those of a resnet18 of 100 classes"),
    ("a huge claim", more(1 << 40), "not those of a resnet18"),
    ("a claim below 0", more(-1, 1, 1, 1), "not those of a resnet18"),
    ("one more convolution", operator("Conv"), "not those of a resnet18"),
    ("another network", facts(model="resnet34"), "not those of a resnet34"),
    ("no network", facts(model="vgg"), "resnet18 and resnet34"),
    ("fewer classes", facts(classes=["cat", "dog"]), "not those of a resnet18 of 2 classes"),
    ("no classes", facts(classes=[]), "its classes are no list of names"),
    ("classes that are numbers", facts(classes=[1, 2]), "its classes are no list of names"),
    ("a huge image", facts(image_size=1 << 20), "its image_size"),
    ("another version", facts(version=3), "of version 3; this cifar100 reads versions up to 2"),
    ("a dataset that is text", facts(dataset="CIFAR-100"), "its dataset is a str"),
    ("no format", facts(format="other"), "not those of an export"),
    ("no temperature", facts(calibration={"temperature": float("nan")}), "its calibration has a wrong temperature"),
    ("another layout", facts(takes="float"), "does not go from images"),
    ("no metadata", lambda model: model.ClearField("metadata_props"), "no metadata of cifar100"),
    ("metadata that are no JSON", lambda m: setattr(m.metadata_props[0], "value", "{"), "its metadata are damaged"),
    ("deep metadata", lambda m: setattr(m.metadata_props[0], "value", "[" * 100_000), "its metadata are damaged"),
    ("functions", lambda model: model.functions.add(name="f", domain="d"), "functions of its own"),
    ("no graph", lambda model: model.ClearField("graph"), "it holds no graph"),
    ("another input", another_reshape, "does not go from images"),
    ("one output", fewer_outputs, "does not go from images"),
    ("a bias that does not fit", swapped_bias, "onnxruntime does not run it"),
    ("sparse tensors", lambda model: model.graph.sparse_initializer.add(), "sparse tensors"),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_export_of_ours_is_refused(exports: Path, tmp_path: Path, change: Change, said: str) -> None:
    model = onnx.load(exports / "best.onnx")
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "model.onnx", said)


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
    assert_one_sentence(str(caught.value), "no metadata of cifar100", "cifar100 export")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04" * 50, b"\xff" * 64, b"text, not a model\n"])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "model.onnx is not opened")


def test_a_file_that_is_cut_short_or_damaged_raises_a_sentence_or_works(exports: Path, tmp_path: Path) -> None:
    content = (exports / "best.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(content)
        if number < 50:
            damaged = damaged[: rng.integers(len(content))]
        else:
            for place in rng.integers(0, len(content), 3):
                damaged[place] = rng.integers(256)
        (tmp_path / "model.onnx").write_bytes(damaged)
        try:
            read_onnx(tmp_path / "model.onnx")
        except UserError as error:
            assert_one_sentence(str(error), "model.onnx")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(1 << 31)  # takes no space on the disk
    with pytest.raises(UserError) as caught:
        load_predictor(tmp_path / "model.onnx")
    assert_one_sentence(str(caught.value), "2,048 MiB")


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for name, said in (("nothing.onnx", "There is no model"), ("folder.onnx", "It is a folder.")):
        with pytest.raises(UserError) as caught:
            load_predictor(tmp_path / name)
        assert_one_sentence(str(caught.value), name, said)


def test_without_onnxruntime(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError) as caught:
        load_predictor(exports / "best.onnx")
    assert_one_sentence(str(caught.value), "onnxruntime", "pip install 'cifar100[onnx]'")


def test_it_runs_on_the_cpu_alone(exports: Path) -> None:
    wishes: list[dict[str, Any]] = [{"device": "cuda"}, {"precision": "bf16"}]
    for wish in wishes:
        with pytest.raises(UserError, match="on the CPU, in the precision"):
            load_predictor(exports / "best.onnx", **wish)


def test_a_temperature_that_was_never_measured(exports: Path, tmp_path: Path) -> None:
    model = onnx.load(exports / "best.onnx")
    facts(calibration=None)(model)
    assert model.metadata_props[0].key == KEY
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no temperature was measured"):
        load_predictor(tmp_path / "model.onnx", calibrated=True)
