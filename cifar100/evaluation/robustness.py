"""`cifar100 robustness`: the error of a model on corrupted images, 15 corruptions at 5 severities.

Each of the 75 cells is saved when it is finished (`corruption_results`), so that a run can be interrupted and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.hub import is_hub_address
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.compute.device import Compute
from cifar100.config import AugmentConfig
from cifar100.dataset import Dataset
from cifar100.evaluation import cifar100_c, metrics
from cifar100.evaluation.cifar100_c import Cifar100C
from cifar100.evaluation.corruption_results import CELLS, Identity, ResultStore, Robustness, results_path
from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cifar100.evaluation.evaluate import eval_batch_size, predict_logits
from cifar100.support.errors import UserError
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.terminal import Say, emit
from cifar100.support.text import duration

SEED = 0
"""Seed of our own corruptions."""


def evaluate_corruptions(
    weights: Path,
    checkpoint: Checkpoint,
    dataset: Dataset,
    config: AugmentConfig,
    compute: Compute,
    *,
    limit: int | None = None,
    corruptions_dir: Path | None = None,
    say: Say = emit,
) -> Robustness:
    """Evaluate a checkpoint, read from the file `weights`, on its test images in all cells that are still missing.

    `limit` is a number of images, evenly spread over the split; `corruptions_dir` contains the files of CIFAR-100-C, to
    use instead of our own corruptions, without `limit`. `say` gets progress messages. Raises UserError if the directory
    or earlier results cannot be used, RunFailed if results cannot be written.
    """
    if corruptions_dir is not None and limit is not None:  # they are in another order than the test images
        raise UserError("robustness.limit", "--limit is for our own corruptions; omit it with --corruptions-dir.")
    published = _find_published(corruptions_dir, dataset)
    rows = _rows(dataset, limit)
    identity: Identity = {
        "weights": weights.as_posix() if is_hub_address(weights) else weights.name,
        "sha256": state_dict_sha256(checkpoint.weights),
        "source": "published" if published else "computed",
        "dataset": dataset.spec.name,
        "fingerprint": dataset.test.fingerprint,
        "images": len(rows),
        "seed": SEED,
        "precision": compute.precision,
        "image_size": dataset.image_size,
    }
    store = ResultStore(results_path(weights), identity)
    store.results.compute = str(compute)
    evaluate = partial(_evaluate, compute.prepare(checkpoint.build()), config=config, compute=compute)
    if not store.results.clean:
        store.results.clean = evaluate(dataset.test.images[rows], dataset.test.labels[rows])
    missing = _missing_cells(store.results, published, say)
    store.save()  # a file that cannot be written should fail before the long work
    for name, severity in missing:
        if published is None:
            corruption = partial(corrupt, name=name, severity=severity, seed=SEED)
            figures = evaluate(dataset.test.images[rows], dataset.test.labels[rows], rows.tolist(), corruption)
        else:
            images, labels = published.cell(name, severity)
            figures = evaluate(images, labels)
        store.results.cells[name, severity] = figures
        store.save()
        say(f"  {name:<18} {severity}  {figures['top1']:7.2%}  {figures['seconds']:6.1f} s")
    return store.results


def _find_published(directory: Path | None, dataset: Dataset) -> Cifar100C | None:
    if directory is None:
        return None
    if dataset.image_size != 32 or len(dataset.test) != cifar100_c.NUM_IMAGES:
        raise UserError(
            "robustness.dataset",
            f"--corruptions-dir {directory} is for CIFAR-100 at 32x32 pixels, and this dataset is not.",
        )
    found = Cifar100C.find(directory, len(dataset.classes))
    counts = np.bincount(dataset.test.labels, minlength=len(dataset.classes)) * len(SEVERITIES)
    if not np.array_equal(np.bincount(found.labels, minlength=len(counts)), counts):
        raise UserError(
            "robustness.files",
            f"--corruptions-dir {directory} holds corrupted images of another dataset than this one.",
        )
    return found


def _rows(dataset: Dataset, limit: int | None) -> np.ndarray:
    """The rows of the test images to use."""
    if limit is not None and limit < 1:
        raise UserError("robustness.limit", f"--limit is {limit}; it must be 1 or more.")
    return dataset.test.spread(limit or len(dataset.test))


def _missing_cells(results: Robustness, published: Cifar100C | None, say: Say) -> list[tuple[str, int]]:
    """The cells still to be evaluated; `say` gets their number and the expected time."""
    names = CORRUPTIONS.keys() if published is None else published.corruptions
    missing = [cell for cell in CELLS if cell[0] in names and cell not in results.cells]
    num_images, clean_seconds = results.identity["images"], results.clean["seconds"]
    expected, speed = duration(len(missing) * clean_seconds), num_images / clean_seconds
    say(
        f"{len(missing)} of {len(CELLS)} cells to do, {num_images:,} images each: about {expected} at {speed:,.0f} "
        "images/s. It can be interrupted and resumed."
    )
    if published is not None and len(names) < len(CORRUPTIONS):
        absent = ", ".join(name for name in CORRUPTIONS if name not in names)
        say(f"Left out, because {published.directory} has no files of them: {absent}")
    return missing


def _evaluate(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    sample_ids: Sequence[int] = (),
    corruption: Callable[..., Tensor] | None = None,
    *,
    config: AugmentConfig,
    compute: Compute,
) -> dict[str, float]:
    """The model's "top1", "top5", "loss" and "seconds" on images, uint8 [N, S, S, 3].

    `corruption`, if given, is called as `corruption(batch, sample_ids=...)`: `corrupt` with its other arguments bound.
    """

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        batch_size = eval_batch_size(images.shape[1])
        for start in range(0, len(labels), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(compute.device)
            if corruption is not None:
                batch = corruption(batch, sample_ids=sample_ids[start : start + batch_size])
            yield normalize(batch, config.mean, config.std), torch.empty(0)

    watch = Stopwatch()
    logits = predict_logits(model, batches(), compute)
    return {
        "top1": metrics.top_k_accuracy(logits, labels, 1),
        "top5": metrics.top_k_accuracy(logits, labels, 5),
        "loss": metrics.cross_entropy(logits, labels),
        "seconds": watch.seconds,
    }
