"""One training step behind one function: precision, loss, gradients, update, and the running sums of the epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.compute.device import Compute, memory_format
from cifar100.config import OptimConfig
from cifar100.optim.ema import ModelEma
from cifar100.optim.schedule import set_lr


class TrainStep:
    """Trains a model batch by batch and accumulates metrics without synchronizing with the device.

    `loss_sum` (of smoothed losses), `correct` and `num_samples` run over the images since `reset_sums`.
    `first_nonfinite_step` is the first step whose loss was not finite, -1 if there was none. Reading one of them
    synchronizes.

    With several ranks, `model` is the DDP-wrapped one (`DistContext.wrap_ddp`), and `loss_weight(step)` scales this
    rank's loss. `ema`, if given, tracks the weights. `class_weights`, float32 [C] on the device, scale the loss of each
    class.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        compute: Compute,
        config: OptimConfig,
        *,
        compiled: bool = False,
        ema: ModelEma | None = None,
        loss_weight: Callable[[int], float] = lambda _number: 1.0,
        class_weights: Tensor | None = None,
    ) -> None:
        self.model = model
        if compiled:  # one graph per shape of batch; above the limit PyTorch would run eagerly
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        self.forward = torch.compile(model, dynamic=False) if compiled else model
        self.optimizer = optimizer
        self.compute = compute
        self.config = config
        self.ema = ema
        self.loss_weight = loss_weight
        self.class_weights = class_weights
        # unscaled fp16 gradients would underflow; a disabled scaler does nothing
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self.first_nonfinite_step = torch.tensor(-1, device=compute.device)
        self.reset_sums()

    def reset_sums(self, loss_sum: float = 0.0, correct: int = 0, num_samples: int = 0) -> None:
        """Set the sums to 0, or to those of an interrupted epoch."""
        self.loss_sum = torch.tensor(loss_sum, dtype=torch.float32, device=self.compute.device)
        self.correct = torch.tensor(correct, device=self.compute.device)
        self.num_samples = num_samples

    def warm_up(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Compile, and select kernels, for batches of these (number of images, resolution), before the first step.
        Leaves no trace in the state."""
        models = [self.model, self.ema.model] if self.ema else [self.model]
        before = [copy.deepcopy(model.state_dict()) for model in models]
        scaler = self.scaler.state_dict()
        for count, side in shapes:
            images = torch.zeros(count, 3, side, side, device=self.compute.device)
            # the layout of real batches, which would be compiled again otherwise
            images = images.contiguous(memory_format=memory_format(images.device))
            self(images, torch.zeros(count, dtype=torch.long, device=images.device), learning_rate=0.0, step_index=0)
        for model, state in zip(models, before, strict=True):
            model.load_state_dict(state)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.scaler.load_state_dict(scaler)
        self.first_nonfinite_step.fill_(-1)
        self.reset_sums()
        self.compute.synchronize()

    def __call__(self, images: Tensor, labels: Tensor, *, learning_rate: float, step_index: int) -> None:
        """Update the weights on images [B, 3, S, S] and labels, int64 [B] or soft labels, float32 [B, classes].
        `step_index` is the step of the run, from 0."""
        set_lr(self.optimizer, learning_rate)
        loss, logits = self._backward(images, labels, step_index)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(step_index)
        self._add_to_sums(loss, logits, labels, step_index)

    def _backward(self, images: Tensor, labels: Tensor, step_index: int) -> tuple[Tensor, Tensor]:
        """Compute the gradients of this batch; returns the loss and the logits [B, classes]."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            logits = self.forward(images)
            # a last batch may have fewer images than there are ranks: those without one only join the all-reduce
            loss = self._loss(logits.float(), labels) if len(labels) else logits.float().sum()
        with self.compute.full_precision():
            self.scaler.scale(loss * self.loss_weight(step_index)).backward()
        return loss.detach(), logits.detach()

    @torch.no_grad()
    def _add_to_sums(self, loss: Tensor, logits: Tensor, labels: Tensor, step_index: int) -> None:
        targets = labels if labels.ndim == 1 else labels.argmax(dim=1)  # of a mixed image, its main class
        self.loss_sum += loss * len(labels)
        self.correct += (logits.argmax(dim=1) == targets).sum()
        self.num_samples += len(labels)
        newly_bad = (self.first_nonfinite_step < 0) & ~torch.isfinite(loss)
        self.first_nonfinite_step = torch.where(
            newly_bad, torch.full_like(self.first_nonfinite_step, step_index), self.first_nonfinite_step
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels."""
        smoothing, weights = self.config.label_smoothing, self.class_weights
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        # the mean over images: PyTorch's own divides by the sum of the weights in the batch, which differs by rank
        return F.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="none").mean()
