"""The network: its size, its layers, its start; the schedule that trains it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from cifar100.config import Config
from cifar100.errors import UserError
from cifar100.model import build_model, count_parameters, layer_table, resnet18, resnet34
from cifar100.optim import learning_rate


def test_parameter_counts() -> None:
    assert count_parameters(resnet18()) == 11_220_132
    assert count_parameters(resnet18(10)) == 11_173_962
    assert count_parameters(resnet34()) == 21_328_292


def test_the_cifar_stem_keeps_32_pixels_and_has_no_max_pool() -> None:
    table = {name: (kind, shape) for name, kind, shape, _ in layer_table(resnet18())}
    assert table["conv1"] == ("Conv2d 3x3/1", (64, 32, 32))
    assert table["layer1.1.conv2"][1] == (64, 32, 32)
    assert [table[f"layer{i}.1.conv2"][1] for i in (2, 3, 4)] == [(128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_the_head_follows_the_classes_and_any_image_size_goes_through() -> None:
    assert resnet18(7)(torch.zeros(2, 3, 48, 48)).shape == (2, 7)


def test_convolutions_start_as_he_et_al_2015_fan_out() -> None:
    torch.manual_seed(0)
    weight = resnet18().layer3[1].conv1.weight  # type: ignore[union-attr]
    assert isinstance(weight, torch.Tensor)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UserError, match="There is no model 'resnet50'"):
        build_model("resnet50", 10)


def test_warmup_is_linear_and_the_cosine_ends_at_zero() -> None:
    config, steps = Config().optim, 391
    rates = [learning_rate(step, steps, config) for step in range(100 * steps)]
    assert rates[0] == pytest.approx(0.1 / (5 * steps))
    assert rates[5 * steps - 1] == pytest.approx(0.1)
    assert all(b > a for a, b in pairwise(rates[: 5 * steps]))
    middle = 5 * steps + 95 * steps // 2
    assert rates[middle] == pytest.approx(0.05, rel=1e-3)
    assert all(b <= a for a, b in pairwise(rates[5 * steps :]))
    assert 0 < rates[-1] < 1e-6


def test_no_warmup_and_a_warmup_of_half_an_epoch() -> None:
    config = Config().replace(epochs=2, warmup_epochs=0).optim
    assert learning_rate(0, 10, config) == pytest.approx(0.1)
    config = Config().replace(epochs=2, warmup_epochs=0.5).optim
    assert [learning_rate(step, 10, config) for step in (0, 4)] == pytest.approx([0.02, 0.1])
