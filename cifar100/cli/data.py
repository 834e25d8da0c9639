"""cifar100 data download, check, report, preview and samples"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tyro.conf import Positional

from cifar100.cli.options import DatasetOptions, configured
from cifar100.config import AugmentConfig, Config
from cifar100.support.terminal import emit
from cifar100.support.text import escape_control_chars, number_range


@dataclass(frozen=True, kw_only=True)
class DataDownload:
    """Download CIFAR-100 from the Hub or its home page, and verify it."""

    to: Path = Path("data")
    """Destination directory; training looks in ./data by default."""

    def run(self) -> int:
        from cifar100.dataset.download import download_cifar100

        download_cifar100(self.to)
        return 0


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Verify a dataset: CIFAR-100, CIFAR-10 or custom images.

    Exit code 1 if files cannot be read, or the images are not the published ones.
    """

    data_dir: Positional[Path | None] = None
    """Dataset directory or archive. None: that of config.py, $CIFAR100_DATA_DIR, ./data."""

    image_size: int = field(default_factory=configured("data", "image_size"))
    """Resolution, in pixels, that custom images are resized and center-cropped to."""

    def run(self) -> int:
        from cifar100.dataset import DEFAULT_FOLDER, read, resolve_data_dir
        from cifar100.dataset.cache import cache_summary

        config = Config().replace(image_size=self.image_size)
        dataset = read(resolve_data_dir(self.data_dir) or DEFAULT_FOLDER, config)
        emit(dataset)
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            each = number_range(*split.class_range(len(dataset.classes)))
            emit(f"  {name:<6}{len(split):>7,} images  {each} per class  fingerprint {split.fingerprint}")
        for note in dataset.notes:
            emit(f"  {note}")
        if dataset.original_sizes:
            emit(f"  sizes of the files: {dataset.original_sizes}")
            emit(f"  cache: {cache_summary()}")
        return 0 if dataset.is_verified or not (dataset.spec.fingerprints or dataset.unreadable) else 1


@dataclass(frozen=True, kw_only=True)
class DataReport(DatasetOptions):
    """Dataset report: statistics, duplicates, label conflicts."""

    data_dir: Positional[Path | None] = None
    """Dataset directory or archive. None: that of config.py, $CIFAR100_DATA_DIR, ./data."""

    out: Path = Path("data_report.html")
    """Output HTML file (self-contained)."""

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.report.data import analyze_dataset, summary, write_page
        from cifar100.support.files import check_writable

        check_writable("--out", self.out)
        dataset_report = analyze_dataset(load_dataset(self.settings()))
        emit(summary(dataset_report))
        write_page(dataset_report, self.out)
        emit(f"Page: {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class DataPreview(DatasetOptions):
    """Preview and benchmark the augmentation; list the classes."""

    out: Path = Path("augmentations.png")
    """Output PNG file."""

    batch_size: int = field(default_factory=configured("optim", "batch_size"))
    """Batch size."""

    seed: int = field(default_factory=configured("optim", "seed"))
    """Seed of sampling and augmentation."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def run(self) -> int:
        from cifar100.report.augmentation import preview
        from cifar100.support.files import check_writable

        check_writable("--out", self.out)
        config = self.settings(batch_size=self.batch_size, seed=self.seed)
        emit(preview(replace(config, augment=self.augment), self.out))
        return 0


@dataclass(frozen=True, kw_only=True)
class DataSamples(DatasetOptions):
    """Export sample test images as PNG files named by class."""

    out: Positional[Path] = Path("samples")
    """Output directory; created if missing."""

    count: int = 10
    """Number of images, evenly spread over the classes."""

    test_fraction: float = field(default_factory=configured("data", "test_fraction"))
    """Fraction of the custom images that training held out for testing."""

    split_seed: int = field(default_factory=configured("data", "split_seed"))
    """Seed of that split."""

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.dataset.samples import write_samples

        config = self.settings(test_fraction=self.test_fraction, split_seed=self.split_seed)
        dataset = load_dataset(config, say=lambda text: emit(text, file=sys.stderr))  # stdout is for the paths
        for path in write_samples(dataset, self.out, self.count):
            emit(escape_control_chars(path), wrapped=False)
        return 0
