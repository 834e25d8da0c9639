"""Settings as checkpoints and config.json hold them, also those of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifar100.support.errors import UserError

RENAMED = {"peer_seconds": "dist_timeout"}

REMOVED: dict[str, object] = {
    "distill": 0.0,
    "distill_temperature": 1.0,
    "erase_probability": 0.0,
    "freeze_stem": False,
    "head_lr_factor": 1.0,
    "identity_init": False,
    "norm_bias_lr_factor": 1.0,
    "sam_every": 1,
    "sam_friendly": 0.0,
    "sam_rho": 0.0,
    "zero_init_residual": False,
}
"""{removed setting: its default}, with which training is what it is without the setting."""

LAST_VERSION = "0.2.0"
"""The last version that had the settings in `REMOVED`."""


def restore_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings from values of JSON types, under today's names, without those that were removed.

    Raises UserError if a removed setting has another value than its default.
    """
    for name, default in REMOVED.items():
        if values.get(name, default) != default:
            raise UserError(
                "config.removed",
                f"The setting {name} is {values[name]!r} and was removed after cifar100 {LAST_VERSION}.",
            )
    kept = {RENAMED.get(name, name): value for name, value in values.items() if name not in REMOVED}
    return {name: _from_json(name, value) for name, value in kept.items()}


def _from_json(name: str, value: Any) -> Any:
    if name in ("data_dir", "run_dir", "init_from") and isinstance(value, str):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
