"""Named settings. The baseline is `config.py` itself; every other recipe lists only what it does differently."""

from __future__ import annotations

from cifar100.config import Config
from cifar100.recipes import baseline, best, fast, finetune

RECIPES = {"baseline": baseline.config, "fast": fast.config, "best": best.config, "finetune": finetune.config}


def recipe(name: str) -> Config:
    """The settings that a recipe's name stands for."""
    return RECIPES[name]()
