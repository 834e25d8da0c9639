"""cifar100/optim/ema.py compared with its formulas, and training runs with EMA weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conftest import DeviceReads, assert_identical
from torch.nn import functional as F

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.checkpoints.weights import load_weights, save_weights
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.evaluation.evaluate import evaluate_model
from cifar100.model import ResNet
from cifar100.optim.build import build_optimizer
from cifar100.optim.ema import ModelEma, update_bn
from cifar100.train import train
from cifar100.training.step import TrainStep

CPU = select_device("cpu", "fp32")


def network() -> ResNet:
    torch.manual_seed(0)
    return CPU.prepare(ResNet((1, 1, 1, 1), 5, 8))


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(12, 3, 16, 16, generator=generator), torch.randint(5, (12,), generator=generator))
        for _ in range(count)
    ]


def test_ema_equals_its_formula() -> None:
    model = network()
    average = ModelEma(model, 0.7)
    expected = model.fc.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.fc.weight += torch.randn_like(model.fc.weight)
        average.update(step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.fc.weight.detach()
    kept = average.model.state_dict()["fc.weight"]
    torch.testing.assert_close(kept, expected)
    assert not any(weight.requires_grad for weight in average.model.parameters())


def test_update_bn_computes_the_statistics_of_the_batches() -> None:
    """For the first batch norm, whose input is simply the output of the first convolution."""
    model, some = network(), [images for images, _ in batches()]
    some[-1] = some[-1][:2]  # a last batch counts less than the others
    update_bn(model, some, CPU)
    with torch.no_grad():
        shown = [model.conv1(images) for images in some]
    weights = torch.tensor([len(images) for images in some]) / sum(map(len, some))
    means = weights @ torch.stack([x.mean((0, 2, 3)) for x in shown])
    variances = weights @ torch.stack([x.var((0, 2, 3)) for x in shown])
    torch.testing.assert_close(model.bn1.running_mean, means)
    torch.testing.assert_close(model.bn1.running_var, variances)
    assert model.bn1.momentum == 0.1


def test_update_bn_does_not_synchronize_with_the_device() -> None:
    with DeviceReads() as reads:
        update_bn(network(), [images for images, _ in batches()], CPU)
        assert reads.count == 0
        float(torch.ones(()))
    assert reads.count == 1, "DeviceReads must count a synchronizing read"


def test_update_bn_changes_all_statistics_of_an_ema() -> None:
    model = ModelEma(network(), 0.9).model
    before = copy.deepcopy(model.state_dict())
    update_bn(model, [images for images, _ in batches()], CPU)
    after = {name: value for name, value in model.state_dict().items() if "running" in name}
    assert not [name for name, value in after.items() if torch.equal(value, before[name])]


def test_an_ema_shares_the_process_group_of_sync_bn() -> None:
    """It cannot be copied."""

    class Group:
        def __deepcopy__(self, _memo: object) -> None:
            raise TypeError("cannot pickle 'ProcessGroup' object")

    source = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network(), Group())
    average = ModelEma(source, 0.9).model
    (first, *_) = [part for part in average.modules() if isinstance(part, torch.nn.SyncBatchNorm)]
    (original, *_) = [part for part in source.modules() if isinstance(part, torch.nn.SyncBatchNorm)]
    assert first.process_group is original.process_group


def test_training_accuracy_of_soft_labels_uses_the_most_probable_class() -> None:
    model, ((images, _),) = network(), batches(1)
    config = Config().replace(label_smoothing=0.0).optim
    logits = copy.deepcopy(model)(images)
    soft_labels = torch.lerp(F.one_hot(logits.argmax(1), 5).float(), torch.full((12, 5), 0.2), 0.3)
    step = TrainStep(model, build_optimizer(model, config), CPU, config)
    step(images, soft_labels, learning_rate=0.1, step_index=0)
    assert int(step.correct) == 12
    expected = -(soft_labels * F.log_softmax(logits, dim=1)).sum(1).mean()
    assert float(step.loss_sum) / 12 == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.usefixtures("narrow")
def test_ema_weights_are_evaluated_and_saved(tiny_data: Path, tmp_path: Path) -> None:
    settings = {"data_dir": tiny_data, "run_dir": tmp_path / "run", "report": False, "device": "cpu"}
    config = Config().replace(epochs=2, batch_size=64, warmup_epochs=1, ema_decay=0.9, precision="fp32", **settings)
    result = train(config)
    last = load_checkpoint(result.folder / "last.pth")
    assert_identical(last.weights, result.model.state_dict())
    assert not torch.equal(last.weights["fc.weight"], last.training_weights["fc.weight"])
    dataset = load_dataset(config)
    evaluation = evaluate_model(
        last.build(), dataset.test, name="test", dataset=dataset, config=config.augment, compute=CPU
    )
    assert evaluation.loss == pytest.approx(result.history[-1]["loss"], rel=1e-4)
    save_weights(last, tmp_path / "shared.safetensors")
    shared = load_weights(tmp_path / "shared.safetensors")
    assert_identical(shared.weights, last.weights)
    assert not shared.training_weights
    best = load_checkpoint(result.folder / "best_model.pth")
    assert best.metrics["top1"] == max(row["top1"] for row in result.history)


@pytest.mark.usefixtures("narrow")
def test_a_checkpoint_between_evaluations_has_the_statistics_of_its_ema_weights(
    tiny_data: Path, tmp_path: Path
) -> None:
    settings = {"data_dir": tiny_data, "report": False, "device": "cpu", "checkpoint_every": 1, "ema_decay": 0.9}
    config = Config().replace(epochs=2, batch_size=64, warmup_epochs=1, precision="fp32", **settings)
    for name, every in (("often", 1), ("seldom", 2)):
        train(config.replace(run_dir=tmp_path / name, eval_every=every))
    often, seldom = (load_checkpoint(tmp_path / name / "checkpoint_epoch_1.pth") for name in ("often", "seldom"))
    assert_identical(seldom.weights, often.weights)
    train(config.replace(run_dir=tmp_path / "stopped", eval_every=2, checkpoint_every=0, stop_after=1))
    assert_identical(load_checkpoint(tmp_path / "stopped" / "last.pth").weights, often.weights)
