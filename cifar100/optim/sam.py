"""Sharpness-aware minimization (SAM): the gradient at the perturbed weights updates the original ones."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, on which torch.optim is built, take one kernel launch on a GPU for all weights

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def sam_perturbation(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, rho: float, friendly: float
) -> Iterator[None]:
    """Inside, the weights are perturbed by `rho` along their gradients; afterwards, they and the running statistics are
    restored, and the gradients that were computed inside remain.

    Foret et al. 2021, https://arxiv.org/abs/2010.01412. With `friendly` in (0, 1), the direction is the gradient minus
    its EMA with this coefficient (Li et al. 2024, https://arxiv.org/abs/2403.12350, with sigma = 1); the EMA is part of
    the optimizer's state.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
    moved = [*(weight.detach() for weight in weights), *model.buffers()]
    moved = [[tensor for tensor in moved if tensor.is_floating_point() == numbers] for numbers in (True, False)]
    before = [[tensor.clone() for tensor in alike] for alike in moved]  # restored in one kernel launch per kind
    with torch.no_grad():
        direction = [weight.grad for weight in weights if weight.grad is not None]
        if friendly:
            for weight in weights:
                if "gradient_mean" not in optimizer.state[weight]:
                    optimizer.state[weight]["gradient_mean"] = torch.zeros_like(weight)
            means = [optimizer.state[weight]["gradient_mean"] for weight in weights]
            torch._foreach_lerp_(means, direction, 1 - friendly)
            direction = torch._foreach_sub(direction, means)
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(direction)))
        torch._foreach_add_(weights, torch._foreach_mul(direction, rho / (length + 1e-12)))
    try:
        yield
    finally:
        for alike, values in zip(moved, before, strict=True):
            if alike:
                torch._foreach_copy_(alike, values)
