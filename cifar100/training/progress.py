"""The metrics, speed and remaining time of the current epoch, for the console."""

from __future__ import annotations

from cifar100.augmentation.batched import resolution_at_epoch
from cifar100.optim.schedule import lr_at_step
from cifar100.training.display import Progress
from cifar100.training.run import Run

MIN_TIMED_STEPS = 20
"""Steps of this process before the remaining time is estimated; two epochs suffice if they have fewer."""

TIME_EXPONENT = 1.5
"""The time of an epoch is taken as proportional to resolution ** TIME_EXPONENT; measured at 16, 24 and 32 pixels: 63,
117 and 187 s on two CPU cores (the fast recipe)."""


def current_progress(run: Run) -> Progress:
    """The state after the latest step. Raises RunFailed if a loss was not finite."""
    run.sync_metrics()
    state, steps = run.state, len(run.loader)
    is_timed = run.num_timed_steps >= min(MIN_TIMED_STEPS, 2 * steps)
    return Progress(
        epoch=state.epoch + 1,
        epochs=run.config.optim.epochs,
        step=state.step,
        steps=steps,
        loss=state.loss_sum / state.seen,
        top1=state.correct / state.seen,
        learning_rate=lr_at_step(run.global_step - 1, steps, run.config.optim),
        images_per_second=state.seen / state.train_seconds,
        seconds_left=seconds_left(run) if is_timed else None,
    )


def seconds_left(run: Run) -> float:
    """Expected seconds until the end of the run, or until `stop_after`. See `TIME_EXPONENT` for other resolutions."""
    config, state, steps = run.config, run.state, len(run.loader)
    eval_every, epochs = config.run.eval_every, config.optim.epochs
    last = min(config.run.stop_after, epochs) if config.run.stop_after > state.epoch else epochs
    native = run.dataset.image_size
    sizes = [resolution_at_epoch(config.augment, epoch, epochs, native) for epoch in range(state.epoch, last)]
    epochs_left = sum((size / sizes[0]) ** TIME_EXPONENT for size in sizes)  # in epochs of the current resolution
    evaluations_left = -(-last // eval_every) - state.epoch // eval_every
    steps_left = steps * epochs_left - state.step
    return steps_left * state.train_seconds / state.step + evaluations_left * state.eval_seconds
