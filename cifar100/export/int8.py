"""fp32 ONNX -> int8: static quantization, per-channel weights, activation ranges from calibration images.

Jacob et al. 2018, https://arxiv.org/abs/1712.05877. Activations are unsigned and weights signed, as the dot products of
x86 (VNNI, AMX) require; ranges are min-max. The head, a 1x1 convolution to the class activation maps, stays in fp32: it
is a thousandth of the work and determines the ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.export.graph import onnx_content, quiet

BATCH_SIZE = 64


class _Batches:
    """Batches of the calibration images, as a CalibrationDataReader of onnxruntime."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter(np.array_split(images, -(-len(images) // BATCH_SIZE)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantize(source: Path, target: Path, images: np.ndarray, metadata: Mapping[str, Any]) -> None:
    """Write the graph in `source` to `target` with int8 weights and activations, as pairs of (De)QuantizeLinear.

    `images` are the calibration images, in the input format of the graph.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = onnx.load(source).graph.node
    with quiet():
        quantize_static(
            source,
            target,
            _Batches(images),  # pyright: ignore[reportArgumentType] - it has the one method that is asked for
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu"],
            nodes_to_exclude=[node.name for node in nodes if node.output[0] in ("maps", "logits")],
        )
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer}
    width = len(arrays["stem.bias_quantized"])
    target.write_bytes(onnx_content({**metadata, "precision": "int8", "width": width}, arrays))
