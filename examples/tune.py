"""Tune hyperparameters with Optuna on held-out train images; the test images are not used.

    pip install optuna
    python examples/tune.py --trials 20 --epochs 5 --recipe fast

All state is in the storage, an SQLite file. Run the command again to resume; several processes, also on machines that
share the storage (--storage postgresql://...), work on the same study. A trial is trained epoch by epoch, as with
`cifar100 train --stop-after N --resume`, and pruned if its accuracy is below the median of the earlier trials then.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from cifar100.config import Config
from cifar100.recipes import recipe
from cifar100.support.errors import RunFailed
from cifar100.train import train

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def suggest(trial: optuna.Trial) -> dict[str, float]:
    """The settings of a trial: edit this."""
    return {
        "lr": trial.suggest_float("lr", 0.01, 0.5, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 5e-3, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }


def objective(trial: optuna.Trial, base: Config, folder: Path) -> float:
    """Train one trial; returns top-1 on the held-out images. Raises TrialPruned if it is stopped early."""
    config = base.replace(**suggest(trial), run_dir=folder / f"trial_{trial.number}")
    top1 = 0.0
    for epoch in range(1, config.optim.epochs + 1):
        part = config.replace(stop_after=epoch)
        try:
            result = train(part, recipe="tuned", resume=epoch > 1, finalize=False)
        except RunFailed as error:  # such as a loss of NaN
            raise optuna.TrialPruned(str(error)) from None
        if isinstance(result.stopped_by, signal.Signals):
            raise KeyboardInterrupt  # the trial fails, and the study stops
        top1 = result.history[-1]["top1"]
        trial.report(top1, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return top1


def main() -> None:
    """Run trials until the study has enough; print the best ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of the study, over all processes")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--recipe", default="baseline")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--image-size", type=int, default=32, help="of custom images")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--folder", type=Path, default=Path("tuning"))
    parser.add_argument("--storage", help="an SQLAlchemy URL; default: tune.db in --folder")
    args = parser.parse_args()
    base = recipe(args.recipe, args.epochs)
    base = base.replace(
        warmup_epochs=min(1, args.epochs / 4),
        data_dir=args.data_dir,
        image_size=args.image_size,
        cutout_size=min(base.augment.cutout_size, args.image_size // 2),
        val_fraction=0.2,
        checkpoint_every=0,
        report=False,
    )
    if args.batch_size:
        base = base.replace(batch_size=args.batch_size)
    args.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(args.folder / "tune.lock"):  # two processes that create the tables at once would fail
        study = optuna.create_study(
            storage=args.storage or f"sqlite:///{args.folder / 'tune.db'}",
            study_name="cifar100",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
            load_if_exists=True,
        )
    if len(study.get_trials(states=COUNTED)) < args.trials:
        enough = MaxTrialsCallback(args.trials, states=COUNTED)
        study.optimize(lambda trial: objective(trial, base, args.folder), callbacks=[enough])
    print(f"{'trial':>5} {'top-1':>7}  settings")
    for trial in sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda one: -(one.value or 0))[:5]:
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
        print(f"{trial.number:>5} {trial.value or 0:7.2%}  {settings}")


if __name__ == "__main__":
    main()
