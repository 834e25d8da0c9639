"""Duplicates in CIFAR-100, and the time that finding them takes.

    python benchmarks/duplicates.py --data-dir DIR

Writes benchmarks/results/duplicates.json; rows are in canonical order (`cifar100.dataset`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from circumstances import RESULTS, circumstances

from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.evaluation.duplicates import (
    COARSE_THRESHOLD,
    NEAR_THRESHOLD,
    CombinedSplits,
    DuplicatePair,
    exact_duplicates,
    near_duplicates,
    rows_in_train,
)


def counted(pairs: Sequence[DuplicatePair], rows: CombinedSplits) -> dict[str, dict[str, int]]:
    """The number of pairs in train, in test and across, and of those with different labels."""
    all_, differ = (
        Counter(map(rows.location, pairs)),
        Counter(rows.location(pair) for pair in pairs if rows.labels_conflict(pair)),
    )
    return {
        place: {"pairs": all_[place], "with different labels": differ[place]} for place in ("train", "test", "across")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    args = parser.parse_args()
    dataset = load_dataset(Config().replace(data_dir=args.data_dir))
    assert dataset.is_verified, dataset
    rows = CombinedSplits(dataset)
    start = time.perf_counter()
    exact = exact_duplicates(rows.images)
    after_exact = time.perf_counter()
    near = near_duplicates(rows.images)
    after_near = time.perf_counter()
    names = dataset.classes
    across = [pair for pair in exact if rows.location(pair) == "across"]
    result = {
        "exact": counted(exact, rows) | {"seconds": round(after_exact - start, 2)},
        "test images of the same pixels as a train image": [
            {
                "test row": pair.second - rows.num_train,
                "label": names[rows.labels[pair.second]],
                "train row": pair.first,
                "label in train": names[rows.labels[pair.first]],
            }
            for pair in across
        ],
        "near": counted(near, rows) | {"mirrored": sum(pair.mirrored for pair in near)},
        "near, seconds": round(after_near - after_exact, 1),
        "test images that occur exactly or nearly in train": len(rows_in_train([*exact, *near], rows)),
        "correlations": {"coarse": COARSE_THRESHOLD, "near": NEAR_THRESHOLD},
        "circumstances": circumstances(),
    }
    (RESULTS / "duplicates.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
