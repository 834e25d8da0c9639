"""ResNet-18, RandAugment and TrivialAugment compared with torchvision. Collected only if torchvision is installed:
nothing else needs it, and each of its builds requires one build of PyTorch."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from augmentation.test_auto_augment import some_images
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, autoaugment

from cifar100.augmentation.auto_augment import MAX_LEVEL, Op, apply_policy
from cifar100.config import PolicyName
from cifar100.model import resnet18

NAMES = {
    Op.IDENTITY: "Identity",
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateX",
    Op.TRANSLATE_Y: "TranslateY",
    Op.ROTATE: "Rotate",
    Op.BRIGHTNESS: "Brightness",
    Op.COLOR: "Color",
    Op.CONTRAST: "Contrast",
    Op.SHARPNESS: "Sharpness",
    Op.POSTERIZE: "Posterize",
    Op.SOLARIZE: "Solarize",
    Op.AUTOCONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
}
OPPOSITE_SIGN = {Op.TRANSLATE_X, Op.TRANSLATE_Y}
"""Operations with the opposite sign in torchvision; signs are random in both."""

ROUNDED = {Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS, Op.AUTOCONTRAST}
"""Floating-point operations, whose results may differ by 1 due to rounding."""


def with_cifar_stem() -> nn.Module:
    """torchvision's ResNet-18 with the CIFAR stem."""
    model = torchvision.models.resnet18(num_classes=100)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_resnet18_equals_torchvisions(training: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = resnet18().train(training), with_cifar_stem().train(training)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    outputs, gradients = [], []
    for model in (ours, theirs):
        logits = model(images)
        nn.functional.cross_entropy(logits, labels).backward()
        outputs.append(logits.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() <= 1e-3 * gradient.norm(), name


def space(policy: PolicyName) -> dict[str, tuple[torch.Tensor, bool]]:
    """{operation: (strength at each level, whether it has a sign)} of torchvision."""
    if policy == "rand":
        return autoaugment.RandAugment()._augmentation_space(MAX_LEVEL + 1, (32, 32))
    return autoaugment.TrivialAugmentWide()._augmentation_space(MAX_LEVEL + 1)


def by_torchvision(image: np.ndarray, op: Op, strength: float) -> np.ndarray:
    changed: Any = autoaugment._apply_op(
        Image.fromarray(image), NAMES[op], strength, interpolation=InterpolationMode.NEAREST, fill=None
    )
    return np.asarray(changed)


@pytest.mark.parametrize("policy", ["rand", "trivial"])
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name)
def test_operations_equal_torchvisions(op: Op, policy: PolicyName) -> None:
    images = some_images(8)
    strengths, signed = space(policy)[NAMES[op]]
    for level in range(MAX_LEVEL + 1):
        for sign in (1, -1) if signed else (1,):
            batch = torch.from_numpy(images)
            levels = torch.full((len(images), 1), sign * level)
            ours = apply_policy(batch, torch.full((len(images), 1), int(op)), levels, policy).numpy()
            strength = round(float(strengths[level]), 4) if strengths.ndim else 0.0  # 15.9999 px would become 15
            strength *= (-sign if op in OPPOSITE_SIGN else sign) if signed else 1
            theirs = np.stack([by_torchvision(image, op, strength) for image in images])
            different = ours != theirs
            if op == Op.SOLARIZE:  # ours inverts from 256 - 256 n/30 on, theirs from 255 - 255 n/30
                assert set(images[different]) <= set(range(int(strength), int(strength) + 3)), level
            elif op in ROUNDED:
                assert np.abs(ours.astype(int) - theirs).max() <= 1, (level, sign)
                assert different.mean() < 0.01, (level, sign)
            else:
                assert not different.any(), (level, sign)
