"""cifar100/checkpoints/checkpoint.py: detection of weights that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import DeviceReads, untrained

BATCHES = {"bn.num_batches_tracked": torch.tensor(3)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["weights", "training_weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_single_nonfinite_weight_is_detected(value: float, name: str, dtype: torch.dtype) -> None:
    sound = {"large": torch.full((4, 3), 1e38), "empty": torch.zeros(0), "half": torch.ones(5, dtype=dtype)}
    checkpoint = untrained(weights=sound | BATCHES, training_weights=sound)
    with DeviceReads() as reads:
        assert checkpoint.is_finite()
    assert reads.count == 1, "expected one synchronizing read for all tensors"
    bad = sound["half"].clone()
    bad[2] = value
    assert not untrained(**{"weights": sound, name: sound | {"half": bad}}).is_finite()


def test_a_checkpoint_without_floating_point_tensors_is_finite() -> None:
    assert untrained(weights=BATCHES).is_finite()
