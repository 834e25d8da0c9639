"""Resuming a run: whether the checkpoint is of the same run, and loading its state."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.validation import tensor_problem
from cifar100.config import Config, RunConfig
from cifar100.dataset import Dataset
from cifar100.support.errors import UserError
from cifar100.support.settings import flag, is_number
from cifar100.support.text import setting_text
from cifar100.training.logger import COLUMNS
from cifar100.training.run import LoopState
from cifar100.training.step import TrainStep

_MOVE_AWAY = "move it away to resume from an earlier checkpoint."


def check_resumable(path: Path, checkpoint: Checkpoint, config: Config, dataset: Dataset) -> None:
    """Raise UserError, naming what differs, if the checkpoint in `path` is not of the same run."""
    if not checkpoint.loop or not checkpoint.optimizer:
        raise UserError("resume.weights_only", f"--resume: {path} holds weights only, and no state to resume from.")
    may_change = {setting.name for setting in fields(RunConfig)}
    try:
        before = Config.from_flat(checkpoint.config)
    except UserError as error:
        raise UserError(error.code, f"--resume: the settings in {path} cannot be used. {error}") from None
    loop = asdict(LoopState()) | checkpoint.loop
    rows = checkpoint.history
    if not (_is_loop_state(loop) and all(map(_is_row, rows)) and len(rows) == loop["epoch"] <= before.optim.epochs):
        raise UserError(
            "resume.state", f"--resume: {path} is not a checkpoint that a run of this version writes; {_MOVE_AWAY}"
        )
    changes = [
        f"{flag(name)} was {setting_text(was)} and is now {setting_text(now)}"
        for name, (was, now) in before.differences(config).items()
        if name not in may_change
    ]
    if changes:
        message = f"--resume continues with the same settings, but {'; '.join(changes)}. Give them as they were."
        if before.optim.epochs < config.optim.epochs:
            message += f" To train for longer, start another run with --init-from {path}."
        raise UserError("resume.settings", message)
    if checkpoint.dataset.fingerprint != dataset.train.fingerprint:
        message = f"--resume: the training images differ from those of the run, which were {checkpoint.dataset}."
        raise UserError("resume.dataset", message)
    epoch, stop_after = loop["epoch"], config.run.stop_after
    if 0 < stop_after <= epoch and stop_after != before.run.stop_after:
        raise UserError("resume.stop_after", f"--stop-after {stop_after}: the run has already finished {epoch} epochs.")


def _is_loop_state(loop: dict[str, Any]) -> bool:
    """Whether these are the fields of a `LoopState`, in their ranges."""
    kinds = {item.name: type(item.default) for item in fields(LoopState)}
    numbers = {name: value for name, value in loop.items() if name != "rank_loss_sums"}
    sums = loop.get("rank_loss_sums")
    if loop.keys() != kinds.keys() or not isinstance(sums, list) or not all(map(is_number, [*numbers.values(), *sums])):
        return False
    whole = all(type(loop[name]) is int for name, kind in kinds.items() if kind is int)
    # best_top1 is -1 before the first evaluation
    in_range = all(value >= (-1 if name == "best_top1" else 0) for name, value in numbers.items())
    return whole and in_range and loop["step"] <= loop["seen"] and (loop["train_seconds"] > 0 or not loop["step"])


def _is_row(row: dict[str, Any]) -> bool:
    """Whether this is a row of metrics: numbers, the name of the split, None if the epoch was not evaluated. The loss
    of an evaluation in half precision may be infinite."""
    return row.keys() == set(COLUMNS) and all(
        value is None or is_number(value) or isinstance(value, {"split": str, "loss": float}.get(name, ()))
        for name, value in row.items()
    )


def load_state(path: Path, checkpoint: Checkpoint, model: nn.Module, step: TrainStep) -> None:
    """Load the weights, the optimizer's state and the loss scaler's. Raises UserError if one does not fit."""
    try:
        weights = checkpoint.build().state_dict()
        if step.ema is not None:
            step.ema.model.load_state_dict(weights)
            weights = replace(checkpoint, weights=checkpoint.training_weights).build().state_dict()
        model.load_state_dict(weights)
    except UserError as error:
        raise UserError(error.code, f"--resume: {path}: {error}") from None
    if not _load_optimizer(step.optimizer, checkpoint.optimizer) or not _load_scaler(step.scaler, checkpoint.scaler):
        raise UserError(
            "resume.optimizer", f"--resume: the state of the optimizer in {path} does not fit; {_MOVE_AWAY}"
        )
    _match_memory_format(step.optimizer)


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> bool:
    """Load the saved state of each parameter, and return whether it fits. The hyperparameters are not loaded."""
    own = optimizer.state_dict()["param_groups"]
    state, groups = saved.get("state"), saved.get("param_groups")
    if not isinstance(state, dict) or not isinstance(groups, list):
        return False
    if [group.get("params") if isinstance(group, dict) else None for group in groups] != [g["params"] for g in own]:
        return False
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in own for index in group["params"]]
    shapes = {index: parameter.shape for index, parameter in zip(indices, parameters, strict=True)}
    for index, values in state.items():
        if index not in shapes or not isinstance(values, dict):
            return False
        tensors = {str(name): value for name, value in values.items() if isinstance(value, torch.Tensor)}
        fits = all(tensor.shape in (shapes[index], torch.Size()) for tensor in tensors.values())
        others = [value for value in values.values() if not isinstance(value, torch.Tensor)]
        if not fits or tensor_problem(tensors) or not all(value is None or is_number(value) for value in others):
            return False
    optimizer.load_state_dict({"state": state, "param_groups": own})
    return True


def _load_scaler(scaler: torch.amp.GradScaler, saved: dict[str, Any]) -> bool:
    """Load the saved state of the loss scaler (fp16 only), and return whether it fits."""
    if not saved or not scaler.is_enabled():
        return True
    if saved.keys() != scaler.state_dict().keys() or not all(
        is_number(value) and value >= 0 for value in saved.values()
    ):
        return False
    scaler.load_state_dict(saved)
    return True


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give each state tensor the memory format of its weight, which depends on the device."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
