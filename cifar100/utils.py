"""Data loaders and class names.

train_loader, test_loader = get_data_loaders()
for images, labels in train_loader: ...

python utils.py       the augmentations with their parameters and speed, an image of samples, and the classes
"""

from __future__ import annotations

if __name__ == "__main__":  # `python utils.py` is `cifar100 data preview`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["data", "preview"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

from cifar100.augmentation.loader import EvalLoader, TrainLoader
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.dataset.classes import CLASSES, SUPERCLASS_OF, SUPERCLASSES
from cifar100.evaluation.evaluate import eval_batch_size

__all__ = ["CLASSES", "SUPERCLASSES", "SUPERCLASS_OF", "get_data_loaders"]


def get_data_loaders(config: Config | None = None) -> tuple[TrainLoader, EvalLoader]:
    """The train loader (augmented, in a new order each epoch) and the test loader (normalized, in order).

    Each yields images float32 [B, 3, S, S] and labels int64 [B], on the device that training would use. A script that
    sets `num_workers` needs `if __name__ == "__main__":`, because each worker process imports it again.
    Raises UserError if the dataset is missing or damaged, or albumentations is requested and missing.
    """
    config = config or Config()
    dataset = load_dataset(config)
    device = select_device(config.run.device, config.run.precision).device
    train_loader = TrainLoader.from_config(config, dataset.train, device)
    batch_size = eval_batch_size(dataset.image_size)
    return train_loader, EvalLoader(dataset.test, config.augment, batch_size=batch_size, device=device)
