"""The training loop: data -> augment -> model -> step -> metrics, top to bottom.

python train.py                      the baseline recipe, 100 epochs
python train.py --recipe fast        any flag of `cifar100 train` works; --help lists them
python train.py --resume             go on with an interrupted run, exactly
torchrun --nproc-per-node 2 train.py the same training, by two processes
"""

from __future__ import annotations

if __name__ == "__main__":  # `python train.py` is `cifar100 train`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["train"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import nn

from cifar100.augmentation.albumentations_pipeline import worker_died
from cifar100.augmentation.class_balance import balanced_weights
from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.weights import load_pretrained
from cifar100.compute.device import Compute, disable_malloc_trim, is_out_of_memory, select_device
from cifar100.compute.distributed import DistContext, join
from cifar100.config import Config
from cifar100.dataset import Dataset, Split, load_dataset, train_val_split
from cifar100.model import ResNet, build_model
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.optim.ema import ModelEma
from cifar100.optim.schedule import lr_at_step
from cifar100.recipes import is_modified
from cifar100.support.errors import RunFailed
from cifar100.support.provenance import Selection
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.terminal import emit
from cifar100.training.gradient_check import check_gradients
from cifar100.training.logger import NullLogger, RunLogger
from cifar100.training.resume import check_resumable, load_state
from cifar100.training.run import Run
from cifar100.training.run_dir import RunDir
from cifar100.training.signals import GracefulStop, StopAfter, StopReason, describe_stop
from cifar100.training.step import TrainStep
from cifar100.training.tensorboard import make_tensorboard, require_tensorboard
from cifar100.training.tracker import make_tracker, require_tracker

PROGRESS_SECONDS = 0.5
"""Between two looks at the running sums: each makes the CPU wait for the device."""

SLOW_EVALUATION_SECONDS = 2.0
"""An evaluation that takes longer is saved before, as a step would be."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: its rows of metrics, the model, its folder, and what stopped it early, if anything did."""

    history: list[dict[str, Any]]
    model: nn.Module
    folder: Path
    stopped_by: StopReason | None


def train(config: Config | None = None, *, recipe: str = "baseline", resume: bool = False) -> TrainResult:
    """Train as `config` says (the baseline where it is not given), or go on with the run in its folder.

    `recipe` names the settings in what is printed and saved, and whether they differ from it. Raises UserError for what
    the user can mend, before anything is touched; RunFailed where the loss stops being a number, memory runs out, or
    the disk refuses: the last good checkpoint is then in place. Of several processes, which all call this alike, the
    first writes the run's files.
    """
    began = Stopwatch()
    with join() as processes:  # one, unless torchrun started more
        return _train(processes, *_common_settings(processes, config or Config(), recipe, resume), began)


def _prepare(processes: DistContext, config: Config) -> tuple[Compute, Dataset, Split | None, TrainLoader]:
    """Where to compute, the dataset, what of its train split is held out, and the batches of the rest."""
    with processes.together():
        require_tensorboard(config)
        require_tracker(config)
        compute = select_device(
            config.run.device,
            config.run.precision,
            compile=config.run.compile,
            local_rank=processes.local_rank if processes.size > 1 else None,
        )
        if compute.device.type == "cpu":
            disable_malloc_trim()
        elif compute.device.type == "mps":
            check_gradients(compute)
        elif compute.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the fastest kernels for each size, tried before the clock runs
        say = emit if processes.leads else _silently
        downloads = processes.local_rank == 0  # what is missing; the others of its machine then find it
        dataset = load_dataset(config, say=say) if downloads else None
    with processes.together():
        dataset = dataset or load_dataset(config, say=say)
        train_split, held_out = train_val_split(dataset, config.data.val_fraction)
        loader = TrainLoader(
            train_split,
            config.augment,
            batch_size=config.optim.batch_size,
            seed=config.optim.seed,
            device=compute.device,
            num_workers=config.run.num_workers,
            num_classes=len(dataset.classes),
            processes=processes,
        )
    images = (dataset.published.name, dataset.train.fingerprint, dataset.test.fingerprint)
    processes.refuse_differences({"device": compute.device.type, "precision": compute.precision, "dataset": images})
    processes.connect(compute.device, config.run.dist_timeout)
    return compute, dataset, held_out, loader


def _network(
    processes: DistContext, config: Config, compute: Compute, dataset: Dataset, resume: bool
) -> tuple[ResNet, str]:
    """The network as it starts, where it is trained; which weights it starts from, in words, "" for none."""
    torch.manual_seed(config.optim.seed)
    model = build_model(config.model.model, len(dataset.classes))
    with processes.together():
        given = None if resume else config.model.init_from
        origin = "" if given is None else load_pretrained(given, model, dataset.classes)
    if config.model.freeze_stem:
        model.freeze_stem()
    return compute.place(model), origin


def _class_weights(config: Config, loader: TrainLoader) -> torch.Tensor | None:
    if config.optim.class_weights == "none":
        return None
    weights = balanced_weights(loader.labels.cpu().numpy(), loader.num_classes)
    return torch.from_numpy(weights).to(loader.labels.device)


def _train(processes: DistContext, config: Config, recipe: str, resume: bool, began: Stopwatch) -> TrainResult:
    compute, dataset, held_out, loader = _prepare(processes, config)

    model, origin = _network(processes, config, compute, dataset, resume)
    step = TrainStep(
        processes.replicate(model, sync_bn=config.model.sync_bn, compiled=config.run.compile),
        build_optimizer(model, config.optim, fused=uses_fused_sgd(compute)),
        compute,
        config.optim,
        compiled=config.run.compile,
        average=ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None,
        weight=loader.weight,
        class_weights=_class_weights(config, loader),
    )
    warming = Stopwatch()
    if config.run.compile or compute.device.type == "cuda":
        step.warm_up(loader.shapes(config.optim.epochs))
    warm_up_seconds = warming.seconds

    folder = RunDir(config.run.run_dir)
    modified = is_modified(recipe, config)
    resumed = processes.first(folder.latest_checkpoint) if resume else None
    if resumed is not None:
        path, checkpoint, _ = resumed
        check_resumable(path, checkpoint, config, dataset)
        load_state(path, checkpoint, model, step)
        recipe, modified = checkpoint.recipe, checkpoint.modified
    with ExitStack() as held, GracefulStop(forwarded=processes.size > 1) as stop:
        moved, journal = None, NullLogger()
        held.enter_context(closing(loader))
        with processes.together():
            if processes.leads:  # the only one that writes
                held.enter_context(folder)
                moved = None if resume else folder.archive_previous_run()
                board = make_tensorboard(folder.tensorboard, config)
                tracker = make_tracker(folder.tracker, config)
                journal = held.enter_context(RunLogger(folder, resume=resume, board=board, tracker=tracker))
        run = Run(
            config=config,
            recipe=recipe,
            modified=modified,
            compute=compute,
            dataset=dataset,
            eval_split=dataset.test if held_out is None else held_out,
            eval_name="test" if held_out is None else "val",
            model=model,
            step=step,
            loader=loader,
            folder=folder,
            journal=journal,
            processes=processes,
            origin=origin,
        )
        held.enter_context(closing(run.background_save))
        try:
            if processes.leads:
                run.introduce(moved)
            if resumed is not None:
                run.restore(*resumed)
            run.ready_seconds, run.warm_up_seconds = began.seconds - warm_up_seconds, warm_up_seconds
            stopped_by = _loop(run, stop)
            if stopped_by is None:
                run.conclude()
        except Exception as error:
            failure = _out_of_memory(config.optim.batch_size) if is_out_of_memory(error) else worker_died(error)
            failure = failure or processes.explained(error)
            if isinstance(failure, RunFailed):  # the log of an overnight run must say how it ended
                with suppress(RunFailed):
                    journal.log_only(str(failure))
            if failure is error:
                raise
            raise failure from error
        return TrainResult(run.history, run.result.eval(), folder.path, stopped_by)


def _loop(run: Run, stop: GracefulStop) -> StopReason | None:
    """Every epoch: its steps, an evaluation, a row of metrics, the checkpoints that are due.

    Returns what stopped it before its end; None if nothing did.
    """
    config, state, journal, folder = run.config, run.state, run.journal, run.folder
    epochs, steps = config.optim.epochs, len(run.loader)
    since_save, since_shown = Stopwatch(), Stopwatch(PROGRESS_SECONDS)
    steps_here = 0

    for epoch in range(state.epoch, epochs):
        run.model.train()
        if state.step == 0:
            run.training.restart()
        for images, labels in run.loader.epoch(epoch, first_step=state.step):
            number = epoch * steps + state.step
            rate = lr_at_step(number, steps, config.optim)
            run.step(images, labels, learning_rate=rate, number=number)
            state.step += 1
            steps_here += 1

            if not run.processes.agree_after(number):
                continue
            look, save, stopping = run.processes.agree(
                since_shown.seconds >= PROGRESS_SECONDS, since_save.seconds >= config.run.save_seconds, stop.number
            )
            if look:
                run.read_sums()
                run.read_clocks()
                journal.progress(run.progress(rate, timed=steps_here >= 20))
                since_shown.restart()
            if save or stopping:
                run.save(folder.last, Selection(rule="step"))
                since_save.restart()
            if stopping:
                reason = Signals(stopping)
                place = f"epoch {epoch + 1}, step {state.step}"
                journal.say(f"Stopped by {describe_stop(reason)} at {place}. Saved; --resume goes on.")
                return reason

        (is_slow,) = run.processes.agree(state.eval_seconds > SLOW_EVALUATION_SECONDS)
        if is_slow:  # who asks it to stop during that may not wait for its end
            run.save(folder.last, Selection(rule="step"))
            since_save.restart()
        last = epoch + 1 == epochs
        row = run.finish_epoch(evaluated=last or (epoch + 1) % config.run.eval_every == 0)
        if row["top1"] is not None and row["top1"] > state.best_top1:
            state.best_top1 = row["top1"]
            run.save(folder.best, Selection(rule="best", split=run.eval_name), in_background=True)
        if config.run.checkpoint_every and (epoch + 1) % config.run.checkpoint_every == 0:
            run.save(folder.checkpoint(epoch + 1), Selection(rule="periodic"))
        (stopping,) = run.processes.agree(stop.number)
        stop_after = StopAfter(epoch + 1) if epoch + 1 == config.run.stop_after and not last else None
        reason = Signals(stopping) if stopping else stop_after
        if reason or last:
            run.save(folder.last, Selection(rule="last"))
        journal.epoch(run.history, epochs)
        if reason:
            journal.say(f"Stopped by {describe_stop(reason)} after epoch {epoch + 1}. Saved; --resume goes on.")
            return reason
    return None


def _common_settings(processes: DistContext, config: Config, recipe: str, resume: bool) -> tuple[Config, str, bool]:
    """What process 0 was asked for, in every process; only where the data lies is each machine's own matter."""
    first, recipe, resume = processes.first(lambda: (config, recipe, resume))
    if not resume:  # of a run that goes on, process 0 alone need know the settings
        processes.refuse_differences(config.replace(data_dir=None, run_dir=first.run.run_dir).flat())
    return first.replace(data_dir=config.run.data_dir), recipe, resume


def _silently(_text: str) -> None:
    pass


def _out_of_memory(batch_size: int) -> RunFailed:
    return RunFailed(
        f"Out of memory at {batch_size} images a step. Give --batch-size {max(1, batch_size // 2)} or less, or lower "
        "batch_size in config.py; lower --lr by the same factor."
    )
