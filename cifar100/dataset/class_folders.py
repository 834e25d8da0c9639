"""Finds the layout of a folder of images: which directories are splits, classes, or wrappers of these."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import replace

from cifar100.dataset.labels_csv import find_labeled, may_hold_labels
from cifar100.dataset.layout import (
    SPLIT_WORDS,
    Layout,
    SplitFiles,
    class_name,
    is_filler,
    listed,
    lookalike_hint,
    relative,
    split_of,
)
from cifar100.dataset.tree import Directory, File
from cifar100.images.names import HEIF_SUFFIXES, has_image_suffix, natural_sort_key
from cifar100.support.errors import UserError
from cifar100.support.text import counted

MAX_WRAPPERS = 3


def find_layout(root: Directory) -> Layout | None:
    """The layout of the images in a directory; None if there are neither class folders nor a file of labels.

    A directory whose only content is another directory of images is passed through. Raises UserError if the layout is
    ambiguous.
    """
    layout = _find(root, root, MAX_WRAPPERS)
    return layout and replace(layout, errors=tuple(dict.fromkeys([*root.listing.errors, *layout.errors])))


def _find(root: Directory, directory: Directory, wrappers: int) -> Layout | None:
    found = _splits(root, directory) or find_labeled(root, directory)
    if found is not None or not directory.with_images:
        return found
    if len(directory.with_images) == 1 and not directory.image_files and wrappers:
        ((name, inner),) = directory.with_images.items()
        deeper = _find(root, inner, wrappers - 1)
        if deeper is not None or is_filler(name):
            return deeper
    return _class_folders(root, directory)


def _splits(root: Directory, directory: Directory) -> Layout | None:
    """The layout of a directory with train/ or test/ (or similar names) that contain class folders; else None."""
    kinds = {name: split_of(name) for name in directory.with_images}
    others = [name for name, kind in kinds.items() if not kind]
    fitting = {
        name: inner
        for name, kind in kinds.items()
        if kind and (inner := _fitting(directory, name, may_be_class=bool(others)))
    }
    if not fitting:
        kinds = {name: split_of(name, loose=True) for name in directory.with_images}
        fitting = {name: inner for name in kinds if (inner := _fitting(directory, name, may_be_class=True))}
        if not all(kinds.values()) or fitting.keys() != kinds.keys():
            return None
    order = sorted(fitting, key=lambda name: (name.casefold() not in SPLIT_WORDS, natural_sort_key(name)))
    train = next((name for name in order if kinds[name] == "train"), None)
    tests = [name for kind in ("test", "val") for name in order if kinds[name] == kind]
    first = train or next(iter(tests), None)
    if first is not None and len(fitting[first].with_images) == 1 and is_filler(*fitting[first].with_images):
        return None  # train/images/, often next to train/labels/
    errors = [*directory.listing.errors]
    files = {name: _class_files(fitting[name], errors) for name in order}
    if train is None and others:
        raise UserError(
            "dataset.splits",
            f"{directory.name} contains {listed(tests)} and other folders of images, {listed(others)}: move "
            "these into train/.",
        )
    test = _matching(directory, train, tests, files)
    used = {kind: name for kind, name in (("train", train), ("test", test)) if name is not None}
    if not used:
        return None
    return Layout(
        root.name,
        {kind: SplitFiles(relative(root, fitting[name]), files[name]) for kind, name in used.items()},
        ignored=_ignored(directory, list(used.values()), [fitting[name] for name in used.values()]),
        remarks=_merged([fitting[name] for name in used.values()]),
        errors=tuple(errors),
    )


def _fitting(directory: Directory, name: str, *, may_be_class: bool) -> Directory | None:
    """The directory with the class folders of the split `name`: the split itself, or its only subdirectory.

    None if there are no class folders, or, with `may_be_class`, if it contains images itself: then it may be a class
    that is named "train".
    """
    split = directory.with_images[name]
    if split.image_files and may_be_class:
        return None
    if not split.image_files and len(split.with_images) == 1:
        (inner,) = split.with_images.values()
        if not inner.image_files and len(inner.with_images) > 1:
            split = inner
    return split if split.with_images else None


def _matching(
    directory: Directory, train: str | None, tests: list[str], files: dict[str, dict[str, list[File]]]
) -> str | None:
    """The first of `tests` that has a class of the training images; None if each is a single folder of something else.

    Raises UserError if one has several classes, none of which occurs in the training images.
    """
    if train is None:
        return next(iter(tests), None)
    matching = [name for name in tests if files[name].keys() & files[train].keys()]
    differing = [name for name in tests if len(files[name]) > 1]
    if not matching and differing:
        raise UserError(
            "dataset.classes",
            f"{directory.name}: {differing[0]} contains the classes {listed(files[differing[0]])}, "
            f"and {train} others: {listed(files[train])}. Both must contain the same class folders."
            f"{lookalike_hint(files[differing[0]], files[train])}",
        )
    return next(iter(matching), None)


def _class_folders(root: Directory, directory: Directory) -> Layout | None:
    """The layout of a directory whose directories are classes."""
    kinds = {name: split_of(name) for name in directory.directories}
    if all(kinds[name] for name in directory.with_images):  # train/ and test/ without class folders or labels
        return None
    unlabeled = [name for name, kind in kinds.items() if kind in ("test", "val")]
    remarks = [f"train is used as a class: {name}/ contains images itself" for name in kinds if kinds[name] == "train"]
    errors: list[str] = []
    files = _class_files(directory, errors, without=unlabeled)
    return Layout(
        root.name,
        {"all": SplitFiles(relative(root, directory), files)},
        ignored=_ignored(directory, [*set(directory.directories) - set(unlabeled)], [directory]),
        remarks=(*remarks, *_merged([directory])),
        errors=tuple(errors),
    )


def _class_files(directory: Directory, errors: list[str], *, without: Collection[str] = ()) -> dict[str, list[File]]:
    """The files in each class folder of a directory, by class name. Raises UserError if one contains only folders of
    images, which may be classes themselves, or if two names are the same."""
    names: dict[str, str] = {}
    files: dict[str, list[File]] = {}
    errors += directory.listing.errors
    for name, folder in directory.directories.items():
        if name in without:
            continue
        known = class_name(name)
        if known in files:
            raise UserError(
                "dataset.same_names",
                f"{directory.name} contains two folders with the same name, {names[known]!a} and {name!a}: "
                "rename one, or move the images of one into the other.",
            )
        _refuse_nested(directory, folder)
        names[known] = name
        files[known] = [file for _, file in folder.walk(errors)]
    return files


def _refuse_nested(directory: Directory, folder: Directory) -> None:
    inner = _unwrapped(folder)
    if inner.image_files or len(inner.with_images) < 2:
        return
    inside, names = inner.name, inner.with_images.keys()
    same = [name for name, other in directory.with_images.items() if _unwrapped(other).with_images.keys() == names]
    split = next(filter(split_of, names), None)
    if split is not None and inner.with_images[split].image_files:
        above = f"{directory.name}/{split}/{folder.name[len(directory.name) + 1 :]}"
        advice = f"put the splits above the classes: move the images of {inside}/{split} to {above}, and so on"
    elif split is not None:
        advice = f"name {inside} itself"
    elif len(same) > 1:
        advice = (
            f"if {listed(same)} are splits, rename one to train and one to test; if classes, move their images up; "
            f"if each is a dataset, name one, such as {inside}"
        )
    else:
        advice = (
            f"if these are classes, move them up into {directory.name}, or name {inside}; if {inside} is one class, "
            "move their images up into it"
        )
    raise UserError(
        "dataset.nested",
        f"{directory.name} contains nested folders: {inside} has no images itself, only the folders "
        f"{listed(names)}. Which are the classes? {advice[0].upper()}{advice[1:]}.",
    )


def _unwrapped(folder: Directory) -> Directory:
    """The directory itself, or the one in it that holds all of its images."""
    while not folder.image_files and len(folder.with_images) == 1:
        (folder,) = folder.with_images.values()
    return folder


def _merged(directories: Iterable[Directory]) -> tuple[str, ...]:
    """A line for each class folder that contains images both itself and in folders."""
    return tuple(
        f"one class: the images in {name}/ and in its folders {listed(folder.with_images)}"
        for directory in directories
        for name, folder in directory.with_images.items()
        if folder.image_files and folder.with_images
    )


def _ignored(directory: Directory, used: Collection[str], parts: Iterable[Directory]) -> tuple[str, ...]:
    """Human-readable descriptions of what is not used."""
    descriptions = []
    for name in sorted(directory.directories.keys() - set(used), key=natural_sort_key):
        count = directory.directories[name].count_images()
        labeled = "" if directory.directories[name].with_images or not count else ", not in class folders"
        descriptions.append(f"{name}/ ({counted(count, 'image')}{labeled})")
    outside = [directory, *(part for part in parts if part is not directory)]
    straight = sum(len(each.image_files) for each in outside)
    descriptions += [f"{counted(straight, 'image')} in no class folder"] if straight else []
    return (*descriptions, *(name for name in sorted(directory.listing.files) if name.lower().endswith(".csv")))


def hint_for(directory: Directory) -> str:
    """A sentence that says how to fix a directory without class folders; "" if it has nothing to do with images."""
    suffixes = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
    archives = [name for name in directory.listing.files if name.lower().endswith(suffixes)]
    paths = [path for path, _ in directory.walk()]
    packed = os.path.isfile(directory.name)
    if directory.holds_images:
        return _unlabeled_hint(directory, paths)
    if archives:
        it = "that" if len(archives) == 1 else "one"
        return f" It contains {listed(archives)}: " + (
            f"unpack it and name {it}." if packed else f"name {it}, or unpack here."
        )
    if paths and (directory.directories or packed):
        other = "; if it contains another dataset, unpack it and name the directory" if packed else ""
        return (
            f" It contains {len(paths):,} files, but none with the suffix of an image: save or rename images as .jpg, "
            f".png or .webp{other}."
        )
    return f" {directory.listing.errors[0]}" if directory.listing.errors else ""


def _unlabeled_hint(directory: Directory, paths: list[str]) -> str:
    """The sentences about a directory that contains images, but neither class folders nor labels of them."""
    found = [path for path in paths if has_image_suffix(path)]
    tables = [path for path in paths if may_hold_labels(path) and "/" not in path]
    nested = [path for path in paths if may_hold_labels(path) and "/" in path]
    heic = [path for path in found if path.lower().endswith(HEIF_SUFFIXES)]
    place = listed(directory.with_images) or f"{directory.name} itself"
    hint = (
        f" It contains {counted(len(found), 'image')}, in {place}, but no class folders: move the images of each class "
        "into a folder named like the class, or list them in a labels.csv with the columns file and label."
    )
    if tables and found:
        hint += f" {listed(tables)} names none of them: the first is {listed(found[:1])}."
    elif nested:
        hint += f" Only files beside or above the images are read as labels, not {listed(nested)}."
    if heic:
        hint += f" {counted(len(heic), 'image')} of HEIC, the format of iPhones, cannot be read: save as JPEG."
    return hint
