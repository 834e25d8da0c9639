"""A training step whose forward pass, backward pass and Muon update are one CUDA graph per shape of batch.

The CPU takes 25 ms to launch the kernels of a step of the fast recipe; an H100 computes it in 4 to 10 ms. For
studies on a GPU: benchmarks/study.py --cuda-graphs. In bf16 or fp32, in one process, with Muon, without class weights.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*: as in cifar100.optim.muon

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cifar100.optim import muon
from cifar100.optim.schedule import set_lr
from cifar100.training.step import TrainStep

WARM_UP_STEPS = 3


class CudaGraphStep(TrainStep):
    """TrainStep, captured at the first batch of each shape and replayed from then on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.optimizer, muon.Muon):
            raise ValueError("CUDA graphs are implemented for the optimizer muon")
        self.muon = self.optimizer
        # a graph contains numbers as constants, so learning rates are tensors on the device
        self.learning_rates = [torch.zeros((), device=self.compute.device) for _ in self.muon.param_groups]
        self.captured: dict[Any, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}

    def warm_up(self, shapes: Any) -> None:
        """Nothing: a shape is warmed up before it is captured."""

    def __call__(self, images: Tensor, labels: Tensor, *, learning_rate: float, step_index: int) -> None:
        """As in TrainStep; the batches of one shape have labels of one dtype."""
        set_lr(self.muon, learning_rate)
        for tensor, group in zip(self.learning_rates, self.muon.param_groups, strict=True):
            tensor.fill_(group["lr"])
        if images.shape not in self.captured:
            self.captured[images.shape] = self.capture(images, labels)
        loss, logits = self.captured[images.shape](images, labels)
        if self.ema is not None:
            self.ema.update(step_index)
        self._add_to_sums(loss, logits, labels, step_index)

    def capture(self, images: Tensor, labels: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The step as a graph, from a batch to its loss and logits; weights, statistics and momenta are unchanged."""
        own_images, own_labels = torch.empty_like(images).copy_(images), torch.empty_like(labels).copy_(labels)
        before = [tensor.detach().clone() for tensor in self._state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # selects kernels, and creates the momenta
            for _ in range(WARM_UP_STEPS):
                self.work(own_images, own_labels)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self.muon.zero_grad(set_to_none=True)  # the gradients are allocated within the graph
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the loader's thread pins memory meanwhile
            loss, logits = self.work(own_images, own_labels)
        with torch.no_grad():
            state = self._state()
            for tensor, value in zip(state, before, strict=False):
                tensor.copy_(value)
            for momentum in state[len(before) :]:  # those that did not exist before the first capture
                momentum.zero_()

        def replay(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            own_images.copy_(images)
            own_labels.copy_(labels)
            graph.replay()
            return loss, logits

        return replay

    def work(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward, update: what is captured. Returns the loss and the logits [B, classes]."""
        loss, logits = self._backward(images, labels, 0)
        self._update()
        return loss, logits

    def _state(self) -> list[Tensor]:
        """What a step changes in place; the momenta last."""
        momenta = [state["momentum_buffer"] for state in self.muon.state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *momenta]

    @torch.no_grad()
    def _update(self) -> None:
        """`Muon.step` with learning rates that are tensors."""
        for group, learning_rate in zip(self.muon.param_groups, self.learning_rates, strict=True):
            parameters, updates = self.muon.prepare_updates(group)
            if parameters:
                torch._foreach_add_(parameters, torch._foreach_mul(updates, learning_rate), alpha=-1)
