"""cifar100 classes"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from cifar100.cli.options import default_model
from cifar100.support.terminal import emit, emit_error
from cifar100.support.text import escape_control_chars


@dataclass(frozen=True, kw_only=True)
class Classes:
    """List the classes that a model predicts, by superclass."""

    checkpoint: Positional[Path | None] = None
    """Model. None: logs/cifar100/best_model.pth if it exists, else "pretrained", the bundled weights."""

    json: bool = False
    """Print JSON: a list of {class_id, class_name, superclass}."""

    def run(self) -> int:
        import json

        from cifar100.prediction.backend import open_backend

        info = open_backend(self.checkpoint or default_model(), device="cpu").info
        for note in info.notes:
            emit_error(note)
        if self.json:
            rows = [
                {"class_id": class_id, "class_name": name, "superclass": info.superclass(class_id)}
                for class_id, name in enumerate(info.classes)
            ]
            emit(json.dumps(rows, indent=1), wrapped=False)
            return 0
        groups: dict[str, list[str]] = {}
        for class_id, name in enumerate(info.classes):
            groups.setdefault(info.superclass(class_id), []).append(escape_control_chars(name))
        emit(f"model: {info.source} (sha256 {info.digest}), {len(info.classes):,} classes")
        for superclass, names in sorted(groups.items()):
            emit(f"{escape_control_chars(superclass)}: {', '.join(names)}" if superclass else "\n".join(names))
        return 0
