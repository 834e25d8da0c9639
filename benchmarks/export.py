"""Accuracy, size, speed and startup time of each export format and of the Predictor.

    python benchmarks/export.py CHECKPOINT --data-dir DIR

All test images for ONNX, 1,000 for the others. Speed is the median of interleaved passes, next to the eager network in
fp32. The Predictor folds batch norms and uses bf16 if the CPU is fast at it. The first answer is timed as a whole
process. Writes benchmarks/results/export.json.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import onnxruntime
from circumstances import circumstances, save_result

from cifar100.checkpoints.weights import load_weights
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.export import SUFFIXES, open_forward, write_unchecked
from cifar100.export.check import Forward, Reference, compare, measure_speeds
from cifar100.prediction.torch_backend import TorchBackend

FIRST_ANSWER = """
import sys
import numpy as np
from cifar100 import load_predictor
print(load_predictor(sys.argv[1]).predict(np.zeros((32, 32, 3), np.uint8)))
"""


def first_answer(weights: str | Path, turns: int = 5) -> float:
    """Seconds of a process that loads the weights and classifies one image; the median of some processes."""
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_ANSWER, str(weights)], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    checkpoint = load_weights(args.checkpoint)
    data = load_dataset(Config().replace(data_dir=args.data_dir))
    reference = Reference(checkpoint, data.test, args.images)
    fewer = Reference(checkpoint, data.test, min(1000, args.images))  # for formats that differ by rounding alone
    checks: dict[str, dict[str, object]] = {}
    forwards: dict[str, Forward] = {"eager fp32": reference.forward}
    for precision in ("fp32", "bf16"):
        forwards[f"eager {precision}, folded"] = TorchBackend(checkpoint, select_device("cpu", precision)).logits
    with tempfile.TemporaryDirectory() as folder:
        for format, suffix in SUFFIXES.items():
            path = Path(folder) / f"{format}{suffix}"
            write_unchecked(checkpoint, format, path, train=data.train)  # pyright: ignore[reportArgumentType]
            forward = open_forward(path, "uint8")
            on = reference if "onnx" in format else fewer
            found = compare(forward, on, format=format, file=path, seconds=0.5)
            print(found, flush=True)
            kept = asdict(found)
            checks[format] = {name: kept[name] for name in kept if "per_second" not in name and name != "file"}
            if format != "safetensors":  # it is the eager network
                forwards[format] = forward
        first = {
            "pretrained": first_answer(args.checkpoint),
            "onnx-int8": first_answer(Path(folder) / "onnx-int8.onnx"),
        }
        speeds = {}
        for size in args.batches:
            values = measure_speeds(list(forwards.values()), reference.images[:size], args.seconds)
            speeds[size] = dict(zip(forwards, values, strict=True))
            print(size, speeds[size], flush=True)
    result = {
        "images_per_second": speeds,
        "int8_over_fp32_onnx": {size: round(of["onnx-int8"] / of["onnx"], 2) for size, of in speeds.items()},
        "int8_over_eager": {size: round(of["onnx-int8"] / of["eager fp32"], 2) for size, of in speeds.items()},
        "seconds_to_a_first_answer": first,
        "checks": checks,
        "onnxruntime": onnxruntime.__version__,
        "circumstances": circumstances(),
    }
    save_result("export.json", result)


if __name__ == "__main__":
    main()
