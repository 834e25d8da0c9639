"""The cost of each corruption relative to a forward pass.

    python benchmarks/corruptions.py

The cost is the time to corrupt a batch and pass it through ResNet-18, divided by that of the pass alone: the best of
some consecutive rounds, severities 1, 3 and 5 of each corruption, synthetic images, all cores. Writes
benchmarks/results/corruption_cost.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from circumstances import circumstances, save_result

from cifar100.augmentation.batched import normalize
from cifar100.compute.device import select_device
from cifar100.dataset import synthetic
from cifar100.evaluation.corruptions import CORRUPTIONS, corrupt
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
        "corruption_seconds": kinds,
        "cell_over_forward": costs,
        "circumstances": circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    result = measure(args.device, args.rounds)
    save_result("corruption_cost.json", result)


if __name__ == "__main__":
    main()
