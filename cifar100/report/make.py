"""A report: one self-contained HTML page about a checkpoint, and its figures as PNG files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cifar100 import metrics
from cifar100.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    calibrate,
    cross_fit,
    fit_temperature,
    reliability,
    selective,
)
from cifar100.checkpoint import Checkpoint, versions
from cifar100.dataset import Dataset
from cifar100.device import choose_compute
from cifar100.errors import RunFailed, UserError
from cifar100.evaluate import Evaluation, evaluate_split, open_split
from cifar100.files import replace_file
from cifar100.report import content, figures
from cifar100.report.content import Subject
from cifar100.report.curves import PANELS, History, curve_panel, curves_figure
from cifar100.report.findings import confident_mistakes, confused_pairs, uncertain_hits
from cifar100.report.page import MARK, render
from cifar100.report.style import data_uri, to_png, to_svg
from cifar100.run_folder import RunFolder
from cifar100.text import printable
from cifar100.weights import load_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
GALLERY, PAIRS, EXAMPLES = 24, 8, 4
"""Images of a gallery, pairs of classes, images of a pair."""


def report(
    checkpoints: Sequence[Path],
    out: Path | None = None,
    *,
    split: str = "test",
    dataset: str = "cifar100",
    data_dir: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Path:
    """Evaluate the first checkpoint and write its report to `out`, or to report/ beside it; the page's path.

    They are whatever `load_weights` takes. The learning curves of all are laid over one another. The temperature is
    the one that the weights carry, else one fitted on the images that their training held out, else
    `calibration.cross_fit`'s. Raises UserError where a checkpoint
    or the data cannot be read, `out` cannot be written, or the model's outputs are no numbers.
    """
    first = Path(checkpoints[0])
    loaded = [load_weights(path) for path in checkpoints]
    histories = [_history(Path(path), checkpoint) for path, checkpoint in zip(checkpoints, loaded, strict=True)]
    out = _folder(out or first.parent / "report")
    compute = choose_compute(device, precision)
    checkpoint = loaded[0]
    where: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir}
    data, chosen, config = open_split(checkpoint, split=split, **where)
    evaluation = evaluate_split(checkpoint, data, chosen, config.augment, compute, name=split)
    subject = Subject(
        checkpoint=checkpoint,
        name=first.name,
        dataset=data,
        images=chosen.images,
        evaluation=evaluation,
        history=histories[0],
    )
    temperature = _known_temperature(checkpoint)
    if (
        not temperature
        and split == "test"
        and config.data.val_fraction
        and checkpoint.fingerprint in ("", data.train.fingerprint)
    ):
        _, held_out, _ = open_split(checkpoint, split="val", **where)
        temperature = _fitted_on(evaluate_split(checkpoint, data, held_out, config.augment, compute, name="val"))
    others = _names([Path(path) for path in checkpoints])
    runs = dict(zip(others, histories, strict=True)) if len(checkpoints) > 1 else {}
    return write_report(subject, out, runs=runs, temperature=temperature)


def write_report(
    subject: Subject,
    out: Path,
    *,
    runs: Mapping[str, History] | None = None,
    temperature: tuple[float, str] | None = None,
) -> Path:
    """Write the report on an evaluation that was made; the page's path.

    `runs` are histories by name, to be drawn over one another in place of the subject's own; `temperature` is one and
    where it comes from. Raises UserError where `out` cannot be written, or the model's outputs are no numbers.
    """
    out = _folder(out)
    evaluation, data = subject.evaluation, subject.dataset
    bad = int((~np.isfinite(evaluation.logits)).any(axis=1).sum())
    if bad:
        raise UserError(f"There is nothing to report: for {bad:,} of {evaluation.images:,} images it gives no numbers.")
    logits, labels = evaluation.logits, evaluation.labels
    calibration, scaled = _calibration(logits, labels, evaluation.split, temperature)
    before, curve = reliability(logits, labels), selective(logits, labels)
    after = None if scaled is None else reliability(scaled, labels)
    probabilities, confusion = content.probabilities_of(evaluation), metrics.confusion_matrix(logits, labels)
    draw = _Draw(out)

    runs = runs or ({"": subject.history} if subject.history else {})
    curves = [draw.svg(curve_panel(panel, runs), f"{text} by epoch") for panel, text in PANELS.items()] if runs else []
    if runs:
        draw.png("curves", curves_figure(runs, title=subject.title))
    matrix = figures.class_confusion_figure(confusion, data)
    panels = [draw.both("reliability", figures.reliability_figure(before, title="as it is"), "reliability as it is")]
    if after is not None and calibration is not None:
        title = f"after temperature {calibration.temperature:.3f}"
        panels.append(draw.both("reliability_after", figures.reliability_figure(after, title=title), title))
    page: dict[str, Any] = {
        "title": subject.title,
        "lead": content.lead(subject),
        "made_up": data.is_synthetic,
        "notes": content.notes(subject),
        "tiles": content.tiles(subject, calibration, curve, before.ece),
        "facts": content.facts(subject),
        "settings": content.settings(subject.checkpoint),
        "curves": curves,
        "curves_about": "Accuracy in training is over augmented images, so it can lie below the evaluation's.",
        "runs": content.run_rows(runs) if len(runs) > 1 else [],
        "class_bars": content.ranked(evaluation.per_class),
        "class_about": content.class_about(subject),
        "confusion": draw.both("confusion", matrix, "confusion matrix of the classes"),
        "zoomable": len(data.classes) > figures.FEW,
        "superclass_bars": content.ranked(evaluation.per_superclass),
        "superclass_top1": evaluation.superclass_top1,
        "reliability": panels,
        "calibration_about": content.calibration_about(before.ece, calibration),
        "coverage": draw.both(
            "coverage",
            figures.coverage_figure(curve, None if scaled is None else selective(scaled, labels)),
            "accuracy over the share of images that is answered",
        ),
        "coverage_rows": content.coverage_rows(curve),
        "corruptions": None,
        "overlay_about": "",
        "terms": content.TERMS.items(),
        "made": content.made(),
    }
    draw.png("classes", figures.accuracy_figure(_sorted(evaluation.per_class), columns=_columns(len(data.classes))))
    if data.superclass_of:
        folded = metrics.fold(confusion, data.superclass_of)
        figure = figures.confusion_figure(folded, data.superclasses)
        page["superclass_confusion"] = draw.both("superclass_confusion", figure, "confusion of the superclasses")
    page |= _galleries(subject, confusion, probabilities)
    page["contents"] = _contents(page)
    replace_file(out / PAGE, render(page))
    numbers = evaluation.to_json() | {"checkpoint": subject.name, "versions": versions()}
    numbers |= {"ece": before.ece, "calibration": None if calibration is None else asdict(calibration)}
    numbers |= {"coverage": page["coverage_rows"]}
    replace_file(out / "report.json", json.dumps(numbers, indent=2) + "\n")
    return out / PAGE


def report_line(
    checkpoint: Checkpoint, dataset: Dataset, evaluation: Evaluation, held_out: Evaluation | None, folder: RunFolder
) -> str:
    """Write the report on a training's last epoch, evaluated on the test set; a line that says where it is, or why
    there is none: a page is not worth ending a run over. The temperature is fitted on what was `held_out`, if any was.
    """
    subject = Subject(
        checkpoint=checkpoint,
        name=folder.last.name,
        dataset=dataset,
        images=dataset.test.images,
        evaluation=evaluation,
        history=checkpoint.history,
    )
    try:
        page = write_report(subject, folder.report, temperature=None if held_out is None else _fitted_on(held_out))
    except (UserError, RunFailed) as error:
        return f"Report    not made: {error}"
    except ImportError as error:
        return f"Report    not made: {error.name} is not installed"
    return f"Report    {page}"


def _known_temperature(checkpoint: Checkpoint) -> tuple[float, str] | None:
    """The temperature that weights to share carry, and where it is from; None where they carry none."""
    temperature = checkpoint.calibration.get("temperature")
    if not isinstance(temperature, int | float) or not LOWEST <= temperature <= HIGHEST:
        return None
    return float(temperature), f"the weights' own, {checkpoint.calibration.get('origin') or 'of unknown origin'}"


def _fitted_on(held_out: Evaluation) -> tuple[float, str]:
    origin = f"the {held_out.images:,} train images that its training held out"
    return fit_temperature(held_out.logits, held_out.labels), origin


class _Draw:
    """Figures for the page, as SVG, and for the folder, as PNG."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def svg(self, figure: Figure, alt: str) -> dict[str, str]:
        return {"src": data_uri(to_svg(figure), "svg+xml"), "alt": alt}

    def png(self, name: str, figure: Figure) -> None:
        replace_file(self.out / f"{name}.png", to_png(figure))

    def both(self, name: str, figure: Figure, alt: str) -> dict[str, str]:
        self.png(name, figure)
        return self.svg(figure, alt)


def _calibration(
    logits: np.ndarray, labels: np.ndarray, split: str, temperature: tuple[float, str] | None
) -> tuple[Calibration | None, np.ndarray | None]:
    if temperature is not None:
        return calibrate(logits, labels, *temperature)
    return cross_fit(logits, labels, split) if len(labels) > 1 else (None, None)


def _galleries(subject: Subject, confusion: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """The pictures of the page: confused pairs, confident mistakes, uncertain hits."""
    labels, classes = subject.evaluation.labels, subject.dataset.classes
    pairs = confused_pairs(confusion, probabilities, labels, pairs=PAIRS, examples=EXAMPLES)
    mistakes = confident_mistakes(probabilities, labels, GALLERY)
    hits = uncertain_hits(probabilities, labels, GALLERY)
    overlays: dict[int, str] = {}
    told = [
        {
            "one": classes[pair.one],
            "other": classes[pair.other],
            "about": content.pair_about(classes[pair.one], classes[pair.other], pair.there, pair.back),
            "images": content.cards(subject, pair.rows, probabilities, overlays),
        }
        for pair in pairs
    ]
    return {
        "pairs": told,
        "mistakes": content.cards(subject, mistakes, probabilities, overlays),
        "hits": content.cards(subject, hits, probabilities, overlays),
    }


def _contents(page: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has: their ids and names."""
    sections = [
        ("figures", "Figures", True),
        ("curves", "Curves", True),
        ("superclasses", "Superclasses", page["superclass_bars"]),
        ("classes", "Classes", True),
        ("pairs", "Confused pairs", page["pairs"]),
        ("mistakes", "Mistakes", page["mistakes"]),
        ("hits", "Near misses", page["hits"]),
        ("calibration", "Calibration", True),
        ("coverage", "Coverage", True),
        ("robustness", "Robustness", page["corruptions"]),
        ("about", "How to read", True),
    ]
    return [(id_, name) for id_, name, there in sections if there]


def _sorted(accuracies: Mapping[str, float]) -> dict[str, float]:
    return {row["name"]: row["value"] for row in content.ranked(accuracies)}


def _columns(names: int) -> int:
    return 1 if names <= 25 else 2 if names <= 60 else 4


def _names(paths: Sequence[Path]) -> list[str]:
    """What tells these files apart: their folders where these do, the files' names where not, numbered where needed."""
    folders = [path.resolve().parent.name for path in paths]
    names = (
        folders if len(set(folders)) == len(paths) else [f"{path.resolve().parent.name}/{path.name}" for path in paths]
    )
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _history(path: Path, checkpoint: Checkpoint) -> History:
    """The rows of the checkpoint's run: all of them where its folder has those after this checkpoint too."""
    rows = [row for row in checkpoint.history if isinstance(row, dict)]
    try:
        lines = (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        all_rows = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return rows
    return all_rows if rows and all_rows[: len(rows)] == rows else rows


def _folder(out: Path) -> Path:
    """The folder, made; UserError where that cannot be, or it holds a page that is no report."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = out / PAGE
        foreign = page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError as error:
        raise UserError(f"--out {printable(out)}: it cannot be used ({error.strerror or error}).") from None
    if foreign:
        raise UserError(f"--out {printable(out)}: there is an {PAGE} that is no report; choose another folder.")
    return out
