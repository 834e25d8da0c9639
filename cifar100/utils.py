"""A doorway to the data: loaders, class names, and a look at what augmentation does.

train_loader, test_loader = get_data_loaders()
for images, labels in train_loader: ...

python utils.py       each augmentation with its parameters, its speed, a picture of its results; the classes
"""

from __future__ import annotations

if __name__ == "__main__":  # run as a file: the package is one folder up, and its modules must shadow no others
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from cifar100 import augment
from cifar100.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.config import Config
from cifar100.dataset import Dataset, load_dataset
from cifar100.device import choose_compute
from cifar100.errors import UserError
from cifar100.evaluate import BATCH_SIZE
from cifar100.files import replace_file
from cifar100.loader import EvalLoader, TrainLoader
from cifar100.stopwatch import Stopwatch
from cifar100.text import printable

__all__ = ["CLASSES", "SUPERCLASSES", "SUPERCLASS_OF", "get_data_loaders"]


def get_data_loaders(config: Config | None = None) -> tuple[TrainLoader, EvalLoader]:
    """The train loader (augmented, in a new order each epoch) and the test loader (normalised, in order).

    Each yields images float32 [B, 3, S, S] and labels int64 [B], on the device that training would use.
    Raises UserError where the dataset is not found, or damaged.
    """
    config = config or Config()
    dataset = load_dataset(config)
    device = choose_compute(config.run.device, config.run.precision).device
    train_loader = TrainLoader(
        dataset.train, config.augment, batch_size=config.optim.batch_size, seed=config.optim.seed, device=device
    )
    return train_loader, EvalLoader(dataset.test, config.augment, batch_size=BATCH_SIZE, device=device)


def preview(config: Config, picture: Path) -> str:
    """Describe and time the training pipeline, and write a picture of it; the report as text."""
    dataset = load_dataset(config)
    device = choose_compute(config.run.device, config.run.precision).device
    batch_size = config.optim.batch_size
    loader = TrainLoader(dataset.train, config.augment, batch_size=batch_size, seed=config.optim.seed, device=device)
    images, labels = next(iter(loader))
    replace_file(picture, _as_png(draw_samples(dataset, loader, config)))
    lines = [
        str(dataset),
        *(f"  {note}" for note in dataset.notes),
        "",
        "Augmentation of training images, in order; test images are only normalised",
        *(f"  {name:<24}{what}" for name, what in augment.describe(config.augment)),
        "",
        f"A batch: images {images.dtype} {list(images.shape)} in {images.min():.2f}..{images.max():.2f}, "
        f"labels {labels.dtype} {list(labels.shape)}, on {device}",
        f"The pipeline gives {images_per_second(loader):,.0f} augmented images/s",
        f"Originals, each beside five augmented versions: {printable(picture)}",
        "",
        *class_list(dataset),
    ]
    return "\n".join(lines)


def images_per_second(loader: TrainLoader, seconds: float = 2.0) -> float:
    """Augmented images a second that a loader gives on its own, measured over about so many seconds."""
    served, watch = 0, Stopwatch()
    while watch.seconds < seconds:
        for images, _ in loader:
            served += len(images)
            images[0, 0, 0, 0].item()  # waits for the device
            if watch.seconds >= seconds:
                break
    return served / watch.seconds


def class_list(dataset: Dataset) -> list[str]:
    """The classes as lines: by superclass, each with its id, where there are superclasses."""
    if not dataset.superclasses:
        return [f"{len(dataset.classes)} classes, with their ids"] + [
            f"  {i:>3} {printable(name)}" for i, name in enumerate(dataset.classes)
        ]
    lines = [f"{len(dataset.classes)} classes in {len(dataset.superclasses)} superclasses, with their ids"]
    for group, title in enumerate(dataset.superclasses):
        members = [i for i, of in enumerate(dataset.superclass_of) if of == group]
        lines.append(f"  {title:<32}" + ", ".join(f"{dataset.classes[i]} {i}" for i in members))
    return lines


def draw_samples(
    dataset: Dataset, loader: TrainLoader, config: Config, *, images: int = 8, epochs: int = 5
) -> Image.Image:
    """A picture: a row an image, the original first and then what training sees of it in the first epochs."""
    rng = np.random.default_rng(config.optim.seed)
    images = min(images, len(dataset.train))
    rows = torch.from_numpy(rng.choice(len(dataset.train), images, replace=False)).to(loader.images.device)
    columns = [loader.images[rows].cpu().numpy()]
    mean, std = np.array(config.augment.mean), np.array(config.augment.std)
    count, size = len(dataset.train), dataset.image_size
    for epoch in range(epochs):
        draws = augment.draw_epoch(config.augment, seed=config.optim.seed, epoch=epoch, count=count, size=size)
        mine = draws.take(draws.order.argsort()[rows.cpu()]).to(rows.device)
        result = augment.augment(loader.images[rows], mine, config.augment)
        columns.append(((result.permute(0, 2, 3, 1).cpu().numpy() * std + mean) * 255).clip(0, 255).astype(np.uint8))

    zoom, gap, margin, name_width = max(1, 96 // size), 8, 24, 130
    cell = size * zoom + gap
    sheet = Image.new("RGB", (name_width + cell * len(columns) + 2 * margin, cell * images + margin * 2), "white")
    pen = ImageDraw.Draw(sheet)
    for column, pixels in enumerate(columns):
        left = margin + name_width + column * cell + (gap if column else 0)
        pen.text((left, 6), "original" if column == 0 else f"epoch {column}", fill="black")
        for row, image in enumerate(pixels):
            tile = Image.fromarray(image).resize((size * zoom, size * zoom), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, margin + row * cell))
    for row, label in enumerate(dataset.train.labels[rows.cpu().numpy()]):
        pen.text((margin, margin + row * cell + cell // 2 - 8), printable(dataset.classes[label])[:20], fill="black")
    return sheet


def write_samples(dataset: Dataset, folder: Path, count: int) -> list[Path]:
    """Write test images, spread evenly over the split, as PNG files named by class; their paths.

    Raises UserError where the count is not in 1..size of the split, or there can be no such folder; RunFailed where
    the disk refuses a file.
    """
    split = dataset.test
    if not 1 <= count <= len(split):
        raise UserError(f"--count is {count}; it must be from 1 to {len(split):,}, the test images.")
    rows = np.linspace(0, len(split) - 1, count).round().astype(int).tolist()
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            paths.append(folder / f"{dataset.classes[split.labels[row]]}_{row}.png")
            replace_file(paths[-1], _as_png(Image.fromarray(split.images[row])))
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be written ({error.strerror}).") from None
    return paths


def _as_png(image: Image.Image) -> memoryview:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getbuffer()


if __name__ == "__main__":
    from cifar100.cli import main

    sys.exit(main(["data", "preview", *sys.argv[1:]]))
