"""utils.py: the data loaders of the project brief."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cifar100.augmentation.batched import normalize
from cifar100.config import Config
from cifar100.dataset import load_dataset
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
    dataset = load_dataset(config)
    served = [np.concatenate([images.numpy() for images, _ in loader]) for loader in (train_loader, test_loader)]
    for images, split, is_same in zip(served, (dataset.train, dataset.test), (False, True), strict=True):
        plain = normalize(torch.from_numpy(split.images), config.augment.mean, config.augment.std).numpy()
        assert sorted_by_mean(images).shape == plain.shape
        assert np.allclose(sorted_by_mean(images), sorted_by_mean(plain), atol=1e-5) == is_same


def sorted_by_mean(images: np.ndarray) -> np.ndarray:
    """The images in an order that does not depend on theirs."""
    return images[np.argsort(images.mean((1, 2, 3), dtype=np.float64), kind="stable")]
