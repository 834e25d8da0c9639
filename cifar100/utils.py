"""Data loaders, class names, and a preview of the augmentation.

train_loader, test_loader = get_data_loaders()
for images, labels in train_loader: ...

python utils.py       each augmentation with its parameters, both pipelines' speed, a picture; the classes
"""

from __future__ import annotations

if __name__ == "__main__":  # `python utils.py` is `cifar100 data preview`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["data", "preview"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from cifar100.augmentation import albumentations_pipeline, batched
from cifar100.augmentation.loader import EvalLoader, TrainLoader
from cifar100.augmentation.mixing import mix
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import Dataset, load_dataset
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.evaluation.evaluate import BATCH_SIZE
from cifar100.support.errors import UserError
from cifar100.support.files import atomic_write
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.text import escape_control_chars

__all__ = ["CLASSES", "SUPERCLASSES", "SUPERCLASS_OF", "get_data_loaders"]


def get_data_loaders(config: Config | None = None) -> tuple[TrainLoader, EvalLoader]:
    """The train loader (augmented, in a new order each epoch) and the test loader (normalized, in order).

    Each yields images float32 [B, 3, S, S] and labels int64 [B], on the device that training would use. A script that
    asks for worker processes needs `if __name__ == "__main__":`, for Python imports it again in each of them.
    Raises UserError if the dataset is missing or damaged, or albumentations is requested and missing.
    """
    config = config or Config()
    dataset = load_dataset(config)
    device = select_device(config.run.device, config.run.precision).device
    return train_loader(dataset, config, device), EvalLoader(
        dataset.test, config.augment, batch_size=BATCH_SIZE, device=device
    )


def train_loader(dataset: Dataset, config: Config, device: torch.device) -> TrainLoader:
    """The train loader of these settings."""
    return TrainLoader(
        dataset.train,
        config.augment,
        batch_size=config.optim.batch_size,
        seed=config.optim.seed,
        device=device,
        num_epochs=config.optim.epochs,
        num_workers=config.run.num_workers,
    )


def preview(config: Config, picture: Path) -> str:
    """Describe and time both training pipelines, and write an image of augmented samples; returns the text."""
    dataset = load_dataset(config)
    device = select_device(config.run.device, config.run.precision).device
    loader = train_loader(dataset, config.replace(pipeline="batched"), device)
    images, labels = next(iter(loader))
    missing = _why_missing(config)
    atomic_write(picture, _as_png(draw_samples(dataset, config, albumentations=not missing)))
    theirs = albumentations_pipeline.describe(config.augment, dataset.image_size)
    steps = [(name, ", ".join(f"{key}={value}" for key, value in step.items())) for name, step in theirs]
    lines = [
        str(dataset),
        *(f"  {note}" for note in dataset.notes),
        "",
        "Augmentation of training images, in order; test images are only normalized",
        *(f"  {name:<24}{what}" for name, what in batched.describe(config.augment)),
        *([missing] if missing else ["The same with --pipeline albumentations"]),
        *(f"  {name:<24}{what}" for name, what in steps if not missing),
        "",
        f"A batch: images {images.dtype} {list(images.shape)} in {images.min():.2f}..{images.max():.2f}, "
        f"labels {labels.dtype} {list(labels.shape)}, on {device}",
        f"The pipeline gives {images_per_second(loader):,.0f} augmented images/s",
        *([] if missing else [_speed_of_albumentations(dataset, config, device)]),
        f"Originals and augmented versions: {picture}",
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
    told = []
    for num_workers in (0, 1, 2):
        loader = train_loader(dataset, config.replace(pipeline="albumentations", num_workers=num_workers), device)
        with closing(loader):
            told.append(f"{images_per_second(loader):,.0f}")
    return "albumentations gives {} in this process, {} with --num-workers 1, {} with 2".format(*told)


def images_per_second(loader: TrainLoader, seconds: float = 1.0) -> float:
    """Throughput of a loader alone, measured for about this time."""
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


def _as_trained_on(dataset: Dataset, config: Config, draws: batched.AugmentParams, place: int) -> torch.Tensor:
    """[1, 3, S, S]: the image at a position of an epoch, mixed with the next one by Mixup or CutMix."""
    pair = draws.with_first_appended()[place : place + 2]
    rows = pair.order.numpy()
    images = batched.augment(torch.from_numpy(dataset.train.images[rows]), pair, config.augment)
    labels = torch.from_numpy(dataset.train.labels[rows])
    return mix(images, labels, pair, len(dataset.classes))[0] if config.augment.mixes else images[:1]


def draw_samples(
    dataset: Dataset, config: Config, *, albumentations: bool = False, images: int = 8, epochs: int = 5
) -> Image.Image:
    """A picture: a row an image, the original first and then what training sees of it in the first epochs.

    `albumentations` adds what it would see of it through that pipeline.
    """
    rng = np.random.default_rng(config.optim.seed)
    images = min(images, len(dataset.train))
    rows = rng.choice(len(dataset.train), images, replace=False)
    originals = dataset.train.images[rows]
    columns = [("", "original", originals)]
    mean, std = np.array(config.augment.mean), np.array(config.augment.std)
    count, size, seed = len(dataset.train), dataset.image_size, config.optim.seed

    def visible(results: torch.Tensor) -> np.ndarray:
        return ((results.permute(0, 2, 3, 1).numpy() * std + mean) * 255).round().clip(0, 255).astype(np.uint8)

    for epoch in range(epochs):
        draws = batched.sample_epoch_params(config.augment, seed=seed, epoch=epoch, count=count, size=size)
        places = draws.order.argsort()[rows].tolist()
        results = torch.cat([_as_trained_on(dataset, config, draws, place) for place in places])
        columns.append(("batched", f"epoch {epoch + 1}", visible(results)))
    if albumentations:
        pipeline = albumentations_pipeline.Pipeline(config.augment, seed, size)
        for epoch in range(epochs):
            results = pipeline[epoch, rows.tolist(), originals]
            columns.append(("albumentations", f"epoch {epoch + 1}", visible(results)))

    zoom, gap, margin, name_width = max(1, 96 // size), 8, 24, 130
    cell, top = size * zoom + gap, margin + 16
    width = name_width + cell * len(columns) + gap * 2 + 2 * margin
    sheet = Image.new("RGB", (width, cell * images + top + margin), "white")
    pen = ImageDraw.Draw(sheet)
    left, before = margin + name_width, ""
    for group, title, pixels in columns:
        if group != before:
            left += gap
            pen.text((left, 6), group, fill="black")
            before = group
        pen.text((left, 22), title, fill="black")
        for row, image in enumerate(pixels):
            tile = Image.fromarray(image).resize((size * zoom, size * zoom), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + row * cell))
        left += cell
    for row, label in enumerate(dataset.train.labels[rows]):
        pen.text(
            (margin, top + row * cell + cell // 2 - 8), escape_control_chars(dataset.classes[label])[:20], fill="black"
        )
    return sheet


def write_samples(dataset: Dataset, folder: Path, count: int) -> list[Path]:
    """Write test images, evenly spaced in the split, as PNG files named by class; returns their paths.

    Raises UserError if the count is not in 1..size of the split or the directory cannot be created, RunFailed if a file
    cannot be written.
    """
    split = dataset.test
    if not 1 <= count <= len(split):
        raise UserError("data.count", f"--count is {count}; it must be from 1 to {len(split):,}, the test images.")
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in split.spread(count).tolist():
            paths.append(folder / f"{dataset.classes[split.labels[row]]}_{row}.png")
            atomic_write(paths[-1], _as_png(Image.fromarray(split.images[row])))
    except OSError as error:
        raise UserError("data.write", f"{folder} cannot be written ({error.strerror}).") from None
    return paths


def _as_png(image: Image.Image) -> memoryview:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getbuffer()
