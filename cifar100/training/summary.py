"""What a run logs before its first step and after its last one."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from cifar100.checkpoints.checkpoint import versions
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.evaluation.evaluate import Evaluation
from cifar100.model import count_parameters
from cifar100.report import curves, figures
from cifar100.support.provenance import Selection, recipe_title
from cifar100.support.text import duration, setting_text
from cifar100.training.run import Run

MIN_FROM_SCRATCH = 5000
"""Train images below which a run from scratch is warned about."""


def log_header(run: Run, archived: Path | None) -> None:
    """Log the model, data, device and settings, and write config.json. `archived` is the new path of the previous run
    of the directory, if there was one."""
    config, info = run.config, run.logger.info
    parameters = count_parameters(run.model)
    recipe = recipe_title(run.recipe, run.modified)
    info(f"cifar100 {versions()['cifar100']}: {config.model.model}, {parameters:,} parameters, recipe {recipe}")
    info(f"Data      {run.dataset}")
    for note in run.dataset.notes:
        info(f"          {note}")
    if not run.dataset.superclasses:
        info("          no superclasses: superclass accuracy is not computed")
    if run.eval_name == "val":
        info(f"          {len(run.eval_split):,} train images held out to select the best checkpoint")
    info(f"Device    {run.compute}")
    if run.dist.size > 1:
        norm = "synchronized" if config.model.sync_bn else "of each process's own images"
        info(f"          {run.dist}; each processes a part of every batch, batch-norm statistics {norm}")
    if config.run.num_workers and config.augment.pipeline == "batched":
        info(f"          --num-workers {config.run.num_workers} has no effect: images are augmented on the device")
    if run.init_source:
        info(f"Weights   initialized from {run.init_source}")
    _log_settings(run)
    num_images, from_scratch = len(run.loader.labels), config.model.init_from is None
    if from_scratch and num_images < MIN_FROM_SCRATCH and not run.dataset.is_synthetic:
        info(f"          few images to train from scratch ({num_images:,}; steps per epoch: {len(run.loader):,}):")
        info("          --recipe finetune starts from the bundled weights instead")
    native, last = run.dataset.image_size, run.loader.resolution(config.optim.epochs - 1)
    if last != native:
        info(f"          training ends at {last} px, but images are evaluated at {native} px, which costs accuracy:")
        info(f"          give --train-sizes with {native} as the last size")
    info(f"Run       {run.run_dir.path}, log {run.logger.log_path.name}")
    if archived is not None:
        info(f"          the previous run of this directory was moved to {archived}")
    settings = {"recipe": run.recipe, "modified": run.modified, "settings": config.flat(), "versions": versions()}
    run.run_dir.write_json(run.run_dir.config, settings)


def _log_settings(run: Run) -> None:
    """The settings that differ from the baseline; in the text log also the others, by section."""
    config, flat = run.config, run.config.flat()
    different = config.differences(Config())
    changes = [f"{name} {setting_text(value)} ({setting_text(usual)})" for name, (value, usual) in different.items()]
    run.logger.info(f"Settings  different from the baseline: {', '.join(changes) or 'none'}")
    for section in fields(config):
        names = [item.name for item in fields(getattr(config, section.name))]
        unchanged = ", ".join(f"{name} {setting_text(flat[name])}" for name in names if name not in different)
        run.logger.file_only(f"  {section.name:<8}{unchanged}")


def finalize(run: Run) -> None:
    """Evaluate the weights of the last epoch on the test set in fp32 (the headline figure); write evaluation.json, the
    learning curves and the report."""
    compute = Compute(run.compute.device, "fp32", "for the headline figure")
    evaluation = run.evaluate(compute, run.dataset.test, "test")
    is_fitted = run.config.run.report and run.eval_name == "val"  # the report fits a temperature on it
    held_out = run.evaluate(compute, run.eval_split, "val") if is_fitted else None
    if not run.dist.is_main:
        return
    steps_seconds = sum(row["train_seconds"] for row in run.history)
    _write_evaluation(run, evaluation, steps_seconds)
    info, run_dir = run.logger.info, run.run_dir
    info(f"Final     test top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%} (last epoch, single view, fp32)")
    caveat = "selected on the test set, so optimistic" if run.eval_name == "test" else "selected on held-out images"
    info(f"          best epoch {run.state.best_top1:.2%} on {run.eval_name}: {run_dir.best} ({caveat})")
    if not evaluation.is_better_than_chance:
        finetune = "--recipe finetune, " if run.config.model.init_from is None else ""
        info(f"          NO BETTER THAN CHANCE (mean recall of the classes; {evaluation.chance:.2%}): try {finetune}")
        info("          a lower --lr, or more --epochs")
    seconds = run.setup_seconds + steps_seconds
    total = f"{seconds:.2f} s" if seconds < 60 else duration(seconds)
    warm_up = f"warm-up ({run.warm_up_seconds:.1f} s), " if run.warm_up_seconds >= 0.1 else ""
    info(f"Time      {total} of reading data and training, without {warm_up}evaluation and saving")
    if run.dataset.is_synthetic:
        info("          SYNTHETIC images: these numbers are meaningless for CIFAR-100")
    recipe = recipe_title(run.recipe, run.modified)
    title = f"{run.config.model.model} on {run.dataset.spec.name}, recipe {recipe}"
    info(curves.draw_curves(run.history, run_dir.curves, title=title))
    run.logger.log_images(figures.evaluation_images(evaluation, run.dataset), run.state.epoch)
    if run.config.run.report:
        from cifar100.report import build  # imports Pillow

        checkpoint = run.checkpoint(Selection(rule="last"))
        name, out = run_dir.last.name, run_dir.report
        info(
            build.write_run_report(
                checkpoint, run.dataset, evaluation, held_out=held_out, compute=compute, name=name, out=out
            )
        )
    data_dir = run.config.run.data_dir
    flag = "" if data_dir is None or run.dataset.is_synthetic else f" --data-dir {shlex.quote(str(data_dir))}"
    last, best = (shlex.quote(str(path)) for path in (run_dir.last, run_dir.best))
    info(f"Next      cifar100 evaluate {last}{flag}   |   cifar100 predict IMAGE --checkpoint {best}")


def _write_evaluation(run: Run, evaluation: Evaluation, steps_seconds: float) -> None:
    """evaluation.json: the figures, and the circumstances of the run."""
    clock = {"ready_seconds": run.setup_seconds, "steps_seconds": steps_seconds, "warm_up_seconds": run.warm_up_seconds}
    circumstances: dict[str, Any] = {"dataset": run.dataset.info.to_dict(), "recipe": run.recipe}
    circumstances["test_fingerprint"] = run.dataset.test.fingerprint
    circumstances |= {"modified": run.modified, "settings": run.config.flat(), "versions": versions(), "clock": clock}
    run.run_dir.write_json(run.run_dir.evaluation, evaluation.to_json() | circumstances)
