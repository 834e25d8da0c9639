"""The cost of each corruption relative to a forward pass, and a contact sheet of all.

    python benchmarks/corruptions.py                          writes benchmarks/results/corruption_cost.json
    python benchmarks/corruptions.py --sheet OUT.png IMAGE    a contact sheet: fifteen kinds, five severities

The cost is the time to corrupt a batch and pass it through ResNet-18, divided by that of the pass alone: the best of
some consecutive rounds, severities 1, 3 and 5 of each corruption, synthetic images, all cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from circumstances import RESULTS, circumstances
from PIL import Image, ImageDraw

from cifar100.augmentation.batched import normalize
from cifar100.compute.device import select_device
from cifar100.dataset import synthetic
from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cifar100.images.convert import to_model_input
from cifar100.model import resnet18

BATCH = 500
"""The batch size of `evaluate`."""


def seconds(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(device: str, rounds: int) -> dict[str, object]:
    """Seconds of the forward pass in both precisions, and of each corruption at the slowest of three severities."""
    images = torch.from_numpy(synthetic.make().test.images[:BATCH])
    passes: dict[str, float] = {}
    kinds = dict.fromkeys(CORRUPTIONS, 0.0)
    with torch.inference_mode():
        for precision in ("fp32", "auto"):
            compute = select_device(device, precision)
            model, batch = compute.prepare(resnet18()).eval(), images.to(compute.device)

            def forward(model: torch.nn.Module = model, batch: torch.Tensor = batch) -> None:
                with compute.autocast():  # noqa: B023
                    model(normalize(batch, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
                compute.synchronize()  # noqa: B023

            passes[compute.precision] = min(seconds(forward) for _ in range(rounds + 1))
        batch = images.to(compute.device)
        for kind in CORRUPTIONS:
            for severity in (1, 3, 5):

                def apply(kind: str = kind, severity: int = severity) -> None:
                    corrupt(batch, kind, severity, sample_ids=range(BATCH))
                    compute.synchronize()

                kinds[kind] = max(kinds[kind], min(seconds(apply) for _ in range(rounds + 1)))
    costs = {
        precision: {kind: round(1 + spent / passed, 3) for kind, spent in kinds.items()}
        for precision, passed in passes.items()
    }
    return {
        "batch": BATCH,
        "compute": str(compute),
        "forward_seconds": passes,
        "spoil_seconds": kinds,
        "cell_over_forward": costs,
        "circumstances": circumstances(),
    }


def contact_sheet(image: np.ndarray, zoom: int = 4) -> Image.Image:
    """A row per corruption of an image, uint8 [S, S, 3]: the original, then each severity."""
    size = len(image)
    cell, left = size * zoom + 4, 150
    sheet = Image.new("RGB", (left + 6 * cell, 20 + len(CORRUPTIONS) * cell), "white")
    pen = ImageDraw.Draw(sheet)
    batch = torch.from_numpy(image.copy())[None]
    for row, kind in enumerate(CORRUPTIONS):
        pen.text((6, 20 + row * cell + cell // 2 - 6), kind, fill="black")
        tiles = [batch, *(corrupt(batch, kind, severity, sample_ids=[row]) for severity in SEVERITIES)]
        for column, tile in enumerate(tiles):
            shown = Image.fromarray(tile[0].numpy()).resize((size * zoom, size * zoom), Image.Resampling.NEAREST)
            sheet.paste(shown, (left + column * cell, 20 + row * cell))
    for column, title in enumerate(["as it is", *map(str, SEVERITIES)]):
        pen.text((left + column * cell, 4), title, fill="black")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="for --sheet; default: a synthetic image")
    parser.add_argument("--sheet", help="draw a contact sheet on this file instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.sheet:
        image = to_model_input(args.image) if args.image else synthetic.make().test.images[0]
        contact_sheet(image).save(args.sheet)
        return
    result = measure(args.device, args.rounds)
    (RESULTS / "corruption_cost.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
