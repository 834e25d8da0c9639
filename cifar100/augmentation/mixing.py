"""Mixup and CutMix: each image is mixed with the next one of the epoch, and so are their labels.

Shapes: B images per batch, S the size of an image in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar100.augmentation.batched import AugmentParams, box_mask


def mixup(images: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """[B, 3, S, S], twice -> the same shape: lam * images + (1 - lam) * partners, with lam [B] in 0..1.

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412.
    """
    return torch.lerp(partners, images, lam[:, None, None, None])


def cutmix(images: Tensor, partners: Tensor, box: Tensor) -> Tensor:
    """[B, 3, S, S], twice -> the same shape: the partner's pixels in each box [B, 4] (top, left, bottom, right).

    Yun et al. 2019, https://arxiv.org/abs/1905.04899.
    """
    return torch.where(box_mask(box, images.shape[2]), partners, images)


def mix(images: Tensor, labels: Tensor, params: AugmentParams, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images [B + 1, 3, S, S], labels int64 [B + 1] and their parameters -> the first B, each mixed with the next one.

    Returns images [B, 3, S, S] and soft labels, float32 [B, num_classes].
    """
    first, partners = images[:-1], images[1:]
    lam, box = params.mixup_lambda[:-1], params.cutmix_box[:-1]
    mixed = cutmix(mixup(first, partners, lam), partners, box)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    lam = lam * (1 - area / (images.shape[2] * images.shape[3]))
    targets = F.one_hot(labels, num_classes).float()
    return mixed, torch.lerp(targets[1:], targets[:-1], lam[:, None])
