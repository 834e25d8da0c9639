"""Weights of the same network with the parameter names of other libraries are mapped to our names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_one_sentence
from torch import Tensor

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.model import build_model
from cifar100.support.errors import UserError

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def torchvision_names(model: str) -> list[str]:
    """The names in `torchvision.models.resnet18().state_dict()`, in order; timm uses the same names."""
    names = ["conv1.weight", *(f"bn1.{part}" for part in NORM)]
    for stage, depth in enumerate(DEPTHS[model], start=1):
        for block in range(depth):
            here = f"layer{stage}.{block}"
            for number in (1, 2):
                names += [f"{here}.conv{number}.weight", *(f"{here}.bn{number}.{part}" for part in NORM)]
            if stage > 1 and block == 0:
                names += [f"{here}.downsample.0.weight", *(f"{here}.downsample.1.{part}" for part in NORM)]
    return [*names, "fc.weight", "fc.bias"]


def kuangliu(name: str) -> str:
    """The name in `kuangliu/pytorch-cifar`, saved from DataParallel."""
    return "module." + name.replace("downsample", "shortcut").replace("fc.", "linear.")


def weiaicunzai(name: str) -> str:
    """The name in `weiaicunzai/pytorch-cifar100`."""
    if name.startswith(("conv1.", "bn1.")):
        return name.replace("conv1.", "conv1.0.").replace("bn1.", "conv1.1.")
    for layer, place in (("conv1", 0), ("bn1", 1), ("conv2", 3), ("bn2", 4)):
        name = name.replace(f".{layer}.", f".residual_function.{place}.")
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}.", f"conv{stage + 1}_x.")
    return name.replace("downsample", "shortcut")


Weights = dict[str, Tensor]

SHAPES: dict[str, tuple[Callable[[str], str], Callable[[Weights], Any]]] = {
    "torchvision": (str, dict),
    "timm": (str, lambda weights: {"arch": "resnet18", "epoch": 199, "state_dict": weights, "version": 2}),
    "without num_batches_tracked": (
        str,
        lambda weights: {name: tensor for name, tensor in weights.items() if "num_batches" not in name},
    ),
    "kuangliu": (kuangliu, lambda weights: {"net": weights, "acc": 95.0, "epoch": 199}),
    "weiaicunzai": (weiaicunzai, dict),
}


@pytest.mark.parametrize(
    ("model", "naming"),
    [*(("resnet18", naming) for naming in SHAPES), ("resnet34", "torchvision"), ("resnet34", "weiaicunzai")],
)
def test_parameter_names_of_other_libraries(tmp_path: Path, model: str, naming: str) -> None:
    theirs, wrapped = SHAPES[naming]
    ours = {name: torch.full_like(t, i) for i, (name, t) in enumerate(build_model(model, 100).state_dict().items())}
    weights = {theirs(name): ours[name] for name in torchvision_names(model)}
    torch.save(wrapped(weights), tmp_path / "weights.pth")
    checkpoint = load_checkpoint(tmp_path / "weights.pth")
    assert (checkpoint.model, len(checkpoint.classes)) == (model, 100)
    found = checkpoint.build().state_dict()
    for name in torchvision_names(model):
        if not (naming == "without num_batches_tracked" and "num_batches" in name):
            assert torch.equal(found[name], ours[name]), name


def test_half_precision_is_converted_to_fp32(tmp_path: Path) -> None:
    weights = build_model("resnet18", 10).state_dict()
    torch.save({name: tensor.half() for name, tensor in weights.items()}, tmp_path / "w.pth")
    weights = load_checkpoint(tmp_path / "w.pth").build().state_dict()
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}


def test_the_imagenet_stem_is_refused(tmp_path: Path) -> None:
    weights = build_model("resnet18", 100).state_dict() | {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / "weights.pth")
    assert_one_sentence(str(caught.value), "conv1.weight is (64, 3, 7, 7) and should be (64, 3, 3, 3)")
