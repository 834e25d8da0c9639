"""The columns of a CSV file of labels: which one names the images, the split and the class.

Every error is a UserError about the file, whose path the caller adds.
"""

from __future__ import annotations

import csv
import io
import re

from cifar100.dataset.image_index import ImageIndex
from cifar100.dataset.layout import listed, split_of
from cifar100.dataset.tree import File, read_file
from cifar100.images.names import has_image_suffix
from cifar100.support.errors import UserError

MAX_BYTES = 1 << 26
MAX_COLUMNS, MAX_CELLS = 1000, 10_000_000

LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "labelname", "category", "classes", "categories", "target", "breed"),
    *("species", "diagnosis", "dx", "variety"),
)
"""Names of the class column, by priority; lower case, letters only."""

FILE_COLUMN = re.compile("file|image|img|path|id$")

NO_CLASS_COLUMN = "dataset.csv_no_class"
"""The code of the error if a file names images and nothing else."""

SPLIT_COLUMNS = ("split", "set", "subset", "dataset", "partition")


def read_cells(file: File, found: ImageIndex) -> tuple[list[str], list[list[str]]]:
    """The column names, and the rows, padded to the same length."""
    try:
        text = read_file(file, MAX_BYTES).decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t|", key=first.count)
        if first.count(delimiter) >= MAX_COLUMNS:
            raise UserError("dataset.csv", f"has more than {MAX_COLUMNS:,} columns, more than any file of labels.")
        lines = io.StringIO(text, newline="")
        rows = [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if any(row)]
    except UnicodeDecodeError:
        raise UserError("dataset.csv", "is not UTF-8 text: save it as CSV in UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise UserError(
            "dataset.csv", f"cannot be read as CSV ({getattr(error, 'strerror', None) or error})."
        ) from None
    if not rows:
        raise UserError("dataset.csv", "is empty.")
    if len(rows) * len(rows[0]) > MAX_CELLS:
        raise UserError(
            "dataset.csv", f"has more than {MAX_CELLS:,} cells: remove the columns that are neither image nor class."
        )
    header, *below = rows
    if any(_is_image_cell(cell.strip(), found) for cell in header):
        header, below = [f"column {number}" for number in range(1, len(header) + 1)], rows
    width = len(header)
    long = next((row for row in below if any(row[width:])), None)
    if long is not None:
        raise UserError(
            "dataset.csv",
            f"has {width} columns in its first line and {len(long)} in that of {long[0][:60]!r}: name all columns, and "
            f"quote cells that contain {delimiter!r}.",
        )
    return [name.strip() for name in header], [(row + [""] * width)[:width] for row in below]


def _is_image_cell(cell: str, found: ImageIndex) -> bool:
    """Whether a cell of the first line is no column name, but names an image."""
    if has_image_suffix(cell) or not re.search(r"\d", cell):
        return has_image_suffix(cell)
    try:
        return bool(found.find(cell))
    except UserError:  # several images are meant
        return True


def find_file_column(header: list[str], cells: list[list[str]], found: ImageIndex, split: str) -> tuple[int, list[str]]:
    """The index of the column that names the most images, and the paths by row; -1 if none names any. A column that is
    named precedes one that is not, such as row numbers. Raises UserError if two columns name the images differently."""
    best, best_paths, most = -1, [], (False, 0, False)
    rival, ambiguous, is_file_column = -1, None, False
    for column in range(len(cells[0]) if cells else 0):
        try:
            paths = [found.find(row[column], split) for row in cells]
            if not any(paths):  # the directories may be named differently here
                paths = [found.find(row[column], split, by_name=True) for row in cells]
        except UserError as error:  # numbers of rows or classes may be names of several images
            if ambiguous is None or FILE_COLUMN.search(_key(header[column])):
                ambiguous, is_file_column = error, bool(FILE_COLUMN.search(_key(header[column])))
            continue
        number = len({path for path in paths if path})
        name = _key(header[column])
        rank = (bool(name) and name not in LABEL_COLUMNS, number, bool(FILE_COLUMN.search(name)))
        if number and rank > most:
            best, best_paths, most, rival = column, paths, rank, -1
        elif number and rank == most and paths != best_paths:
            rival = column
    is_label = best >= 0 and _key(header[best]) in LABEL_COLUMNS
    if ambiguous and (best < 0 or is_label or (is_file_column and not all(best_paths))):
        raise ambiguous
    if rival >= 0:
        raise UserError(
            "dataset.csv_columns",
            f"its columns {listed((header[best], header[rival]))} both name the images, differently: remove one.",
        )
    return best, best_paths


def find_split_column(header: list[str], labeled: list[list[str]]) -> int:
    """The index of the column with the split of every labeled row; -1 if there is none. Raises UserError if only some
    of its cells are splits."""
    for column, name in enumerate(header):
        if _key(name) not in SPLIT_COLUMNS:
            continue
        wrong = {row[column] for row in labeled if not split_of(row[column])}
        if not wrong:
            return column
        if any(split_of(row[column]) for row in labeled):
            raise UserError(
                "dataset.csv", f"its column '{name}' contains {listed(wrong)}: use train, val and test only."
            )
    return -1


def find_label_column(header: list[str], cells: list[list[str]], others: set[int], *, named: bool) -> int:
    """The index of the class column: by its name, or unless `named`, the only one left. Raises UserError if unclear."""
    left = [column for column, name in enumerate(header) if name and column not in others]
    candidates = sorted(
        (c for c in left if _key(header[c]) in LABEL_COLUMNS), key=lambda c: LABEL_COLUMNS.index(_key(header[c]))
    )
    texts = [column for column in candidates if not all(row[column].strip().isdigit() for row in cells)]
    if candidates:
        return (texts or candidates)[0]
    if len(left) == 1 and not named:
        return left[0]
    if not left:
        raise UserError(NO_CLASS_COLUMN, "has no class column.")
    raise UserError(
        "dataset.csv_columns",
        f"which of its columns {listed(header[column] for column in left)} is the class? Name that one 'label'.",
    )


def _key(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())
