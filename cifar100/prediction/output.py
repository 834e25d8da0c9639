"""What was predicted, image by image, as text: a table to read, JSON lines or CSV to go on with.

Each takes images one by one, so that any number can be listed: `head()` comes first, then for each image `named(…)` or
`failed(…)`. Every one gives whole lines, or "" for none.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from cifar100.prediction.predictor import Prediction
from cifar100.support.text import csv_cell, escape_control_chars

WIDEST_NAME = 40
BAR = 30


class Table:
    """Columns for people, their heads over the first image; what could not be read is told elsewhere."""

    def __init__(self, names: Iterable[str]) -> None:
        self.width = min(WIDEST_NAME, max([len("image"), *(len(escape_control_chars(name)) for name in names)]))
        self.is_empty = True

    def head(self) -> str:
        return ""

    def named(self, name: str, predictions: Sequence[Prediction]) -> str:
        first = escape_control_chars(name)
        lines = [f"{'image':<{self.width}}  probability  {'class':<20}   id"] if self.is_empty else []
        self.is_empty = False
        if len(first) > self.width:  # on a line of its own, whole, to be copied
            lines.append(first)
            first = ""
        for class_name, class_id, probability in predictions:
            bar = "#" * round(BAR * probability)
            row = f"{first:<{self.width}}  {probability:>11.2%}  {class_name:<20}  {class_id:>3}  {bar}"
            lines.append(row.rstrip())
            first = ""
        return "\n".join(lines) + "\n"

    def failed(self, name: str, problem: str) -> str:  # noqa: ARG002
        return ""


class JsonLines:
    """An object a line: {"image", "predictions": [{"class_name", "class_id", "probability"}]} or {"image", "error"}.

    `assumed` (see `Predictor`) is part of each object if there is any.
    """

    def __init__(self, assumed: Sequence[str] = ()) -> None:
        self.more = {"assumed": list(assumed)} if assumed else {}

    def head(self) -> str:
        return ""

    def named(self, name: str, predictions: Sequence[Prediction]) -> str:
        found = {"image": name, "predictions": [item._asdict() for item in predictions]}
        return json.dumps(found | self.more) + "\n"

    def failed(self, name: str, problem: str) -> str:
        return json.dumps({"image": name, "error": problem}) + "\n"


class Csv:
    """A row for each image and class, ranked from 1; for what could not be read one with the reason."""

    def head(self) -> str:
        return _csv_rows(["image", "rank", "class_name", "class_id", "probability", "error"])

    def named(self, name: str, predictions: Sequence[Prediction]) -> str:
        return _csv_rows(
            *(
                [csv_cell(name), rank, csv_cell(class_name), class_id, f"{probability:.6g}", ""]
                for rank, (class_name, class_id, probability) in enumerate(predictions, start=1)
            )
        )

    def failed(self, name: str, problem: str) -> str:
        return _csv_rows([csv_cell(name), "", "", "", "", csv_cell(problem)])


def _csv_rows(*rows: list[object] | list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
