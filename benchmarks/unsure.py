"""Rejection of uncertain predictions: choice of score and threshold, detection rates, and lost coverage.

    python benchmarks/unsure.py WEIGHTS --cifar100 DIR [--cifar10 DIR] [--logits DIR]

Logits are divided by the temperature of the weights, as in every output. In-distribution are CIFAR-100's test images:
one half chooses the threshold, the other half evaluates it. Out-of-distribution are noise, blurred noise and
single-color images, and with `--cifar10` CIFAR-10's test images, some of whose classes are close to CIFAR-100's (truck
and pickup_truck). `--logits` names a directory with cifar100_test.npz or cifar10_test.npz, "logits" in canonical
order, to save their forward passes. Writes benchmarks/results/unsure.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from circumstances import circumstances, save_result
from PIL import Image
from sklearn.metrics import roc_auc_score

from cifar100.dataset import read
from cifar100.evaluation.metrics import softmax
from cifar100.inference import Predictor, load_predictor
from cifar100.prediction.rejection import (
    MIN_AUTOCORRELATION,
    MIN_PIXEL_STD,
    MIN_PROBABILITY,
    pixel_std,
    spatial_autocorrelation,
)

FALSE_ALARMS = 0.1
"""The fraction of in-distribution images that the score may flag."""

SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "maximum probability": lambda logits: softmax(logits).max(axis=1),
    "energy": lambda logits: np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1),
    "maximum logit": lambda logits: logits.max(axis=1),
}


def synthetic(count: int) -> dict[str, np.ndarray]:
    """Images without an object, by kind: uint8 [N, 32, 32, 3]."""
    draws = np.random.default_rng(0)
    blurred = [Image.fromarray(draws.integers(0, 256, (5, 5, 3), np.uint8)) for _ in range(count)]
    return {
        "noise": draws.integers(0, 256, (count, 32, 32, 3), np.uint8),
        "single color": np.repeat(draws.integers(0, 256, (count, 1, 3), np.uint8), 1024, 1).reshape(-1, 32, 32, 3),
        "blurred noise": np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in blurred]),
    }


def logits_of(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    parts = [predictor.backend.logits(images[start : start + 128]) for start in range(0, len(images), 128)]
    return np.concatenate(parts).astype(np.float64)


def without_structure(images: np.ndarray) -> np.ndarray:
    """Whether each image has no contrast or no spatial autocorrelation: bool [N]."""
    return np.array([pixel_std(i) < MIN_PIXEL_STD or spatial_autocorrelation(i) < MIN_AUTOCORRELATION for i in images])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--cifar100", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--logits", type=Path)
    args = parser.parse_args()
    predictor = load_predictor(args.weights, precision="fp32")

    images, logits, labels = synthetic(1000), {}, np.array([])
    for name in ("cifar100", "cifar10") if args.cifar10 else ("cifar100",):
        dataset = read(getattr(args, name))
        assert dataset.is_verified, dataset
        test = dataset.test
        images[name] = np.asarray(test.images)
        if name == "cifar100":
            labels = np.asarray(test.labels)
        kept = args.logits and args.logits / f"{name}_test.npz"
        if kept and kept.exists():
            logits[name] = np.load(kept)["logits"].astype(np.float64)
    logits |= {name: logits_of(predictor, of) for name, of in images.items() if name not in logits}
    logits = {name: values / predictor.temperature for name, values in logits.items()}

    half = np.random.default_rng(0).permutation(len(labels)) % 2 == 0  # chooses the threshold; the rest evaluates it
    known = logits["cifar100"]
    unknown = [name for name in images if name != "cifar100"]
    auroc = {
        score: {
            name: float(
                roc_auc_score(
                    np.repeat([1, 0], [half.sum(), len(logits[name])]), np.r_[of(known[half]), of(logits[name])]
                )
            )
            for name in unknown
        }
        for score, of in SCORES.items()
    }
    used = SCORES["maximum probability"]
    threshold = float(np.quantile(used(known[half]), FALSE_ALARMS))
    low = {name: used(of) < MIN_PROBABILITY for name, of in logits.items()}
    bare = {name: without_structure(of) for name, of in images.items()}
    right = known.argmax(axis=1) == labels
    judged = ~half
    unsure = (low["cifar100"] | bare["cifar100"])[judged]
    result = {
        "AUROC against half of CIFAR-100's test images": {
            s: {n: round(v, 4) for n, v in of.items()} for s, of in auroc.items()
        },
        "temperature": predictor.temperature,
        f"threshold of {FALSE_ALARMS:.0%} false alarms on that half": round(threshold, 4),
        "used": {
            "maximum probability": MIN_PROBABILITY,
            "pixel std": MIN_PIXEL_STD,
            "autocorrelation": MIN_AUTOCORRELATION,
        },
        "on the other half of CIFAR-100": {
            "flagged as unsure": round(float(unsure.mean()), 4),
            "of these as uniform or noise": round(float(bare["cifar100"][judged].mean()), 4),
            "accuracy of all": round(float(right[judged].mean()), 4),
            "accuracy if flagged": round(float(right[judged][unsure].mean()), 4),
            "accuracy if not": round(float(right[judged][~unsure].mean()), 4),
        },
        "flagged, of": {name: round(float((low[name] | bare[name]).mean()), 4) for name in unknown},
        "flagged by the score alone, of": {name: round(float(low[name].mean()), 4) for name in unknown},
        "circumstances": circumstances(),
    }
    save_result("unsure.json", result)


if __name__ == "__main__":
    main()
