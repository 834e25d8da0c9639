"""cifar100 model"""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from cifar100.config import ModelName
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit


@dataclass(frozen=True, kw_only=True)
class Model:
    """Print the layers of a network, output shapes and parameters."""

    name: Positional[ModelName] = "resnet18"
    """Architecture."""

    num_classes: int = 100
    """Number of classes."""

    image_size: int = 32
    """Input resolution, in pixels."""

    def run(self) -> int:
        from cifar100.model import summary

        for flag, value in (("--num-classes", self.num_classes), ("--image-size", self.image_size)):
            if value < 1:
                raise UserError("config.value", f"{flag} is {value}; it must be 1 or more.")
        emit(summary(self.name, self.num_classes, self.image_size))
        return 0
