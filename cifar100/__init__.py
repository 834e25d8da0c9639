"""cifar100: train, evaluate and use a ResNet-18 on CIFAR-100. Importing it loads nothing until a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cifar100.version import __version__

if TYPE_CHECKING:
    from cifar100.config import Config
    from cifar100.inference import Predictor, load_predictor
    from cifar100.model import resnet18, resnet34

__all__ = ["Config", "Predictor", "__version__", "load_predictor", "resnet18", "resnet34"]

_MODULES = {
    "Config": "config",
    "Predictor": "inference",
    "load_predictor": "inference",
    "resnet18": "model",
    "resnet34": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
