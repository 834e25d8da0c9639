"""What is known about a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar100.checkpoints.hub import is_hub_address
from cifar100.support.provenance import DatasetInfo, Selection, TemperatureFit

DIGEST_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known about a loaded model."""

    name: str
    """"pretrained", a Hub address, or the name of the file, without its directory."""
    source: str
    """The path or address that was opened."""
    sha256: str
    """Of the weights, in hexadecimal. A checkpoint and its safetensors have the same, an ONNX file another."""
    network: str
    """Architecture, and number of parameters or file format."""
    hardware: str
    """Device and precision."""
    classes: tuple[str, ...]
    image_size: int
    superclasses: tuple[str, ...] = ()
    """Empty if the classes have no superclasses."""
    superclass_of: tuple[int, ...] = ()
    """Index into `superclasses` of each class."""
    dataset: DatasetInfo
    selection: Selection | None = None
    calibration: TemperatureFit | None = None
    evaluation: Mapping[str, Any]
    """`Evaluation.to_json` on the test set; empty if unknown."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Metrics of the epoch that the weights are from, among them "split", "top1" and "top5"; empty if unknown."""
    assumed: tuple[str, ...] = ()
    """Fields that the file did not contain, of a file from elsewhere: "mean", "classes", ..."""
    notes: tuple[str, ...] = ()
    """Lines of text: what was assumed about a third-party file, and which of its tensors were ignored."""

    @property
    def digest(self) -> str:
        """The first 12 digits of `sha256`."""
        return self.sha256[:DIGEST_LENGTH]

    @property
    def temperature(self) -> float:
        """What logits are divided by for calibrated probabilities; 1 if no temperature was fitted."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    @property
    def accuracy(self) -> str:
        """The top-1 accuracy and the images that it was measured on; "" if unknown."""
        measured = self.evaluation or self.metrics
        if measured.get("top1") is None:
            return ""
        split = measured.get("split") or ""
        count = measured.get("images") or (self.dataset.num_test if split == "test" else 0)
        images = " ".join(filter(None, (f"{count:,}" if count else "", split, "images")))
        chosen = self.selection is not None and self.selection.rule == "best" and self.selection.split == split
        return f"{measured['top1']:.1%} top-1 on {images}{' (selected on these)' if chosen else ''}"

    def superclass(self, class_id: int) -> str:
        """The name of the superclass of a class, "" if there is none."""
        return self.superclasses[self.superclass_of[class_id]] if self.superclasses else ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], source: str | Path, **others: Any) -> ModelInfo:
        """From the fields of a checkpoint or the metadata of an ONNX file, which have the same names."""
        name = str(source)
        return cls(
            name=name if is_hub_address(name) else Path(name).name,
            source=name,
            classes=tuple(fields["classes"]),
            image_size=fields["image_size"],
            superclasses=tuple(fields["superclasses"]),
            superclass_of=tuple(fields["superclass_of"]),
            dataset=fields["dataset"],
            selection=fields["selection"],
            calibration=fields["calibration"],
            evaluation=fields["evaluation"],
            metrics=fields.get("metrics", {}),
            assumed=tuple(fields["assumed"]),
            **others,
        )
