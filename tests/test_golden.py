"""Golden losses of the first steps of each recipe, which detect changes in the arithmetic.

`python tests/test_golden.py` records them again, after an intended change.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import select_device
from cifar100.dataset import synthetic
from cifar100.model import build_model
from cifar100.optim import muon
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma
from cifar100.optim.schedule import lr_at_step
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS, BATCH_SIZE, IMAGES = 4, 16, 64
RECIPES = ("baseline", "fast", "best")
PRECISIONS = ("fp32", "bf16") if select_device("cpu").precision == "bf16" else ("fp32",)  # emulated bf16 takes minutes

TOLERANCE = {"fp32": 2e-3, "bf16": 2e-2}
"""Relative tolerance: kernels of other CPUs round differently, and the steps amplify the differences (AVX2 and AVX-512:
0.0009 after four steps of the baseline)."""


def losses(name: str, precision: str) -> list[float]:
    """The running mean of the training loss after each of the first steps of epoch 1."""
    torch.set_num_threads(1)
    muon.newton_schulz_dtype = lambda _device: torch.float32 if precision == "fp32" else torch.bfloat16
    config = recipe(name).replace(batch_size=BATCH_SIZE, train_sizes=(16,))
    compute = select_device("cpu", precision)
    dataset = synthetic.make()
    rows = torch.arange(0, len(dataset.train), len(dataset.train) // IMAGES)[:IMAGES].numpy()
    loader = TrainLoader(
        dataset.train.take(rows), config.augment, batch_size=BATCH_SIZE, seed=0, device=compute.device, num_classes=100
    )
    torch.manual_seed(0)
    model = build_model("resnet18", 100)
    model = compute.prepare(model).train()
    ema = ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None
    optimizer = build_optimizer(model, config.optim)
    step = TrainStep(model, optimizer, compute, replace(config.optim), ema=ema)
    means = []
    for number, (images, labels) in enumerate(loader.epoch(1), start=len(loader)):
        step(images, labels, learning_rate=lr_at_step(number, len(loader), config.optim), step_index=number)
        means.append(step.loss_sum.item() / step.num_samples)
    return means


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", RECIPES)
def test_losses_equal_the_recorded_ones(name: str, precision: str) -> None:
    threads, dtype = torch.get_num_threads(), muon.newton_schulz_dtype
    try:
        measured = losses(name, precision)
    finally:
        torch.set_num_threads(threads)
        muon.newton_schulz_dtype = dtype
    assert len(measured) == STEPS
    assert measured == pytest.approx(json.loads(GOLDEN.read_text())[f"{name}, {precision}"], rel=TOLERANCE[precision])


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({f"{n}, {p}": losses(n, p) for n in RECIPES for p in ("fp32", "bf16")}, indent=2) + "\n"
    )
    sys.stdout.write(GOLDEN.read_text())
