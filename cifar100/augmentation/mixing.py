"""Mixup and CutMix: each image is mixed with the one that is served after it, and so are their labels.

Shapes: B images a batch, S the side of an image in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar100.augmentation.batched import AugmentParams, inside


def mixup(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """[B, 3, S, S], twice -> the same shape: share * images + (1 - share) * others, with a share in 0..1 [B] each.

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412.
    """
    return torch.lerp(others, images, share[:, None, None, None])


def cutmix(images: Tensor, others: Tensor, box: Tensor) -> Tensor:
    """[B, 3, S, S], twice -> the same shape: inside its box [B, 4] (top, left, bottom, right) an image shows the other.

    Yun et al. 2019, https://arxiv.org/abs/1905.04899.
    """
    return torch.where(inside(box, images.shape[2]), others, images)


def mix(images: Tensor, labels: Tensor, draws: AugmentParams, num_classes: int) -> tuple[Tensor, Tensor]:
    """B + 1 images [B + 1, 3, S, S], their labels int64 [B + 1] and draws -> the first B, each mixed with the next one.

    Returns images [B, 3, S, S] and what they show of each class, float32 [B, num_classes], each row's sum 1.
    """
    first, others = images[:-1], images[1:]
    share, box = draws.share[:-1], draws.box[:-1]
    mixed = cutmix(mixup(first, others, share), others, box)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    share = share * (1 - area / (images.shape[2] * images.shape[3]))
    shown = F.one_hot(labels, num_classes).float()
    return mixed, torch.lerp(shown[1:], shown[:-1], share[:, None])
