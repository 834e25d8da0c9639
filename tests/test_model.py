"""The network: parameter counts, layers, initialization, batch-norm folding."""

from __future__ import annotations

import math

import pytest
import torch

from cifar100.model import (
    build_model,
    count_parameters,
    fold_batch_norms,
    layer_table,
    resnet18,
    resnet34,
)
from cifar100.support.errors import UserError


def test_parameter_counts() -> None:
    assert count_parameters(resnet18()) == 11_220_132
    assert count_parameters(resnet18(10)) == 11_173_962
    assert count_parameters(resnet34()) == 21_328_292


def test_the_cifar_stem_keeps_32_pixels_and_has_no_max_pool() -> None:
    table = {name: (kind, shape) for name, kind, shape, _ in layer_table(resnet18())}
    assert table["conv1"] == ("Conv2d 3x3/1", (64, 32, 32))
    assert table["layer1.1.conv2"][1] == (64, 32, 32)
    assert [table[f"layer{i}.1.conv2"][1] for i in (2, 3, 4)] == [(128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_other_numbers_of_classes_and_image_sizes() -> None:
    assert resnet18(7)(torch.zeros(2, 3, 48, 48)).shape == (2, 7)


def test_convolutions_use_kaiming_fan_out_initialization() -> None:
    torch.manual_seed(0)
    weight = resnet18().layer3[1].conv1.weight  # type: ignore[union-attr]
    assert isinstance(weight, torch.Tensor)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UserError, match="resnet50") as raised:
        build_model("resnet50", 10)
    assert raised.value.code == "model.unknown"


def test_folding_batch_norms_preserves_the_logits() -> None:
    torch.manual_seed(0)
    model = resnet18(10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5)
    images, before = torch.randn(4, 3, 32, 32), {name: t.clone() for name, t in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the original model was changed"
