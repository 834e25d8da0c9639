"""Train ResNet-18 from the parts of the package, without `cifar100.train.train`: loaders, network, step, evaluation.

    python examples/minimal.py --recipe fast
    python examples/minimal.py --data-dir my_photos --epochs 30

On the CPU the result is bit-identical to that of `cifar100 train` with the same settings, which adds checkpoints, exact
resume, logs and distributed training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.evaluation.evaluate import evaluate_model
from cifar100.model import resnet18
from cifar100.optim.build import build_optimizer
from cifar100.optim.schedule import lr_at_step
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep


def train(config: Config) -> float:
    """Train with these settings; returns top-1 on the test images after the last epoch, in 0..1."""
    compute = select_device(config.run.device, config.run.precision)
    dataset = load_dataset(config)
    loader = TrainLoader.from_config(config, dataset.train, compute.device)
    torch.manual_seed(config.optim.seed)
    model = compute.prepare(resnet18(len(dataset.classes)))
    step = TrainStep(model, build_optimizer(model, config.optim), compute, config.optim)

    top1 = 0.0
    for epoch in range(config.optim.epochs):
        model.train()
        step.reset_sums()
        for number, (images, labels) in enumerate(loader.epoch(epoch), epoch * len(loader)):
            step(images, labels, learning_rate=lr_at_step(number, len(loader), config.optim), step_index=number)
        result = evaluate_model(
            model, dataset.test, name="test", dataset=dataset, config=config.augment, compute=compute
        )
        top1, loss = result.top1, step.loss_sum.item() / step.num_samples
        print(f"epoch {epoch + 1}/{config.optim.epochs}  train loss {loss:.4f}  test top-1 {top1:.2%}")
    return top1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # "best" needs EMA and "finetune" initial weights, which this loop does not have
    parser.add_argument("--recipe", default="baseline", choices=["baseline", "fast"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    train(recipe(args.recipe, args.epochs).replace(data_dir=args.data_dir))
