"""cifar100 export"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a model, and check the exported file against the checkpoint.

    What was found is printed, and kept beside the file as FILE.check.json.
    """

    checkpoint: Positional[Path]
    """A .pth file that training wrote, .safetensors, weights that others published, or "pretrained"."""

    format: Literal["safetensors", "onnx", "onnx-int8", "pt2"]
    """safetensors: the weights, to share. onnx: a graph for onnxruntime, fp32. onnx-int8: the same in 8 bits, for CPUs.
    pt2: a graph for PyTorch, without this library."""

    out: Path | None = None
    """Output file (default: beside the checkpoint)."""

    takes: Literal["uint8", "float"] = "uint8"
    """What a graph takes: uint8 [B, S, S, 3], as image files hold them, or float [B, 3, S, S] in 0..1. It normalises
    them itself."""

    data_dir: Path | None = None
    """Directory of the dataset (default: $CIFAR100_DATA_DIR, then ./data)."""

    images: int = 1000
    """Number of test images to check the file on, evenly spread over the classes."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        from cifar100.export import export

        options = {"takes": self.takes, "data_dir": self.data_dir, "images": self.images, "facts": self.foreign.facts()}
        emit(export(self.checkpoint, self.format, self.out, **options))
        return 0
