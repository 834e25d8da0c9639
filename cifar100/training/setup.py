"""What a run needs before its first step: device, data, model, and the training step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

from cifar100.augmentation.albumentations_pipeline import explain_worker_failure
from cifar100.augmentation.class_balance import balanced_weights
from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.weights import load_pretrained
from cifar100.compute.device import Compute, disable_malloc_trim, is_out_of_memory, select_device
from cifar100.compute.distributed import DistContext
from cifar100.config import Config
from cifar100.dataset import ENVIRONMENT, Dataset, Split, load_dataset, train_val_split
from cifar100.model import ResNet, build_model
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.optim.ema import ModelEma
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.terminal import emit
from cifar100.support.text import format_bytes
from cifar100.training.gradient_check import check_gradients
from cifar100.training.logger import Logger
from cifar100.training.step import TrainStep
from cifar100.training.tensorboard import require_tensorboard
from cifar100.training.tracker import require_tracker


def sync_settings(dist: DistContext, config: Config, recipe: str, resume: bool) -> tuple[Config, str, bool]:
    """The settings of rank 0 on all ranks, with each rank's own `data_dir`.

    Unless the run is resumed, raises UserError if a setting other than `data_dir` and `run_dir` differs. When it is
    resumed, a rank that has neither --data-dir nor $CIFAR100_DATA_DIR uses the `data_dir` of rank 0.
    """
    main_config, recipe, resume = dist.run_on_main(lambda: (config, recipe, resume))
    if not resume:  # only rank 0 has the files of the run, and thereby its settings
        dist.check_same_on_all_ranks(config.replace(data_dir=None, run_dir=main_config.run.run_dir).flat())
    if resume and config.run.data_dir is None and not os.environ.get(ENVIRONMENT):
        return main_config, recipe, resume
    return main_config.replace(data_dir=config.run.data_dir), recipe, resume


def setup_device(dist: DistContext, config: Config) -> Compute:
    """Select the device and prepare it for training."""
    with dist.collective_errors():
        require_tensorboard(config)
        require_tracker(config)
        local_rank = dist.local_rank if dist.size > 1 else None
        compute = select_device(
            config.run.device, config.run.precision, compile=config.run.compile, local_rank=local_rank
        )
        if compute.device.type == "cpu":
            disable_malloc_trim()
        elif compute.device.type == "mps":
            check_gradients(compute)
        elif compute.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # kernels are selected during the warm-up
    return compute


def load_data(dist: DistContext, config: Config, dataset: Dataset | None) -> tuple[Dataset, Split, Split | None]:
    """The dataset, its train split, and the part of it that is held out (`val_fraction`), if any."""

    def say(text: str) -> None:
        if dist.is_main:
            emit(text)

    with dist.collective_errors():
        if dataset is None and dist.local_rank == 0:  # downloads what is missing, for all ranks of the node
            dataset = load_dataset(config, say=say)
    with dist.collective_errors():
        dataset = dataset or load_dataset(config, say=say)
        train_split, held_out = train_val_split(dataset, config.data.val_fraction)
    return dataset, train_split, held_out


def build_loader(dist: DistContext, config: Config, compute: Compute, split: Split, *, num_classes: int) -> TrainLoader:
    """The batches of the train split."""
    with dist.collective_errors():
        try:
            return TrainLoader.from_config(config, split, compute.device, num_classes=num_classes, dist=dist)
        except (MemoryError, RuntimeError) as error:  # of the device: a RuntimeError
            if not is_out_of_memory(error):
                raise
            message = (
                f"The {len(split):,} train images need {format_bytes(split.images.nbytes)} of the device's memory: "
                "give a smaller --image-size, or --pipeline albumentations, which keeps them in main memory."
            )
            raise RunFailed("train.memory", message) from error


def init_model(
    dist: DistContext, config: Config, compute: Compute, dataset: Dataset, *, resume: bool
) -> tuple[ResNet, str]:
    """The initialized model on the device, and the weights it starts from as text, "" for none."""
    torch.manual_seed(config.optim.seed)
    with dist.collective_errors():
        model = build_model(config.model.model, len(dataset.classes))
        source = None if resume else config.model.init_from
        init_source = "" if source is None else load_pretrained(source, model, dataset.classes)
    return compute.prepare(model), init_source


def build_train_step(
    dist: DistContext, config: Config, compute: Compute, model: ResNet, loader: TrainLoader
) -> TrainStep:
    """The training step of the model, with optimizer, EMA and DDP."""
    class_weights = None
    if config.optim.class_weights == "balanced":
        weights = balanced_weights(loader.labels.cpu().numpy(), loader.num_classes)
        with dist.collective_errors():
            check_class_weights(weights, config.optim.label_smoothing)
        class_weights = torch.from_numpy(weights).to(loader.labels.device)
    with dist.collective_errors():
        return TrainStep(
            dist.wrap_ddp(model, sync_bn=config.model.sync_bn, compiled=config.run.compile),
            build_optimizer(model, config.optim, fused=uses_fused_sgd(compute)),
            compute,
            config.optim,
            compiled=config.run.compile,
            ema=ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None,
            loss_weight=loader.loss_weight,
            class_weights=class_weights,
        )


def check_class_weights(weights: np.ndarray, smoothing: float) -> None:
    """Raise UserError if the loss of an image of the most frequent class is least for the rarest class.

    `F.cross_entropy` weights the smoothed part of the target by every class: with weights w and smoothing s, that of
    the rarest class is s / C max(w), and of the image's class (1 - s + s / C) w.
    """
    share = smoothing / len(weights)
    if share * weights.max() >= (1 - smoothing + share) * weights.min():
        raise UserError(
            "config.class_weights",
            f"--class-weights balanced with --label-smoothing {smoothing:g} would favor the rarest class for images of "
            f"the largest: their sizes differ by a factor of {weights.max() / weights.min():,.0f}. Add "
            "--label-smoothing 0, or use --sampler balanced instead.",
        )


@contextmanager
def failures_explained(logger: Logger, batch_size: int) -> Iterator[None]:
    """Turns out-of-memory errors and killed worker processes into RunFailed; the text log gets every error."""
    try:
        yield
    except Exception as error:  # every error goes into the text log; it is raised again
        failure = _out_of_memory(batch_size) if is_out_of_memory(error) else explain_worker_failure(error) or error
        is_explained = isinstance(failure, RunFailed)
        with suppress(RunFailed):
            logger.file_only(str(failure) if is_explained else f"{type(failure).__name__}: {failure}")
        if failure is error:
            raise
        raise failure from error


def _out_of_memory(batch_size: int) -> RunFailed:
    return RunFailed(
        "train.memory",
        f"Out of memory at {batch_size} images per step. Give --batch-size {max(1, batch_size // 2)} or less, and "
        "lower --lr by the same factor.",
    )
