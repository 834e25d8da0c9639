"""cifar100 predict"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from cifar100.config import DeviceName
from cifar100.errors import UserError
from cifar100.text import printable


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Name what is in images: the likeliest classes, each with its probability."""

    images: Positional[tuple[Path, ...]]
    """Image files of any kind that Pillow reads, of any size."""

    checkpoint: Path = Path("pretrained")
    """The trained model, logs/cifar100/best_model.pth say; "pretrained": the weights that come with cifar100."""

    top_k: int = 5
    """How many classes to name."""

    device: DeviceName = "auto"
    """Where to compute."""

    json: bool = False
    """Print a JSON object a line for each image instead."""

    def run(self) -> int:
        if not self.images:
            raise UserError("Which image? Name one, as in cifar100 predict photo.jpg.")
        from cifar100.images import to_pixels
        from cifar100.inference import load_predictor

        predictor = load_predictor(self.checkpoint, device=self.device)
        if predictor.trained_on.startswith("SYNTHETIC"):
            print("cifar100: this model was trained on made-up images; its answers mean nothing", file=sys.stderr)
        read: list[Path] = []
        failed = 0

        def pixels() -> Iterator[Any]:
            nonlocal failed
            for path in self.images:
                try:
                    image = to_pixels(path, predictor.image_size)
                except UserError as error:
                    print(f"cifar100: {error}", file=sys.stderr)
                    failed += 1
                else:
                    read.append(path)
                    yield image

        for number, predictions in enumerate(predictor.predict_stream(pixels(), self.top_k)):
            path = read[number]
            if self.json:
                print(json.dumps({"image": str(path), "predictions": [item._asdict() for item in predictions]}))
            else:
                print(printable(path))
                for name, class_id, probability in predictions:
                    bar = "#" * round(30 * probability)
                    print(f"  {probability:7.2%}  {printable(name):<20} {class_id:>3}  {bar}")
        return 1 if failed else 0
