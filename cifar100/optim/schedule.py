"""The learning rate of every step."""

from __future__ import annotations

import math

import torch

from cifar100.config import OptimConfig

MAX_WARMUP = 1 / 3
"""Largest part of a run that is warmup, so that a short run has its peak learning rate, and a decay."""


def lr_at_step(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The learning rate of a step, counted from 0 over the whole run: linear warmup to `lr`, then decay to 0 along a
    half cosine (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts) or linearly.
    """
    warmup = min(config.warmup_epochs, MAX_WARMUP * config.epochs) * steps_per_epoch
    total = config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / max(1.0, math.ceil(warmup))
    passed = (step - warmup) / (total - warmup)
    return config.lr * (1 - passed if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * passed)))


def set_lr(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each parameter group: the step's times the group's `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
