"""utils.py: the data loaders of the project brief."""

from __future__ import annotations

from pathlib import Path

import torch

from cifar100.config import Config
from cifar100.utils import get_data_loaders


def test_get_data_loaders_augments_only_train_images(tiny_data: Path) -> None:
    config = Config().replace(data_dir=tiny_data, device="cpu", batch_size=16)
    train_loader, test_loader = get_data_loaders(config)
    epochs = [[next(iter(loader)) for _ in range(2)] for loader in (train_loader, test_loader)]
    for (images, labels), _ in epochs:
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, 32, 32)
        assert labels.dtype == torch.int64
        assert len(labels) == len(images)
    (first, _), (second, _) = epochs[0]
    assert len(first) == 16
    assert not torch.equal(first, second), "each epoch has a new order"
    (first, _), (second, _) = epochs[1]
    assert torch.equal(first, second)
