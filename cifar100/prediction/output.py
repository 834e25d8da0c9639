"""Predictions as text, image by image: a table, JSON Lines, or CSV.

Each writer takes images one by one, so that any number can be listed: `header()` comes first, then `result(...)` or
`failure(...)` for each image. They return whole lines, or "" for none.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from cifar100.images.fit import DEFAULT_FIT
from cifar100.prediction.predictor import Predictor, Result
from cifar100.prediction.rejection import REASON_TEXT
from cifar100.support.text import csv_cell, escape_control_chars

MAX_NAME_WIDTH = 40
MAX_BAR_WIDTH = 30
OTHER_COLUMNS_WIDTH = 42


def model_lines(predictor: Predictor) -> tuple[str, str]:
    """Which weights the answers are from; how accurate they are, and whether probabilities are calibrated."""
    info = predictor.info
    parts = [info.accuracy] if info.accuracy else []
    calibrated = (
        f"calibrated (temperature {predictor.temperature:.3g})" if predictor.temperature != 1 else "uncalibrated"
    )
    parts.append(calibrated)
    if predictor.fit != DEFAULT_FIT:
        parts.append(f"fit {predictor.fit}")
    if predictor.views > 1:
        parts.append(f"mean of {predictor.views} views")
    return f"{info.source} (sha256 {info.digest})", ", ".join(parts)


def to_json(result: Result, predictor: Predictor) -> dict[str, Any]:
    """A result as JSON types, the same for `predict --json` and the web API. "sha256" is `ModelInfo.digest`."""
    info = predictor.info
    predictions = [item._asdict() | {"superclass": info.superclass(item.class_id)} for item in result.predictions]
    return {
        "predictions": predictions,
        "unsure": result.unsure,
        "reason": result.reason,
        "model": {"name": info.name, "sha256": info.digest},
        "temperature": predictor.temperature,
        "fit": predictor.fit,
        "views": predictor.views,
    } | ({"assumed": list(info.assumed)} if info.assumed else {})


class Table:
    """Columns for people, below a line about the model; failures are reported elsewhere."""

    def __init__(self, predictor: Predictor, names: Iterable[str]) -> None:
        self.predictor = predictor
        self.width = min(MAX_NAME_WIDTH, max([len("image"), *(len(escape_control_chars(name)) for name in names)]))
        self.columns = f"{'image':<{self.width}}  probability  {'class':<20}   id"
        self.has_rows = False
        self.bar_width = max(0, min(MAX_BAR_WIDTH, get_terminal_size().columns - self.width - OTHER_COLUMNS_WIDTH))

    def header(self) -> str:
        name, description = map(escape_control_chars, model_lines(self.predictor))
        lines = wrap(description, max(40, get_terminal_size().columns - 7), break_on_hyphens=False)
        return "\n       ".join([f"model: {name}", *lines]) + "\n"

    def result(self, name: str, result: Result) -> str:
        first, lines = escape_control_chars(name), [] if self.has_rows else [self.columns]
        self.has_rows = True
        if len(first) > self.width:  # on a line of its own, whole, to be copied
            lines.append(first)
            first = ""
        if result.reason:
            lines.append(f"{first:<{self.width}}       UNSURE  {REASON_TEXT[result.reason]}")
            first = ""
        for class_name, class_id, probability in result.predictions:
            shown = escape_control_chars(class_name)
            bar = "#" * round(self.bar_width * probability)
            row = f"{first:<{self.width}}  {probability:>11.2%}  {shown:<20}  {class_id:>3}  {bar}"
            lines.append(row.rstrip())
            first = ""
        return "\n".join(lines) + "\n"

    def failure(self, name: str, problem: str) -> str:  # noqa: ARG002
        return ""


class JsonLines:
    """An object per line: {"image", ...`to_json`} or {"image", "error"}."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def header(self) -> str:
        return ""

    def result(self, name: str, result: Result) -> str:
        return json.dumps({"image": name} | to_json(result, self.predictor)) + "\n"

    def failure(self, name: str, problem: str) -> str:
        return json.dumps({"image": name, "error": problem}) + "\n"


class Csv:
    """A row per image and class, ranked from 1; a row with the error for an image that could not be read."""

    COLUMNS = ("image", "rank", "class_name", "class_id", "probability", "error", "unsure", "reason", "model", "sha256")

    def __init__(self, predictor: Predictor) -> None:
        self.model = [csv_cell(predictor.info.name), predictor.info.digest]

    def header(self) -> str:
        return _csv_rows(list(self.COLUMNS))

    def result(self, name: str, result: Result) -> str:
        flags = ["true" if result.unsure else "false", result.reason]
        return _csv_rows(
            *(
                [csv_cell(name), rank, csv_cell(class_name), class_id, f"{probability:.6g}", "", *flags, *self.model]
                for rank, (class_name, class_id, probability) in enumerate(result.predictions, start=1)
            )
        )

    def failure(self, name: str, problem: str) -> str:
        return _csv_rows([csv_cell(name), "", "", "", "", csv_cell(problem), "", "", *self.model])


def _csv_rows(*rows: list[object] | list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
