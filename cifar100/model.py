"""ResNet for 32x32 images (He et al. 2016, https://arxiv.org/abs/1512.03385), with the CIFAR stem.

The first convolution is 3x3 with stride 1 and no max-pool follows: 32x32 images are too small for the 7x7
stride-2 stem of ImageNet. Parameter names are torchvision's, so state dicts are interchangeable with
a torchvision ResNet that has this stem.

    python model.py               a table of the layers of resnet18, their output shapes and parameters
    python model.py resnet34
"""

from __future__ import annotations

if __name__ == "__main__":  # `python model.py` is `cifar100 model`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["model"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar100.compute.amx_convolution import Conv1x1, Conv3x3
from cifar100.support.errors import UserError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual (shortcut) connection: [B, in, H, W] -> [B, out, H/stride, W/stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv3x3(in_channels, out_channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                Conv1x1(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """Normalized images [B, 3, H, W] -> logits [B, num_classes].

    `depths` counts the blocks of the four stages, which are 1, 2, 4 and 8 times `width` channels wide.
    """

    def __init__(self, depths: tuple[int, int, int, int], num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = Conv3x3(3, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(depths[0], width, width, stride=1)
        self.layer2 = _stage(depths[1], width, 2 * width, stride=2)
        self.layer3 = _stage(depths[2], 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(depths[3], 4 * width, 8 * width, stride=2)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                # He et al. 2015, https://arxiv.org/abs/1502.01852. On "meta" it would import torch._dynamo: 2 s.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.feature_maps(x).mean(dim=(2, 3))  # [B, 8 width]: global average pooling
        return self.fc(x)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Normalized images [B, 3, H, W] -> the output of the last stage [B, 8 width, H/8, W/8]."""
        x = F.relu(self.bn1(self.conv1(x)))  # [B, width, H, W]
        x = self.layer1(x)  # [B, width, H, W]
        x = self.layer2(x)  # [B, 2 width, H/2, W/2]
        x = self.layer3(x)  # [B, 4 width, H/4, W/4]
        return self.layer4(x)


def _stage(depth: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    blocks = [BasicBlock(in_channels, out_channels, stride)]
    blocks += [BasicBlock(out_channels, out_channels, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def resnet18(num_classes: int = 100) -> ResNet:
    """ResNet-18: 11,220,132 parameters for 100 classes, 0.56 GFLOP (multiply-adds) per 32x32 image."""
    return ResNet((2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 100) -> ResNet:
    """ResNet-34: 21,328,292 parameters for 100 classes, 1.16 GFLOP (multiply-adds) per 32x32 image."""
    return ResNet((3, 4, 6, 3), num_classes)


def build_model(name: str, num_classes: int) -> ResNet:
    """A new network. Raises UserError if the name is unknown."""
    networks = {"resnet18": resnet18, "resnet34": resnet34}
    if name not in networks:
        raise UserError("model.unknown", f"There is no model {name!r}; choose from {', '.join(networks)}.")
    return networks[name](num_classes)


def fold_batch_norms(model: ResNet) -> ResNet:
    """A copy of `model` for inference, in which each batch norm is folded into the convolution before it."""
    folded = deepcopy(model).eval()
    for module in folded.modules():
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):  # "0", "1": `downsample`
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return folded.requires_grad_(False)


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def layer_table(model: nn.Module, image_size: int = 32) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, kind, output shape without the batch, parameters) of each layer that has parameters, in order of use."""
    rows: list[tuple[str, str, tuple[int, ...], int]] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):

            def note(layer: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                kind = type(layer).__name__
                if isinstance(layer, nn.Conv2d):
                    kind = f"Conv2d {layer.kernel_size[0]}x{layer.kernel_size[1]}/{layer.stride[0]}"
                rows.append((name, kind, tuple(output.shape[1:]), count_parameters(layer)))

            hooks.append(module.register_forward_hook(note))
    was_training = model.training
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return rows


def summary(name: str, num_classes: int = 100, image_size: int = 32) -> str:
    """The layers of a network as a plain-text table, with its parameter count."""
    model = build_model(name, num_classes)
    lines = [
        f"{name}: {num_classes} classes, {image_size}x{image_size} RGB images",
        "",
        f"{'layer':<24}{'kind':<16}{'output':<16}{'parameters':>12}",
    ]
    for layer, kind, shape, parameters in layer_table(model, image_size):
        lines.append(f"{layer:<24}{kind:<16}{' x '.join(map(str, shape)):<16}{parameters:>12,}")
    total = count_parameters(model)
    lines += ["", f"Total parameters: {total:,} ({total / 1e6:.1f}M), {total * 4 / 2**20:.1f} MiB as fp32"]
    return "\n".join(lines)
