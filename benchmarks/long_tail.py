"""Accuracy of the networks of studies/long_tail.json by class size, with and without logit adjustment.

    python benchmarks/study.py benchmarks/studies/long_tail.json --data-dir DIR --out OUT
    python benchmarks/long_tail.py OUT --data-dir DIR

Classes are grouped as usual for CIFAR-100-LT: many (over 100 train images), medium, few (under 20). Logit adjustment
subtracts the logarithm of a class's share of the train images (Menon et al. 2021, arXiv 2007.07314, tau = 1), as
examples/logit_adjustment.py does. Writes benchmarks/results/long_tail/adjustment.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from circumstances import circumstances, save_result
from study import file_stem, long_tailed, narrow, subsample

from cifar100.augmentation.loader import EvalLoader
from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.evaluation.evaluate import predict_logits

STUDY = json.loads((Path(__file__).parent / "studies" / "long_tail.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    narrow(STUDY["width"])
    dataset, compute = load_dataset(Config().replace(data_dir=args.data_dir)), select_device("cpu", "fp32")
    counts = np.bincount(long_tailed(dataset.train, STUDY["imbalance"]).labels)
    groups = {"all": counts > 0, "many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    test = subsample(dataset.test, 1, halved=STUDY["halved"])
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in STUDY["runs"]:
        for seed in STUDY["seeds"]:
            checkpoint = load_checkpoint(args.out / "runs" / file_stem(name, seed) / "last.pth")
            model = compute.prepare(checkpoint.build()).eval()
            settings = Config().replace(mean=tuple(checkpoint.mean), std=tuple(checkpoint.std)).augment
            loader = EvalLoader(test, settings, batch_size=500, device=compute.device)
            logits = predict_logits(model, loader, compute)
            for kind, found in (("", logits), (", adjusted", logits - np.log(counts / counts.sum()))):
                correct = found.argmax(axis=1) == test.labels
                results.setdefault(name + kind, {})[f"seed {seed}"] = {
                    group: round(float(correct[members[test.labels]].mean()), 4) for group, members in groups.items()
                }
    classes = {group: int(members.sum()) for group, members in groups.items()}
    result = {"classes": classes, "top-1": results, "circumstances": circumstances()}
    save_result("long_tail/adjustment.json", result)


if __name__ == "__main__":
    main()
