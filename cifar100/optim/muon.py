"""Muon: SGD with momentum whose updates of convolution weights are orthogonalized."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, on which torch.optim is built, take one kernel launch on a GPU for all weights

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cifar100.compute.device import cpu_has_fast_bf16, cuda_has_bf16


class Muon(torch.optim.Optimizer):
    """SGD with momentum that orthogonalizes the updates of the groups marked `use_muon`.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: the momentum, as a matrix [out, in * 3 * 3], is
    replaced by the nearest matrix with equal singular values. A batch norm follows each convolution, so the norm of its
    weights only scales the effective learning rate; it is kept at sqrt(out) as in the author's airbench94_muon, without
    weight decay. Other groups are updated as by torch.optim.SGD. torch.optim.Muon is not used: it takes only 2-D
    parameters, has no foreach implementation and does not normalize the weights.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, nesterov: bool) -> None:
        defaults = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, "use_muon": False}
        super().__init__(params, {"lr": lr} | defaults)

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient. Closures are not supported."""
        for group in self.param_groups:
            parameters, updates = self.prepare_updates(group)
            if parameters:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    @torch.no_grad()
    def prepare_updates(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of a group that have a gradient, and what to subtract from them times the learning rate.

        Weights of a `use_muon` group are scaled to their target norm here.
        """
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return [], []
        updates = self._updates(parameters, group)
        if group["use_muon"]:
            updates = _orthogonalize(updates)
            norms = torch.stack(torch._foreach_norm(parameters)).clamp(min=1e-7)
            factors = norms.reciprocal() * _target_norms(tuple(map(len, parameters)), norms.device)
            torch._foreach_mul_(parameters, factors.unbind())
        return parameters, updates

    def _updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The updates of SGD before multiplication by the learning rate: gradients with weight decay and momentum."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        return list(torch._foreach_add(gradients, momenta, alpha=group["momentum"])) if group["nesterov"] else momenta


@lru_cache(maxsize=8)  # copying it to a GPU in every step would synchronize
def _target_norms(rows: tuple[int, ...], device: torch.device) -> Tensor:
    """float32 [N]: the norm of weights with these numbers of output channels."""
    return torch.tensor([count**0.5 for count in rows], device=device)


def _orthogonalize(updates: list[Tensor]) -> list[Tensor]:
    """Each [out, in, H, W], orthogonalized as a matrix [out, in * H * W]; those with the same shorter side together."""
    indices: dict[torch.Size, list[int]] = {}
    for index, update in enumerate(updates):
        indices.setdefault(update.shape, []).append(index)
    shapes: dict[int, list[torch.Size]] = {}
    for shape in indices:
        shapes.setdefault(min(shape[0], shape[1:].numel()), []).append(shape)
    results = list(updates)
    for alike in shapes.values():
        # in channels_last, the memory format of weights except on MPS, they are matrices already
        stacks = [
            torch.stack([updates[index].permute(0, 2, 3, 1).flatten(1) for index in indices[shape]]) for shape in alike
        ]
        for shape, stack in zip(alike, newton_schulz(stacks), strict=True):
            rows, channels, height, width = shape
            for index, matrix in zip(indices[shape], stack, strict=True):
                results[index] = matrix.view(rows, height, width, channels).permute(0, 3, 1, 2)
    return results


def newton_schulz(stacks: list[Tensor]) -> list[Tensor]:
    """Matrices [N, rows, columns], the same shorter side in each stack -> about the nearest matrices whose singular
    values are all 1; float32.

    Five quintic Newton-Schulz iterations with Jordan's coefficients (3.4445, -4.7750, 2.0315), which yield singular
    values of 0.7..1.2. They run on the Gram matrices, which are several times smaller, and are applied to the matrices
    after the third and the fifth iteration: after the fifth alone, bf16 gives singular values above 100.
    """
    dtype = newton_schulz_dtype(stacks[0].device)
    is_tall = [stack.shape[1] > stack.shape[2] for stack in stacks]
    wide = [(stack.mT if tall else stack).to(dtype) for stack, tall in zip(stacks, is_tall, strict=True)]
    wide = [x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7) for x in wide]
    for steps in (3, 2):
        product = _gram_iterations(torch.cat([x @ x.mT for x in wide]), steps)
        wide = [part @ x for part, x in zip(product.split([len(x) for x in wide]), wide, strict=True)]
    results = [x.mT if tall else x for x, tall in zip(wide, is_tall, strict=True)]
    # contiguous, or one transposed update would make `_foreach_add_` update all weights one by one
    return [x.to(torch.float32, memory_format=torch.contiguous_format).contiguous() for x in results]


def _gram_iterations(gram: Tensor, steps: int) -> Tensor:
    """Gram matrices of X, [N, rows, rows] -> the matrices to multiply X by for this number of iterations."""
    product = factor = _quintic(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = _quintic(gram)
        product = factor @ product
    return product


def _quintic(gram: Tensor) -> Tensor:
    """The matrix that one iteration multiplies X by, from its Gram matrix."""
    factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
    factor.diagonal(dim1=1, dim2=2).add_(3.4445)
    return factor


def newton_schulz_dtype(device: torch.device) -> torch.dtype:
    """bf16, or fp32 without fast bf16: CPUs emulate it at a hundredth of the speed, Pascal GPUs cannot multiply it."""
    if (device.type == "cpu" and not cpu_has_fast_bf16()) or (device.type == "cuda" and not cuda_has_bf16()):
        return torch.float32
    return torch.bfloat16
