"""CSV files of labels: the images of each class and split.

id,breed                    filename;label;split
000bec18,boston_bull        cats/1.jpg;cat;train
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cifar100.dataset import csv_columns
from cifar100.dataset.image_index import ImageIndex, directory_split
from cifar100.dataset.layout import (
    Layout,
    SplitFiles,
    class_name,
    is_filler,
    listed,
    relative,
    split_of,
)
from cifar100.dataset.tree import Directory
from cifar100.support.errors import UserError
from cifar100.support.text import counted


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
    if not only and not found.count:  # an unrelated file, which need not be readable
        return None
    classes = [name for name in directory.with_images if not split_of(name, loose=True) and not is_filler(name)]
    has_classes = not only and len(classes) > 1
    tables, without_classes = [], {}
    for name in names:
        try:
            table = _read(directory, name, found, optional=has_classes)
        except UserError as error:  # such as a test.csv without labels
            if error.code != csv_columns.NO_CLASS_COLUMN:
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
    ignored += [f"{counted(unlabeled, 'image')} without a label"] if unlabeled else []
    ignored += [f"{name} (no class column)" for name in without_classes]
    ignored += [f"{counted(count, 'image')} of another split, named by {name}" for name, count in foreign.items()]
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
    return kept, [f"{counted(left, 'image')} of split val"] if left else []


def _split_of_name(name: str) -> str:
    """The split that the name of a file denotes; "" if none does."""
    return split_of(name.rpartition(".")[0], loose=True)


def _read(directory: Directory, name: str, found: ImageIndex, *, optional: bool) -> Table | None:
    """The labels in a CSV file; None if it names no images, or if it is `optional` and cannot be interpreted."""
    path = _path(directory, name)
    kind = _split_of_name(name)
    try:
        header, cells = csv_columns.read_cells(directory.listing.files.get(name, path), found)
        column, paths = csv_columns.find_file_column(header, cells, found, kind)
        if column < 0:
            return None
        split_column = csv_columns.find_split_column(
            header, [row for row, image in zip(cells, paths, strict=True) if image]
        )
        label_column = csv_columns.find_label_column(header, cells, {column, split_column}, named=optional)
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


def _path(directory: Directory, name: str) -> str:
    return f"{directory.name}/{name}"
