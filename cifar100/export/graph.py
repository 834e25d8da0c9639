"""The network as it is exported: pixels in, normalization inside, batch norms folded; logits and class activation maps
out."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.model import fold_batch_norms
from cifar100.prediction.onnx_backend import model_input
from cifar100.prediction.onnx_format import KEY, Initializer, layout


class ExportModule(nn.Module):
    """Images -> (logits [B, C], class activation maps [B, C, h, w]); fp32, for inference only.

    `input_format` is "uint8", images [B, S, S, 3] as decoded from files, or "float", [B, 3, S, S] in 0..1. The mean of
    a map (Zhou et al. 2016, https://arxiv.org/abs/1512.04150) plus the bias is the logit of its class. For a network
    that ends in global pooling and one linear layer this is Grad-CAM before its ReLU, times the number of cells
    (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).
    """

    mean: Tensor
    std: Tensor
    bias: Tensor

    def __init__(self, checkpoint: Checkpoint, input_format: str) -> None:
        super().__init__()
        self.input_format = input_format
        self.image_size = checkpoint.image_size
        network = fold_batch_norms(checkpoint.build())
        self.stem = network.conv1
        self.stages = nn.Sequential(network.layer1, network.layer2, network.layer3, network.layer4)
        self.to_maps = nn.Conv2d(network.fc.in_features, network.fc.out_features, 1, bias=False)
        self.to_maps.weight = nn.Parameter(network.fc.weight[:, :, None, None])
        top = 255.0 if input_format == "uint8" else 1.0
        self.register_buffer("mean", torch.tensor(checkpoint.mean)[:, None, None] * top)
        self.register_buffer("std", torch.tensor(checkpoint.std)[:, None, None] * top)
        self.register_buffer("bias", network.fc.bias.detach())
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.input_format == "uint8":
            images = images.permute(0, 3, 1, 2).float()
        features = self.stages(F.relu(self.stem((images - self.mean) / self.std)))  # [B, 512, S/8, S/8]
        maps = self.to_maps(features)
        return maps.mean(dim=(2, 3)) + self.bias, maps


def onnx_content(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """An ONNX file with these metadata, to which the digest is added, and these values of its tensors by name."""
    parts = {}
    for piece in layout(metadata, ""):
        if isinstance(piece, Initializer):
            array = arrays[piece.name]
            assert (array.shape, array.nbytes) == (piece.shape, piece.num_bytes), f"another {piece.name}"
            parts[piece.name] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    digest = hashlib.sha256(b"".join(parts.values())).hexdigest()
    pieces = layout(metadata, json.dumps({**metadata, "sha256": digest}))
    return b"".join(parts[piece.name] if isinstance(piece, Initializer) else piece for piece in pieces)


def save_onnx(graph: ExportModule, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the graph as one ONNX file with its weights; input "images", outputs "logits" and "maps"."""
    arrays = {name: tensor.numpy() for name, tensor in graph.state_dict().items()}
    path.write_bytes(onnx_content({**metadata, "precision": "fp32", "width": graph.stem.out_channels}, arrays))


def save_pt2(graph: ExportModule, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the graph for `torch.export.load(path).module()`; the metadata are an extra file in it."""
    black = np.zeros((2, graph.image_size, graph.image_size, 3), np.uint8)  # a batch of 1 would freeze the dimension
    example = torch.from_numpy(model_input(black, graph.input_format))
    with quiet():
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(graph, (example,), dynamic_shapes={"images": {0: batch}})
        content = io.BytesIO()  # to a full disk torch.export.save itself aborts the process
        torch.export.save(program, content, extra_files={KEY: json.dumps(metadata)})
    path.write_bytes(content.getbuffer())


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporters' warnings, such as about torchvision, which is not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
