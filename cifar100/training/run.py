"""One training run: its parts, where it stands, and what it tells and keeps. `cifar100.train` moves it on."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cifar100.augmentation.batched import resolution_at_epoch
from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.checkpoint import Checkpoint, versions
from cifar100.compute.device import Compute
from cifar100.compute.distributed import DistContext
from cifar100.config import Config
from cifar100.dataset import Dataset, Split
from cifar100.evaluation.evaluate import BATCH_SIZE, Evaluation, evaluate_model
from cifar100.model import count_parameters
from cifar100.optim.ema import BN_CALIBRATION_IMAGES, update_bn
from cifar100.optim.schedule import lr_at_step
from cifar100.report import curves, figures
from cifar100.support.errors import RunFailed
from cifar100.support.provenance import Selection, recipe_title
from cifar100.support.stopwatch import Stopwatch
from cifar100.support.text import duration
from cifar100.training.background_save import BackgroundSave
from cifar100.training.logger import COLUMNS, NullLogger, Progress, RunLogger
from cifar100.training.run_dir import RunDir
from cifar100.training.step import TrainStep


@dataclass
class LoopState:
    """Where a run stands: with the weights and the optimizer, all that is needed to go on exactly."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps done in the epoch after them, and the sums over these:
    loss_sum: float = 0.0
    rank_loss_sums: list[float] = field(default_factory=list)  # of each process, in fp32: they add up in this order
    correct: int = 0
    seen: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0  # of the latest evaluation
    elapsed_seconds: float = 0.0  # of the whole run, the time between interruption and resumption left out
    best_top1: float = -1.0


@dataclass(kw_only=True)
class Run:
    """The parts of one training run; one in each process, and of several processes the first one's writes."""

    config: Config
    recipe: str
    modified: bool  # whether settings differ from the recipe's
    compute: Compute
    dataset: Dataset
    eval_split: Split
    eval_name: Literal["test", "val"]  # "test", or "val" where some of train is held out
    model: nn.Module
    step: TrainStep
    loader: TrainLoader
    folder: RunDir
    journal: RunLogger | NullLogger
    processes: DistContext = field(default_factory=DistContext)
    background_save: BackgroundSave = field(default_factory=BackgroundSave)
    state: LoopState = field(default_factory=LoopState)
    history: list[dict[str, Any]] = field(default_factory=list)
    training: Stopwatch = field(default_factory=Stopwatch)  # of this epoch's steps
    elapsed: Stopwatch = field(default_factory=Stopwatch)  # of the whole run, interruptions left out
    origin: str = ""  # which weights it started from, in words; "" from scratch
    ready_seconds: float = 0.0  # from the call of train() to the first step: reading the data, building the model
    warm_up_seconds: float = 0.0  # compiling, and trying kernels: not in `ready_seconds`

    @property
    def result(self) -> nn.Module:
        """What the run gives, and is judged by: the averaged weights where there are such, else the model."""
        return self.model if self.step.average is None else self.step.average.model

    def read_sums(self) -> None:
        """Bring the running sums, over all processes, from the device into the state. Raises RunFailed where a loss
        was not finite."""
        step, state = self.step, self.state
        mine = (step.loss_sum.item(), int(step.correct.item()), step.seen, int(step.first_nonfinite_step.item()))
        loss_sums, corrects, seens, first_bads = zip(*self.processes.gather(mine), strict=True)
        state.rank_loss_sums = list(loss_sums)
        state.loss_sum, state.correct, state.seen = sum(loss_sums), sum(corrects), sum(seens)
        bad = min((number for number in first_bads if number >= 0), default=-1)
        if bad >= 0:
            epoch, step = divmod(bad, len(self.loader))
            saved = self.folder.last.exists() or self.folder.best.exists()
            kept = "The last good checkpoint is kept. " if saved else ""
            raise RunFailed(
                f"The loss was not a finite number at step {bad + 1} of the run (epoch {epoch + 1}, step {step + 1}). "
                f"{kept}Most often the learning rate is too high: start again with a lower --lr."
            )

    def read_clocks(self) -> None:
        """Bring the two clocks into the state: after `read_sums`, which waits for the device."""
        self.state.train_seconds, self.state.elapsed_seconds = self.training.seconds, self.elapsed.seconds

    def progress(self, rate: float, *, timed: bool) -> Progress:
        """What the display shows; the time left only where enough steps were `timed`. Needs `read_sums` before."""
        config, state = self.config, self.state
        epochs, steps = config.optim.epochs, len(self.loader)
        last = config.run.stop_after if config.run.stop_after > state.epoch else epochs
        # an epoch's time goes with the pixels of its images, about
        pixels = [
            resolution_at_epoch(config.augment, epoch, self.dataset.image_size) ** 2
            for epoch in range(state.epoch, last)
        ]
        steps_left = steps * sum(pixels) / pixels[0] - state.step
        evaluations_left = -(-last // config.run.eval_every) - state.epoch // config.run.eval_every
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

    def finish_epoch(self, *, evaluated: bool) -> dict[str, Any]:
        """End the epoch: evaluate if that is due, and add its row (`logger.COLUMNS`) to the history."""
        if evaluated and self.step.average is not None:  # within the time of training, of which it is a part
            few = islice(self.loader.epoch(self.state.epoch), -(-BN_CALIBRATION_IMAGES // self.loader.batch_size))
            update_bn(self.result, (images for images, _ in few), self.compute)
        self.read_sums()
        self.read_clocks()
        state, steps = self.state, len(self.loader)
        row = dict.fromkeys(COLUMNS) | {
            "epoch": state.epoch + 1,
            "steps": (state.epoch + 1) * steps,
            "learning_rate": lr_at_step(state.epoch * steps + steps - 1, steps, self.config.optim),
            "train_loss": state.loss_sum / state.seen,
            "train_top1": state.correct / state.seen,
            "images_per_second": state.seen / state.train_seconds,
            "train_seconds": state.train_seconds,
        }
        if evaluated:
            watch = Stopwatch()
            evaluation = self.evaluate(self.compute, self.eval_split, self.eval_name)
            row |= {name: getattr(evaluation, name) for name in ("split", "loss", "top1", "top5", "superclass_top1")}
            row["eval_seconds"] = state.eval_seconds = watch.seconds
        state.elapsed_seconds = row["elapsed_seconds"] = self.elapsed.seconds
        self.history.append(row)
        state.epoch, state.step = state.epoch + 1, 0
        self.step.reset_sums()
        self.training.restart()
        return row

    def evaluate(self, compute: Compute, split: Split, name: str) -> Evaluation:
        """The model as it is now, on a split; all processes take part."""
        self.processes.equalise(self.result)
        return evaluate_model(
            self.result,
            split,
            name=name,
            dataset=self.dataset,
            config=self.config.augment,
            compute=compute,
            batch_size=min(BATCH_SIZE, 2 * self.config.optim.batch_size),  # in no more memory than training takes
            processes=self.processes,
        )

    def save(self, path: Path, selection: Selection, *, in_background: bool = False) -> None:
        """Write a checkpoint of this moment; `in_background`, while training goes on, but before any later one.

        Raises RunFailed if a weight is not finite, or if this file or the one in the background could not be written;
        what was there before is then intact.
        """
        self.read_sums()
        self.read_clocks()
        if not self.processes.leads:
            return
        with self.training.stopped():
            checkpoint = self._checkpoint(selection)
            if not checkpoint.is_finite():
                raise RunFailed(f"The weights are no longer finite numbers, so {path} was not written. Lower --lr.")
            self.background_save.wait()
            if in_background:
                self.background_save.start(checkpoint, path)
            else:
                checkpoint.save(path)

    def _checkpoint(self, selection: Selection) -> Checkpoint:
        """This moment, whole."""
        config, dataset = self.config, self.dataset
        return Checkpoint(
            model=config.model.model,
            weights=self.result.state_dict(),
            training_weights={} if self.step.average is None else self.model.state_dict(),
            classes=list(dataset.classes),
            superclasses=list(dataset.superclasses),
            superclass_of=list(dataset.superclass_of),
            image_size=dataset.image_size,
            mean=list(config.augment.mean),
            std=list(config.augment.std),
            dataset=dataset.info,
            selection=selection,
            metrics=self.history[-1] if self.history else {},
            config=config.flat(),
            recipe=self.recipe,
            modified=self.modified,
            optimizer=self.step.optimizer.state_dict(),
            scaler=self.step.scaler.state_dict(),
            loop=asdict(self.state),
            history=list(self.history),
            compute=self._ground(),
        )

    def restore(self, path: Path, checkpoint: Checkpoint, complaints: list[str]) -> None:
        """Put the run where the checkpoint, whose weights `load_state` loaded, left it; cut the metrics files back."""
        self.state = LoopState(**checkpoint.loop)
        self.history = list(checkpoint.history)
        mine = [0.0] * self.processes.size
        mine[0] = self.state.loss_sum
        if len(self.state.rank_loss_sums) == self.processes.size:  # else the sums of others count once, in rank 0
            mine = self.state.rank_loss_sums
        counts = (self.state.correct, self.state.seen) if self.processes.leads else (0, 0)
        self.step.reset_sums(mine[self.processes.rank], *counts)
        self.training, self.elapsed = Stopwatch(self.state.train_seconds), Stopwatch(self.state.elapsed_seconds)
        self.journal.rewrite(self.history)
        for complaint in complaints:
            self.journal.say(f"Passed over: {complaint}")
        state = self.state
        self.journal.say(f"Resumed from {path}: {state.epoch} epochs and {state.step} steps done.")
        before, now = checkpoint.versions | {"on": checkpoint.compute}, versions() | {"on": self._ground()}
        changed = [
            f"{name} {before.get(name)} before, {now[name]} now" for name in now if before.get(name) != now[name]
        ]
        if changed:
            self.journal.say(f"It goes on, though not bit for bit as it would have: {'; '.join(changed)}.")

    def _ground(self) -> str:
        """What the rounding of a run depends on, beside its settings and versions."""
        together = f"{self.processes}, " if self.processes.size > 1 else ""
        return f"{together}{self.compute}{', compiled' if self.config.run.compile else ''}"

    def introduce(self, moved: Path | None) -> None:
        """The first lines of a run: what, on which images, where and why there, with which settings."""
        config, say = self.config, self.journal.say
        parameters = count_parameters(self.model)
        recipe = recipe_title(self.recipe, self.modified)
        say(f"cifar100 {versions()['cifar100']}: {config.model.model}, {parameters:,} parameters, recipe {recipe}")
        say(f"Data      {self.dataset}")
        for note in self.dataset.notes:
            say(f"          {note}")
        if not self.dataset.superclasses:
            say("          no superclasses: their accuracy is left out")
        if self.eval_name == "val":
            say(f"          {len(self.eval_split):,} train images held out to choose the best checkpoint on")
        say(f"Device    {self.compute}")
        if self.processes.size > 1:
            norm = "over the images of all" if config.model.sync_bn else "over each process's own images"
            say(f"          {self.processes}; each takes its part of every batch, batch norm {norm}")
        if config.run.num_workers and config.augment.pipeline == "batched":
            say(f"          --num-workers {config.run.num_workers} has no effect: images are augmented on the device")
        if self.origin:
            say(f"Start     from {self.origin}")
        differing = config.differences(Config())
        told = ", ".join(f"{name} {mine} ({baseline})" for name, (mine, baseline) in differing.items())
        say(f"Settings  differing from the baseline: {told or 'none'}")
        for section in fields(config):
            names = [setting.name for setting in fields(getattr(config, section.name))]
            same = ", ".join(f"{name} {config.flat()[name]}" for name in names if name not in differing)
            say(f"  {section.name:<8}{same}")
        if config.optim.warmup_epochs >= config.optim.epochs:
            say("          warmup is as long as the run: the learning rate rises to its end; see --warmup-epochs")
        say(f"Run       {self.folder.path}, log {self.journal.log_path.name}")
        if moved is not None:
            say(f"          the run that was here is now in {moved}")
        settings = {"recipe": self.recipe, "modified": self.modified, "settings": config.flat(), "versions": versions()}
        self.folder.write_json(self.folder.config, settings)

    def conclude(self) -> None:
        """The last lines of a run: the headline figure, in fp32, of the last epoch's weights on the test set."""
        compute = Compute(self.compute.device, "fp32", "for the headline figure")
        evaluation = self.evaluate(compute, self.dataset.test, "test")
        fits = self.config.run.report and self.eval_name == "val"
        held_out = self.evaluate(compute, self.eval_split, "val") if fits else None
        if not self.processes.leads:
            return
        circumstances: dict[str, Any] = {"dataset": self.dataset.info.to_dict()}
        circumstances |= {"recipe": self.recipe, "modified": self.modified}
        circumstances |= {"settings": self.config.flat(), "versions": versions()}
        steps_seconds = sum(row["train_seconds"] for row in self.history)
        clock = {"ready_seconds": self.ready_seconds, "steps_seconds": steps_seconds}
        circumstances |= {"clock": clock | {"warm_up_seconds": self.warm_up_seconds}}
        self.folder.write_json(self.folder.evaluation, evaluation.to_json() | circumstances)
        say, folder = self.journal.say, self.folder
        say(f"Final     test top-1 {evaluation.top1:.2%}, top-5 {evaluation.top5:.2%} (last epoch, single view, fp32)")
        label = "the test set itself, so it flatters" if self.eval_name == "test" else "images held out of train"
        say(f"          best epoch {self.state.best_top1:.2%} on {self.eval_name}: {folder.best} (chosen on {label})")
        seconds = self.ready_seconds + steps_seconds
        said = f"{seconds:.2f} s" if seconds < 60 else duration(seconds)
        warm = f"warm-up ({self.warm_up_seconds:.1f} s), " if self.warm_up_seconds >= 0.1 else ""
        say(f"Clock     {said} from the files on disk to the last step; {warm}evaluation and saving are not counted")
        if self.dataset.is_synthetic:
            say("          SYNTHETIC images: these figures say nothing about CIFAR-100")
        title = f"{self.config.model.model} on {self.dataset.published.name}, "
        title += f"recipe {recipe_title(self.recipe, self.modified)}"
        say(curves.draw_curves(self.history, folder.curves, title=title))
        self.journal.pictures(figures.pictures(evaluation, self.dataset), self.state.epoch)
        if self.config.run.report:
            from cifar100.report import build  # with it comes Pillow

            last = self._checkpoint(Selection(rule="last"))
            say(
                build.report_line(
                    last,
                    self.dataset,
                    evaluation,
                    held_out=held_out,
                    compute=compute,
                    name=folder.last.name,
                    out=folder.report,
                )
            )
        data_dir = self.config.run.data_dir
        where = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
        say(f"Next      cifar100 evaluate {folder.best}{where}   |   cifar100 predict IMAGE --checkpoint {folder.best}")
