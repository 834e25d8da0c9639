"""Weights under the names that other libraries give to the layers of the same network -> under ours.

torchvision's are ours. timm's BasicBlock adds only layers without weights, so its are too; its checkpoints wrap them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict_ema", "state_dict", "model_state_dict", "model", "net")
"""Keys under which checkpoints of others keep their state dict; timm prefers averaged weights, and so do we."""

PREFIX = re.compile(r"^((module|_orig_mod|model|net)\.)+")
"""Of DataParallel, torch.compile, and the trainers that hold a network as an attribute."""

KEY_PATTERNS = [
    # kuangliu/pytorch-cifar
    (r"^linear\.", r"fc."),
    (r"\.shortcut\.", r".downsample."),
    # weiaicunzai/pytorch-cifar100
    (r"^conv1\.0\.", r"conv1."),
    (r"^conv1\.1\.", r"bn1."),
    *((rf"^conv{stage + 1}_x\.", rf"layer{stage}.") for stage in (1, 2, 3, 4)),
    (r"\.residual_function\.0\.", r".conv1."),
    (r"\.residual_function\.1\.", r".bn1."),
    (r"\.residual_function\.3\.", r".conv2."),
    (r"\.residual_function\.4\.", r".bn2."),
]


def unwrap(content: Mapping[str, Any]) -> Any:
    """The state dict in what a file of others holds, or all of it where it is wrapped in nothing known."""
    return next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)


def remap_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, in fp32, with the batch counters that some leave out.

    A name that is not known stays, for `Checkpoint.build` to refuse.
    """
    renamed = {}
    for name, tensor in weights.items():
        ours = PREFIX.sub("", name)
        for pattern, replacement in KEY_PATTERNS:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = tensor.float() if tensor.is_floating_point() else tensor
    for name in [name for name in renamed if name.endswith(".running_mean")]:
        counter = name.removesuffix("running_mean") + "num_batches_tracked"
        renamed.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return renamed
