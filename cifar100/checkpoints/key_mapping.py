"""Find the network in a foreign file, and map the names of its layers to ours.

torchvision's names are ours. timm's BasicBlock adds only layers without weights, so its are too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
"""Keys of the state dict in foreign checkpoints; like timm, EMA weights are preferred."""

MAX_DEPTH = 3
"""Dictionaries around a state dict."""

MAX_TENSORS = 20_000
MAX_NETWORKS = 8

MODULES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
"""The modules of our networks."""

HEADS = ("fc.weight", "linear.weight")

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


def state_dicts(content: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The prefix ("model.net.") and the tensors of each dictionary in a foreign file, the most likely state dict first.

    A dictionary that occurs several times, as a file of a few bytes may repeat one, is searched once.
    """
    seen: set[int] = set()

    def search(found: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
        seen.add(id(found))
        for name, value in ({name: found[name] for name in WRAPPERS if name in found} | dict(found)).items():
            if depth and isinstance(value, Mapping) and id(value) not in seen:
                yield from search(value, f"{prefix}{str(name)[:60]}.", depth - 1)
        tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if tensors:
            yield prefix, tensors

    return search(content, "", MAX_DEPTH)


def candidate_networks(names: Iterable[str]) -> list[dict[str, str]]:
    """The networks that tensors of these names may belong to, each as {our name: name in the file}.

    Each is found by the name of its classifier (HEADS) after a prefix ("", "module.", "model.net.", ...), the shortest
    prefix first. Names that KEY_PATTERNS does not match are kept.
    """
    names = list(names)
    prefixes = {name.removesuffix(head) for name in names for head in HEADS if name.endswith(head)}
    ordered = sorted((prefix for prefix in prefixes if not prefix or prefix.endswith(".")), key=lambda p: (len(p), p))
    return [
        {_our_name(name[len(prefix) :]): name for name in names if name.startswith(prefix)}
        for prefix in ordered[:MAX_NETWORKS]
    ]


def _our_name(name: str) -> str:
    for pattern, replacement in KEY_PATTERNS:
        name = re.sub(pattern, replacement, name)
    return name
