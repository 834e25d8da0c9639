"""The text and tables of a report, which `page.html` lays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.dataset import Dataset
from cifar100.evaluation.calibration import Calibration, RiskCoverage
from cifar100.evaluation.evaluate import Evaluation
from cifar100.evaluation.metrics import wilson_interval
from cifar100.report.curves import History, column, last_split
from cifar100.support.machine import describe_machine
from cifar100.support.provenance import recipe_title
from cifar100.support.settings import without_local_paths
from cifar100.support.text import duration, number_range, setting_text

if TYPE_CHECKING:
    from cifar100.evaluation.corruption_results import Robustness

TERMS = {
    "top-1, top-5": "The fraction of images whose true class is the most likely, or among the five most likely.",
    "95 % interval": "Wilson interval of a fraction, for the number of images. It does not cover the variation between "
    "training runs.",
    "precision, recall, F1": "Of a class: the fraction of predictions of it that are correct; the fraction of its "
    "images that are predicted correctly; the harmonic mean of the two.",
    "ROC AUC": "The probability that an image of a class gets a higher probability for it than an image of another "
    "class (one against the rest); 0.5 is chance.",
    "macro, weighted": "The mean over the classes, each with the same weight, or by its number of images.",
    "loss": "Cross-entropy in nats, without label smoothing.",
    "confidence": "The probability of the predicted class.",
    "ECE": "Expected calibration error: |accuracy - confidence| in 15 bins of equal width, averaged over the images "
    "(Guo et al. 2017).",
    "temperature": "What the logits are divided by so that confidence matches accuracy; predictions stay the same "
    "(Guo et al. 2017).",
    "coverage": "The fraction of images that are answered if the least confident are left out (Geifman & El-Yaniv "
    "2017).",
}


@dataclass(frozen=True, kw_only=True)
class ReportInput:
    """What a report is about."""

    checkpoint: Checkpoint
    name: str
    """The name of its file."""
    dataset: Dataset
    images: np.ndarray
    """The evaluated images, uint8 [N, S, S, 3]."""
    evaluation: Evaluation
    compute: Compute
    """Device and precision of the class activation maps."""
    history: History
    robustness: Robustness | None = None
    """Its results on corrupted images, if there are any."""
    neighbors: bool = False
    """Whether to show the most similar train images of the most confident errors."""

    @property
    def title(self) -> str:
        """The network and the dataset."""
        return f"{self.checkpoint.model} on {self.dataset.spec.name}"


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction in 0..1 in percent, kept on one line."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def split_images(evaluation: Evaluation) -> str:
    """10,000 test images, or 90 images if they are of no split."""
    split = "" if evaluation.split == "all" else f"{evaluation.split} "
    return f"{evaluation.images:,} {split}images"


def subtitle(subject: ReportInput) -> str:
    """File, recipe and selection rule."""
    checkpoint, selection = subject.checkpoint, subject.checkpoint.selection
    recipe = recipe_title(checkpoint.recipe, checkpoint.modified)
    parts = [subject.name, *([f"recipe {recipe}"] if recipe else [])]
    return " · ".join([*parts, *([f"selected: {selection}"] if selection else [])])


def notes(subject: ReportInput) -> list[str]:
    """Caveats."""
    lines = [*subject.evaluation.notes, *subject.checkpoint.notes]
    split, selection = subject.evaluation.split, subject.checkpoint.selection
    trained_on, train = subject.checkpoint.dataset.fingerprint, subject.dataset.train
    is_own = trained_on in ("", train.fingerprint) or not len(train)
    if selection is not None and (selection.rule, selection.split) == ("best", split) and is_own:
        lines.append(f"This checkpoint was selected on the {split} images themselves: the accuracy is optimistic.")
    if split == "train":
        lines.append("These are training images; the accuracy on other images is lower.")
    return lines


def headline_metrics(
    subject: ReportInput, calibration: Calibration | None, curve: RiskCoverage, ece: float
) -> list[dict[str, str]]:
    """The headline metrics."""
    evaluation = subject.evaluation
    low, high = wilson_interval(evaluation.top1, evaluation.images)
    between = f"{100 * low:.1f}–{percent(high, 1)}"
    about = f"{split_images(evaluation)}; 95\N{NO-BREAK SPACE}% interval {between}"
    found = [{"name": "top-1 accuracy", "value": percent(evaluation.top1), "about": about}]
    if len(subject.dataset.classes) > 5:
        found.append(
            {
                "name": "top-5 accuracy",
                "value": percent(evaluation.top5),
                "about": "true class among the five most likely",
            }
        )
    if evaluation.superclass_top1 is not None:
        about = f"{len(subject.dataset.superclasses)} superclasses"
        found.append({"name": "superclass accuracy", "value": percent(evaluation.superclass_top1), "about": about})
    found.append({"name": "loss", "value": f"{evaluation.loss:.4f}", "about": "cross-entropy, nats"})
    after = "" if calibration is None else f"{percent(calibration.ece_after)} with temperature scaling"
    found.append({"name": "ECE", "value": percent(ece), "about": after})
    point = curve.at_coverage(0.8)
    name, about = f"accuracy at {percent(point.coverage, 0)} coverage", "on the most confident predictions"
    return [*found, {"name": name, "value": percent(point.accuracy), "about": about}]


def details(subject: ReportInput) -> list[tuple[str, str]]:
    """Images, network, training, evaluation, versions."""
    checkpoint, evaluation = subject.checkpoint, subject.evaluation
    size = subject.dataset.image_size
    parameters = sum(
        tensor.numel()
        for name, tensor in checkpoint.weights.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    rows = [
        ("evaluated on", f"{split_images(evaluation)}, single view, {size}×{size} pixels"),
        ("dataset", str(subject.dataset.info)),
        ("trained on", checkpoint.dataset.train_description),
        ("network", f"{checkpoint.model}, {parameters:,} parameters, {len(checkpoint.classes):,} classes"),
    ]
    if checkpoint.recipe:
        rows.append(("recipe", recipe_title(checkpoint.recipe, checkpoint.modified)))
    changed = differing(checkpoint)
    if changed:
        rows.append(("differs from the baseline", changed))
    run = training(checkpoint)
    if run:
        rows.append(("training", run))
    speed = f"{evaluation.images_per_second:,.0f} images/s, {evaluation.seconds:.1f} s"
    rows.append(("evaluation", f"{evaluation.compute}; {speed}; {describe_machine()}"))
    for when, found in (("versions in training", checkpoint.versions), ("versions here", versions())):
        rows.append((when, ", ".join(f"{name} {version}" for name, version in found.items())))
    return rows


def training(checkpoint: Checkpoint) -> str:
    """Epochs, time, seed and hardware of the training; "" if none of that is known."""
    parts = []
    epochs, seconds = column(checkpoint.history or [checkpoint.metrics], "elapsed_seconds")
    if len(epochs):
        planned = checkpoint.config.get("epochs")
        parts.append(f"{epochs[-1]:.0f} epochs" + (f" of {planned}" if planned not in (None, int(epochs[-1])) else ""))
        parts.append(f"{duration(seconds[-1])}, including evaluation and saving")
    seed = checkpoint.config.get("seed")
    parts += [f"seed {seed}"] if seed is not None else []
    return "; ".join([*parts, *([checkpoint.compute] if checkpoint.compute else [])])


def differing(checkpoint: Checkpoint) -> str:
    """The training settings that differ from the baseline's, without paths and the like."""
    baseline = Config().flat()
    ignored = set(vars(Config().run))
    own = without_local_paths(checkpoint.config)
    changed = [
        f"{name} {setting_text(value)} ({setting_text(baseline[name])})"
        for name, value in own.items()
        if name in baseline and name not in ignored and value != baseline[name]
    ]
    return ", ".join(changed)


def settings(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """All training settings, without paths of this machine."""
    return [(name, setting_text(value)) for name, value in without_local_paths(checkpoint.config).items()]


def run_rows(runs: Mapping[str, History]) -> list[dict[str, str]]:
    """A row for each of several runs."""
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
                "split": last_split(history) or "–",
                "time": duration(seconds[-1]) if len(seconds) else "–",
            }
        )
    return rows


def ranked(accuracies: Mapping[str, float]) -> list[dict[str, Any]]:
    """Names and accuracies, the best first."""
    ordered = sorted(accuracies.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "value": value} for name, value in ordered]


def score_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Precision, recall, F1 and ROC AUC: macro and weighted means, then every class by name."""
    scores, total = evaluation.scores, {"images": evaluation.images}
    means = [{"name": "macro", **scores.mean()}, {"name": "weighted", **scores.mean(weighted=True)}]
    return [row | total for row in means] + sorted(evaluation.class_rows(), key=lambda row: row["name"])


def class_about(subject: ReportInput) -> str:
    """The uncertainty of a class's accuracy, and how many classes have no images."""
    counts = np.bincount(subject.evaluation.labels, minlength=len(subject.dataset.classes))
    seen = counts[counts > 0]
    each = number_range(int(seen.min()), int(seen.max()))
    images = "image" if seen.max() == 1 else "images"
    low, high = wilson_interval(0.75, int(np.median(seen)))
    text = f"With {each} {images} per class, 75 % has a 95 % interval of {100 * low:.0f} to {percent(high, 0)}."
    missing = int((counts == 0).sum())
    return text if not missing else f"{text} {missing} classes without images are left out."


def calibration_about(before: float, calibration: Calibration | None) -> str:
    """The calibration as text."""
    text = (
        "Of the predictions with a confidence of 80 %, 80 % should be correct. The expected calibration error (ECE) is "
        f"{percent(before)} without temperature scaling."
    )
    if calibration is None:
        return f"{text} One image is too few to fit a temperature."
    tendency = "underconfident" if calibration.temperature < 1 else "overconfident"
    return (
        f"{text} With a temperature of {calibration.temperature:.3f} it is {percent(calibration.ece_after)}, and the "
        f"loss is {calibration.loss_after:.4f} instead of {calibration.loss_before:.4f}: the model is {tendency}. The "
        f"temperature was {calibration.origin}."
    )


def robustness_about(known: Robustness) -> str:
    """What was evaluated on corrupted images, and the mean error."""
    errors, images = known.errors, int(known.identity["images"])
    done = errors[~np.isnan(errors)]
    so_far = "" if len(done) == errors.size else f" over {len(done)} of {errors.size} cells"
    mean = (
        f"The mean corruption error is {percent(float(done.mean()))}{so_far}"
        if len(done)
        else "No cell has been evaluated"
    )
    published = known.identity["source"] == "published"
    source = "from CIFAR-100-C" if published else f"corrupted by cifar100 with seed {known.identity['seed']}"
    low, high = wilson_interval(0.5, images)
    return (
        f"{mean}; on the same clean images the error is {percent(1 - known.clean['top1'])}. {images:,} test images, "
        f"{source}, in {known.identity['precision']}: 15 corruptions at 5 severities (Hendrycks & Dietterich 2019), "
        "not divided by the errors of a reference network. Numbers are errors in percent; 50 has a "
        f"95\N{NO-BREAK SPACE}% interval of {100 * low:.0f} to {percent(high, 0)}."
    )


def robustness_rows(known: Robustness) -> dict[str, dict[str, list[float | None]]]:
    """By category and corruption, the errors at the five severities and their mean: fractions in 0..1, None for a cell
    that has not been evaluated."""
    from cifar100.evaluation.corruptions import CATEGORIES, CORRUPTIONS

    errors = dict(zip(CORRUPTIONS, np.column_stack([known.errors, known.errors.mean(axis=1)]).tolist(), strict=True))
    rows = {kind: [None if np.isnan(error) else error for error in row] for kind, row in errors.items()}
    return {family: {kind: rows[kind] for kind in kinds} for family, kinds in CATEGORIES.items()}


def coverage_rows(curve: RiskCoverage) -> list[dict[str, float]]:
    """Operating points at some coverages; those that coincide because of ties appear once."""
    points = dict.fromkeys(curve.at_coverage(coverage) for coverage in (1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3))
    return [point._asdict() for point in points]


def footer() -> str:
    """The program, its version and the time."""
    return f"Written by cifar100 {versions()['cifar100']} on {datetime.now():%Y-%m-%d at %H:%M}."
