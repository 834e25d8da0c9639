"""A preview of the augmentation: each transform with its parameters, its speed, and an image of augmented samples."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from cifar100.augmentation import albumentations_pipeline, batched
from cifar100.augmentation.loader import TrainLoader
from cifar100.augmentation.mixing import mix
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import Dataset, load_dataset
from cifar100.prediction.contact_sheet import Entry, contact_sheet
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.text import escape_control_chars

NUM_IMAGES, NUM_EPOCHS = 8, 5
"""Rows and columns of the image of samples."""


def preview(config: Config, out: Path) -> str:
    """Describe and time both training pipelines, and write an image of augmented samples; returns the text."""
    dataset = load_dataset(config)
    device = select_device(config.run.device, config.run.precision).device
    loader = TrainLoader.from_config(config.replace(pipeline="batched"), dataset.train, device)
    images, labels = next(iter(loader))
    missing = _why_missing(config)
    atomic_write(out, draw_samples(dataset, config, albumentations=not missing))
    transforms = albumentations_pipeline.transform_parameters(config.augment, dataset.image_size)
    steps = [(name, ", ".join(f"{key}={value}" for key, value in step.items())) for name, step in transforms]
    lines = [
        str(dataset),
        *(f"  {note}" for note in dataset.notes),
        "",
        "Augmentation of training images, in order; test images are only normalized",
        *(f"  {name:<24}{what}" for name, what in batched.describe_transforms(config.augment)),
        *([missing] if missing else ["The same with --pipeline albumentations"]),
        *(f"  {name:<24}{what}" for name, what in steps if not missing),
        "",
        f"A batch: images {images.dtype} {list(images.shape)} in {images.min():.2f}..{images.max():.2f}, "
        f"labels {labels.dtype} {list(labels.shape)}, on {device}",
        f"The pipeline gives {images_per_second(loader):,.0f} augmented images/s",
        *([] if missing else [_speed_of_albumentations(dataset, config, device)]),
        f"Originals and augmented versions: {out}",
        "",
        *class_list(dataset),
    ]
    return "\n".join(lines)


def _why_missing(config: Config) -> str:
    """Why albumentations cannot be used, with the remedy; "" if it can."""
    try:
        albumentations_pipeline.load_albumentations()
        config.replace(pipeline="albumentations")  # not every setting is one of both
    except UserError as error:
        return str(error)
    return ""


def _speed_of_albumentations(dataset: Dataset, config: Config, device: torch.device) -> str:
    rates = []
    for num_workers in (0, 1, 2):
        changed = config.replace(pipeline="albumentations", num_workers=num_workers)
        loader = TrainLoader.from_config(changed, dataset.train, device)
        with closing(loader):
            rates.append(f"{images_per_second(loader):,.0f}")
    return "albumentations gives {} in this process, {} with --num-workers 1, {} with 2".format(*rates)


def images_per_second(loader: TrainLoader, seconds: float = 1.0) -> float:
    """Throughput of a loader alone, measured for about `seconds`."""
    for _ in range(2):  # worker processes start with the first epoch, and all are there when the second begins
        next(loader.epoch(0))
    served, watch = 0, Stopwatch()
    while watch.seconds < seconds:
        for images, _ in loader:
            served += len(images)
            images[0, 0, 0, 0].item()  # waits for the device
            if watch.seconds >= seconds:
                break
    return served / watch.seconds


def class_list(dataset: Dataset) -> list[str]:
    """The classes with their ids as lines, by superclass if there are superclasses."""
    if not dataset.superclasses:
        return [f"{len(dataset.classes)} classes, with their ids"] + [
            f"  {i:>3} {escape_control_chars(name)}" for i, name in enumerate(dataset.classes)
        ]
    lines = [f"{len(dataset.classes)} classes in {len(dataset.superclasses)} superclasses, with their ids"]
    for group, title in enumerate(dataset.superclasses):
        members = [i for i, of in enumerate(dataset.superclass_of) if of == group]
        lines.append(f"  {title:<32}" + ", ".join(f"{escape_control_chars(dataset.classes[i])} {i}" for i in members))
    return lines


def _as_trained_on(dataset: Dataset, config: Config, params: batched.AugmentParams, position: int) -> torch.Tensor:
    """[1, 3, S, S]: the image at a position of an epoch, mixed with the next one by Mixup or CutMix."""
    pair = params[torch.tensor([position, (position + 1) % len(params.order)])]
    rows = pair.order.numpy()
    images = batched.augment(torch.from_numpy(dataset.train.images[rows]), pair, config.augment)
    labels = torch.from_numpy(dataset.train.labels[rows])
    return mix(images, labels, pair, len(dataset.classes))[0] if config.augment.mixes else images[:1]


def draw_samples(dataset: Dataset, config: Config, *, albumentations: bool = False) -> bytes:
    """A PNG file with a row per train image: the original, then its augmented versions in the first epochs.

    `albumentations` adds those of that pipeline.
    """
    rng = np.random.default_rng(config.optim.seed)
    rows = rng.choice(len(dataset.train), min(NUM_IMAGES, len(dataset.train)), replace=False)
    originals, labels = dataset.train.images[rows], dataset.train.labels[rows]
    mean, std = np.array(config.augment.mean), np.array(config.augment.std)
    count, size, seed = len(dataset.train), dataset.image_size, config.optim.seed
    caption = f"Left to right: the original, augmented in epochs 1 to {NUM_EPOCHS}"
    columns = [originals]

    def visible(results: torch.Tensor) -> np.ndarray:
        return ((results.permute(0, 2, 3, 1).numpy() * std + mean) * 255).round().clip(0, 255).astype(np.uint8)

    for epoch in range(NUM_EPOCHS):
        params = batched.sample_epoch_params(config.augment, seed=seed, epoch=epoch, count=count, size=size)
        positions = params.order.argsort()[rows].tolist()
        columns.append(
            visible(torch.cat([_as_trained_on(dataset, config, params, position) for position in positions]))
        )
    if albumentations:
        pipeline = albumentations_pipeline.Pipeline(config.augment, seed, size)
        columns += [visible(pipeline[epoch, rows.tolist(), originals]) for epoch in range(NUM_EPOCHS)]
        caption += ", and the same by albumentations"
    columns = [np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255) for images in columns]
    entries = [
        Entry(versions, "", dataset.classes[label], None)
        for label, versions in zip(labels, zip(*columns, strict=True), strict=True)
    ]
    return contact_sheet(entries, [caption])
