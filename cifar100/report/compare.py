"""Runs side by side: the settings that differ, results, time."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar100.checkpoints.version1 import upgrade_recipe
from cifar100.config import Config
from cifar100.evaluation.metrics import wilson_interval
from cifar100.report.curves import History, column, curves_figure, last_split
from cifar100.report.style import to_png
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import recipe_title
from cifar100.support.text import duration, escape_control_chars, setting_text

IGNORED_SETTINGS = {"epochs", "report", "tensorboard", *(name for name in Config().flat() if name.endswith("_dir"))}
"""Settings that are not compared: paths and output files do not affect results, and the epochs have their own row."""


@dataclass(frozen=True)
class RunRecord:
    """The files of a run."""

    name: str
    recipe: str
    settings: dict[str, Any]
    versions: dict[str, Any]
    history: History
    final: dict[str, Any]
    """`Evaluation.to_json` of the last epoch; empty if the run did not finish."""


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs in these directories; a checkpoint stands for its directory.

    Raises UserError if one is not a run directory, or its files are damaged.
    """
    folders = [path.parent if os.path.isfile(path) else path for path in paths]
    names = short_names(folders)
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> RunRecord:
    if not os.path.isfile(folder / "config.json"):
        reason = "is not a run directory: it has no config.json" if folder.is_dir() else "does not exist"
        raise UserError("compare.no_run", f"{folder} {reason}.")
    config = upgrade_recipe(_objects(folder / "config.json")[0])
    final = _objects(folder / "evaluation.json")[0] if os.path.isfile(folder / "evaluation.json") else {}
    history = _objects(folder / "metrics.jsonl", per_line=True) if os.path.isfile(folder / "metrics.jsonl") else []
    settings, versions = config.get("settings"), config.get("versions")
    if not isinstance(settings, dict) or not isinstance(versions, dict):
        raise UserError("compare.damaged", f"{folder / 'config.json'} is damaged: it contains no settings.")
    recipe = recipe_title(str(config.get("recipe", "")), bool(config.get("modified")))
    return RunRecord(name, recipe, settings, versions, history, final)


def _objects(path: Path, *, per_line: bool = False) -> list[dict[str, Any]]:
    """The JSON object in a file, or those on its lines."""
    try:
        text = path.read_text(encoding="utf-8")
        objects = [json.loads(part) for part in (text.splitlines() if per_line else [text])]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("compare.unreadable", f"{path} cannot be read ({type(error).__name__}).") from None
    if not all(isinstance(item, dict) for item in objects):
        raise UserError("compare.damaged", f"{path} is damaged: it contains something other than a JSON object.")
    return objects


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that distinguishes it from the others; the path as given if there is none."""
    every = [path.resolve().parts for path in paths]

    def shortest(path: Path, parts: tuple[str, ...]) -> str:
        ends = (parts[-length:] for length in range(1, len(parts) + 1))
        unique = (end for end in ends if sum(other[-len(end) :] == end for other in every) == 1)
        return "/".join(next(unique, (str(path),)))

    return [shortest(path, parts) for path, parts in zip(paths, every, strict=True)]


def comparison(runs: Sequence[RunRecord], width: int | None = None) -> str:
    """A plain-text table with a column per run; columns that do not fit the terminal's width follow below."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    rows = [("", [run.name for run in runs]), *_settings(runs), *_results(runs)]
    rows = [(escape_control_chars(name), [escape_control_chars(cell) for cell in cells]) for name, cells in rows]
    first = max(len(name) for name, _ in rows) + 2
    widths = [max(len(cells[index]) for _, cells in rows) + 2 for index in range(len(runs))]
    blocks, shown = [], 0
    while shown < len(runs):
        until = shown + 1
        while until < len(runs) and first + sum(widths[shown : until + 1]) <= width:
            until += 1
        lines = [
            f"{name:<{first}}" + "".join(f"{cells[index]:<{widths[index]}}" for index in range(shown, until))
            for name, cells in rows
        ]
        blocks.append("\n".join(line.rstrip() for line in lines))
        shown = until
    return "\n\n".join([*blocks, *_ranking(runs)])


def _ranking(runs: Sequence[RunRecord]) -> list[str]:
    """A line with the finished run of the highest test accuracy; none if there are not two, or their test images
    differ."""
    done = sorted((run for run in runs if _is_fraction(run.final.get("top1"))), key=lambda run: -run.final["top1"])
    if len(done) < 2:
        return []
    first, second = done[:2]
    if not _have_same_test_images(first, second):
        return []
    lead, interval = first.final["top1"] - second.final["top1"], ""
    if all(isinstance(run.final.get("images"), int) and run.final["images"] > 0 for run in (first, second)):
        low, high = _difference_interval(*((run.final["top1"], run.final["images"]) for run in (first, second)))
        interval = f" (95 % interval of the difference: {100 * low:.2f} to {100 * high:.2f})"
    names = [escape_control_chars(run.name) for run in (first, second)]
    return [f"Highest test top-1: {names[0]}, {100 * lead:.2f} points above {names[1]}{interval}"]


def _difference_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """The 95 % interval of the difference of two accuracies, each with its number of images (Newcombe 1998, method 10).

    It takes the images as independent; for the same test images the interval is narrower.
    """
    (low1, high1), (low2, high2) = wilson_interval(*first), wilson_interval(*second)
    lead = first[0] - second[0]
    below = math.hypot(first[0] - low1, high2 - second[0])
    return lead - below, lead + math.hypot(high1 - first[0], second[0] - low2)


def _settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """The recipe, and each setting or version that is not the same in all of them."""
    rows = [("recipe", [run.recipe for run in runs])]
    if not all(_have_same_test_images(runs[0], run) for run in runs):
        rows.append(("test images", [_short(_test_images(run)) for run in runs]))
    for kind in ("settings", "versions"):
        tables = [getattr(run, kind) for run in runs]
        names = dict.fromkeys(name for table in tables for name in table if name not in IGNORED_SETTINGS)
        for name in names:
            values = [setting_text(table.get(name, "–")) for table in tables]
            if len(set(values)) > 1:
                rows.append((name, [_short(value) for value in values]))
    return rows


def _have_same_test_images(first: RunRecord, second: RunRecord) -> bool:
    """Whether nothing that is known of both says otherwise; earlier runs have the train images' fingerprint only."""
    pairs = [(first.final.get("test_fingerprint"), second.final.get("test_fingerprint"))]
    if not all(pairs[0]):
        pairs = [
            (_dataset(first).get(name), _dataset(second).get(name)) for name in ("fingerprint", "name", "num_test")
        ]
    return all(one == other or not one or not other for one, other in pairs)


def _test_images(run: RunRecord) -> str:
    fingerprint = str(run.final.get("test_fingerprint") or _dataset(run).get("fingerprint") or "")
    dataset = _dataset(run)
    return f"{dataset.get('name')}, {dataset.get('num_test')}, {fingerprint[:8]}" if dataset else fingerprint[:8] or "–"


def _dataset(run: RunRecord) -> dict[str, Any]:
    dataset = run.final.get("dataset")
    return dataset if isinstance(dataset, dict) else {}


def _short(text: str) -> str:
    return text if len(text) <= 32 else f"{text[:6]}…{text[-25:]}"  # paths differ at their ends


def _results(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    rows: dict[str, list[str]] = {}
    for run in runs:
        epochs, top1 = column(run.history, "top1")
        _, seconds = column(run.history, "elapsed_seconds")
        _, speed = column(run.history, "images_per_second")
        split = last_split(run.history)
        best = f"{top1.max():.2%} of {split}, epoch {epochs[top1.argmax()]:.0f}" if len(top1) else "–"
        final = {name: run.final.get(name) for name in ("top1", "top5", "loss")}
        cells = {
            "epochs": f"{len(run.history)} of {run.settings.get('epochs', '?')}",
            "test top-1": _percent(final["top1"]),
            "test top-5": _percent(final["top5"]),
            "test loss": f"{final['loss']:.4f}" if isinstance(final["loss"], float) else "–",
            "best top-1": best,
            "time": duration(seconds[-1]) if len(seconds) else "–",
            "images/s": f"{speed.mean():,.0f}" if len(speed) else "–",
        }
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    return list(rows.items())


def _percent(value: Any) -> str:
    return f"{value:.2%}" if _is_fraction(value) else "–"


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def draw_comparison(runs: Sequence[RunRecord], path: Path) -> None:
    """Write the learning curves of the runs, in one plot, as a PNG file. Raises RunFailed if that fails."""
    atomic_write(path, to_png(curves_figure({run.name: run.history for run in runs})))
