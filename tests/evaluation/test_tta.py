"""Test-time augmentation: the views, and the mean of their logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cifar100.augmentation.batched import normalize
from cifar100.augmentation.loader import EvalLoader
from cifar100.compute.device import select_device
from cifar100.config import AugmentConfig
from cifar100.dataset.base import Split
from cifar100.evaluation import metrics
from cifar100.evaluation.evaluate import predict_logits
from cifar100.evaluation.tta import VIEWS, evaluate_tta, format_table, shift_and_flip
from cifar100.model import ResNet

AUGMENT = AugmentConfig()


def test_views_flip_and_shift_a_pixel() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 2] = 1
    moved = [shift_and_flip(image, *view).nonzero()[0, 2:].tolist() for view in VIEWS]
    assert moved == [[3, 2], [3, 5], [2, 1], [2, 6], [4, 3], [4, 4]]


def test_logits_are_averaged_and_agreement_covers_all_views() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 10, "")
    model = ResNet((1, 1, 1, 1), 10, 8).eval()
    compute = select_device("cpu", "fp32")
    single = predict_logits(model, EvalLoader(split, AUGMENT, batch_size=7, device=compute.device), compute)
    one, two, six = evaluate_tta(model, split, AUGMENT, compute, single_view_logits=single, num_views=6)
    assert (one.views, two.views, six.views) == (1, 2, 6)
    assert one.top1 == metrics.top_k_accuracy(single, split.labels)
    assert one.agreement == 1
    with torch.no_grad():
        images = normalize(torch.from_numpy(split.images), AUGMENT.mean, AUGMENT.std)
        plain, flipped = model(images), model(images.flip(3))
        padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
        crops = (padded[:, :, :32, :32], padded[:, :, 2:, 2:])
        shifted = [model(part) for crop in crops for part in (crop, crop.flip(3))]
    both = ((plain + flipped) / 2).numpy()
    all_six = both / 2 + torch.stack(shifted).mean(dim=0).numpy() / 2
    assert two.top1 == metrics.top_k_accuracy(both, split.labels)
    assert six.top1 == metrics.top_k_accuracy(all_six, split.labels)
    assert six.top5 == metrics.top_k_accuracy(all_six, split.labels, 5)
    named = torch.stack([plain, flipped, *shifted]).argmax(dim=2)
    assert two.agreement == (named[0] == named[1]).double().mean().item()
    assert six.agreement == pytest.approx((named == named[0]).all(dim=0).double().mean().item())
    assert "agree" in format_table([one, two, six])
    assert [one] == evaluate_tta(model, split, AUGMENT, compute, single_view_logits=single, num_views=1)
