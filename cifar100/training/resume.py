"""Going on with an interrupted run: whether it is the same run, and the state that it left."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from torch import nn

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.config import Config, RunConfig
from cifar100.dataset import Dataset
from cifar100.optim.build import load_optimizer
from cifar100.support.errors import UserError
from cifar100.training.logger import COLUMNS
from cifar100.training.run import LoopState
from cifar100.training.step import TrainStep

_MOVE_AWAY = "move it away to go on from an earlier checkpoint."


def check_resumable(path: Path, checkpoint: Checkpoint, config: Config, dataset: Dataset) -> None:
    """Raise UserError, naming what differs, where going on from the checkpoint in `path` would not be the same run."""
    if not checkpoint.loop or not checkpoint.optimizer:
        raise UserError(f"--resume: {path} holds weights only, and nothing to go on from.")
    loop = asdict(LoopState()) | checkpoint.loop
    sound = (
        loop.keys() == asdict(LoopState()).keys()
        and all(isinstance(value, int | float) for value in loop.values())
        and loop["epoch"] >= 0
        and 0 <= loop["step"] <= loop["seen"]
        and all(isinstance(row, dict) and row.keys() == set(COLUMNS) for row in checkpoint.history)
        and checkpoint.is_finite()
    )
    if not sound:
        raise UserError(f"--resume: {path} is not what a run of this version leaves; {_MOVE_AWAY}")
    free = {setting.name for setting in fields(RunConfig)}
    try:
        before = Config.from_flat(checkpoint.config)
    except UserError as error:
        raise UserError(f"--resume: {path} has settings that this version does not take: {error}") from None
    told = [
        f"--{name.replace('_', '-')} was {was} and is now {now}"
        for name, (was, now) in before.differences(config).items()
        if name not in free
    ]
    if told:
        raise UserError(f"--resume goes on with the same settings, but {'; '.join(told)}. Give them as they were.")
    if checkpoint.dataset.fingerprint != dataset.train.fingerprint:
        raise UserError(f"--resume: the training images are not those of the run, which were {checkpoint.dataset}.")
    epoch, stop_after = loop["epoch"], config.run.stop_after
    if 0 < stop_after <= epoch and stop_after != before.run.stop_after:
        raise UserError(f"--stop-after {stop_after}: the run has {epoch} epochs behind it already.")


def load_state(path: Path, checkpoint: Checkpoint, model: nn.Module, step: TrainStep) -> None:
    """Load the weights, the optimizer's state and the loss scaler's. Raises UserError where one does not fit."""
    try:
        weights = checkpoint.build().state_dict()
        if step.average is not None:
            step.average.model.load_state_dict(weights)
            weights = replace(checkpoint, weights=checkpoint.training_weights).build().state_dict()
        model.load_state_dict(weights)
        load_optimizer(step.optimizer, checkpoint.optimizer)
        if checkpoint.scaler and step.scaler.is_enabled():  # only fp16 has one
            step.scaler.load_state_dict(checkpoint.scaler)
        fits = all(
            kept is None or torch.as_tensor(kept).shape in (weight.shape, torch.Size())
            for weight, state in step.optimizer.state.items()
            for kept in state.values()
        )
    except UserError as error:
        raise UserError(f"--resume: {path}: {error}") from None
    except Exception:  # torch raises many kinds for a state that it did not write
        fits = False
    if fits:
        _match_memory_format(step.optimizer)
    else:
        raise UserError(f"--resume: the state of the optimizer in {path} does not fit; {_MOVE_AWAY}")


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give each state tensor the memory format of its weight: the device that the run was on may have another."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
