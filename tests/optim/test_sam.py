"""cifar100/optim/sam.py and the step that uses it, against the papers' formulas written out for a small network."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import assert_identical
from torch.nn import functional as F

from cifar100.compute.device import select_device
from cifar100.config import Config, OptimConfig
from cifar100.model import ResNet
from cifar100.optim.build import build_optimizer
from cifar100.optim.sam import sam_perturbation
from cifar100.support.errors import UserError
from cifar100.training.step import TrainStep

CPU = select_device("cpu", "fp32")
RHO = 0.3


def network() -> ResNet:
    torch.manual_seed(0)
    return CPU.prepare(ResNet((1, 1, 1, 1), 5, 8))


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(12, 3, 16, 16, generator=generator), torch.randint(5, (12,), generator=generator))
        for _ in range(count)
    ]


def gradients(model: ResNet, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def by_hand(friendly: float) -> ResNet:
    """Three steps of plain SGD on SAM's gradients."""
    model = network()
    means = [torch.zeros_like(weight) for weight in model.parameters()]
    for images, labels in batches():
        direction = gradients(model, images, labels)
        if friendly:
            means = [friendly * m + (1 - friendly) * g for m, g in zip(means, direction, strict=True)]
            direction = [g - m for g, m in zip(direction, means, strict=True)]
        length = sum((d**2).sum() for d in direction) ** 0.5
        there = copy.deepcopy(model)
        with torch.no_grad():
            for weight, d in zip(there.parameters(), direction, strict=True):
                weight.add_(RHO * d / length)
        second = gradients(there, images, labels)
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), second, strict=True):
                weight.sub_(0.1 * gradient)
    return model


@pytest.mark.parametrize("friendly", [0.0, 0.9])
def test_steps_are_those_of_the_papers(friendly: float) -> None:
    model = network()
    settings = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    config = Config().replace(sam_rho=RHO, sam_friendly=friendly, **settings).optim
    step = TrainStep(model, build_optimizer(model, config), CPU, config)
    for number, (images, labels) in enumerate(batches()):
        step(images, labels, learning_rate=0.1, number=number)
    expected = by_hand(friendly).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-4, atol=1e-5, msg=lambda message, n=name: f"{n}: {message}"
        )


def test_a_climb_is_as_long_as_asked_and_leaves_all_as_it_was_but_the_gradients() -> None:
    model, ((images, labels),) = network(), batches(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = gradients(model, images, labels)
    before = copy.deepcopy(model.state_dict())
    with sam_perturbation(model, optimizer, rho=RHO, friendly=0):
        moved = [weight.detach() - before[name] for name, weight in model.named_parameters()]
        assert float(sum((m**2).sum() for m in moved)) ** 0.5 == pytest.approx(RHO, rel=1e-3)
        second = gradients(model, images, labels)
    assert_identical(before, model.state_dict())
    kept = [weight.grad for weight in model.parameters()]
    assert all(torch.equal(k, s) for k, s in zip(kept, second, strict=True) if k is not None)
    assert not torch.equal(first[0], second[0])


def test_an_error_inside_brings_the_weights_back() -> None:
    model, ((images, labels),) = network(), batches(1)
    gradients(model, images, labels)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(MemoryError), sam_perturbation(model, optimizer, rho=RHO, friendly=0.5):
        raise MemoryError
    assert_identical(before, model.state_dict())


def test_fp16_gradients_have_no_one_scale() -> None:
    model, compute = network(), select_device("cpu", "fp32")
    object.__setattr__(compute, "precision", "fp16")
    config = OptimConfig(sam_rho=0.1, sam_friendly=0.9)
    with pytest.raises(UserError, match="--sam-friendly") as raised:
        TrainStep(model, build_optimizer(model, config), compute, config)
    assert raised.value.code == "train.precision"
