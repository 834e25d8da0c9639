"""Class imbalance: `--sampler balanced` and `--class-weights balanced`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_identical, write_official
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch.nn import functional as F

from cifar100.augmentation.class_balance import balanced_order, balanced_weights
from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import Compute
from cifar100.config import AugmentConfig, Config, OptimConfig
from cifar100.dataset import Split
from cifar100.optim.build import build_optimizer
from cifar100.support.errors import UserError
from cifar100.train import train
from cifar100.training import setup
from cifar100.training.setup import check_class_weights
from cifar100.training.step import TrainStep

LABELS = np.repeat([0, 1, 3], [90, 9, 1])


def test_the_balanced_order_is_balanced_over_classes_and_over_images_of_a_class() -> None:
    order = balanced_order(LABELS, seed=1, epoch=0)
    assert order.shape == LABELS.shape
    served = np.bincount(LABELS[order], minlength=4)
    assert sorted(served.tolist()) == [0, 33, 33, 34]
    for label, images in ((0, 90), (1, 9), (3, 1)):
        times = np.bincount(order[LABELS[order] == label], minlength=100)[label == LABELS]
        assert len(times) == images
        assert times.max() - times.min() <= 1
    assert balanced_order(LABELS, seed=1, epoch=0).tolist() == order.tolist()
    others = [balanced_order(LABELS, seed=1, epoch=1), balanced_order(LABELS, seed=2, epoch=0)]
    assert all(other.tolist() != order.tolist() for other in others)
    assert np.bincount(LABELS[order[:30]], minlength=4).max() < 25, "the classes must be shuffled"


def test_the_balanced_order_can_start_at_any_step() -> None:
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    config = AugmentConfig(sampler="balanced", crop_padding=0, flip_probability=0, cutout_size=0)
    loader = TrainLoader(
        Split(images, LABELS, ""), config, batch_size=16, seed=5, device=torch.device("cpu"), num_classes=4
    )
    whole = list(loader.epoch(3))
    assert sum(len(labels) for _, labels in whole) == 100
    rest = list(loader.epoch(3, first_step=4))
    assert all(torch.equal(a, b) for a, b in zip(rest[0], whole[4], strict=True))
    labels = torch.cat([labels for _, labels in whole]).numpy()
    assert labels.tolist() == LABELS[balanced_order(LABELS, seed=5, epoch=3)].tolist()


def test_class_weights_equal_those_of_sklearn() -> None:
    weights = balanced_weights(LABELS, 4)
    present = np.unique(LABELS)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=LABELS), rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_the_loss_weighs_each_image_by_its_class() -> None:
    """Without label smoothing the loss is the mean over images of class weight times cross-entropy."""
    torch.manual_seed(0)
    labels = torch.from_numpy(LABELS[::3].copy())
    images = torch.randn(len(labels), 3, 1, 1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 4))
    config = OptimConfig(label_smoothing=0, class_weights="balanced")
    compute = Compute(torch.device("cpu"), "fp32", "")
    weights = torch.from_numpy(balanced_weights(LABELS, 4))
    each = torch.nn.functional.cross_entropy(model(images), labels, reduction="none").detach().numpy()
    step = TrainStep(model, build_optimizer(model, config), compute, config, class_weights=weights)
    step(images, labels, learning_rate=0.0, step_index=0)
    by_sklearn = compute_sample_weight("balanced", LABELS)[::3]
    assert step.loss_sum.item() / step.num_samples == pytest.approx(float((each * by_sklearn).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("sizes", "smoothing", "is_refused"),
    [((980, 20), 0.1, True), ((940, 60), 0.1, False), ((980, 20), 0.0, False), ((500,) * 99 + (5,), 0.2, False)],
)
def test_class_weights_that_would_teach_one_class_are_refused(
    sizes: tuple[int, ...], smoothing: float, is_refused: bool
) -> None:
    """The least loss of an image of the most frequent class is at the target that F.cross_entropy weights."""
    weights = balanced_weights(np.repeat(np.arange(len(sizes)), sizes), len(sizes))
    target = smoothing / len(sizes) * torch.from_numpy(weights)
    target[0] += (1 - smoothing) * weights[0]
    logits = (target / target.sum()).log()[None].requires_grad_()
    F.cross_entropy(logits, torch.tensor([0]), torch.from_numpy(weights), label_smoothing=smoothing).backward()
    assert logits.grad is not None
    assert smoothing == 0 or logits.grad.abs().max() < 1e-5, "not the minimum"
    assert bool(logits.argmax() != 0) == is_refused
    with pytest.raises(UserError) if is_refused else nullcontext():
        check_class_weights(weights, smoothing)


def test_albumentations_refuses_the_balanced_sampler() -> None:
    with pytest.raises(UserError):
        AugmentConfig(sampler="balanced", pipeline="albumentations")


@pytest.mark.usefixtures("narrow")
def test_a_class_balanced_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_official(tmp_path / "data", train_per_class=2, test_per_class=1)
    weights = np.linspace(0.5, 1.5, 100, dtype=np.float32)  # the classes have the same size
    monkeypatch.setattr(setup, "balanced_weights", lambda *_: weights)
    base = Config().replace(
        data_dir=data,
        epochs=2,
        warmup_epochs=1,
        batch_size=64,
        report=False,
        sampler="balanced",
        class_weights="balanced",
    )
    whole = train(base.replace(run_dir=tmp_path / "whole"))
    half = base.replace(run_dir=tmp_path / "half")
    train(half.replace(stop_after=1))
    assert_identical(train(half, resume=True).model.state_dict(), whole.model.state_dict())
    weights[:] = 1
    equal = train(base.replace(run_dir=tmp_path / "equal"))
    assert not torch.equal(equal.model.state_dict()["fc.weight"], whole.model.state_dict()["fc.weight"])
