"""The optimizers, their parameter groups, and the learning rate of every step."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, of which torch.optim is made, take one launch on a GPU for all weights

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cifar100.compute.device import cpu_has_fast_bf16
from cifar100.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, with a parameter group for each treatment.

    A group's `lr_scale` is what its rate is to the step's (`set_lr`).
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
    kind = Muon if config.optimizer == "muon" else torch.optim.SGD
    return kind(settings, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


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
                norms = zip(parameters, torch._foreach_norm(parameters), strict=True)
                factors = [len(parameter) ** 0.5 / norm.clamp(min=1e-7) for parameter, norm in norms]
                torch._foreach_mul_(parameters, factors)
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


def _orthogonal(updates: list[Tensor]) -> list[Tensor]:
    """Each [out, in, H, W], orthogonalised as the matrix [out, in * H * W]; those of one shape together, for speed."""
    places: dict[torch.Size, list[int]] = {}
    for place, update in enumerate(updates):
        places.setdefault(update.shape, []).append(place)
    results = list(updates)
    for (rows, channels, height, width), same in places.items():
        # in channels_last, the memory format of weights except on MPS, they are matrices already
        matrices = torch.stack([updates[place].permute(0, 2, 3, 1).flatten(1) for place in same])
        for place, matrix in zip(same, newton_schulz(matrices), strict=True):
            results[place] = matrix.view(rows, height, width, channels).permute(0, 3, 1, 2)
    return results


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """[N, rows, columns] -> about the nearest matrices whose singular values are all 1; float32.

    A quintic Newton-Schulz iteration with Jordan's coefficients (3.4445, -4.7750, 2.0315), which reach 0.7..1.2 in five
    steps rather than 1 at last.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).to(newton_schulz_dtype(matrices.device))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        factor.diagonal(dim1=1, dim2=2).add_(3.4445)
        x = factor @ x
    return (x.mT if is_tall else x).float()


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
