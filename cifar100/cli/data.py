"""cifar100 data get, check, report, preview and samples"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tyro.conf import Positional

from cifar100.config import AugmentConfig, Config, DatasetName
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class DataGet:
    """Download CIFAR-100, from the Hugging Face hub or from its home page, and prove that it is the real one."""

    to: Path = Path("data")
    """The folder that it goes to; training looks into ./data by itself."""

    def run(self) -> int:
        from cifar100.dataset.download import fetch

        fetch(self.to)
        return 0


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Say what a folder or archive holds: whether the published CIFAR-100, or your own images, all of them readable.

    Exit code 0 where it is; 1 for other images in the layout of a published dataset, and for unreadable files.
    """

    data_dir: Positional[Path | None] = None
    """The folder, or the .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    image_size: int = Config().data.image_size
    """Side, in pixels, that your own images are resized and cropped to."""

    def run(self) -> int:
        from cifar100.dataset import DEFAULT_FOLDER, read, resolve_data_dir
        from cifar100.dataset.cache import describe

        config = Config().replace(image_size=self.image_size)
        dataset = read(resolve_data_dir(self.data_dir) or DEFAULT_FOLDER, config)
        emit(dataset)
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            fewest, most = split.class_range(len(dataset.classes))
            each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
            emit(f"  {name:<6}{len(split):>7,} images  {each} a class  fingerprint {split.fingerprint}")
        for note in dataset.notes:
            emit(f"  {note}")
        if dataset.originals:
            emit(f"  sizes of the files: {dataset.originals}")
            emit(f"  cache: {describe()}")
        return 0 if dataset.is_verified or not (dataset.published.fingerprints or dataset.unreadable) else 1


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Look at the images themselves: the classes, mean and deviation, what occurs twice, and labels that conflict."""

    data_dir: Positional[Path | None] = None
    """The folder, or the .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    out: Path = Path("data_report.html")
    """The page: one file, which opens offline."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    image_size: int = Config().data.image_size
    """Side, in pixels, that your own images are resized and cropped to."""

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.report.data import inspect, summary, write_page
        from cifar100.support.errors import UserError

        if not self.out.parent.is_dir() or self.out.is_dir():
            raise UserError(f"--out {self.out}: no file can be made there.")
        config = Config().replace(dataset=self.dataset, data_dir=self.data_dir, image_size=self.image_size)
        found = inspect(load_dataset(config))
        emit(summary(found))
        write_page(found, self.out)
        emit(f"Page: {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class DataPreview:
    """Describe each augmentation, time the pipeline, draw originals beside what it makes of them; list the classes."""

    out: Path = Path("augmentations.png")
    """Where the picture goes."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    data_dir: Path | None = None
    """Folder that holds the dataset, or its .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    image_size: int = Config().data.image_size
    """Side, in pixels, that your own images are resized and cropped to."""

    batch_size: int = Config().optim.batch_size
    """Images a batch."""

    seed: int = Config().optim.seed
    """Which images, and what happens to them."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def run(self) -> int:
        from cifar100.utils import preview

        config = replace(Config(), augment=self.augment).replace(
            dataset=self.dataset,
            data_dir=self.data_dir,
            image_size=self.image_size,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        emit(preview(config, self.out))
        return 0


@dataclass(frozen=True, kw_only=True)
class DataSamples:
    """Write some test images as PNG files named by their class, to try predictions on."""

    out: Positional[Path] = Path("samples")
    """The folder that they go to; it is made."""

    count: int = 10
    """How many, spread evenly over the classes."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    data_dir: Path | None = None
    """Folder that holds the dataset, or its .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    image_size: int = Config().data.image_size
    """Side, in pixels, that your own images are resized and cropped to."""

    test_fraction: float = Config().data.test_fraction
    """Share of your own images that training split off as the test images."""

    split_seed: int = Config().data.split_seed
    """Which ones those were."""

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.utils import write_samples

        config = Config().replace(
            dataset=self.dataset,
            data_dir=self.data_dir,
            image_size=self.image_size,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
        )
        dataset = load_dataset(config, say=lambda text: emit(text, file=sys.stderr))  # stdout is for the paths
        for path in write_samples(dataset, self.out, self.count):
            emit(path)
        return 0
