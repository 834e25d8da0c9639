"""EMA of the weights, and batch-norm statistics for it."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, on which torch.optim is built, take one kernel launch on a GPU for all weights

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cifar100.compute.device import Compute

BN_CALIBRATION_IMAGES = 5000
"""Training images for the statistics of the EMA weights."""


class ModelEma:
    """The exponential moving average of a model's weights, as a model (`model`) without gradients.

    Polyak & Juditsky 1992, with the usual decay warmup, (1 + step) / (10 + step). Running statistics are averaged too;
    `update_bn` recomputes them.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        """`decay` is in (0, 1): 0.999 averages over about 1,000 steps."""
        self.decay = decay
        groups = [norm.process_group for norm in source.modules() if isinstance(norm, nn.SyncBatchNorm)]
        self.model = copy.deepcopy(source, {id(group): group for group in groups}).requires_grad_(False)  # not copied
        self.tensors = _averaged_tensors(self.model), _averaged_tensors(source)  # once: state dicts are loaded in place

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after a step of the run, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self.tensors, 1 - decay)


def _averaged_tensors(model: nn.Module) -> list[Tensor]:
    """Weights and running statistics, without the counters of batches."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[Tensor], compute: Compute) -> None:
    """Recompute the running mean and variance of every batch norm from batches of images, float32 [B, 3, S, S].

    Leaves the model in training mode.

    The statistics of averaged weights are not the average of the statistics (Izmailov et al. 2018,
    https://arxiv.org/abs/1803.05407).
    """
    model.train()
    norms = [norm for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    num_images = 0
    for images in batches:
        num_images += len(images)
        for norm in norms:  # a cumulative mean; momentum=None would read a counter from the device
            norm.momentum = len(images) / max(1, num_images)  # a rank may have no image of a small batch
        with compute.autocast():
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
