"""CSV files of labels: the columns of image, class and split.

id,breed                    filename;label;split
000bec18,boston_bull        cats/1.jpg;cat;train
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cifar100.dataset.image_index import ImageIndex, directory_split
from cifar100.dataset.layout import (
    Layout,
    SplitFiles,
    class_name,
    images,
    is_filler,
    listed,
    relative,
    split_of,
)
from cifar100.dataset.tree import Directory, File, open_file
from cifar100.images.names import is_image
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


@dataclass(frozen=True)
class Row:
    """A labeled image."""

    path: str
    label: str
    split: str
    """"train", "test", "val" or ""."""


@dataclass(frozen=True)
class Table:
    """A CSV file of labels."""

    name: str
    split: str
    """That of its name, if it has no split column; else ""."""
    rows: list[Row]
    remarks: tuple[str, ...]
    """Human-readable descriptions of how it was interpreted."""


def find_labeled(root: Directory, directory: Directory, only: str = "") -> Layout | None:
    """The layout of the images in a directory according to its CSV files; None if none labels images.

    Class folders take precedence if they agree with the files, or if no column is named like a label. `only` is the one
    file to read, which must then label images. Raises UserError if several files label images and do not correspond to
    splits, or if the class column is ambiguous.
    """
    names = [only] if only else [name for name in sorted(directory.listing.files) if may_hold_labels(name)]
    if not names:
        return None
    found = ImageIndex(directory)
    classes = [name for name in directory.with_images if not split_of(name, loose=True) and not is_filler(name)]
    has_classes = not only and len(classes) > 1
    tables, without_classes = [], {}
    for name in names:
        try:
            table = _read(directory, name, found, optional=has_classes)
        except UserError as error:  # such as a test.csv without labels
            if error.code != NO_CLASS_COLUMN:
                raise
            without_classes[name] = error
        else:
            tables += [table] if table else []
    if without_classes and not tables:
        raise next(iter(without_classes.values()))
    tables, foreign = _without_foreign_rows(tables)
    if has_classes and all(_is_folder(row) for table in tables for row in table.rows) and not _divide(tables):
        return None
    if not tables:
        if only:
            raise UserError("dataset.csv", f"{_path(directory, only)} names no image in its directory.")
        return None
    rows, ignored = _by_split(directory, tables)
    splits: dict[str, SplitFiles] = {}
    for row in rows:
        split = splits.setdefault(row.split, SplitFiles(relative(root, directory), {}))
        split.files.setdefault(row.label, []).append(found.files[row.path])
    unlabeled = found.count - len({row.path for table in tables for row in table.rows})
    ignored += [f"{images(unlabeled)} without a label"] if unlabeled else []
    ignored += [f"{name} (no class column)" for name in without_classes]
    ignored += [f"{images(count)} of another split, named by {name}" for name, count in foreign.items()]
    remarks = tuple(remark for table in tables for remark in table.remarks)
    ordered = {name: splits[name] for name in ("train", "test", "all") if name in splits}
    return Layout(root.name, ordered, tuple(ignored), remarks)


def may_hold_labels(name: str) -> bool:
    """Whether a file of this name may be a CSV file of labels."""
    return name.lower().endswith((".csv", ".tsv")) and "submission" not in name.lower()


def _is_folder(row: Row) -> bool:
    return class_name(PurePosixPath(row.path).parent.name) == row.label


def _without_foreign_rows(tables: list[Table]) -> tuple[list[Table], dict[str, int]]:
    """The tables without rows of images of another split, and the number of these by table.

    The images of a test.csv may be missing, and train images have the same names. But train.csv and test.csv may also
    divide a directory of train images: then there is a train.csv, which labels other images.
    """
    times = Counter(row.path for table in tables for row in table.rows)
    named = {table.split for table in tables}
    kept, foreign = [], {}
    for table in tables:
        splits = {row.path: directory_split(row.path) for row in table.rows} if table.split else {}
        others = {path for path, split in splits.items() if split and (split == "train") != (table.split == "train")}
        if any(times[path] > 1 or splits[path] not in named for path in others):
            foreign[table.name] = len(others)
        rows = [row for row in table.rows if table.name not in foreign or row.path not in others]
        kept += [replace(table, rows=rows)] if rows else []
    return kept, foreign


def _divide(tables: list[Table]) -> bool:
    """Whether the tables divide the images into train and other ones."""
    splits = {row.split for table in tables for row in table.rows}
    return "" not in splits and splits > {"train"} and (len(tables) == 1 or _are_of_different_splits(tables))


def _are_of_different_splits(tables: list[Table]) -> bool:
    return len({_split_of_name(table.name) for table in tables}) == len(tables)


def _by_split(directory: Directory, tables: list[Table]) -> tuple[list[Row], list[str]]:
    """The rows, each with the split "train" or "test", or all with "all"; and descriptions of what is not used."""
    rows = [row for table in tables for row in table.rows]
    splits = {row.split for row in rows}
    if len(tables) > 1 and ("" in splits or not _are_of_different_splits(tables)):
        names = listed(table.name for table in tables)
        raise UserError(
            "dataset.csv",
            f"{directory.name}: {names} all label its images: name one of them instead of the directory.",
        )
    if "train" not in splits or not splits & {"test", "val"} or "" in splits:
        return [Row(row.path, row.label, "all") for row in rows], []
    test = "test" if "test" in splits else "val"
    kept = [
        Row(row.path, row.label, "train" if row.split == "train" else "test")
        for row in rows
        if row.split in ("train", test)
    ]
    left = len(rows) - len(kept)
    return kept, [f"{images(left)} of split val"] if left else []


def _split_of_name(name: str) -> str:
    """The split that the name of a file denotes; "" if none does."""
    return split_of(name.rpartition(".")[0], loose=True)


def _read(directory: Directory, name: str, found: ImageIndex, *, optional: bool) -> Table | None:
    """The labels in a CSV file; None if it names no images, or if it is `optional` and cannot be interpreted."""
    path = _path(directory, name)
    kind = _split_of_name(name)
    try:
        header, cells = _cells(directory.listing.files.get(name, path), found)
        column, paths = _file_column(header, cells, found, kind)
        if column < 0:
            return None
        split_column = _split_column(header, [row for row, image in zip(cells, paths, strict=True) if image])
        label_column = _label_column(header, cells, {column, split_column}, named=optional)
    except UserError as error:
        if optional:
            return None
        raise UserError(error.code, f"{path}: {error}") from None
    labels: dict[str, Row] = {}
    for row, image in zip(cells, paths, strict=True):
        label = class_name(row[label_column].strip())
        if not image or not label:
            continue
        split = split_of(row[split_column]) if split_column >= 0 else kind or directory_split(image)
        if labels.setdefault(image, Row(image, label, split)).label != label:
            raise UserError(
                "dataset.csv",
                f"{path} labels {image} '{label}' and '{labels[image].label}': an image has one class.",
            )
    missing = sum(not image for image in paths)
    remarks = [f"labels from {name}, columns '{header[column]}' and '{header[label_column]}'"]
    remarks += [f"{name}: {missing:,} rows name no existing image"] if missing else []
    if not any(found.find(row[column], kind) for row in cells):
        remarks += [f"{name}: matched by file name, since none of its directories exists"]
    others = [name for place, name in enumerate(header) if name and place not in (column, label_column, split_column)]
    remarks += [f"{name}: columns not used: {listed(others)}"] if others else []
    return Table(name, kind if split_column < 0 else "", list(labels.values()), tuple(remarks))


def _cells(file: File, found: ImageIndex) -> tuple[list[str], list[list[str]]]:
    """The column names, and the rows, padded to the same length."""
    try:
        with open_file(file) as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError("dataset.csv", f"has more than {MAX_BYTES >> 20} MiB, more than any file of labels.")
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t|", key=first.count)
        if first.count(delimiter) >= MAX_COLUMNS:
            raise UserError("dataset.csv", f"has more than {MAX_COLUMNS:,} columns, more than any file of labels.")
        lines = io.StringIO(text, newline="")
        rows = [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if any(row)]
    except UnicodeDecodeError:
        raise UserError("dataset.csv", "is not UTF-8 text: save it as CSV in UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise UserError("dataset.csv", f"cannot be read as CSV ({error}).") from None
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
    if is_image(cell) or not re.search(r"\d", cell):
        return is_image(cell)
    try:
        return bool(found.find(cell))
    except UserError:  # several images are meant
        return True


def _file_column(header: list[str], cells: list[list[str]], found: ImageIndex, split: str) -> tuple[int, list[str]]:
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


def _split_column(header: list[str], labeled: list[list[str]]) -> int:
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


def _label_column(header: list[str], cells: list[list[str]], others: set[int], *, named: bool) -> int:
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


def _path(directory: Directory, name: str) -> str:
    return f"{directory.name}/{name}"
