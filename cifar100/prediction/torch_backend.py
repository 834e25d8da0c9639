"""The network of a checkpoint as a function of pixels, by PyTorch: what a Predictor needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.compute.device import Compute
from cifar100.model import fold_batch_norms


def torch_forward(
    checkpoint: Checkpoint, compute: Compute, *, features: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 [B, S, S, 3] -> logits float32 [B, classes]: batch norms folded into the convolutions, the weights held in
    the precision of `compute`. Raises UserError where the weights do not fit their network.

    With `features`, what the last layer gets instead: the pooled activations, float32 [B, 512].
    """
    network = fold_batch_norms(checkpoint.build())
    if features:
        network.register_module("fc", nn.Identity())
    model = compute.place(network).to(compute.dtype)
    mean, std = tuple(checkpoint.mean), tuple(checkpoint.std)

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), compute.autocast():
            images = normalize(torch.from_numpy(pixels).to(compute.device), mean, std)
            return model(images).float().cpu().numpy()

    return forward
