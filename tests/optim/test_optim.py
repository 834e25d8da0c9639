"""cifar100/optim/build.py: parameter groups, Muon, and the learning-rate schedule."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.model import ResNet
from cifar100.optim import muon
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.optim.muon import Muon, newton_schulz
from cifar100.optim.schedule import lr_at_step, set_lr


@pytest.fixture
def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), 10, 8)


def named_groups(network: nn.Module, **settings: object) -> dict[str, dict[str, object]]:
    """{parameter name: settings of its parameter group}."""
    optimizer = build_optimizer(network, Config().replace(**settings).optim)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_every_parameter_is_in_one_group(network: ResNet) -> None:
    settings = {"optimizer": "muon", "decay_norms": False}
    optimizer = build_optimizer(network, Config().replace(**settings).optim)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())


def test_settings_of_each_parameter_group(network: ResNet) -> None:
    settings = {"optimizer": "muon", "lr": 0.2, "muon_lr": 0.05}
    groups = named_groups(network, decay_norms=False, **settings)
    expected = {  # (weight decay, learning rate relative to that of the step, whether updated by Muon)
        "conv1.weight": (0.0, 0.25, True),
        "layer2.0.downsample.0.weight": (0.0, 0.25, True),
        "bn1.weight": (0.0, 1.0, False),
        "bn1.bias": (0.0, 1.0, False),
        "fc.weight": (5e-4, 1.0, False),
        "fc.bias": (0.0, 1.0, False),
    }
    for name, (decay, factor, orthogonal) in expected.items():
        group = groups[name]
        assert (group["weight_decay"], group["lr_scale"], group["use_muon"]) == (decay, factor, orthogonal), name


def test_the_baseline_uses_sgd_with_one_parameter_group(network: ResNet) -> None:
    optimizer = build_optimizer(network, Config().optim)
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["weight_decay"], group["lr_scale"], group["nesterov"]) == (5e-4, 1.0, True)


def test_sgd_is_fused_on_cuda_without_a_loss_scaler() -> None:
    places = [("cuda", "bf16"), ("cuda", "fp32"), ("cuda", "fp16"), ("mps", "fp32"), ("cpu", "fp32")]
    fused_by_place = [uses_fused_sgd(Compute(torch.device(device), precision, "")) for device, precision in places]
    assert fused_by_place == [True, True, False, False, False]


def test_weight_decay_of_norms_is_configurable(network: ResNet) -> None:
    optimizer = build_optimizer(network, Config().replace(decay_norms=False).optim)
    shapes = {group["weight_decay"]: {p.ndim for p in group["params"]} for group in optimizer.param_groups}
    assert shapes == {5e-4: {2, 4}, 0.0: {1}}


def test_set_lr_keeps_the_lr_scale_of_each_group(network: ResNet) -> None:
    optimizer = build_optimizer(network, Config().replace(optimizer="muon", lr=0.2, muon_lr=0.05).optim)
    set_lr(optimizer, 0.4)
    assert {group["lr_scale"]: group["lr"] for group in optimizer.param_groups} == {1.0: 0.4, 0.25: 0.1}


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_sgd_for_other_groups(nesterov: bool) -> None:
    torch.manual_seed(0)
    ours = nn.Linear(6, 4)
    theirs = copy.deepcopy(ours)
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov}
    mine = Muon([{"params": list(ours.parameters()), "weight_decay": 1e-2}], **settings)
    reference = torch.optim.SGD(theirs.parameters(), weight_decay=1e-2, **settings)
    for _ in range(4):
        x = torch.randn(8, 6)
        for layer, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_muon_updates_all_convolutions_in_one_operation(network: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_foreach_add_` is a single kernel on a GPU only if each update has the strides of its weight."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(network, Config().replace(optimizer="muon").optim)
    network(torch.randn(4, 3, 16, 16)).logsumexp(1).sum().backward()
    foreach_add, strides = torch._foreach_add_, []

    def recorded(weights: list[torch.Tensor], updates: list[torch.Tensor], **alpha: float) -> None:
        strides.extend(
            (weight.squeeze().stride(), update.squeeze().stride())
            for weight, update in zip(weights, updates, strict=True)
        )
        foreach_add(weights, updates, **alpha)

    monkeypatch.setattr(torch, "_foreach_add_", recorded)
    optimizer.step()
    assert len(strides) == 2 * len(list(network.parameters())), "expected one update of momentum and one of weights"
    assert [pair for pair in strides if pair[0] != pair[1]] == []


def test_newton_schulz_of_zero_is_finite() -> None:
    (result,) = newton_schulz([torch.zeros(1, 4, 9)])
    assert torch.isfinite(result).all()


def plain_newton_schulz(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The reference implementation of Muon's author: five iterations on the matrix itself."""
    x = matrix.to(dtype)
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.float()


@pytest.mark.parametrize("decades", [0, 1.5, 4, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_newton_schulz_on_gram_matrices_equals_the_plain_iteration(
    decades: float, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for ill-conditioned matrices, for which bf16 is unstable if X is never recomputed, and for tall and wide
    matrices in one call."""
    torch.manual_seed(0)
    matrices = []
    for rows, columns in ((64, 576), (64, 128), (128, 64)):
        u, v = (torch.linalg.qr(torch.randn(side, 64))[0] for side in (rows, columns))
        matrices.append(u @ torch.diag(torch.logspace(0, -decades, 64)) @ v.T)
    monkeypatch.setattr(muon, "newton_schulz_dtype", lambda _device: dtype)
    for matrix, stack in zip(matrices, newton_schulz([matrix[None] for matrix in matrices]), strict=True):
        result = stack[0]
        assert result.shape == matrix.shape
        expected = plain_newton_schulz(matrix if len(matrix) == 64 else matrix.mT, dtype)
        lengths = torch.linalg.svdvals(result)
        assert lengths.max() < 1.25
        torch.testing.assert_close(lengths, torch.linalg.svdvals(expected), rtol=0, atol=tolerance)
        if dtype == torch.float32:
            wide = result if len(matrix) == 64 else result.mT
            torch.testing.assert_close(wide, expected, rtol=0, atol=tolerance)


def test_the_relative_update_of_a_convolution_is_about_the_learning_rate(network: ResNet) -> None:
    """Weights are normalized to a norm of sqrt(out_channels); a step changes them by about the learning rate times that
    norm, independent of the size of the gradient."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(network, Config().replace(optimizer="muon", muon_lr=0.1, lr=0.1, momentum=0.9).optim)
    weight = network.get_parameter("layer1.0.conv1.weight")
    before = weight.detach() * (len(weight) ** 0.5 / weight.detach().norm())
    loss = network(torch.randn(4, 3, 16, 16)).logsumexp(1).sum() * 1e-3
    loss.backward()
    optimizer.step()
    moved = (weight.detach() - before).norm() / len(weight) ** 0.5
    assert 0.06 < moved < 0.13
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_warmup_is_linear_and_the_cosine_ends_at_zero() -> None:
    config, steps = Config().optim, 391
    rates = [lr_at_step(step, steps, config) for step in range(100 * steps)]
    assert rates[0] == pytest.approx(0.1 / (5 * steps))
    assert rates[5 * steps - 1] == pytest.approx(0.1)
    assert all(b > a for a, b in pairwise(rates[: 5 * steps]))
    middle = 5 * steps + 95 * steps // 2
    assert rates[middle] == pytest.approx(0.05, rel=1e-3)
    assert all(b <= a for a, b in pairwise(rates[5 * steps :]))
    assert 0 < rates[-1] < 1e-6


def test_learning_rates_without_warmup_and_with_half_an_epoch_of_warmup() -> None:
    config = Config().replace(epochs=2, warmup_epochs=0).optim
    assert lr_at_step(0, 10, config) == pytest.approx(0.1)
    config = Config().replace(epochs=2, warmup_epochs=0.5).optim
    assert [lr_at_step(step, 10, config) for step in (0, 4)] == pytest.approx([0.02, 0.1])


def test_warmup_takes_at_most_a_third_of_a_short_run() -> None:
    config = Config().replace(epochs=3, warmup_epochs=5).optim
    rates = [lr_at_step(step, 10, config) for step in range(30)]
    assert rates[9] == rates[10] == max(rates) == pytest.approx(0.1)
    assert all(b < a for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_the_linear_schedule_ends_at_zero() -> None:
    config = Config().replace(epochs=10, warmup_epochs=2, lr=1.0, schedule="linear").optim
    rates = [lr_at_step(step, 5, config) for step in range(50)]
    assert max(rates) == rates[9] == rates[10] == 1.0
    falls = [a - b for a, b in pairwise(rates[10:])]
    assert falls == pytest.approx([1 / 40] * len(falls))
    assert rates[-1] == pytest.approx(1 / 40)
