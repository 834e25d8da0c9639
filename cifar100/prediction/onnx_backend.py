"""The forward pass of an exported ONNX file, by onnxruntime alone: PyTorch is not needed, and not imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cifar100.prediction.onnx_validation import read_onnx
from cifar100.support.errors import UserError


class OnnxForward:
    """uint8 [B, S, S, 3] -> logits float32 [B, C]; what a Predictor asks for. `takes` is what the graph does."""

    def __init__(self, session: Any, takes: str) -> None:
        self.session = session
        self.takes = takes

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(["logits"], pixels)[0]

    def with_maps(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The logits, and the class activation maps float32 [B, C, h, w]: how much each place speaks for each class.

        A map's mean, plus the class's bias, is the class's logit; it is Grad-CAM's before the ReLU.
        """
        logits, maps = self._run(["logits", "maps"], pixels)
        return logits, maps

    def _run(self, outputs: list[str], pixels: np.ndarray) -> list[np.ndarray]:
        return self.session.run(outputs, {"images": model_input(pixels, self.takes)})


def model_input(pixels: np.ndarray, takes: str) -> np.ndarray:
    """uint8 [B, S, S, 3] as a graph takes them: these, or float32 [B, 3, S, S] in 0..1."""
    if takes == "uint8":
        return pixels
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def open_onnx(path: str | Path) -> tuple[OnnxForward, dict[str, Any]]:
    """The forward pass of an exported file, and the facts in its metadata.

    Raises UserError if the file is damaged, foreign or not to be run (`onnx_validation`), or onnxruntime is missing.
    """
    content, facts = read_onnx(Path(path))
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"To open {path}, onnxruntime is needed: pip install 'cifar100[onnx]', or it alone.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised, and told in a sentence
    # CPUs without VNNI add int8 products in 16 bits, which overflows: one answer in ten changed. This avoids it there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        raise UserError(
            "onnx.session", f"{path} does not run in this onnxruntime ({type(error).__name__}): update it."
        ) from None
    return OnnxForward(session, facts["takes"]), facts
