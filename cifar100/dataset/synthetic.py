"""A synthetic dataset with the format of CIFAR-100, for smoke tests.

Each class has its own pair of colors, stripe direction and stripe width; each image shifts and tilts the stripes and
adds noise. A network learns it within an epoch or two; the accuracy means nothing for CIFAR-100.
"""

from __future__ import annotations

import numpy as np

from cifar100.dataset.base import Dataset, Split, canonical_split
from cifar100.dataset.classes import CLASSES
from cifar100.dataset.published import IMAGE_SIZE, SYNTHETIC

TRAIN_PER_CLASS, TEST_PER_CLASS = 24, 6


def make() -> Dataset:
    """The synthetic dataset: 24 train and 6 test images of each of 100 classes, 32x32; deterministic."""
    rng = np.random.default_rng(100)
    train, test = _split(rng, TRAIN_PER_CLASS), _split(rng, TEST_PER_CLASS)
    return Dataset(SYNTHETIC, train, test, source="cifar100.dataset.synthetic")


def _split(rng: np.random.Generator, per_class: int) -> Split:
    looks = np.random.default_rng(0)
    count = len(CLASSES)
    colors = looks.uniform(30, 225, (count, 2, 3))  # two colors per class
    angles = looks.uniform(0, np.pi, count)
    widths = looks.uniform(2.5, 9, count)

    labels = np.repeat(np.arange(count), per_class)
    phase = rng.uniform(0, 2 * np.pi, len(labels))[:, None, None]
    tilt = (angles[labels] + rng.normal(0, 0.05, len(labels)))[:, None, None]
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    along = np.cos(tilt) * x + np.sin(tilt) * y  # [N, H, W]: position across the stripes
    mix = 0.5 + 0.5 * np.sin(2 * np.pi * along / widths[labels][:, None, None] + phase)
    pair = colors[labels][:, None, None]  # [N, 1, 1, 2, 3]
    images = mix[..., None] * pair[..., 0, :] + (1 - mix[..., None]) * pair[..., 1, :]
    images += rng.normal(0, 12, images.shape)
    return canonical_split(images.clip(0, 255).astype(np.uint8), labels, count)
