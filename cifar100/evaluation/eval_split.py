"""The images to evaluate a checkpoint on: a split of its dataset, or a folder with any of its classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.config import Config, DataConfig
from cifar100.dataset import Dataset, Split, find_class_folders, folder, load_dataset, train_val_split
from cifar100.dataset.base import DatasetSpec
from cifar100.dataset.layout import Layout, class_name
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


def load_eval_split(
    checkpoint: Checkpoint, *, split: str | None = None, dataset: str | None = None, data_dir: Path | None = None
) -> tuple[Dataset, Split, Config]:
    """The dataset, the split to evaluate `checkpoint` on, and the settings that they were read with.

    The arguments are those of `evaluate`. `dataset` defaults to the one that the checkpoint was trained on, or to
    "cifar100" if `data_dir` is given. Raises UserError if the data cannot be read, its classes are not those of the
    checkpoint, or there is no such split.
    """
    settings = data_settings(checkpoint)
    if dataset is None:
        dataset = settings.get("dataset", "cifar100") if data_dir is None else "cifar100"
    settings |= {"dataset": dataset, "data_dir": data_dir, "image_size": checkpoint.image_size}
    config = Config().replace(**settings, mean=tuple(checkpoint.mean), std=tuple(checkpoint.std))
    layout = find_class_folders(config)
    if layout is not None:
        data = _read_image_folder(checkpoint, layout, config, split)
    elif split == "all":
        raise UserError("evaluate.split", "--split all is for image folders; choose another --split.")
    else:
        data = load_dataset(config)
    if not (checkpoint.matches_classes(data.classes) or _same_names(data.classes, checkpoint.classes)):
        raise UserError(
            "evaluate.classes",
            f"The {len(checkpoint.classes)} classes of the checkpoint and the {len(data.classes)} of the dataset have "
            "different names, so an accuracy would be meaningless.",
        )
    set_class_names(checkpoint, data)
    if split in (None, "test", "all"):
        return data, data.test, config
    if checkpoint.dataset.fingerprint not in ("", data.train.fingerprint):
        raise UserError(
            "evaluate.other_data",
            f"The checkpoint was trained on other images ({checkpoint.dataset}), so the {split} split of this dataset "
            "is not its own; only --split test can be evaluated.",
        )
    trained_on, held_out = train_val_split(data, config.data.val_fraction)
    splits = {"train": trained_on, "val": held_out}
    chosen = splits.get(split)
    if chosen is None:
        reason = "its training held no images out" if split == "val" else "the splits are test, train, val and all"
        raise UserError("evaluate.split", f"There is no split {split!r} to evaluate this checkpoint on: {reason}.")
    return data, chosen, config


def data_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of `DataConfig` that the checkpoint was trained with."""
    names = {setting.name for setting in fields(DataConfig)}
    return {name: value for name, value in checkpoint.config.items() if name in names}


def set_class_names(checkpoint: Checkpoint, data: Dataset) -> None:
    """Copy the names of the classes and superclasses from the dataset, for which `matches_classes` is true, if the file
    of the weights has none.

    Raises UserError if the names change and are not in alphabetical order: folders named by numbers may have been
    sorted as numbers or as text in training.
    """
    if "classes" in checkpoint.assumed:
        _set_class_names(checkpoint, list(data.classes))
        checkpoint.superclasses, checkpoint.superclass_of = list(data.superclasses), list(data.superclass_of)


def _set_class_names(checkpoint: Checkpoint, names: list[str]) -> None:
    if not checkpoint.matches_classes(names) or names == checkpoint.classes:
        return
    if names != sorted(names):
        raise UserError(
            "evaluate.class_order",
            "The file of the weights does not name its classes, and those of the dataset may be sorted as numbers or "
            "as text: name them in the order of the weights, --classes FILE with one name per line.",
        )
    checkpoint.classes, checkpoint.superclasses, checkpoint.superclass_of = names, [], []


def _read_image_folder(checkpoint: Checkpoint, layout: Layout, config: Config, split: str | None) -> Dataset:
    """The images of a folder.

    They are split as for training if `split` is "train" or "val", or, unless it is "all", if the checkpoint was trained
    on them or they have a train and a test split of its classes. Otherwise all are test images; of a folder with a test
    split, only that split, unless `split` is "all".
    """
    if split in ("train", "val"):
        return folder.read(layout, config=config, say=emit)
    _set_class_names(checkpoint, list(map(class_name, layout.classes)))
    data = None if split == "all" else _read_split_as_in_training(checkpoint, layout, config)
    if data is not None:
        return data
    spec = DatasetSpec(
        "custom images", tuple(checkpoint.classes), tuple(checkpoint.superclasses), tuple(checkpoint.superclass_of)
    )
    return folder.read_labeled(layout, spec, everything=split == "all", config=config, say=emit)


def _read_split_as_in_training(checkpoint: Checkpoint, layout: Layout, config: Config) -> Dataset | None:
    """The images split as training does it, if that is right: they have a test split, or the checkpoint was trained on
    them. None if not, or if they are not fit for training."""
    is_split = {"train", "test"} <= layout.splits.keys()
    same_classes = set(layout.classes) == set(map(class_name, checkpoint.classes))
    if not same_classes or not (is_split or checkpoint.dataset.fingerprint):
        return None
    try:
        data = folder.read(layout, config=config, say=emit)
    except UserError as error:
        if error.code in folder.UNFIT_FOR_TRAINING:
            return None
        raise
    trained_on = checkpoint.config.get("data_dir") or ""
    is_own = data.train.fingerprint == checkpoint.dataset.fingerprint or _is_same_place(str(trained_on), layout.place)
    return data if (is_split or is_own) and _same_names(data.classes, checkpoint.classes) else None


def _is_same_place(path: str, other: str) -> bool:
    """Whether two paths name the same images; a file of labels and its directory do."""
    some, others = Path(os.path.realpath(path)), Path(os.path.realpath(other))
    return bool(path) and (some == others or _is_label_file(some, others) or _is_label_file(others, some))


def _is_label_file(path: Path, directory: Path) -> bool:
    return path.parent == directory and path.suffix.lower() in (".csv", ".tsv")


def _same_names(some: Sequence[str], others: Sequence[str]) -> bool:
    return list(map(class_name, some)) == list(map(class_name, others))
