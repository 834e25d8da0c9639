"""cifar100 export"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export to safetensors, ONNX (fp32/int8), pt2 or a static site.

    The exported file is checked against the checkpoint.

    The result is printed and written to FILE.check.json.
    """

    checkpoint: Positional[Path]
    """A .pth file that training wrote, .safetensors, a third-party state dict (as for `evaluate`), or "pretrained"."""

    format: Literal["safetensors", "onnx", "onnx-int8", "pt2", "web"]
    """safetensors: weights to share. onnx: a graph for onnxruntime, fp32. onnx-int8: the same quantized to 8 bits, for
    CPUs. pt2: a graph for PyTorch, without this library. web: a static site that classifies the center of images
    (--fit crop of predict) in the visitor's browser; for it the checkpoint may also be an .onnx file."""

    out: Path | None = None
    """Output file; for web, the directory of the site. None: next to the checkpoint; not for web."""

    # as in evaluate.py: the alias is the current flag
    input_format: Annotated[Literal["uint8", "float"], arg(name="takes", aliases=["--input-format"])] = "uint8"
    """Input of the graph: uint8 [B, S, S, 3], as decoded from image files, or float [B, 3, S, S] in 0..1. The graph
    normalizes it."""

    data_dir: Path | None = None
    """Dataset directory or archive. None: that of config.py, $CIFAR100_DATA_DIR, ./data."""

    images: int = 1000
    """Number of test images to check the file on, evenly spread over the classes."""

    runtime: Path | None = None
    """For web: directory of the npm package onnxruntime-web. None: the cache, else fetched with npm."""

    examples: UseAppendAction[tuple[Path, ...]] = ()
    """For web: an image for visitors to try (default: the package's if the classes are CIFAR-100's, else none)."""

    serve: bool = False
    """For web: serve the site on this machine and open it in a browser."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        if self.format == "web":
            return self._web()
        if self.runtime or self.examples or self.serve:
            raise UserError("export.web_only", "--runtime, --examples and --serve are for --format web.")
        from cifar100.export import export, output_path

        out = output_path(self.checkpoint, self.format, self.out)
        options: dict[str, Any] = {"input_format": self.input_format, "options": self.foreign.options()}
        options |= {"data_dir": self.data_dir, "images": self.images}
        emit(f"Exporting {self.checkpoint} to {out}, and comparing the file with it", flush=True)
        emit(export(self.checkpoint, self.format, out, **options))
        return 0

    def _web(self) -> int:
        if self.out is None:
            raise UserError("export.out", "--format web needs --out DIR, the directory of the site.")
        if self.input_format != "uint8":
            raise UserError("export.input_format", "--input-format is for graphs; a site always takes image files.")
        from cifar100.export.web import export_site
        from cifar100.export.web_serve import serve

        site = export_site(
            self.checkpoint,
            self.out,
            runtime=self.runtime,
            examples=self.examples,
            data_dir=self.data_dir,
            images=self.images,
            options=self.foreign.options(),
        )
        emit(site)
        if self.serve:
            serve(self.out)
        return 0
