"""Which kernels oneDNN chooses for a training step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

STEP = """
import torch
from cifar100.model import resnet18
model = torch.nn.utils.convert_conv2d_weight_memory_format(resnet18(), torch.channels_last).train()
model(torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)).sum().backward()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_no_convolution_of_a_training_step_uses_a_reference_kernel() -> None:
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True
    ).stdout
    kernels = [line.split(",")[6] for line in printed.splitlines() if ",exec," in line and ",convolution," in line]
    assert len(kernels) >= 59, "20 convolutions: forward, weight gradients, and input gradients of all but the first"
    assert not [kernel for kernel in kernels if kernel.startswith("ref")]
