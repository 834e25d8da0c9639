"""What a report says: an evaluation put into the words, tables and pictures that `page.html` lays out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.dataset import Dataset
from cifar100.evaluation.calibration import Calibration, Selective
from cifar100.evaluation.evaluate import Evaluation
from cifar100.report.curves import History, column
from cifar100.report.selection import interval
from cifar100.report.style import pretty, thumbnail
from cifar100.support.machine import processor_name
from cifar100.support.provenance import recipe_title
from cifar100.support.text import duration

if TYPE_CHECKING:
    from cifar100.evaluation.robustness import Robustness

TERMS = {
    "top-1, top-5": "The share of images whose class is the likeliest answer, or among the five likeliest.",
    "95 % interval": "Where the share would lie with as many other images of the same kind (Wilson). It knows nothing "
    "of other seeds: two trainings of one recipe differ too.",
    "precision, recall, F1": "The share of the answers that name a class and are right; the share of a class's images "
    "that are called by its name; the harmonic mean of the two.",
    "ROC AUC": "How likely an image of a class is to get more of that class's probability than an image of another one "
    "(one against the rest); 0.5 is chance.",
    "macro, weighted": "The mean over the classes, each counted alike or by its number of images.",
    "loss": "The mean of −log of the probability that was given to what an image is, in nats, unsmoothed.",
    "confidence": "The probability of the likeliest class.",
    "ECE": "Expected calibration error: the gap between confidence and accuracy in 15 bins of equal width, its mean "
    "over the images (Guo et al. 2017).",
    "temperature": "The number by which the logits are divided so that confidence and accuracy agree; it changes no "
    "answer (Guo et al. 2017).",
    "coverage": "The share of images that is answered where the least certain are left out (Geifman & El-Yaniv 2017).",
}


@dataclass(frozen=True, kw_only=True)
class ReportInput:
    """What a report is about."""

    checkpoint: Checkpoint
    name: str
    """What its file is called."""
    dataset: Dataset
    images: np.ndarray
    """Those that were evaluated, uint8 [N, S, S, 3]."""
    evaluation: Evaluation
    compute: Compute
    """What explains single images: device and precision."""
    history: History
    robustness: Robustness | None = None
    """What is known of its error on corrupted images."""
    neighbors: bool = False
    """Whether the page shows the most similar train images of the most confident mistakes."""

    @property
    def title(self) -> str:
        """The network and the dataset."""
        return f"{self.checkpoint.model} on {self.dataset.published.name}"


def percent(share: float, digits: int = 2) -> str:
    """A share in 0..1 in per cent, kept on one line."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def lead(subject: ReportInput) -> str:
    """What this is, in one line."""
    checkpoint, selection = subject.checkpoint, subject.checkpoint.selection
    recipe = recipe_title(checkpoint.recipe, checkpoint.modified)
    parts = [subject.name, *([f"recipe {recipe}"] if recipe else [])]
    return " · ".join([*parts, *([f"selected: {selection}"] if selection else [])])


def notes(subject: ReportInput) -> list[str]:
    """What to know before believing a figure."""
    told = list(subject.evaluation.notes)
    split, selection = subject.evaluation.split, subject.checkpoint.selection
    if selection is not None and (selection.rule, selection.split) == ("best", split):
        told.append(f"This checkpoint was selected on the {split} images themselves: the accuracy is optimistic.")
    if split == "train":
        told.append("These are the images that it was trained on; its accuracy on others is lower.")
    return told


def tiles(subject: ReportInput, calibration: Calibration | None, curve: Selective, ece: float) -> list[dict[str, str]]:
    """The headline figures."""
    evaluation = subject.evaluation
    low, high = interval(evaluation.top1, evaluation.images)
    between = f"{100 * low:.1f}–{percent(high, 1)}"
    about = f"{evaluation.images:,} {evaluation.split} images; 95\N{NO-BREAK SPACE}% interval {between}"
    found = [{"name": "top-1 accuracy", "value": percent(evaluation.top1), "about": about}]
    if len(subject.dataset.classes) > 5:
        found.append({"name": "top-5 accuracy", "value": percent(evaluation.top5), "about": "among the five likeliest"})
    if evaluation.superclass_top1 is not None:
        about = f"of {len(subject.dataset.superclasses)}"
        found.append({"name": "superclass accuracy", "value": percent(evaluation.superclass_top1), "about": about})
    found.append({"name": "loss", "value": f"{evaluation.loss:.4f}", "about": "cross-entropy, nats"})
    after = "" if calibration is None else f"{percent(calibration.ece_after)} after temperature"
    found.append({"name": "calibration error", "value": percent(ece), "about": after})
    some = curve.answering(0.8)
    about = f"on the {percent(some.coverage, 0)} it is surest of"
    return [*found, {"name": "if it may keep silent", "value": percent(some.accuracy), "about": about}]


def facts(subject: ReportInput) -> list[tuple[str, str]]:
    """The circumstances of the figures: images, network, training, evaluation, versions."""
    checkpoint, evaluation = subject.checkpoint, subject.evaluation
    size = subject.dataset.image_size
    parameters = sum(
        tensor.numel()
        for name, tensor in checkpoint.weights.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    rows = [
        ("evaluated on", f"{evaluation.images:,} {evaluation.split} images, single view, {size}×{size} pixels"),
        ("dataset", str(subject.dataset.info)),
        ("trained on", checkpoint.dataset.train_split),
        ("network", f"{checkpoint.model}, {parameters:,} parameters, {len(checkpoint.classes):,} classes"),
    ]
    if checkpoint.recipe:
        rows.append(("recipe", recipe_title(checkpoint.recipe, checkpoint.modified)))
    changed = differing(checkpoint)
    if changed:
        rows.append(("differs from the baseline", changed))
    told = training(checkpoint)
    if told:
        rows.append(("training", told))
    speed = f"{evaluation.images_per_second:,.0f} images/s, {evaluation.seconds:.1f} s"
    rows.append(("evaluation", f"{evaluation.compute}; {speed}; {machine()}"))
    for when, found in (("versions in training", checkpoint.versions), ("versions here", versions())):
        rows.append((when, ", ".join(f"{name} {version}" for name, version in found.items())))
    return rows


def training(checkpoint: Checkpoint) -> str:
    """How long it was trained, how, and on what; "" where nothing of that is known."""
    words = []
    epochs, seconds = column(checkpoint.history or [checkpoint.metrics], "elapsed_seconds")
    if len(epochs):
        planned = checkpoint.config.get("epochs")
        words.append(f"{epochs[-1]:.0f} epochs" + (f" of {planned}" if planned not in (None, int(epochs[-1])) else ""))
        words.append(f"{long(seconds[-1])}, evaluation and saving in it")
    seed = checkpoint.config.get("seed")
    words += [f"seed {seed}"] if seed is not None else []
    return "; ".join([*words, *([checkpoint.compute] if checkpoint.compute else [])])


def long(seconds: float) -> str:
    """A time as people say it."""
    return (
        f"{seconds:.0f} seconds"
        if seconds < 120
        else f"{seconds / 60:.0f} minutes"
        if seconds < 7200
        else (f"{seconds / 3600:.1f} hours")
    )


def differing(checkpoint: Checkpoint) -> str:
    """The settings by which it was trained that are not the baseline's, those that say where and how left out."""
    baseline = Config().flat()
    where = set(vars(Config().run))
    changed = [
        f"{name} {value} ({baseline[name]})"
        for name, value in checkpoint.config.items()
        if name in baseline and name not in where and value != baseline[name]
    ]
    return ", ".join(changed)


def settings(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Every setting by which it was trained, but for the folders: they are of the machine, not of the training."""
    return [(name, str(value)) for name, value in checkpoint.config.items() if not name.endswith("_dir")]


def machine() -> str:
    """The processor and how many cores of it there are."""
    return f"{processor_name()}, {os.cpu_count()} cores"


def run_rows(runs: Mapping[str, History]) -> list[dict[str, str]]:
    """A row of figures for each of several runs."""
    rows = []
    for name, history in runs.items():
        epochs, values = column(history, "top1")
        _, seconds = column(history, "elapsed_seconds")
        rows.append(
            {
                "name": name,
                "epochs": str(len(history)),
                "last": percent(values[-1]) if len(values) else "–",
                "best": f"{percent(values.max())} (epoch {epochs[values.argmax()]:.0f})" if len(values) else "–",
                "split": next((str(row["split"]) for row in reversed(history) if row.get("split")), "–"),
                "time": duration(seconds[-1]) if len(seconds) else "–",
            }
        )
    return rows


def ranked(accuracies: Mapping[str, float]) -> list[dict[str, Any]]:
    """Names and shares, the best first."""
    ordered = sorted(accuracies.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "value": value} for name, value in ordered]


def score_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Precision, recall, F1 and ROC AUC: their macro and weighted means, then every class by name."""
    scores, total = evaluation.scores, {"images": evaluation.images}
    means = [{"name": "macro", **scores.mean()}, {"name": "weighted", **scores.mean(weighted=True)}]
    return [row | total for row in means] + sorted(evaluation.class_rows(), key=lambda row: row["name"])


def class_about(subject: ReportInput) -> str:
    """How far a class's accuracy can be trusted, and how many have none."""
    counts = np.bincount(subject.evaluation.labels, minlength=len(subject.dataset.classes))
    seen = counts[counts > 0]
    each = f"{seen[0]:,}" if seen.min() == seen.max() else f"{seen.min():,} to {seen.max():,}"
    images = "image" if seen.max() == 1 else "images"
    low, high = interval(0.75, int(np.median(seen)))
    text = f"With {each} {images} a class, one at 75 % has a 95 % interval of {100 * low:.0f} to {percent(high, 0)}."
    missing = int((counts == 0).sum())
    return text if not missing else f"{text} Of {missing} classes there is no image here: they are left out."


def calibration_about(before: float, calibration: Calibration | None) -> str:
    """The calibration in words."""
    text = (
        "Of the answers that are given with a confidence of 80 %, 80 % should be right. How far that fails is the "
        f"expected calibration error, {percent(before)} as it is."
    )
    if calibration is None:
        return f"{text} One image is too few to fit a temperature on."
    nature = "less sure than it is right" if calibration.temperature < 1 else "surer than it is right"
    return (
        f"{text} With the logits divided by a temperature of {calibration.temperature:.3f} it is "
        f"{percent(calibration.ece_after)}, and the loss {calibration.loss_after:.4f} instead of "
        f"{calibration.loss_before:.4f}: by itself it is {nature}. The temperature was {calibration.origin}."
    )


def robustness_about(known: Robustness) -> str:
    """What was evaluated on corrupted images, and the mean over them."""
    errors, images = known.errors, int(known.identity["images"])
    done = errors[~np.isnan(errors)]
    so_far = "" if len(done) == errors.size else f" over the {len(done)} of {errors.size} cells that are known so far"
    mean = f"The mean corruption error is {percent(float(done.mean()))}{so_far}" if len(done) else "No cell is known"
    published = known.identity["source"] == "published"
    made = "the files of CIFAR-100-C" if published else f"spoiled by cifar100, seed {known.identity['seed']}"
    low, high = interval(0.5, images)
    return (
        f"{mean}; on the same images unspoiled it is {percent(1 - known.clean['top1'])}. {images:,} test images, "
        f"{made}, in {known.identity['precision']}: fifteen kinds of corruption at five severities (Hendrycks & "
        "Dietterich 2019), not divided by another network's errors. Numbers are errors in per cent; one of 50 has a "
        f"95\N{NO-BREAK SPACE}% interval of {100 * low:.0f} to {percent(high, 0)}."
    )


def robustness_rows(known: Robustness) -> dict[str, dict[str, list[float | None]]]:
    """By family and kind of corruption, the errors at the five severities and their mean: shares in 0..1, None where
    a cell has not been evaluated."""
    from cifar100.evaluation.corruptions import FAMILIES, KINDS

    errors = dict(zip(KINDS, np.column_stack([known.errors, known.errors.mean(axis=1)]).tolist(), strict=True))
    shares = {kind: [None if np.isnan(error) else error for error in row] for kind, row in errors.items()}
    return {family: {kind: shares[kind] for kind in kinds} for family, kinds in FAMILIES.items()}


def coverage_rows(curve: Selective) -> list[dict[str, float]]:
    """The accuracy at some shares of the images; a share that equally sure images keep from being met is met once."""
    points = dict.fromkeys(curve.answering(share) for share in (1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3))
    return [point._asdict() for point in points]


def pair_about(one: str, other: str, there: int, back: int) -> str:
    """How often two classes are taken for one another."""
    one, other = pretty(one), pretty(other)
    other_way = f"; {back:,} of {other} called {one}" if back else ""
    return f"{there:,} images of {one} called {other}{other_way}."


def cards(
    subject: ReportInput, rows: Sequence[int], probabilities: np.ndarray, overlays: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Images with what they are, what they were called, and the five likeliest classes of each."""
    classes, found = subject.dataset.classes, []
    for row in rows:
        label, likely = int(subject.evaluation.labels[row]), probabilities[row]
        best = np.argsort(-likely, kind="stable")[:5].tolist()
        guesses = [{"name": classes[i], "probability": float(likely[i]), "is_label": i == label} for i in best]
        found.append(
            {
                "src": thumbnail(subject.images[row]),
                "overlay": overlays.get(row),
                "label": classes[label],
                "called": classes[best[0]],
                "right": best[0] == label,
                "guesses": guesses,
            }
        )
    return found


def made() -> str:
    """When and by what."""
    return f"Made by cifar100 {versions()['cifar100']} on {datetime.now():%Y-%m-%d at %H:%M}."
