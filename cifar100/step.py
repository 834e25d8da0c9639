"""One training step behind one function: precision, loss, gradients, update, and the running sums of the epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.device import Compute
from cifar100.optim import set_rate


class TrainStep:
    """Trains a model one batch at a time, and sums what is reported, without ever making the CPU wait for the device.

    `loss_sum` (of smoothed losses), `correct` and `seen` run over the images since `reset_sums`. `first_bad` is the
    number of the first step whose loss was not finite, -1 where there was none; reading any of them waits.

    Where several processes train together, `model` is the wrapped one (`Processes.replicate`), which averages their
    gradients in the backward pass; `weight`, of a step's number, is what the loss of this process's images counts.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        compute: Compute,
        *,
        label_smoothing: float,
        compiled: bool = False,
        weight: Callable[[int], float] = lambda _number: 1.0,
    ) -> None:
        self.model = model
        self.forward = torch.compile(model, dynamic=False) if compiled else model
        self.optimizer = optimizer
        self.compute = compute
        self.label_smoothing = label_smoothing
        self.weight = weight
        # fp16 gradients would underflow unscaled; disabled, the scaler is transparent
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self.first_bad = torch.tensor(-1, device=compute.device)
        self.reset_sums()

    def reset_sums(self, loss_sum: float = 0.0, correct: int = 0, seen: int = 0) -> None:
        """Start the sums afresh, or from where an interrupted epoch left them."""
        self.loss_sum = torch.tensor(loss_sum, dtype=torch.float32, device=self.compute.device)
        self.correct = torch.tensor(correct, device=self.compute.device)
        self.seen = seen

    def warm_up(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Compile, and choose kernels, for batches of each (images, side), before a clock runs and the first step is
        taken. Everything is then as it was."""
        before = copy.deepcopy(self.model.state_dict())
        scaler = self.scaler.state_dict()
        for count, side in shapes:
            images = torch.zeros(count, 3, side, side, device=self.compute.device)
            self(images, torch.zeros(count, dtype=torch.long, device=images.device), learning_rate=0.0, number=0)
        self.model.load_state_dict(before)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.scaler.load_state_dict(scaler)
        self.first_bad.fill_(-1)
        self.reset_sums()
        self.compute.synchronize()

    def __call__(self, images: Tensor, labels: Tensor, *, learning_rate: float, number: int) -> None:
        """Update the weights on images [B, 3, S, S] and labels [B]; `number` counts the run's steps from 0."""
        set_rate(self.optimizer, learning_rate)
        with self.compute.autocast():
            logits = self.forward(images)  # [B, classes]
            if len(labels):
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
            else:  # a last batch of fewer images than processes: this one only joins in the averaging
                loss = logits.float().sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * self.weight(number)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

        with torch.no_grad():
            self.loss_sum += loss * len(labels)
            self.correct += (logits.argmax(dim=1) == labels).sum()
            self.seen += len(labels)
            newly_bad = (self.first_bad < 0) & ~torch.isfinite(loss)
            self.first_bad = torch.where(newly_bad, torch.full_like(self.first_bad, number), self.first_bad)
