"""cifar100/augmentation/mixing.py compared with slow per-image references, and mixed batches of the loader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_augment import CPU, SIZE, some_draws

from cifar100.augmentation.batched import augment
from cifar100.augmentation.loader import TrainLoader
from cifar100.augmentation.mixing import cutmix, mix, mixup
from cifar100.compute.distributed import DistContext
from cifar100.config import AugmentConfig
from cifar100.dataset import Split

CLASSES = 10
MIXUP = AugmentConfig(mixup_probability=1, mixup_alpha=1)
CUTMIX = AugmentConfig(cutmix_probability=1)
BOTH = AugmentConfig(mixup_probability=0.3, cutmix_probability=0.4, mixup_alpha=1)


def test_mixup_is_the_weighted_mean() -> None:
    images, partners, lam = torch.randn(5, 3, 8, 8), torch.randn(5, 3, 8, 8), torch.rand(5)
    result = mixup(images, partners, lam)
    for i in range(5):
        expected = lam[i] * images[i] + (1 - lam[i]) * partners[i]
        torch.testing.assert_close(result[i], expected, rtol=0, atol=1e-6)


def test_cutmix_pastes_the_partner_inside_the_box_only() -> None:
    images, others = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    boxes = [(0, 0, 8, 8), (2, 3, 5, 4), (0, 0, 0, 0), (6, 0, 8, 8)]
    result = cutmix(images, others, torch.tensor(boxes))
    for i, (top, left, bottom, right) in enumerate(boxes):
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = others[i, :, top:bottom, left:right]
        assert torch.equal(result[i], expected)


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_soft_labels_are_the_fractions_of_pixels(config: AugmentConfig) -> None:
    """Each image is a uniform gray, so that the mean of a mixed image determines its mixing weight."""
    count = 200
    draws = some_draws(config, count=count)[torch.arange(count + 1) % count]
    gray = torch.rand(count + 1)
    labels = torch.randint(0, CLASSES, (count + 1,))
    mixed, shown = mix(gray[:, None, None, None].expand(-1, 3, SIZE, SIZE), labels, draws, CLASSES)
    expected = torch.zeros(count, CLASSES)
    for i in range(count):
        own = float((mixed[i].mean() - gray[i + 1]) / (gray[i] - gray[i + 1]))
        expected[i, labels[i]] += own
        expected[i, labels[i + 1]] += 1 - own
    # if the two grays are close, the fraction is an ill-conditioned quotient of small differences
    near = (gray[:-1] - gray[1:]).abs() < 0.02
    torch.testing.assert_close(shown[~near], expected[~near], rtol=0, atol=2e-4)
    torch.testing.assert_close(shown.sum(1), torch.ones(count))


def test_probabilities_and_beta_distributions() -> None:
    draws = some_draws(BOTH, count=20_000)
    by_mixup, by_cutmix = draws.mixup_lambda < 1, draws.cutmix_box.sum(1) > 0
    assert by_mixup.float().mean() == pytest.approx(0.3, abs=0.01)
    # a box with a side below one pixel may be empty, hence the larger tolerance
    assert by_cutmix.float().mean() == pytest.approx(0.4, abs=0.012)
    assert not (by_mixup & by_cutmix).any()
    quarters = torch.histc(draws.mixup_lambda[by_mixup], bins=4, min=0, max=1) / by_mixup.sum()
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.02), "Beta(1, 1) is uniform"
    boxes = draws.cutmix_box[by_cutmix]
    assert boxes.min() == 0
    assert boxes.max() == SIZE
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    inside = (boxes[:, 0] > 0) & (boxes[:, 2] < SIZE) & (boxes[:, 1] > 0) & (boxes[:, 3] < SIZE)
    assert (height == width)[inside].all(), "a box has the aspect ratio of the image unless clipped at an edge"


def test_a_low_alpha_mixes_little() -> None:
    lam = some_draws(AugmentConfig(mixup_probability=1, mixup_alpha=0.1), count=5000).mixup_lambda
    assert ((lam < 0.1) | (lam > 0.9)).float().mean() > 0.7


def test_without_mixing_the_parameters_are_neutral() -> None:
    draws = some_draws()
    assert (draws.mixup_lambda == 1).all()
    assert (draws.cutmix_box == 0).all()


def split(count: int = 23) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, CLASSES, count), "")


def served(loader: TrainLoader, epoch: int = 1, first_step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader.epoch(epoch, first_step), strict=True)
    return torch.cat(images), torch.cat(labels)


def loader(config: AugmentConfig = BOTH, batch_size: int = 5, dist: DistContext | None = None) -> TrainLoader:
    return TrainLoader(split(), config, batch_size=batch_size, seed=0, device=CPU, num_classes=CLASSES, dist=dist)


def test_each_image_is_mixed_with_the_next_for_any_batch_size() -> None:
    images, labels = served(loader(batch_size=5))
    assert images.shape == (23, 3, SIZE, SIZE)
    assert labels.shape == (23, CLASSES)
    others, their_labels = served(loader(batch_size=8))
    assert torch.equal(images, others)
    assert torch.equal(labels, their_labels)
    later, _ = served(loader(batch_size=5), first_step=2)
    assert torch.equal(images[10:], later), "a resumed epoch must serve the same images"


def test_the_last_image_is_mixed_with_the_first() -> None:
    draws = some_draws(CUTMIX, seed=0, epoch=1, count=23)
    places = torch.tensor([22, 0])
    pair = draws[places]
    images = augment(torch.from_numpy(split().images)[pair.order], pair, CUTMIX)
    expected = cutmix(images[:1], images[1:], pair.cutmix_box[:1])
    assert torch.equal(served(loader(CUTMIX))[0][22:], expected)


def test_two_ranks_serve_the_same_images_as_one_process() -> None:
    parts = [loader(dist=DistContext(rank=rank, size=2)).epoch(1) for rank in range(2)]
    both = [torch.cat([images for images, _ in step]) for step in zip(*parts, strict=True)]
    assert torch.equal(torch.cat(both), served(loader())[0])


def test_images_are_resized_after_mixing() -> None:
    whole, labels = served(loader(CUTMIX))
    small = AugmentConfig(cutmix_probability=1, train_sizes=(16,))
    images, same = served(loader(small))
    assert torch.equal(labels, same)
    expected = torch.nn.functional.interpolate(whole, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
