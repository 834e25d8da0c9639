"""`cifar100 predict` on 10,000 small PNG files, against its upper bounds: the predictor alone, the decoder alone.

    python benchmarks/predicting.py WEIGHTS [--count 10000] [--pairs 2]

The files are random images of 32x32 pixels. Each measurement runs in a new process. The predictor alone gets arrays in
memory; the decoder alone discards its images; the subcommand is measured without starting Python and importing torch,
and its table goes to a file. Writes benchmarks/results/predicting.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from circumstances import circumstances, save_result
from PIL import Image

START = """
import contextlib, json, resource, sys, time
from pathlib import Path
import numpy as np
weights, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
from cifar100.inference import load_predictor
from cifar100.images.sources import expand_inputs, load_images
from cifar100.cli.predict import Predict
images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
"""
END = """
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
print(json.dumps([count / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20]))
"""
WORK = {
    "predictor": """
predictor = load_predictor(weights)
predictor.predict_batch(images[:256])
start = time.perf_counter()
for _ in predictor.predict_stream(images):
    pass
seconds = time.perf_counter() - start
""",
    "decoder": """
start = time.perf_counter()
assert sum(image.pixels is not None for image in load_images(expand_inputs([str(folder)])[:count], 32)) == count
seconds = time.perf_counter() - start
""",
    "subcommand": """
load_predictor(weights).predict_batch(images[:256])
words = sorted(map(str, folder.iterdir()))[:count]
with open(folder.parent / "out.txt", "w") as out, contextlib.redirect_stdout(out):
    start = time.perf_counter()
    assert Predict(images=tuple(words), checkpoint=Path(weights)).run() == 0
    seconds = time.perf_counter() - start
""",
}


def measure(what: str, weights: str, folder: Path, count: int) -> tuple[float, float]:
    """Images/s, and peak memory of the process in MiB."""
    command = [sys.executable, "-c", START + WORK[what] + END, weights, str(folder), str(count)]
    rate, memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"{what:<10} {count:>6,} images: {rate:8.1f} images/s, {memory:6.0f} MiB", flush=True)
    return rate, memory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        folder.mkdir()
        rng = np.random.default_rng(0)
        for number in range(args.count):
            small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number:05}.png")
        decoder = [measure("decoder", args.weights, folder, args.count) for _ in range(args.pairs)]
        pairs = [
            [measure(what, args.weights, folder, args.count) for what in ("predictor", "subcommand")]
            for _ in range(args.pairs)
        ]
        few = measure("subcommand", args.weights, folder, args.count // 10)
    limits = [min(alone[0], statistics.median(rate for rate, _ in decoder)) for alone, _ in pairs]
    result = {
        "images": args.count,
        "predictor alone, images/s": [round(alone[0], 1) for alone, _ in pairs],
        "decoder alone, images/s": [round(rate, 1) for rate, _ in decoder],
        "predict, images/s": [round(subcommand[0], 1) for _, subcommand in pairs],
        "predict over the lower limit": [
            round(subcommand[0] / limit, 3) for (_, subcommand), limit in zip(pairs, limits, strict=True)
        ],
        "peak memory, MiB": {"all": round(max(subcommand[1] for _, subcommand in pairs)), "a tenth": round(few[1])},
        "circumstances": circumstances(),
    }
    save_result("predicting.json", result)


if __name__ == "__main__":
    main()
