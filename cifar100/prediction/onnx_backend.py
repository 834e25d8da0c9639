"""An exported ONNX file as a `Backend`, by onnxruntime: PyTorch is not imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cifar100.prediction.model_info import ModelInfo
from cifar100.prediction.onnx_validation import read_onnx
from cifar100.support.errors import UserError
from cifar100.support.provenance import assumptions


class OnnxBackend:
    """`Backend` of an exported file, on the CPU.

    Raises UserError if the file is damaged or not one of ours (`onnx_validation`), or onnxruntime is missing.
    """

    def __init__(self, path: str | Path, source: str | Path = "") -> None:
        content, self.metadata = read_onnx(Path(path))
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                "onnx.library", f"Opening {path} needs onnxruntime: pip install 'cifar100[onnx]', or it alone."
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and reported as one message
        # CPUs without VNNI add int8 products in 16 bits, which overflows: one prediction in ten changed.
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many kinds
            raise UserError(
                "onnx.session", f"{path} does not run in this onnxruntime ({type(error).__name__}): update it."
            ) from None
        self.info = ModelInfo.from_fields(
            self.metadata,
            source or path,
            sha256=self.metadata["sha256"],
            network=f"{self.metadata['model']}, ONNX {self.metadata['precision']}",
            hardware="CPU, onnxruntime",
            notes=tuple(assumptions(*(self.metadata[name] for name in ("assumed", "classes", "superclasses")))),
        )

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(["logits"], pixels)[0]

    def logits_and_cams(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, cams = self._run(["logits", "maps"], pixels)
        return logits, cams

    def features(self, pixels: np.ndarray) -> np.ndarray:  # noqa: ARG002
        raise UserError(
            "predict.no_features", f"{self.info.source} has no features output; use a .pth or .safetensors file."
        )

    def _run(self, outputs: list[str], pixels: np.ndarray) -> list[np.ndarray]:
        inputs = {"images": model_input(pixels, self.metadata["takes"])}
        return [np.asarray(output) for output in self.session.run(outputs, inputs)]


def model_input(pixels: np.ndarray, input_format: str) -> np.ndarray:
    """uint8 [B, S, S, 3] as a graph takes it: unchanged ("uint8"), or float32 [B, 3, S, S] in 0..1 ("float")."""
    if input_format == "uint8":
        return pixels
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
