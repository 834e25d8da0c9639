"""The state of a training run: counters, metrics, timers and checkpoints. The loop is in `cifar100.train`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any, Literal

from torch import Tensor, nn

from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.compute.device import Compute
from cifar100.compute.distributed import DistContext
from cifar100.config import Config
from cifar100.dataset import Dataset, Split
from cifar100.evaluation.evaluate import Evaluation, eval_batch_size, evaluate_model
from cifar100.optim.ema import BN_CALIBRATION_IMAGES, update_bn
from cifar100.optim.schedule import lr_at_step
from cifar100.support.errors import RunFailed
from cifar100.support.provenance import Selection
from cifar100.support.stopwatch import Stopwatch
from cifar100.training.background_save import BackgroundSave
from cifar100.training.logger import COLUMNS, EvalProgress, Logger
from cifar100.training.run_dir import RunDir
from cifar100.training.signals import GracefulStop, StopReason
from cifar100.training.step import TrainStep

SLOW_EVALUATION_SECONDS = 2.0
"""A checkpoint is saved before an evaluation that takes longer: the process may be killed before the next step."""


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics with None for the loss of an evaluation in half precision that is not finite."""
    return row | {"loss": row["loss"] if row["loss"] is not None and math.isfinite(row["loss"]) else None}


@dataclass
class LoopState:
    """The position in the training loop: with the weights and the optimizer's state, all that exact resuming needs."""

    epoch: int = 0  # finished epochs
    step: int = 0  # steps of the current epoch, over which the following sums are taken
    loss_sum: float = 0.0
    rank_loss_sums: list[float] = field(default_factory=list)  # of each rank, in fp32: the order of summation matters
    correct: int = 0
    seen: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0  # of the latest evaluation
    elapsed_seconds: float = 0.0  # of the whole run, without the time between interruption and resumption
    best_top1: float = -1.0


@dataclass(frozen=True)
class Due:
    """What all ranks do after a step."""

    log: bool = False
    save: bool = False
    stop: Signals | None = None  # the signal that was received


@dataclass(kw_only=True)
class Run:
    """One training run; each rank has one, and only that of rank 0 writes files."""

    config: Config
    recipe: str
    modified: bool  # whether settings differ from the recipe's
    compute: Compute
    dataset: Dataset
    eval_split: Split
    eval_name: Literal["test", "val"]  # "val" if a part of the train split is held out
    model: nn.Module
    train_step: TrainStep
    loader: TrainLoader
    run_dir: RunDir
    logger: Logger = field(default_factory=Logger)
    dist: DistContext = field(default_factory=DistContext)
    background_save: BackgroundSave = field(default_factory=BackgroundSave)
    state: LoopState = field(default_factory=LoopState)
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch_timer: Stopwatch = field(default_factory=Stopwatch)  # the steps of the current epoch
    run_timer: Stopwatch = field(default_factory=Stopwatch)  # the whole run, without interruptions
    save_timer: Stopwatch = field(default_factory=Stopwatch)  # since last.pth was saved
    num_timed_steps: int = 0  # of this process
    init_source: str = ""  # the weights that it starts from, as text; "" from scratch
    setup_seconds: float = 0.0  # from the call of train() to the first step, without warm-up
    warm_up_seconds: float = 0.0  # compiling, and selecting kernels

    @property
    def eval_model(self) -> nn.Module:
        """The model that is evaluated and saved for use: the EMA if there is one."""
        return self.model if self.train_step.ema is None else self.train_step.ema.model

    @property
    def global_step(self) -> int:
        """Steps of the whole run so far."""
        return self.state.epoch * len(self.loader) + self.state.step

    def start_epoch(self) -> None:
        """Call before the first step of an epoch, or the first after resuming."""
        self.model.train()
        if self.state.step == 0:
            self.epoch_timer.restart()

    def train_batch(self, images: Tensor, labels: Tensor) -> None:
        """One optimizer step."""
        step = self.global_step
        lr = lr_at_step(step, len(self.loader), self.config.optim)
        self.train_step(images, labels, learning_rate=lr, step_index=step)
        self.state.step += 1
        self.num_timed_steps += 1

    def due(self, signals: GracefulStop) -> Due:
        """Whether to log, save or stop after the latest step; the same answer on all ranks."""
        if not self.dist.syncs_after(self.global_step - 1):
            return Due()
        save_due = self.save_timer.seconds >= self.config.run.save_seconds
        log, save, signum = self.dist.all_reduce_max(self.logger.progress_due, save_due, signals.signum)
        return Due(bool(log), bool(save or signum), Signals(signum) if signum else None)

    def sync_metrics(self) -> None:
        """Copy the running sums, over all ranks, and the timers to the state; waits for the device. Raises RunFailed if
        a loss was not finite."""
        step, state = self.train_step, self.state
        own = (step.loss_sum.item(), int(step.correct.item()), step.num_samples, int(step.first_nonfinite_step.item()))
        loss_sums, corrects, counts, nonfinite_steps = zip(*self.dist.gather(own), strict=True)
        state.rank_loss_sums = list(loss_sums)
        state.loss_sum, state.correct, state.seen = sum(loss_sums), sum(corrects), sum(counts)
        state.train_seconds, state.elapsed_seconds = self.epoch_timer.seconds, self.run_timer.seconds
        nonfinite = min((number for number in nonfinite_steps if number >= 0), default=-1)
        if nonfinite >= 0:
            epoch, step = divmod(nonfinite, len(self.loader))
            is_saved = self.run_dir.last.exists() or self.run_dir.best.exists()
            kept = "The last good checkpoint is kept. " if is_saved else ""
            message = (
                f"The loss was not a finite number at step {nonfinite + 1} of the run (epoch {epoch + 1}, step "
                f"{step + 1}). {kept}Most often the learning rate is too high: start again with a lower --lr."
            )
            self.dist.raise_on_all(RunFailed("train.loss", message))

    def end_epoch(self) -> dict[str, Any]:
        """Evaluate if it is due, and append the row of the epoch (`logger.COLUMNS`) to the history."""
        epoch, config, done = self.state.epoch, self.config, self.state.epoch + 1
        is_evaluated = done == config.optim.epochs or done % config.run.eval_every == 0
        is_saved = done == config.run.stop_after or config.run.keeps_checkpoint(done)
        if (is_evaluated or is_saved) and self.train_step.ema is not None:  # counts as training time
            batches = islice(self.loader.epoch(epoch), -(-BN_CALIBRATION_IMAGES // self.loader.batch_size))
            update_bn(self.eval_model, (images for images, _ in batches), self.compute)
        self.sync_metrics()
        state, steps = self.state, len(self.loader)
        row = dict.fromkeys(COLUMNS) | {
            "epoch": epoch + 1,
            "steps": (epoch + 1) * steps,
            "learning_rate": lr_at_step(epoch * steps + steps - 1, steps, config.optim),
            "train_loss": state.loss_sum / state.seen,
            "train_top1": state.correct / state.seen,
            "images_per_second": state.seen / state.train_seconds,
            "train_seconds": state.train_seconds,
        }
        if is_evaluated:
            timer = Stopwatch()
            evaluation = self.evaluate(self.compute, self.eval_split, self.eval_name)
            row |= {name: getattr(evaluation, name) for name in ("split", "loss", "top1", "top5", "superclass_top1")}
            row["eval_seconds"] = state.eval_seconds = timer.seconds
        state.elapsed_seconds = row["elapsed_seconds"] = self.run_timer.seconds
        self.history.append(row)
        state.epoch, state.step = epoch + 1, 0
        self.train_step.reset_sums()
        self.epoch_timer.restart()
        return row

    def evaluate(self, compute: Compute, split: Split, name: str) -> Evaluation:
        """The current model on a split; all ranks take part."""
        self.dist.broadcast_buffers(self.eval_model)
        done, total = 0, -(-len(split) // self.dist.size)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.logger.progress(EvalProgress(split=name, done=done, total=total))

        return evaluate_model(
            self.eval_model,
            split,
            name=name,
            dataset=self.dataset,
            config=self.config.augment,
            compute=compute,
            # in no more memory than training takes
            batch_size=min(eval_batch_size(self.dataset.image_size), 2 * self.config.optim.batch_size),
            dist=self.dist,
            advance=advance,
        )

    def save_before_evaluation(self) -> None:
        """Save last.pth if the evaluation will take long."""
        (is_slow,) = self.dist.all_reduce_max(self.state.eval_seconds > SLOW_EVALUATION_SECONDS)
        if is_slow:
            self.save(self.run_dir.last, Selection(rule="step"))

    def save_best_and_periodic(self, row: dict[str, Any]) -> None:
        """Save best_model.pth if the top-1 in `row` is the highest so far, and the periodic checkpoint if it is due."""
        if row["top1"] is not None and row["top1"] > self.state.best_top1:
            self.state.best_top1 = row["top1"]
            self.save(self.run_dir.best, Selection(rule="best", split=self.eval_name), in_background=True)
        if self.config.run.keeps_checkpoint(self.state.epoch):
            self.save(self.run_dir.checkpoint_path(self.state.epoch), Selection(rule="periodic"))

    def stop_reason(self, signals: GracefulStop) -> StopReason | None:
        """Why the run stops after the latest epoch, before its last one; the same on all ranks."""
        (signum,) = self.dist.all_reduce_max(signals.signum)
        if signum:
            return Signals(signum)
        epoch = self.state.epoch
        return "stop_after" if epoch == self.config.run.stop_after and epoch < self.config.optim.epochs else None

    def log_stop(self, reason: StopReason) -> None:
        """Log why the run stopped before its last epoch."""
        state = self.state
        position = f"at epoch {state.epoch + 1}, step {state.step}" if state.step else f"after epoch {state.epoch}"
        name = reason.name if isinstance(reason, Signals) else f"--stop-after {state.epoch}"
        self.logger.info(f"Stopped by {name} {position}. Saved; --resume continues from here.")

    def save(self, path: Path, selection: Selection, *, in_background: bool = False) -> None:
        """Write a checkpoint; `in_background`, while training continues (except on MPS), but before any later one.

        Raises RunFailed if a weight is not finite, or if this file or the one in the background could not be written;
        the previous file is then intact.
        """
        self.sync_metrics()
        if self.dist.is_main:
            with self.epoch_timer.paused():
                checkpoint = self.checkpoint(selection)
                if not checkpoint.is_finite():
                    message = f"The weights are no longer finite numbers, so {path} was not written. Lower --lr."
                    raise RunFailed("train.weights", message)
                self.background_save.wait()
                # on MPS operations in two threads can end the process: github.com/pytorch/pytorch/issues/197805
                if in_background and self.compute.device.type != "mps":
                    self.background_save.start(checkpoint, path)
                else:
                    checkpoint.save(path)
        if path == self.run_dir.last:
            self.save_timer.restart()

    def checkpoint(self, selection: Selection) -> Checkpoint:
        """The current state of the whole run."""
        config, dataset, step = self.config, self.dataset, self.train_step
        return Checkpoint(
            model=config.model.model,
            weights=self.eval_model.state_dict(),
            training_weights={} if step.ema is None else self.model.state_dict(),
            classes=list(dataset.classes),
            superclasses=list(dataset.superclasses),
            superclass_of=list(dataset.superclass_of),
            image_size=dataset.image_size,
            mean=list(config.augment.mean),
            std=list(config.augment.std),
            dataset=dataset.info,
            selection=selection,
            metrics=_finite(self.history[-1]) if self.history else {},
            config=config.flat(),
            recipe=self.recipe,
            modified=self.modified,
            optimizer=step.optimizer.state_dict(),
            scaler=step.scaler.state_dict(),
            loop=asdict(self.state),
            history=list(self.history),
            compute=self.numerics(),
        )

    def numerics(self) -> str:
        """What determines the rounding of a run, besides its settings and versions."""
        ranks = f"{self.dist}, " if self.dist.size > 1 else ""
        return f"{ranks}{self.compute}{', compiled' if self.config.run.compile else ''}"

    def restore(self, path: Path, checkpoint: Checkpoint, skipped: list[str]) -> None:
        """Continue from the checkpoint whose weights `load_state` loaded; truncates the metrics files."""
        self.state, self.history = LoopState(**checkpoint.loop), list(checkpoint.history)
        state, dist = self.state, self.dist
        own_sums = [state.loss_sum] + [0.0] * (dist.size - 1)
        if len(state.rank_loss_sums) == dist.size:  # else rank 0 carries the sums of all
            own_sums = state.rank_loss_sums
        counts = (state.correct, state.seen) if dist.is_main else (0, 0)
        self.train_step.reset_sums(own_sums[dist.rank], *counts)
        self.epoch_timer, self.run_timer = Stopwatch(state.train_seconds), Stopwatch(state.elapsed_seconds)
        self.logger.write_metrics(self.history)
        for message in skipped:
            self.logger.info(f"Skipped: {message}")
        self.logger.info(f"Resumed from {path}: {state.epoch} epochs and {state.step} steps done.")
        before, now = checkpoint.versions | {"on": checkpoint.compute}, versions() | {"on": self.numerics()}
        changed = [f"{key} {before.get(key)} before, {now[key]} now" for key in now if before.get(key) != now[key]]
        if changed:
            self.logger.info(f"Not bit-identical to an uninterrupted run: {'; '.join(changed)}.")
