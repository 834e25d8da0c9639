"""Whether a device computes the gradients that the CPU computes: some releases of PyTorch return wrong ones silently,
such as those of batch norm on Apple GPUs (https://github.com/pytorch/pytorch/issues/175189)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.compute.device import Compute, memory_format
from cifar100.model import resnet18
from cifar100.support.errors import UserError

TOLERANCES = {"fp32": 0.01, "bf16": 0.4, "fp16": 0.1}
"""Largest relative error of a gradient tensor that counts as rounding, for each precision. Measured on a CPU: 0.0001,
0.11 and 0.013; with other random numbers up to 0.005, 0.36 and 0.034."""

NUM_IMAGES, IMAGE_SIZE = 8, 16

_LOSS_SCALE = 1024.0  # a power of two, so exact: it keeps fp16 gradients from underflowing


@dataclass(frozen=True)
class GradientCheck:
    """The gradient tensor that differs most from the CPU's in fp32: the name of its parameter, and the norm of the
    difference divided by the norm of the CPU's gradient (infinite if the gradient is not finite)."""

    passed: bool
    tensor_name: str = ""
    """"" if nothing was compared."""
    relative_error: float = 0.0
    limit: float = 0.0
    """That of `TOLERANCES`."""
    error: str = ""
    """What PyTorch raised instead of computing gradients."""


def compare_gradients(compute: Compute) -> GradientCheck:
    """Compare the gradients of one small batch, 8 random images of 16x16 through resnet18, on the device and in the
    precision of `compute` with those of the CPU in fp32. Takes about a second; the random state is left as it was.
    """
    limit = TOLERANCES[compute.precision]
    try:
        expected = _gradients(Compute(torch.device("cpu"), "fp32", "the reference"))
        actual = _gradients(compute)
    except RuntimeError as error:
        return GradientCheck(passed=False, limit=limit, error=(str(error).splitlines() or ["?"])[0][:200])
    errors = {name: _relative_error(actual[name], expected[name]) for name in expected}
    worst = max(errors, key=errors.__getitem__)
    return GradientCheck(errors[worst] <= limit, worst, errors[worst], limit)


def check_gradients(compute: Compute) -> None:
    """Raise UserError if a gradient tensor on this device deviates by more than `TOLERANCES` allows, or if PyTorch
    cannot compute the gradients there at all."""
    check = compare_gradients(compute)
    if check.passed:
        return
    amount = f"{check.relative_error:.1%} of its norm (limit {check.limit:.0%})"
    wrong = f"wrong gradients: that of {check.tensor_name} deviates from the CPU's by {amount}"
    problem = f"no gradients ({check.error})" if check.error else wrong
    raise UserError(
        "device.gradients",
        f"PyTorch {torch.__version__} on this machine's {compute.device.type} device computes {problem}. Install a "
        "newer PyTorch, or give --device cpu.",
    )


def _gradients(compute: Compute) -> dict[str, Tensor]:
    """The gradient of each parameter, fp32 on the CPU; the network and the batch are the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18()
        for module in model.modules():
            # Few activations are then near 0: a single ReLU that rounding opens or closes can change a gradient by 1 %.
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 3.0)
        images = torch.randn(NUM_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE)
    model = compute.prepare(model)
    images = images.to(compute.device).contiguous(memory_format=memory_format(compute.device))
    labels = torch.arange(NUM_IMAGES, device=compute.device)
    with compute.autocast():
        loss = F.cross_entropy(model(images).float(), labels)
    with compute.full_precision():
        (loss * _LOSS_SCALE).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient.cpu() / _LOSS_SCALE for name, gradient in gradients.items() if gradient is not None}


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    error = ((actual - expected).norm() / expected.norm()).item()
    return error if math.isfinite(error) else math.inf
