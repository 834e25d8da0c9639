"""The files that transformers.js loads from a Hub repository: config.json, preprocessor_config.json, onnx/.

import { pipeline } from "@huggingface/transformers";
const classify = await pipeline("image-classification", "user/model");
await classify("photo.jpg");
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset import Split
from cifar100.support.errors import RunFailed
from cifar100.support.files import atomic_write
from cifar100.support.terminal import Say, emit

NUM_COMPARED = 1000
"""Test images on which the predictions of the graphs are compared with the checkpoint's."""

INPUT, OUTPUT = "pixel_values", "logits"
BICUBIC = 3  # PIL.Image.Resampling


def write_layout(
    checkpoint: Checkpoint,
    folder: Path,
    train: Split | None,
    test: Split | None = None,
    *,
    say: Say = emit,
) -> None:
    """Write the files to the existing directory `folder`.

    The graphs take float32 [B, 3, S, S] in 0..1 and normalize it; the softmax of their logits is calibrated.
    onnx/model_quantized.onnx (int8) is written if calibration images, `train`, are given, and if its predictions on
    `test` agree with the checkpoint's as in `cifar100 export`. Raises UserError if a library for ONNX is missing,
    RunFailed if the fp32 file does not compute what the checkpoint does.
    """
    from cifar100.export import open_forward, require_onnx, write_unchecked
    from cifar100.export.check import Reference, compare

    require_onnx("onnxruntime", "onnx")
    checkpoint = _calibrated(checkpoint)
    formats = {"model.onnx": "onnx"} | ({"model_quantized.onnx": "onnx-int8"} if train is not None else {})
    if train is None:
        say("Without onnx/model_quantized.onnx: int8 needs the train images ($CIFAR100_DATA_DIR).")
    reference = Reference(checkpoint, test, NUM_COMPARED)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        (folder / "onnx").mkdir(exist_ok=True)
        for name, format in formats.items():
            made = Path(temporary) / name
            write_unchecked(checkpoint, format, made, input_format="float", train=train, say=say)  # pyright: ignore[reportArgumentType]
            try:
                compare(open_forward(made, "float"), reference, format=format, file=made, seconds=0).raise_on_mismatch()
            except RunFailed as error:
                if error.code != "export.agreement":
                    raise
                say(f"Without onnx/{name}: {error}")
                continue
            _adapt_graph(made)
            made.replace(folder / "onnx" / name)
    described = {"config.json": config(checkpoint), "preprocessor_config.json": preprocessor(checkpoint)}
    for name, content in described.items():
        atomic_write(folder / name, json.dumps(content, indent=2) + "\n")


def config(checkpoint: Checkpoint) -> dict[str, object]:
    """The content of config.json."""
    names = [name.replace("_", " ") for name in checkpoint.classes]
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": 3,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def preprocessor(checkpoint: Checkpoint) -> dict[str, object]:
    """The content of preprocessor_config.json: `images.convert.to_model_input`, as far as the format can express it."""
    size = checkpoint.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
    }


def _calibrated(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its logits divided by its temperature, for software without temperature scaling."""
    temperature = checkpoint.calibration.temperature if checkpoint.calibration else 1.0
    head = {name: tensor / temperature for name, tensor in checkpoint.weights.items() if name.startswith("fc.")}
    return replace(checkpoint, weights=checkpoint.weights | head, calibration=None)


def _adapt_graph(path: Path) -> None:
    """Rename the input to `INPUT`, keep the logits as the only output, and remove the metadata."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    (given,) = graph.input
    for node in graph.node:
        node.input[:] = [INPUT if name == given.name else name for name in node.input]
    given.name = INPUT
    kept = [output for output in graph.output if output.name == OUTPUT]
    del graph.output[:]
    graph.output.extend(kept)
    del model.metadata_props[:]  # their description of the input no longer applies
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
