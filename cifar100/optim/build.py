"""The optimizers, their parameter groups, and the learning rate of every step."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, of which torch.optim is made, take one launch on a GPU for all weights

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cifar100.compute.device import Compute, cpu_has_fast_bf16
from cifar100.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimizer that `config` names, with a parameter group for each treatment.

    A group's `lr_scale` is what its rate is to the step's (`set_lr`). `fused` is of SGD (`uses_fused_sgd`).
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        is_vector = parameter.ndim <= 1
        by_muon = config.optimizer == "muon" and parameter.ndim == 4
        decay = 0.0 if by_muon or (is_vector and not config.decay_norms) else config.weight_decay
        factor = config.muon_lr / config.lr if by_muon else 1.0
        if name.startswith("fc."):
            factor = config.head_lr_factor
        elif is_vector and name.endswith("bias"):
            factor = config.norm_bias_lr_factor
        groups.setdefault((decay, factor, by_muon), []).append(parameter)
    keys = ("weight_decay", "lr_scale", "orthogonal")
    settings: list[dict[str, Any]] = [
        {"params": parameters} | dict(zip(keys, key, strict=True)) for key, parameters in groups.items()
    ]
    common: dict[str, Any] = {"lr": config.lr, "momentum": config.momentum, "nesterov": config.nesterov}
    if config.optimizer == "muon":
        return Muon(settings, **common)
    return torch.optim.SGD(settings, **common, fused=fused or None)  # None: PyTorch chooses


def uses_fused_sgd(compute: Compute) -> bool:
    """Whether SGD updates all weights by a single kernel: on CUDA, but not with a scaled loss.

    On a step that the scaler skips, the fused kernel of PyTorch 2.11 still changes the momentum
    (https://github.com/LibreYOLO/libreyolo/pull/771), and before the first step it is uninitialized memory.
    """
    return compute.device.type == "cuda" and compute.precision != "fp16"


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict that may come from another device: how the update is computed there stays as built here."""
    built = [group.get("fused") for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, fused in zip(optimizer.param_groups, built, strict=True):
        if "fused" in group:
            group["fused"] = fused


def set_lr(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each parameter group its own rate, by the step's."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


class Muon(torch.optim.Optimizer):
    """SGD with momentum whose updates of the groups marked `orthogonal` are orthogonalised.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/: of the momentum, as a matrix [out, in * 3 * 3], only
    the directions are kept, and all get the same length. A batch norm follows each convolution, so the length of its
    weights does nothing but set the pace; it is held at sqrt(out), as in the author's airbench94_muon, and needs no
    weight decay. The other groups are updated as by torch.optim.SGD.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, nesterov: bool) -> None:
        defaults = {"momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(params, {"lr": lr} | defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient. A closure is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure.")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            updates = self._updates(parameters, group)
            if group["orthogonal"]:
                updates = _orthogonal(updates)
                norms = torch.stack(torch._foreach_norm(parameters)).clamp(min=1e-7)
                factors = norms.reciprocal() * _lengths(tuple(map(len, parameters)), norms.device)
                torch._foreach_mul_(parameters, factors.unbind())
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _updates(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """What SGD would subtract, but for the rate: the gradients, with decay and momentum."""
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


@lru_cache(maxsize=8)  # a copy to a GPU in every step would make the CPU wait for it
def _lengths(rows: tuple[int, ...], device: torch.device) -> Tensor:
    """float32 [N]: the norm that weights of so many output channels are held at."""
    return torch.tensor([count**0.5 for count in rows], device=device)


def _orthogonal(updates: list[Tensor]) -> list[Tensor]:
    """Each [out, in, H, W], orthogonalised as the matrix [out, in * H * W]; those of one shorter side together."""
    places: dict[torch.Size, list[int]] = {}
    for place, update in enumerate(updates):
        places.setdefault(update.shape, []).append(place)
    shapes: dict[int, list[torch.Size]] = {}
    for shape in places:
        shapes.setdefault(min(shape[0], shape[1:].numel()), []).append(shape)
    results = list(updates)
    for alike in shapes.values():
        # in channels_last, the memory format of weights except on MPS, they are matrices already
        stacks = [
            torch.stack([updates[place].permute(0, 2, 3, 1).flatten(1) for place in places[shape]]) for shape in alike
        ]
        for shape, stack in zip(alike, newton_schulz(stacks), strict=True):
            rows, channels, height, width = shape
            for place, matrix in zip(places[shape], stack, strict=True):
                results[place] = matrix.view(rows, height, width, channels).permute(0, 3, 1, 2)
    return results


def newton_schulz(stacks: list[Tensor]) -> list[Tensor]:
    """Matrices [N, rows, columns], the same shorter side in each stack -> about the nearest matrices whose singular
    values are all 1; float32.

    Five quintic Newton-Schulz iterations with Jordan's coefficients (3.4445, -4.7750, 2.0315), which reach 0.7..1.2
    rather than 1 at last. They are computed on the Gram matrices, which are several times smaller, and are applied to
    the matrices after the third and the fifth: after the fifth alone, bf16 gives singular values above 100.
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
    """[N, rows, rows], the Gram matrices of X -> the matrices that X times so many iterations is a product with."""
    product = factor = _quintic(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = _quintic(gram)
        product = factor @ product
    return product


def _quintic(gram: Tensor) -> Tensor:
    """What one iteration multiplies X by, from its Gram matrix."""
    factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
    factor.diagonal(dim1=1, dim2=2).add_(3.4445)
    return factor


def newton_schulz_dtype(device: torch.device) -> torch.dtype:
    """bf16, or fp32 on a CPU that would emulate bf16, at a hundredth of the speed."""
    return torch.float32 if device.type == "cpu" and not cpu_has_fast_bf16() else torch.bfloat16


def learning_rate(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The rate of a step, counted from 0 over the whole run: linear warmup to `lr`, then down to 0.

    Down by half a cosine, that of SGDR without restarts (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983),
    or in a straight line.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    total = config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / max(1.0, math.ceil(warmup))
    passed = (step - warmup) / (total - warmup)
    return config.lr * (1 - passed if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * passed)))
