"""Settings of earlier versions, as checkpoints and config.json hold them."""

from __future__ import annotations

from typing import Any

from cifar100.support.errors import UserError

RENAMED = {"peer_seconds": "dist_timeout"}

REMOVED: dict[str, object] = {
    "distill": 0.0,
    "distill_temperature": 1.0,
    "erase_probability": 0.0,
    "head_lr_factor": 1.0,
    "identity_init": False,
    "norm_bias_lr_factor": 1.0,
    "sam_every": 1,
    "zero_init_residual": False,
}
"""{removed setting: its default}, with which training is what it is without the setting."""

LAST_VERSION = "0.2.0"
"""The last version that had the settings in `REMOVED`."""


def upgrade_settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings under today's names, without those that were removed.

    Raises UserError if a removed setting has another value than its default.
    """
    for name, default in REMOVED.items():
        if values.get(name, default) != default:
            raise UserError(
                "config.removed",
                f"The setting {name} is {values[name]!r} and was removed from cifar100; {LAST_VERSION} is the last "
                "version that has it.",
            )
    return {RENAMED.get(name, name): value for name, value in values.items() if name not in REMOVED}
