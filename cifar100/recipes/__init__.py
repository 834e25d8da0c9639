"""Named settings. The baseline is `config.py`; every other recipe lists only what differs from it."""

from __future__ import annotations

from dataclasses import replace

from cifar100.config import Config
from cifar100.recipes import baseline, best, fast, finetune

RECIPES = {"baseline": baseline.config, "fast": fast.config, "best": best.config, "finetune": finetune.config}


def recipe(name: str, epochs: int | None = None) -> Config:
    """The settings of the recipe `name`, one of RECIPES. Raises KeyError if there is no such recipe.

    `epochs` replaces the recipe's own number of epochs. Other settings depend on it, such as the warmup of the fast
    recipe, so do not change `epochs` in the result.
    """
    return RECIPES[name]() if epochs is None else RECIPES[name](epochs)


def is_modified(name: str, config: Config) -> bool:
    """Whether settings other than the seed and `RunConfig` differ from the recipe of that name; False if there is no
    such recipe."""
    return name in RECIPES and _comparable(config) != _comparable(recipe(name))


def _comparable(config: Config) -> Config:
    default = Config()
    return replace(config, run=default.run, optim=replace(config.optim, seed=default.optim.seed))
