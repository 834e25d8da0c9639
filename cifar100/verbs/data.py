"""cifar100 data get, check, preview and samples"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tyro.conf import Positional

from cifar100.config import AugmentConfig, Config, DatasetName


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
    """Say what a data folder or archive holds, and whether it is the published CIFAR-100."""

    data_dir: Positional[Path | None] = None
    """The folder, or the .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    def run(self) -> int:
        from cifar100.dataset import DEFAULT_FOLDER, find_folder, read

        dataset = read(find_folder(self.data_dir) or DEFAULT_FOLDER)
        print(dataset)
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            print(f"  {name:<6}{len(split):>7,} images  fingerprint {split.fingerprint}")
        return 0 if dataset.is_verified else 1


@dataclass(frozen=True, kw_only=True)
class DataPreview:
    """Describe each augmentation, time the pipeline, draw originals beside what it makes of them; list the classes."""

    out: Path = Path("augmentations.png")
    """Where the picture goes."""

    dataset: DatasetName = "cifar100"
    """"synthetic" is the made-up set."""

    data_dir: Path | None = None
    """Folder that holds the dataset, or its .tar.gz archive. Not given: $CIFAR100_DATA_DIR, then ./data."""

    batch_size: int = Config().optim.batch_size
    """Images a batch."""

    seed: int = Config().optim.seed
    """Which images, and what happens to them."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def run(self) -> int:
        from cifar100.utils import preview

        config = replace(Config(), augment=self.augment).replace(dataset=self.dataset, data_dir=self.data_dir)
        print(preview(config.replace(batch_size=self.batch_size, seed=self.seed), self.out))
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

    def run(self) -> int:
        from cifar100.dataset import load_dataset
        from cifar100.utils import write_samples

        for path in write_samples(load_dataset(self.dataset, self.data_dir), self.out, self.count):
            print(path)
        return 0
