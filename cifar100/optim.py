"""The optimizer, its parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from cifar100.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.SGD:
    """SGD with momentum. Without `decay_norms`, batch-norm scales and all biases are spared weight decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if config.decay_norms or parameter.ndim > 1]
    spared = [parameter for parameter in parameters if not config.decay_norms and parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The rate of a step, counted from 0 over the whole run: linear warmup to `lr`, then half a cosine to 0.

    The cosine is that of SGDR without restarts (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983).
    """
    warmup = config.warmup_epochs * steps_per_epoch
    total = config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / max(1.0, math.ceil(warmup))
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
