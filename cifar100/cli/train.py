"""cifar100 train"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Literal

from cifar100.checkpoints.version1 import upgrade_recipe
from cifar100.config import Config
from cifar100.recipes import RECIPES, recipe
from cifar100.support.errors import UserError
from cifar100.support.old_settings import RENAMED


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train from scratch, or resume an interrupted run.

    The defaults shown are those of the recipe, which overrides cifar100/config.py.
    """

    recipe: Literal["baseline", "fast", "best", "finetune"] = "baseline"
    """Named settings to start from; flags override them."""

    resume: bool = False
    """Resume the run in --run-dir, exactly, with its own settings."""

    config: Config

    def run(self) -> int:
        from cifar100.train import train

        result = train(self.config, recipe=self.recipe, resume=self.resume)
        return 130 if isinstance(result.stopped_by, Signals) else 0

    @staticmethod
    def current_flags(words: Sequence[str]) -> list[str]:
        """The arguments with current names in place of those of earlier versions."""
        flags = {f"--{old.replace('_', '-')}": f"--{new.replace('_', '-')}" for old, new in RENAMED.items()}
        split = [word.partition("=") for word in words]
        return [flags.get(name.replace("_", "-"), name) + sign + value for name, sign, value in split]

    @staticmethod
    def default(words: Sequence[str]) -> Train:
        """The defaults of the flags: those of the recipe, or with --resume the settings of the run.

        Raises UserError if the config.json of the run cannot be used.
        """
        early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        early.add_argument("--recipe", default="baseline")
        early.add_argument("--epochs", default="")
        early.add_argument("--resume", action="store_true")
        early.add_argument("--run-dir", "--run_dir", type=Path, default=Config().run.run_dir)
        known, _ = early.parse_known_args(words)
        name = known.recipe if known.recipe in RECIPES else "baseline"
        saved = known.run_dir / "config.json"
        if known.resume and os.path.isfile(saved):
            try:
                values = upgrade_recipe(json.loads(saved.read_text(encoding="utf-8")))
                name = values["recipe"]
                # the run may have been moved or copied since
                config = Config.from_flat(values["settings"]).replace(run_dir=known.run_dir)
                return Train(config=config, recipe=name if name in RECIPES else "baseline")
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
                reason = str(error) if isinstance(error, UserError) else f"it is damaged ({type(error).__name__})."
                message = f"{saved} cannot be used: {reason} Move it away and give the settings of the run as flags."
                raise UserError("resume.config", message) from None
        epochs = int(known.epochs) if re.fullmatch("[1-9][0-9]{0,8}", known.epochs) else None  # tyro refuses others
        return Train(config=recipe(name, epochs), recipe=name)
