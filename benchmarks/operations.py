"""The operations of a training step, counted on the CPU: an estimate of the kernels that a GPU would launch.

    python benchmarks/operations.py --state before
    python benchmarks/operations.py --state after

A dispatch mode counts operations that compute, not views and allocations. A `_foreach_*` operation counts as one if its
tensors allow the fused path on a GPU (equal shapes and strides), else as one per tensor. The network is a quarter as
wide as ResNet-18 and a batch has 8 images, which does not change the counts; bf16 autocast. SGD runs as on a GPU
(foreach, or fused if `uses_fused_sgd`). A synchronization is a value that the CPU reads from the device. Kernels that
an operation launches internally are not counted.
Writes benchmarks/results/operations.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from circumstances import RESULTS, circumstances
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cifar100.augmentation.loader import TrainLoader
from cifar100.compute.device import Compute, select_device
from cifar100.config import Config
from cifar100.dataset import synthetic
from cifar100.model import ResNet
from cifar100.optim import muon
from cifar100.optim.build import build_optimizer, uses_fused_sgd
from cifar100.optim.ema import ModelEma, update_bn
from cifar100.recipes import recipe
from cifar100.training.step import TrainStep

FREE = {
    "detach",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
    "set_",
    "_record_function_enter_new",
    "_record_function_exit",
}
"""Operations without a kernel, beside views and allocations."""

BATCH_SIZE, STEPS = 8, 3


class Counting(TorchDispatchMode):
    """Counts operations by phase of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = ""
        self.counts: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.synchronizations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if self.phase and name == "_local_scalar_dense":
            self.synchronizations[self.phase] += 1
        elif self.phase and not (func.is_view or name in FREE or "empty" in name):
            launches = _foreach_launches(args) if name.startswith("_foreach_") else 1
            self.counts[self.phase] += launches
            self.names[f"{self.phase}: {name}"] += launches
        return func(*args, **(kwargs or {}))

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count the operations inside as this phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def wrap(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its operations counted as a phase."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.during(phase):
                return function(*args, **kwargs)

        return counted


def _foreach_launches(args: Any) -> int:
    """1 if torch's rule for the fused path holds (ATen/native/ForeachUtils.h), else one launch for each tensor."""
    lists = [value for value in args if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor)]

    def layout(tensor: Tensor) -> tuple[Any, ...]:
        strides = [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]
        return tuple(tensor.shape), strides, tensor.dtype

    fused = all(len({str(layout(tensor)) for tensor in alike}) == 1 for alike in zip(*lists, strict=True))
    return 1 if fused else len(lists[0])


def count(config: Config) -> dict[str, Any]:
    """Operations and synchronizations of the last of a few steps with these settings, by phase."""
    torch.manual_seed(0)
    compute, dataset = select_device("cpu", "bf16"), synthetic.make()
    split = dataset.train.take(torch.arange(BATCH_SIZE * STEPS).numpy())
    loader = TrainLoader(split, config.augment, batch_size=BATCH_SIZE, seed=0, device=compute.device, num_classes=100)
    model = compute.prepare(ResNet((2, 2, 2, 2), 100, 16)).train()
    optimizer = build_optimizer(model, config.optim)
    fused = uses_fused_sgd(Compute(torch.device("cuda"), "bf16", ""))
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            group["foreach"], group["fused"] = not fused, fused
    ema = ModelEma(model, config.optim.ema_decay) if config.optim.ema_decay else None
    step = TrainStep(model, optimizer, compute, config.optim, ema=ema)

    mode = Counting()
    step.forward, step._loss = mode.wrap("forward", step.forward), mode.wrap("loss", step._loss)  # type: ignore[method-assign]
    optimizer.step = mode.wrap("optimizer", optimizer.step)  # type: ignore[method-assign]
    backward = Tensor.backward
    Tensor.backward = mode.wrap("backward", backward)  # type: ignore[method-assign]
    try:
        batches = loader.epoch(0)
        for number in range(STEPS):
            for counter in (mode.counts, mode.names, mode.synchronizations):
                counter.clear()
            with mode, mode.during("augmentation"):
                images, labels = next(batches)
            with mode, mode.during("sums"):
                step(images, labels, learning_rate=0.1, step_index=number)
    finally:
        Tensor.backward = backward  # type: ignore[method-assign]
    return {
        "operations": dict(mode.counts) | {"total": mode.counts.total()},
        "synchronizations": mode.synchronizations.total(),
        "most_frequent": dict(mode.names.most_common(12)),
    }


def statistics_synchronizations() -> float:
    """Synchronizations per batch of `update_bn`."""
    compute, mode, batches = select_device("cpu", "fp32"), Counting(), 4
    model = compute.prepare(ResNet((2, 2, 2, 2), 100, 16))
    images = torch.randn(batches, BATCH_SIZE, 3, 32, 32)
    with mode, mode.during("statistics"):
        update_bn(model, images, compute)
    return mode.synchronizations.total() / batches


def main() -> None:
    """Count, and store the result under the value of --state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", choices=("before", "after"), required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    muon.newton_schulz_dtype = lambda _device: torch.bfloat16  # as on a GPU
    settings = {"baseline": recipe("baseline"), "fast": recipe("fast"), "best": recipe("best")}
    result: dict[str, Any] = {name: count(config.replace(train_sizes=())) for name, config in settings.items()}
    result |= {"statistics_synchronizations_per_batch": statistics_synchronizations(), "circumstances": circumstances()}
    path = RESULTS / "operations.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | {args.state: result}, indent=2) + "\n")
    for name in settings:
        print(name, result[name]["operations"])
    print(result["statistics_synchronizations_per_batch"], "synchronizations a batch of recomputed statistics")


if __name__ == "__main__":
    main()
