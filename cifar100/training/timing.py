"""How long training takes on this machine: the speed of each recipe's training step on random images, and the time of a
whole recipe derived from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from cifar100.augmentation.batched import resolution_at_epoch
from cifar100.augmentation.loader import EvalLoader, TrainLoader
from cifar100.compute.device import Compute
from cifar100.config import Config
from cifar100.dataset import Split
from cifar100.evaluation.evaluate import BATCH_SIZE, predict_logits
from cifar100.model import build_model
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma
from cifar100.recipes import RECIPES, recipe
from cifar100.training.step import TrainStep

NUM_CLASSES, IMAGE_SIZE = 100, 32
NUM_TRAIN_IMAGES, NUM_TEST_IMAGES = 50_000, 10_000
"""Classes, image size and numbers of images of CIFAR-100, for which times are estimated."""

MIN_BATCH_SIZE = 8
MAX_REPEATED_SECONDS = 2.0
"""Seconds. A first call that takes longer is not repeated, although its time includes the warm-up."""


@dataclass(frozen=True)
class Speed:
    """A recipe's training step, augmentation and update included, at one image size. `images_per_second` is for the
    recipe's own batch size; `measured_batch_size` is smaller if the machine is too slow to time that."""

    recipe: str
    image_size: int
    batch_size: int
    measured_batch_size: int
    images_per_second: float


@dataclass(frozen=True)
class Estimate:
    """Expected seconds of a recipe on CIFAR-100: all training steps, and all evaluations."""

    recipe: str
    epochs: int
    train_seconds: float
    eval_seconds: float


def image_sizes_by_recipe() -> dict[str, list[int]]:
    """{recipe: image sizes that it trains at, ascending}."""
    return {name: sorted(_epochs_by_size(recipe(name))) for name in RECIPES}


def estimate_times(speeds: list[Speed], eval_images_per_second: float) -> list[Estimate]:
    """The time of each recipe, from the speed of its step at each image size that it trains at."""
    rates = {(speed.recipe, speed.image_size): speed.images_per_second for speed in speeds}
    results = []
    for name in RECIPES:
        config = recipe(name)
        epochs_by_size = _epochs_by_size(config)
        train_seconds = sum(count * NUM_TRAIN_IMAGES / rates[name, size] for size, count in epochs_by_size.items())
        num_evaluations = -(-config.optim.epochs // config.run.eval_every)
        eval_seconds = num_evaluations * NUM_TEST_IMAGES / eval_images_per_second
        results.append(Estimate(name, config.optim.epochs, train_seconds, eval_seconds))
    return results


def measure_training(name: str, image_size: int, compute: Compute, seconds: float, update_seconds: float) -> Speed:
    """Time a recipe's training step for about `seconds`, on random images.

    On a slow machine a full batch would take too long: the times of two smaller ones then give the time of an image and
    the part that does not depend on the batch size. `update_seconds` is that of Muon's update (`measure_muon`).
    """
    # Muon's update does not depend on the batch size, so it is timed once (measure_muon) and added
    config = recipe(name).replace(train_sizes=(image_size,), optimizer="sgd")
    step = _training_step(config, compute)
    deadline = time.perf_counter() + seconds

    full_size = config.optim.batch_size
    num_images = min(MIN_BATCH_SIZE, full_size)
    small, small_seconds = num_images, _warm_seconds(lambda: _run_steps(step, config, num_images, 1), compute)
    step_seconds, image_seconds = small_seconds, small_seconds / small
    affordable = int(min(small * seconds / 4 / small_seconds, full_size))
    if affordable > small:
        num_images = affordable
        step_seconds = _seconds(lambda: _run_steps(step, config, num_images, 1), compute)
        if num_steps := int(min((deadline - time.perf_counter()) / step_seconds, 200)):
            step_seconds = _seconds(lambda: _run_steps(step, config, num_images, num_steps), compute) / num_steps
        slope = (step_seconds - small_seconds) / (num_images - small)
        image_seconds = max(slope, 0.5 * step_seconds / num_images)  # at least half, if noise says less
    full_seconds = step_seconds + image_seconds * (full_size - num_images) + update_seconds
    return Speed(name, image_size, full_size, num_images, full_size / full_seconds)


def measure_muon(name: str, compute: Compute) -> float:
    """Seconds of an update of a recipe's weights by Muon; 0 if it uses SGD."""
    config = recipe(name)
    if config.optim.optimizer != "muon":
        return 0.0
    model = compute.prepare(build_model(config.model.model, NUM_CLASSES))
    optimizer = build_optimizer(model, config.optim)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return _warm_seconds(optimizer.step, compute)


def measure_evaluation(compute: Compute, seconds: float) -> float:
    """Images per second of an evaluation at 32 px, timed for about `seconds`."""
    model = compute.prepare(build_model("resnet18", NUM_CLASSES)).eval()
    num_images, rate, deadline = MIN_BATCH_SIZE, 0.0, time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        loader = EvalLoader(_random_split(num_images), Config().augment, batch_size=BATCH_SIZE, device=compute.device)
        compute.synchronize()
        start = time.perf_counter()
        predict_logits(model, loader, compute)
        rate = num_images / (time.perf_counter() - start)
        num_images = int(min(max(rate * seconds / 4, MIN_BATCH_SIZE), NUM_TEST_IMAGES))
    return rate


def _epochs_by_size(config: Config) -> dict[int, int]:
    """{image size: epochs trained at it}."""
    counts: dict[int, int] = {}
    for epoch in range(config.optim.epochs):
        size = resolution_at_epoch(config.augment, epoch, config.optim.epochs, IMAGE_SIZE)
        counts[size] = counts.get(size, 0) + 1
    return counts


def _training_step(config: Config, compute: Compute) -> TrainStep:
    torch.manual_seed(0)
    model = compute.prepare(build_model(config.model.model, NUM_CLASSES)).train()
    ema = ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None
    return TrainStep(model, build_optimizer(model, config.optim), compute, config.optim, ema=ema)


def _random_split(num_images: int) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, NUM_CLASSES, num_images), fingerprint="")


def _batches(config: Config, batch_size: int, compute: Compute) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches without end, all of this size."""
    loader = TrainLoader(
        _random_split(4 * batch_size),
        config.augment,
        batch_size=batch_size,
        seed=0,
        device=compute.device,
        num_classes=NUM_CLASSES,
    )
    while True:
        yield from loader


def _run_steps(step: TrainStep, config: Config, batch_size: int, num_steps: int) -> None:
    batches = _batches(config, batch_size, step.compute)
    for number, (images, labels) in enumerate(islice(batches, num_steps)):
        step(images, labels, learning_rate=1e-3, step_index=number)


def _seconds(run: Callable[[], object], compute: Compute) -> float:
    compute.synchronize()
    start = time.perf_counter()
    run()
    compute.synchronize()
    return time.perf_counter() - start


def _warm_seconds(run: Callable[[], object], compute: Compute) -> float:
    """Seconds of a second call of `run`, because the first allocates memory and selects kernels; of the first call if
    that took over MAX_REPEATED_SECONDS."""
    first = _seconds(run, compute)
    return first if first > MAX_REPEATED_SECONDS else _seconds(run, compute)
