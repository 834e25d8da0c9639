"""The training loop: data -> augment -> model -> step -> metrics, top to bottom.

python train.py                      the baseline recipe, 100 epochs
python train.py --recipe fast        any flag of `cifar100 train` works; --help lists them
python train.py --resume             resume an interrupted run, exactly
torchrun --nproc-per-node 2 train.py distributed training, here with two processes
"""

from __future__ import annotations

if __name__ == "__main__":  # `python train.py` is `cifar100 train`; nothing below runs
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the modules here must not shadow other packages
    sys.argv[1:1] = ["train"]
    runpy.run_module("cifar100", run_name="__main__", alter_sys=True)

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cifar100.compute.distributed import init_distributed
from cifar100.config import Config
from cifar100.dataset import Dataset
from cifar100.recipes import is_modified
from cifar100.support.provenance import Selection
from cifar100.support.stopwatch import Stopwatch
from cifar100.training import setup, summary
from cifar100.training.logger import RunLogger
from cifar100.training.progress import current_progress
from cifar100.training.resume import check_resumable, load_state
from cifar100.training.run import Run
from cifar100.training.run_dir import RunDir
from cifar100.training.signals import GracefulStop, StopReason
from cifar100.training.tensorboard import TensorBoardLogger
from cifar100.training.tracker import Tracker


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run: its metrics per epoch, the model, its directory, and why it stopped early, if it did."""

    history: list[dict[str, Any]]
    model: nn.Module
    folder: Path
    stopped_by: StopReason | None


def train(
    config: Config | None = None,
    *,
    recipe: str = "baseline",
    resume: bool = False,
    dataset: Dataset | None = None,
    finalize: bool = True,
) -> TrainResult:
    """Train with `config` (default: the baseline), or resume the run in its directory.

    `recipe` is the name that is printed and saved, as "modified" if `config` differs from that recipe. It selects no
    settings: to train the fast recipe, pass
    `config=cifar100.recipes.recipe("fast"), recipe="fast"`. `dataset`, if given, replaces the one that `config` names.
    With `finalize=False` the run ends after its last epoch, without the final evaluation in fp32, the learning curves
    and the report. With several ranks, call it on each with the same arguments.

    Raises UserError before anything is touched if the settings or files cannot be used, and RunFailed if the loss is
    not finite, memory runs out, or a file cannot be written: the last good checkpoint is then in place.
    """
    timer = Stopwatch()
    with init_distributed() as dist:
        config, recipe, resume = setup.sync_settings(dist, config or Config(), recipe, resume)
        compute = setup.setup_device(dist, config)
        dataset, train_split, held_out = setup.load_data(dist, config, dataset)
        num_classes = len(dataset.classes)
        loader = setup.build_loader(dist, config, compute, train_split, num_classes=num_classes)
        images = (dataset.spec.name, dataset.train.fingerprint, dataset.test.fingerprint)
        dist.check_same_on_all_ranks({"device": compute.device.type, "precision": compute.precision, "dataset": images})
        dist.init_groups(compute.device, config.run.dist_timeout)
        model, init_source = setup.init_model(dist, config, compute, dataset, resume=resume)
        step = setup.build_train_step(dist, config, compute, model, loader)
        run = Run(
            config=config,
            recipe=recipe,
            modified=is_modified(recipe, config),
            compute=compute,
            dataset=dataset,
            eval_split=dataset.test if held_out is None else held_out,
            eval_name="test" if held_out is None else "val",
            model=model,
            train_step=step,
            loader=loader,
            run_dir=RunDir(config.run.run_dir),
            dist=dist,
            init_source=init_source,
        )
        stopped_by = _execute(run, timer, resume=resume, finalize=finalize)
        return TrainResult(run.history, run.eval_model.eval(), run.run_dir.path, stopped_by)


def _execute(run: Run, timer: Stopwatch, *, resume: bool, finalize: bool) -> StopReason | None:
    """The run from its warm-up to its end. `timer` has run since the call of train()."""
    config, dist, run_dir = run.config, run.dist, run.run_dir
    warm_up_timer = Stopwatch()
    if config.run.compile or run.compute.device.type == "cuda":
        with setup.failures_explained(run.logger, config.optim.batch_size):  # the first steps may run out of memory
            run.train_step.warm_up(run.loader.batch_shapes())
    run.warm_up_seconds = warm_up_timer.seconds
    resumed = dist.run_on_main(run_dir.latest_checkpoint) if resume else None
    if resumed is not None:
        path, checkpoint, _ = resumed
        with dist.collective_errors():
            check_resumable(path, checkpoint, config, run.dataset)
            load_state(path, checkpoint, run.model, run.train_step)
        run.recipe, run.modified = checkpoint.recipe, checkpoint.modified
    with ExitStack() as stack, GracefulStop(under_torchrun=dist.size > 1) as signals:
        stack.enter_context(closing(run.loader))
        archived = None
        with dist.collective_errors():
            if dist.is_main:  # the only rank that writes
                stack.enter_context(run_dir)
                # a tracker that cannot be started fails before anything is moved
                sinks = [stack.enter_context(closing(sink)) for sink in _sinks(run, resume)]
                archived = None if resume else run_dir.archive_previous_run()
                run.logger = stack.enter_context(RunLogger(run_dir, resume=resume, sinks=sinks))
        stack.enter_context(closing(run.background_save))
        with setup.failures_explained(run.logger, config.optim.batch_size):
            if dist.is_main:
                summary.log_header(run, archived)
            if resumed is not None:
                run.restore(*resumed)
            run.setup_seconds = timer.seconds - run.warm_up_seconds
            stopped_by = _train_epochs(run, signals)
            if stopped_by is None and finalize:
                summary.finalize(run)
        return stopped_by


def _sinks(run: Run, resume: bool) -> list[TensorBoardLogger | Tracker]:
    """The loggers that the settings request, besides the files of the run."""
    config, run_dir = run.config, run.run_dir
    sinks: list[TensorBoardLogger | Tracker] = []
    if config.run.tensorboard:
        sinks.append(TensorBoardLogger(run_dir.tensorboard, config.flat()))
    if config.run.track != "none":
        sinks.append(Tracker(config.run.track, run_dir.tracker, config.flat(), resume=resume))
    return sinks


def _train_epochs(run: Run, signals: GracefulStop) -> StopReason | None:
    """Every remaining epoch: its steps, an evaluation, a row of metrics, the checkpoints that are due.

    Returns why the run stopped early; None if it did not.
    """
    epochs = run.config.optim.epochs
    for epoch in range(run.state.epoch, epochs):
        run.start_epoch()
        for images, labels in run.loader.epoch(epoch, first_step=run.state.step):
            run.train_batch(images, labels)
            due = run.due(signals)
            if due.log:
                run.logger.progress(current_progress(run))
            if due.save:
                run.save(run.run_dir.last, Selection(rule="step"))
            if due.stop:
                run.log_stop(due.stop)
                return due.stop

        run.save_before_evaluation()
        row = run.end_epoch()
        run.save_best_and_periodic(row)
        reason = run.stop_reason(signals)
        if reason or epoch + 1 == epochs:
            run.save(run.run_dir.last, Selection(rule="last"))
        run.logger.log_epoch(run.history, epochs)
        if reason:
            run.log_stop(reason)
            return reason
    return None
