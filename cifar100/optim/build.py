"""The optimizer of a run and its parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cifar100.compute.device import Compute
from cifar100.config import OptimConfig
from cifar100.optim.muon import Muon


def build_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer that `config` names, with one parameter group per combination of weight decay, `lr_scale` (the
    ratio of the group's learning rate to the step's, see `set_lr`) and `use_muon`. `fused` applies to SGD
    (`uses_fused_sgd`)."""
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        use_muon = config.optimizer == "muon" and parameter.ndim == 4
        is_decayed = not use_muon and (parameter.ndim > 1 or config.decay_norms)
        decay = config.weight_decay if is_decayed else 0.0
        lr_scale = config.muon_lr / config.lr if use_muon else 1.0
        groups.setdefault((decay, lr_scale, use_muon), []).append(parameter)
    keys = ("weight_decay", "lr_scale", "use_muon")
    settings: list[dict[str, Any]] = [
        {"params": parameters} | dict(zip(keys, key, strict=True)) for key, parameters in groups.items()
    ]
    common: dict[str, Any] = {"lr": config.lr, "momentum": config.momentum, "nesterov": config.nesterov}
    if config.optimizer == "muon":
        return Muon(settings, **common)
    return torch.optim.SGD(settings, **common, fused=fused or None)  # None: PyTorch chooses


def uses_fused_sgd(compute: Compute) -> bool:
    """Whether SGD updates all weights in a single kernel: on CUDA, unless the loss is scaled.

    In a step that the scaler skips, the fused kernel of PyTorch 2.11 still changes the momentum
    (https://github.com/LibreYOLO/libreyolo/pull/771), which is uninitialized memory before the first step.
    """
    return compute.device.type == "cuda" and compute.precision != "fp16"
