"""cifar100: train, evaluate and use a ResNet-18 on CIFAR-100. Importing it loads nothing until a name is used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar100.config import Config
    from cifar100.evaluate import evaluate
    from cifar100.inference import Predictor, load_predictor
    from cifar100.model import resnet18, resnet34
    from cifar100.train import train

__version__ = "0.2.0"
__all__ = ["Config", "Predictor", "evaluate", "load_predictor", "resnet18", "resnet34", "train"]

_HOME = {
    "Config": "config",
    "Predictor": "inference",
    "evaluate": "evaluate",
    "load_predictor": "inference",
    "resnet18": "model",
    "resnet34": "model",
    "train": "train",
}


class _Package(ModuleType):
    """`cifar100.train` and `cifar100.evaluate` are the functions, also after the modules of these names are loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
