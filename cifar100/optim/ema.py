"""An average of the weights along the run, and batch-norm statistics that suit it."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, of which torch.optim is made, take one launch on a GPU for all weights

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cifar100.compute.device import Compute

BN_CALIBRATION_IMAGES = 5000
"""Training images that the statistics of the averaged weights are taken over."""


class ModelEma:
    """The exponential moving average of a model's weights: itself a model, `model`, that no gradient reaches.

    Polyak & Juditsky 1992; the decay of the first steps is lower, (1 + step) / (10 + step), so that where the run began
    is soon forgotten. Running statistics are averaged along; `update_bn` makes them exact.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        """`decay` in (0, 1) is what the average keeps of itself in a step: 0.999 is a mean over about 1,000 steps."""
        self.decay = decay
        self.model = copy.deepcopy(source).requires_grad_(False)
        self.numbers = _numbers(self.model), _numbers(source)  # looked up once: all that is loaded later is copied in

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the source's weights in, after the run's step of this number, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self.numbers, 1 - decay)


def _numbers(model: nn.Module) -> list[Tensor]:
    """Weights and running statistics; not the counters of batches."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[Tensor], compute: Compute) -> None:
    """Set each batch norm's running mean and variance to the means over these batches, float32 [B, 3, S, S] each.

    Statistics of weights that were averaged are not the average of statistics (Izmailov et al. 2018,
    https://arxiv.org/abs/1803.05407).
    """
    model.train()  # which leaves a frozen one as it is
    norms = [norm for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    for number, images in enumerate(batches):
        for (
            norm
        ) in norms:  # the plain mean, as momentum None has it, which reads a counter from the device in each batch
            norm.momentum = 1 / (number + 1)
        with compute.autocast():
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
