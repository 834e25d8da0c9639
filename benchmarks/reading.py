"""The time to load a dataset into memory, in canonical order and with its fingerprint verified.

    python benchmarks/reading.py pickles=DIR binary=DIR parquet=DIR

Each load runs in a new process; imports are not counted. Writes benchmarks/results/reading.json.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from circumstances import circumstances, save_result

READ = """
import sys, time
from pathlib import Path
from cifar100.config import Config
from cifar100.dataset import load_dataset
start = time.perf_counter()
dataset = load_dataset(Config().replace(data_dir=Path(sys.argv[1])))
print(time.perf_counter() - start)
assert dataset.is_verified, dataset
"""


def seconds(folder: str) -> float:
    """Seconds of one load."""
    command = [sys.executable, "-c", READ, folder]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    result = {}
    for word in sys.argv[1:]:
        name, folder = word.split("=", 1)
        times = sorted(round(seconds(folder), 2) for _ in range(5))
        result[name] = {"seconds": times, "median": statistics.median(times)}
    sys.argv[1:] = [f"{word.split('=')[0]}=DIR" for word in sys.argv[1:]]
    save_result("reading.json", result | {"circumstances": circumstances()})


if __name__ == "__main__":
    main()
