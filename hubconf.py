"""Entry points for `torch.hub`: `torch.hub.load("cifar100/cifar100", "resnet18", pretrained=True)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar100.inference import Predictor
    from cifar100.model import ResNet

dependencies = ["torch", "numpy", "PIL", "safetensors"]


def resnet18(pretrained: bool = False, num_classes: int = 100) -> ResNet:
    """ResNet-18 with the CIFAR stem: float32 [B, 3, 32, 32] -> logits [B, num_classes].

    `pretrained` loads the CIFAR-100 weights of this package, in evaluation mode. Their input is an RGB image in 0..1,
    normalized per channel with the mean (0.5071, 0.4867, 0.4408) and the standard deviation (0.2675, 0.2565, 0.2761).
    """
    from cifar100.checkpoints.weights import load_weights
    from cifar100.model import resnet18 as build

    if not pretrained:
        return build(num_classes)
    if num_classes != 100:
        raise ValueError(f"pretrained weights have 100 classes, not {num_classes}; replace model.fc for your own")
    return load_weights("pretrained").build().eval()


def predictor() -> Predictor:
    """The pretrained model with its resizing, normalization and class names: `predictor().predict("photo.jpg")`."""
    from cifar100.inference import load_predictor

    return load_predictor("pretrained")
