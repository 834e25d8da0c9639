"""Evaluate weights on a split: one forward pass, then all metrics from the logits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar100.augmentation.loader import EvalLoader
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import load_weights
from cifar100.compute.device import Compute, select_device
from cifar100.compute.distributed import DistContext
from cifar100.config import AugmentConfig
from cifar100.dataset import Dataset, Split
from cifar100.dataset.base import spread_rows
from cifar100.evaluation import metrics
from cifar100.evaluation.eval_split import load_eval_split
from cifar100.support.progress import progress
from cifar100.support.terminal import emit_error
from cifar100.support.text import escape_control_chars

BATCH_SIZE = 500
"""Batch size of evaluation at 32x32 pixels. It affects results by rounding only."""


def eval_batch_size(image_size: int) -> int:
    """The maximum batch size of evaluation: `BATCH_SIZE`, or as many larger images as take no more memory."""
    return max(1, min(BATCH_SIZE, BATCH_SIZE * 32**2 // image_size**2))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of a model on a split. Accuracies are in 0..1."""

    split: str
    classes: tuple[str, ...]
    """Names by class id."""
    images: int
    """Number of images."""
    loss: float
    """Cross-entropy in nats, without label smoothing."""
    top1: float
    top5: float
    superclass_top1: float | None
    """Fraction whose predicted class is in the true superclass; None if the dataset has no superclasses."""
    per_class: dict[str, float]
    """Accuracy of each class that has images."""
    per_superclass: dict[str, float]
    """Superclass accuracy of each superclass."""
    seconds: float
    """Time of the forward passes, data already on the device."""
    compute: str
    """Device and precision."""
    logits: np.ndarray = field(repr=False)
    """float32 [N, C], rows in the split's order."""
    labels: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    """Remarks about the images, as lines of text."""

    @property
    def images_per_second(self) -> float:
        """Throughput of the forward passes."""
        return self.images / self.seconds

    @property
    def chance(self) -> float:
        """The mean recall of guessing: 1 / number of classes that have images."""
        return 1 / len(self.scores.images)

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the 95 % Wilson interval of the mean recall lies above chance."""
        # the mean recall of K classes with n_k images has the variance of a fraction of K^2 / sum(1 / n_k) images
        num_images = round(len(self.scores.images) ** 2 / float((1 / self.scores.images).sum()))
        return metrics.wilson_interval(self.scores.mean()["recall"], num_images)[0] > self.chance

    @cached_property
    def scores(self) -> metrics.ClassScores:
        """Precision, recall, F1 and ROC AUC of each class that has images."""
        return metrics.class_scores(self.logits, self.labels)

    def class_rows(self) -> list[dict[str, Any]]:
        """A row for each class that has images: its name, number of images, and the four scores."""
        rows = zip(*(column.tolist() for column in self.scores), strict=True)
        return [dict(zip(self.scores._fields, row, strict=True)) | {"name": self.classes[row[0]]} for row in rows]

    def to_json(self) -> dict[str, Any]:
        """All metrics, without the logits. A ROC AUC that is undefined, because there is only one class, is null."""
        names = ("split", "images", "loss", "top1", "top5", "superclass_top1")
        rest = ("per_superclass", "per_class", "seconds", "images_per_second", "compute")
        measures = ("images", "precision", "recall", "f1", "roc_auc")
        means = {"macro": self.scores.mean(), "weighted": self.scores.mean(weighted=True)}
        scores = {row["name"]: {measure: _or_none(row[measure]) for measure in measures} for row in self.class_rows()}
        return {
            **{name: getattr(self, name) for name in names},
            **{kind: {name: _or_none(value) for name, value in mean.items()} for kind, mean in means.items()},
            **{name: getattr(self, name) for name in rest},
            "class_scores": scores,
        }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    compute: Compute,
    advance: Callable[[int], object] | None = None,
) -> np.ndarray:
    """The logits of every image of a loader, float32 [N, C]. The model's training mode is left as it was.

    `advance` is called with the size of each batch after its forward pass.
    """
    was_training = model.training
    model.eval()
    logits = []
    with compute.autocast():
        for images, _ in loader:
            logits.append(model(images).float())
            if advance is not None:
                advance(len(images))
    model.train(was_training)
    return torch.cat(logits).cpu().numpy()


def evaluate_model(
    model: nn.Module,
    split: Split,
    *,
    name: str,
    dataset: Dataset,
    config: AugmentConfig,
    compute: Compute,
    batch_size: int | None = None,
    dist: DistContext | None = None,
    advance: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate a model that is on the device of `compute`, single view, on `split`, which `name` names in reports.

    With several ranks, whose models are equal, each evaluates a part of the images; all get the whole result.
    `advance` is that of `predict_logits`.
    """
    dist = dist or DistContext()
    mine = dist.shard(0, len(split))
    part = Split(split.images[mine], split.labels[mine], "")
    batch_size = batch_size or eval_batch_size(split.images.shape[1])
    loader = EvalLoader(part, config, batch_size=batch_size, device=compute.device)
    compute.synchronize()
    start = time.perf_counter()
    parts = dist.gather(predict_logits(model, loader, compute, advance) if len(part) else None)
    logits = np.concatenate([part for part in parts if part is not None])
    seconds = time.perf_counter() - start
    labels = split.labels
    confusion, ranks = metrics.confusion_matrix(logits, labels), metrics.label_ranks(logits, labels)
    per_superclass, superclass_top1 = {}, None
    if dataset.superclasses:
        folded = metrics.aggregate_confusion(confusion, dataset.superclass_of)
        superclass_top1 = float(np.trace(folded) / len(labels))
        per_superclass = _named(dataset.superclasses, metrics.per_class_accuracy(folded))
    return Evaluation(
        split=name,
        classes=dataset.classes,
        images=len(labels),
        loss=metrics.cross_entropy(logits, labels),
        top1=float((ranks < 1).mean()),
        top5=float((ranks < 5).mean()),
        superclass_top1=superclass_top1,
        per_class=_named(dataset.classes, metrics.per_class_accuracy(confusion)),
        per_superclass=per_superclass,
        seconds=seconds,
        compute=str(compute),
        logits=logits,
        labels=labels,
    )


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True) if not np.isnan(value)}


def evaluate(
    checkpoint: str | Path | Checkpoint,
    *,
    split: str | None = None,
    dataset: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Evaluation:
    """Evaluate a checkpoint on "test", "train", "val" (the validation split of its training) or "all".

    Default: "test", or "all" for an image folder without test/ that the checkpoint was not trained on. fp32 by default,
    so that the result is the same on all hardware. Custom images are resized, and the folder that the checkpoint was
    trained on is split, as in its training; other folders may have a subset of its classes. Raises UserError if the
    checkpoint or the data cannot be read, the data has classes that it does not know, or there is no such split.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_weights(checkpoint)
    compute = select_device(device, precision)
    data, chosen, config = load_eval_split(checkpoint, split=split, dataset=dataset, data_dir=data_dir)
    return evaluate_split(checkpoint, data, chosen, config.augment, compute, name=split)


def evaluate_split(
    checkpoint: Checkpoint, data: Dataset, split: Split, config: AugmentConfig, compute: Compute, *, name: str | None
) -> Evaluation:
    """Evaluate a checkpoint on images of `load_eval_split`, with a progress bar on stderr if that is a terminal.

    Raises UserError if a logit is not finite.
    """
    model = compute.prepare(checkpoint.build())
    name = name if name in ("train", "val") else data.test_name
    with progress("images", len(split), emit_error, stream=sys.stderr) as advance:
        evaluation = evaluate_model(
            model, split, name=name, dataset=data, config=config, compute=compute, advance=advance
        )
    metrics.check_finite(evaluation.logits)
    notes = data.notes
    if len(data.train) and checkpoint.dataset.fingerprint not in ("", data.train.fingerprint):
        notes += ("the checkpoint was trained on other images than this train split, and perhaps on some of these",)
    return replace(evaluation, notes=notes)


def format_table(evaluation: Evaluation, *, per_class: bool = False) -> str:
    """The results as plain text: the headline, the superclasses, and the best and worst classes, or all of them."""
    classes = evaluation.logits.shape[1]
    lines = [
        f"{'split':<14}{evaluation.split}, {evaluation.images:,} images",
        f"{'top-1':<14}{evaluation.top1:7.2%}",
        f"{'top-5':<14}{evaluation.top5:7.2%}" + (f"  (of {classes} classes: always)" if classes <= 5 else ""),
    ]
    if evaluation.superclass_top1 is not None:
        lines.append(f"{'superclass':<14}{evaluation.superclass_top1:7.2%}")
    else:
        lines.append(f"{'superclass':<14}none: these classes have no superclasses")
    lines.append(f"{'loss':<14}{evaluation.loss:7.4f}")
    macro, weighted = evaluation.scores.mean(), evaluation.scores.mean(weighted=True)
    lines.append(f"{'':<14}  macro weighted averages over the classes")
    lines += [
        f"{name:<14}{macro[key]:7.2%} {weighted[key]:7.2%}" for name, key in (("precision", "precision"), ("F1", "f1"))
    ]
    lines.append(f"{'ROC AUC':<14}{macro['roc_auc']:7.4f} {weighted['roc_auc']:7.4f}")
    lines.append(f"{'throughput':<14}{evaluation.images_per_second:,.0f} images/s on {evaluation.compute}")
    lines += [f"{'' if index else 'note':<14}{note}" for index, note in enumerate(evaluation.notes)]
    if evaluation.per_superclass:
        lines += ["", "Superclasses, best first", *_ranking(evaluation.per_superclass)]
    ranking = _score_lines(evaluation)
    head = f"  {'':<32} recall  precis.     F1  ROC AUC  images"
    if per_class or len(ranking) <= 10:
        lines += ["", "Classes, best first", head, *ranking]
    else:
        lines += ["", "Best and worst classes", head, *ranking[:5], "  …", *ranking[-5:]]
    return "\n".join(lines)


def _score_lines(evaluation: Evaluation) -> list[str]:
    """A line for each class with its scores, the highest recall first."""
    ordered = sorted(evaluation.class_rows(), key=lambda row: (-row["recall"], row["name"]))
    return [
        f"  {escape_control_chars(row['name']):<32}{row['recall']:7.2%}  {row['precision']:7.2%}{row['f1']:7.3f}"
        f"  {row['roc_auc']:7.4f}  {row['images']:6,}"
        for row in ordered
    ]


def _ranking(accuracies: dict[str, float]) -> list[str]:
    ordered = sorted(accuracies.items(), key=lambda item: (-item[1], item[0]))
    return [f"  {escape_control_chars(name):<32}{accuracy:7.2%}" for name, accuracy in ordered]


def format_samples(
    evaluation: Evaluation, classes: Sequence[str], count: int, *, temperature: float = 1.0
) -> list[str]:
    """`count` images, spread evenly over the split: the true class, and the top-3 classes.

    Probabilities are softmax(logits / temperature), as `cifar100 predict` prints them.
    """
    chosen = spread_rows(evaluation.images, count)
    probabilities = metrics.softmax(evaluation.logits[chosen] / temperature)
    lines = ["Sample predictions"]
    for row, likely in zip(chosen, probabilities, strict=True):
        label = int(evaluation.labels[row])
        best = np.argsort(-likely, kind="stable")[:3].tolist()
        named = ", ".join(f"{escape_control_chars(classes[i])} {likely[i]:.1%}" for i in best)
        lines.append(
            f"  {'right' if best[0] == label else 'WRONG'}  {escape_control_chars(classes[label]):<16} -> {named}"
        )
    return lines
