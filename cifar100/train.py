"""The training loop: data -> augment -> model -> step -> metrics, top to bottom.

    python train.py                      the baseline recipe, 100 epochs
    python train.py --recipe fast        any flag of `cifar100 train` works; --help lists them
    python train.py --resume             go on with an interrupted run, exactly
"""

from __future__ import annotations

if __name__ == "__main__":  # run as a file: the package is one folder up, and its modules must shadow no others
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import signal
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar100.checkpoint import Checkpoint, versions
from cifar100.config import Config, RunConfig
from cifar100.dataset import Dataset, Split, hold_out, load_dataset
from cifar100.device import Compute, choose_compute, is_out_of_memory
from cifar100.errors import RunFailed, UserError
from cifar100.evaluate import evaluate_model
from cifar100.journal import COLUMNS, Journal, Progress
from cifar100.loader import TrainLoader
from cifar100.model import build_model, count_parameters
from cifar100.optim import build_optimizer, learning_rate
from cifar100.report.curves import draw_curves
from cifar100.run_folder import RunFolder
from cifar100.step import TrainStep

PROGRESS_SECONDS = 0.5
"""Between two looks at the running sums: each makes the CPU wait for the device."""


@dataclass
class LoopState:
    """Where a run stands: with the weights and the optimizer, all that is needed to go on exactly."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps done in the epoch after them, and the sums over these:
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0  # of the latest evaluation
    elapsed_seconds: float = 0.0  # of the whole run, the time between interruption and resumption left out
    best_top1: float = -1.0


@dataclass(kw_only=True)
class Run:
    """The parts of one training run."""

    config: Config
    recipe: str
    compute: Compute
    dataset: Dataset
    eval_split: Split
    eval_name: str
    model: nn.Module
    step: TrainStep
    loader: TrainLoader
    folder: RunFolder
    journal: Journal
    state: LoopState = field(default_factory=LoopState)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: its rows of metrics, the model, its folder, and what stopped it early ("" for nothing)."""

    history: list[dict[str, Any]]
    model: nn.Module
    folder: Path
    stopped_by: str


def train(config: Config | None = None, *, recipe: str = "baseline", resume: bool = False) -> TrainResult:
    """Train as `config` says (the baseline where it is not given), or go on with the run in its folder.

    `recipe` only names the settings in what is printed and saved. Raises UserError for what the user can mend, before
    anything is touched; RunFailed where the loss stops being a number, memory runs out, or the disk refuses: the last
    good checkpoint is then in place.
    """
    config = config or Config()
    compute = choose_compute(config.run.device, config.run.precision)
    dataset = load_dataset(config.data.dataset, config.run.data_dir)
    train_split, held_out = hold_out(dataset, config.data.val_fraction)
    seed, batch_size = config.optim.seed, config.optim.batch_size

    torch.manual_seed(seed)
    model = build_model(config.model.model, len(dataset.classes))
    model = model.to(compute.device, memory_format=torch.channels_last)
    trained = torch.compile(model) if config.run.compile else model
    optimizer = build_optimizer(model, config.optim)
    step = TrainStep(trained, optimizer, compute, label_smoothing=config.optim.label_smoothing)
    loader = TrainLoader(train_split, config.augment, batch_size=batch_size, seed=seed, device=compute.device)

    with RunFolder(config.run.run_dir) as folder:
        resumed = folder.newest_checkpoint() if resume else None
        if resumed is not None:
            _refuse_changes(resumed[1], config, dataset)
        moved = None if resume else folder.move_previous()
        with Journal(folder, resume=resume) as journal, StopSignals() as stop:
            run = Run(
                config=config,
                recipe=recipe,
                compute=compute,
                dataset=dataset,
                eval_split=dataset.test if held_out is None else held_out,
                eval_name="test" if held_out is None else "val",
                model=model,
                step=step,
                loader=loader,
                folder=folder,
                journal=journal,
            )
            _introduce(run, moved)
            if resumed is not None:
                _restore(run, *resumed)
            try:
                stopped_by = _loop(run, stop)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise RunFailed(
                    f"Out of memory at {batch_size} images a step. Lower batch_size in config.py, or give "
                    "--batch-size 64 or 32; lower --lr by the same factor."
                ) from error
            if not stopped_by:
                _conclude(run)
            return TrainResult(run.history, model, folder.path, stopped_by)


def _loop(run: Run, stop: StopSignals) -> str:
    """Every epoch: its steps, an evaluation, a row of metrics, the checkpoints that are due.

    Returns what stopped it before the last epoch, a signal or --stop-after; "" where nothing did.
    """
    config, state, journal, folder = run.config, run.state, run.journal, run.folder
    epochs, steps = config.optim.epochs, len(run.loader)
    elapsed, since_save, since_shown = Stopwatch(state.elapsed_seconds), Stopwatch(), Stopwatch(PROGRESS_SECONDS)
    steps_here = 0

    for epoch in range(state.epoch, epochs):
        training = Stopwatch(state.train_seconds)
        run.model.train()
        for images, labels in run.loader.epoch(epoch, first_step=state.step):
            number = epoch * steps + state.step
            rate = learning_rate(number, steps, config.optim)
            run.step(images, labels, learning_rate=rate, number=number)
            state.step += 1
            steps_here += 1

            if since_shown.seconds >= PROGRESS_SECONDS:
                since_shown.restart()
                _read_sums(run)
                state.train_seconds, state.elapsed_seconds = training.seconds, elapsed.seconds
                journal.progress(_progress(run, rate, timed=steps_here >= 20))
            if stop.name or since_save.seconds >= config.run.save_seconds:
                state.train_seconds, state.elapsed_seconds = training.seconds, elapsed.seconds
                _save(run, folder.last, "the latest step")
                since_save.restart()
            if stop.name:
                journal.say(f"Stopped by {stop.name} at epoch {epoch + 1}, step {state.step}. Saved; --resume goes on.")
                return stop.name

        _read_sums(run)
        state.train_seconds = training.seconds
        row = _row(run)
        if (epoch + 1) % config.run.eval_every == 0 or epoch + 1 == epochs:
            row |= _evaluate(run)
        state.elapsed_seconds = row["elapsed_seconds"] = elapsed.seconds
        run.history.append(row)
        state.epoch, state.step, state.train_seconds = epoch + 1, 0, 0.0
        run.step.reset_sums()
        if row["split"] and row["top1"] > state.best_top1:
            state.best_top1 = row["top1"]
            _save(run, folder.best, f"best top-1 on {row['split']}")
        if config.run.checkpoint_every and (epoch + 1) % config.run.checkpoint_every == 0:
            _save(run, folder.checkpoint(epoch + 1), f"every {config.run.checkpoint_every} epochs")
        stopping = epoch + 1 == config.run.stop_after
        if stopping or epoch + 1 == epochs:
            _save(run, folder.last, "the latest epoch")
        journal.epoch(run.history, epochs)
        if stopping and epoch + 1 < epochs:
            journal.say(f"Stopped after epoch {epoch + 1}, as --stop-after says. Saved; --resume goes on.")
            return "--stop-after"
    return ""


def _read_sums(run: Run) -> None:
    """Bring the running sums from the device into the state. Raises RunFailed where a loss was not finite."""
    run.state.loss_sum, run.state.correct = run.step.loss_sum.item(), int(run.step.correct.item())
    run.state.seen = run.step.seen
    bad = int(run.step.first_bad.item())
    if bad >= 0:
        epoch, step = divmod(bad, len(run.loader))
        kept = "The last good checkpoint is kept. " if run.folder.last.exists() or run.folder.best.exists() else ""
        raise RunFailed(
            f"The loss was not a finite number at step {bad + 1} of the run (epoch {epoch + 1}, step {step + 1}). {kept}"
            "Most often the learning rate is too high: start again with a lower --lr."
        )


def _progress(run: Run, rate: float, *, timed: bool) -> Progress:
    config, state = run.config, run.state
    epochs, steps = config.optim.epochs, len(run.loader)
    steps_left = (epochs - state.epoch) * steps - state.step
    evaluations_left = -(-epochs // config.run.eval_every) - state.epoch // config.run.eval_every
    seconds_left = steps_left * state.train_seconds / state.step + evaluations_left * state.eval_seconds
    return Progress(
        epoch=state.epoch + 1,
        epochs=epochs,
        step=state.step,
        steps=steps,
        loss=state.loss_sum / state.seen,
        top1=state.correct / state.seen,
        learning_rate=rate,
        images_per_second=state.seen / state.train_seconds,
        seconds_left=seconds_left if timed else None,
    )


def _row(run: Run) -> dict[str, Any]:
    """The epoch's row of metrics, `cifar100.journal.COLUMNS`, its evaluation still empty."""
    state, steps = run.state, len(run.loader)
    return dict.fromkeys(COLUMNS) | {
        "epoch": state.epoch + 1,
        "steps": (state.epoch + 1) * steps,
        "learning_rate": learning_rate(state.epoch * steps + steps - 1, steps, run.config.optim),
        "train_loss": state.loss_sum / state.seen,
        "train_top1": state.correct / state.seen,
        "images_per_second": state.seen / state.train_seconds,
        "train_seconds": state.train_seconds,
    }


def _evaluate(run: Run) -> dict[str, Any]:
    """The evaluation part of a row, in the precision of the run."""
    watch = Stopwatch()
    evaluation = evaluate_model(
        run.model,
        run.eval_split,
        name=run.eval_name,
        dataset=run.dataset,
        config=run.config.augment,
        compute=run.compute,
    )
    run.state.eval_seconds = watch.seconds
    figures = ("split", "loss", "top1", "top5", "superclass_top1")
    return {name: getattr(evaluation, name) for name in figures} | {"eval_seconds": watch.seconds}


def _save(run: Run, path: Path, chosen_on: str) -> None:
    """Write a checkpoint of this moment. Raises RunFailed, leaving what is there, where it would hold non-numbers."""
    _read_sums(run)
    config, dataset = run.config, run.dataset
    checkpoint = Checkpoint(
        model=config.model.model,
        weights=run.model.state_dict(),
        classes=list(dataset.classes),
        superclasses=list(dataset.superclasses),
        superclass_of=list(dataset.superclass_of),
        image_size=dataset.image_size,
        mean=list(config.augment.mean),
        std=list(config.augment.std),
        dataset=str(dataset),
        fingerprint=dataset.train.fingerprint,
        chosen_on=chosen_on,
        metrics=run.history[-1] if run.history else {},
        config=config.flat(),
        recipe=run.recipe,
        optimizer=run.step.optimizer.state_dict(),
        scaler=run.step.scaler.state_dict(),
        loop=asdict(run.state),
        history=run.history,
        precision=run.compute.precision,
    )
    if not checkpoint.is_finite():
        raise RunFailed(f"The weights are no longer finite numbers, so {path} was not written. Lower --lr.")
    checkpoint.save(path)


def _refuse_changes(checkpoint: Checkpoint, config: Config, dataset: Dataset) -> None:
    """Raise UserError, naming what differs, where going on would not be the same run."""
    free = {setting.name for setting in fields(RunConfig)}
    changed = Config.from_flat(checkpoint.config).differences(config)
    told = [f"--{name.replace('_', '-')} was {was}, is {now}" for name, (was, now) in changed.items() if name not in free]
    if told:
        raise UserError(f"--resume goes on with the same settings, but {'; '.join(told)}. Give them as they were.")
    if checkpoint.fingerprint != dataset.train.fingerprint:
        raise UserError(f"--resume: the training images differ from those of the run, which were {checkpoint.dataset}.")


def _restore(run: Run, path: Path, checkpoint: Checkpoint, complaints: list[str]) -> None:
    """Put the run where the checkpoint left it, and cut the metrics files back to there."""
    run.model.load_state_dict(checkpoint.build().state_dict())
    run.step.optimizer.load_state_dict(checkpoint.optimizer)
    run.step.scaler.load_state_dict(checkpoint.scaler)
    run.state = LoopState(**checkpoint.loop)
    run.history = list(checkpoint.history)
    run.step.reset_sums(run.state.loss_sum, run.state.correct, run.state.seen)
    run.journal.rewrite(run.history)
    for complaint in complaints:
        run.journal.say(f"Passed over: {complaint}")
    state = run.state
    run.journal.say(f"Resumed from {path}: {state.epoch} epochs and {state.step} steps done.")
    if checkpoint.precision != run.compute.precision:
        run.journal.say(f"It ran in {checkpoint.precision} before, now in {run.compute.precision}: not bit for bit.")


def _introduce(run: Run, moved: Path | None) -> None:
    """The first lines of a run: what, on which images, where and why there, with which settings."""
    config, say = run.config, run.journal.say
    parameters = count_parameters(run.model)
    say(f"cifar100 {versions()['cifar100']}: {config.model.model}, {parameters:,} parameters, recipe {run.recipe}")
    say(f"Data      {run.dataset}")
    if run.eval_name == "val":
        say(f"          {len(run.eval_split):,} train images held out to choose the best checkpoint on")
    say(f"Device    {run.compute}")
    if config.run.num_workers:
        say(f"          --num-workers {config.run.num_workers} has no effect: images are augmented on the device")
    differing = config.differences(Config())
    told = ", ".join(f"{name} {mine} ({baseline})" for name, (mine, baseline) in differing.items())
    say(f"Settings  differing from the baseline: {told or 'none'}")
    say("          " + ", ".join(f"{name} {value}" for name, value in config.flat().items() if name not in differing))
    if config.optim.warmup_epochs >= config.optim.epochs:
        say("          warmup is as long as the run: the learning rate rises to its end; see --warmup-epochs")
    say(f"Run       {run.folder.path}, log {run.journal.log_path.name}")
    if moved is not None:
        say(f"          the run that was here is now in {moved}")
    run.folder.write_json(run.folder.config, {"recipe": run.recipe, "settings": config.flat(), "versions": versions()})


def _conclude(run: Run) -> None:
    """The last lines of a run: the headline figure, in fp32, of the last epoch's weights on the test set."""
    compute = Compute(run.compute.device, "fp32", "for the headline figure")
    evaluation = evaluate_model(
        run.model, run.dataset.test, name="test", dataset=run.dataset, config=run.config.augment, compute=compute
    )
    run.folder.write_json(run.folder.evaluation, evaluation.to_json() | {"versions": versions()})
    say, folder = run.journal.say, run.folder
    say(f"Final     test top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%} (last epoch, single view, fp32)")
    label = "the test set itself, so it flatters" if run.eval_name == "test" else "images held out of train"
    say(f"          best epoch {run.state.best_top1:.2%} on {run.eval_name}: {folder.best} (chosen on {label})")
    if run.dataset.name == "synthetic":
        say("          SYNTHETIC images: these figures say nothing about CIFAR-100")
    say(draw_curves(run.history, folder.curves, title=f"{run.config.model.model}, recipe {run.recipe}"))
    say(f"Next      cifar100 evaluate {folder.best}   |   cifar100 predict IMAGE --checkpoint {folder.best}")


class Stopwatch:
    """Seconds since it was made or restarted, on top of those it is given."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.began = time.monotonic() - seconds

    def restart(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class StopSignals:
    """While in this context, the first SIGINT (Ctrl-C) or SIGTERM is only noted in `name`; a second one acts."""

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


if __name__ == "__main__":
    from cifar100.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
