"""Distributed training under torchrun: ranks, shards of a batch, collectives, and DDP.

Without torchrun a training is `DistContext()`: one rank, whose shard is everything and which uses nothing of
torch.distributed. A failure is left to torchrun: it stops the other ranks and reports the rank that failed first.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cifar100.support.errors import RunFailed, UserError

T = TypeVar("T")

SETUP_TIMEOUT = timedelta(minutes=30)
"""Timeout of collectives before training starts: one rank may be downloading the dataset."""


@dataclass
class DistContext:
    """One rank's view of all ranks that train together."""

    rank: int = 0
    """Global rank; rank 0 alone writes the files of the run and prints."""
    size: int = 1
    """World size."""
    local_rank: int = 0
    """Rank on its node: the index of its GPU."""
    num_nodes: int = 1
    backend: str = ""
    """The backend of the gradients: "gloo" between CPUs, "nccl" between GPUs."""
    _cpu_group: Any = None  # for objects and decisions; None: the default group, with SETUP_TIMEOUT
    _gradient_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"{self.size} processes on {self.num_nodes} node{'s' * (self.num_nodes > 1)}, {self.backend}"

    def shard(self, start: int, stop: int) -> slice:
        """This rank's part of start..stop. Parts follow in the order of the ranks; if the range does not divide evenly,
        the first ones have one element more, and the last ones may be empty."""
        quotient, remainder = divmod(stop - start, self.size)
        first, last = (start + rank * quotient + min(rank, remainder) for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def init_groups(self, device: torch.device, timeout_seconds: float) -> None:
        """Create the process groups for training on `device`, with this timeout of a collective."""
        if self.size == 1:
            return
        timeout, self.backend = timedelta(seconds=timeout_seconds), "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._cpu_group = dist.new_group(backend="gloo", timeout=timeout)
        is_gloo = self.backend == "gloo"
        self._gradient_group = self._cpu_group if is_gloo else dist.new_group(backend="nccl", timeout=timeout)

    def wrap_ddp(self, model: nn.Module, *, sync_bn: bool = False, compiled: bool = False) -> nn.Module:
        """The model in DistributedDataParallel: a backward pass leaves the mean of all ranks' gradients in it.

        All ranks start from the weights of rank 0. Buffers are not synchronized: see `broadcast_buffers`. `sync_bn`
        uses SyncBatchNorm. `compiled`: the result will be compiled, for which DDP does not support a static graph.
        Raises UserError if SyncBatchNorm is requested on CPUs.
        """
        if self.size == 1:
            return model
        if sync_bn and self.backend != "nccl":
            raise UserError("dist.sync_bn", "--sync-bn is for GPUs: PyTorch has no SyncBatchNorm for the CPU; omit it.")
        if sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model, self._gradient_group)
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        options: dict[str, Any] = {"process_group": self._gradient_group, name: False}
        # the gradients need no copy of their own; every backward pass reaches the same weights
        options |= {"gradient_as_bucket_view": True, "static_graph": not compiled}
        wrapped = DistributedDataParallel(model, **options)
        if self.backend == "gloo":
            # After the first backward passes (two with a static graph) DDP lays out its buckets anew, which changes the
            # order of summation for three or more ranks: without these passes a resumed run would not be bit-identical.
            wrapped.eval()
            for _ in range(2):
                wrapped(torch.zeros(1, 3, 32, 32)).sum().backward()
            wrapped.train().zero_grad()
        return wrapped

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all ranks the buffers of rank 0: the running statistics that are evaluated and saved."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0, group=self._gradient_group)

    def all_reduce_max(self, *values: int) -> tuple[int, ...]:
        """The maximum over all ranks of each value: what one rank requests, all do."""
        if self.size == 1:
            return values
        reduced = torch.tensor(values)
        dist.all_reduce(reduced, dist.ReduceOp.MAX, group=self._cpu_group)
        return tuple(reduced.tolist())

    def syncs_after(self, step: int) -> bool:
        """Whether the ranks exchange their decisions after this step of the run, counted from 0.

        Between GPUs after every 16th step: it takes 50 to 100 us, and a step a few ms. Between CPUs after every step:
        16 steps may take longer than the 30 s that torchrun waits after SIGTERM.
        """
        return self.backend != "nccl" or (step + 1) % 16 == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._cpu_group)
        return values

    def run_on_main(self, function: Callable[[], T]) -> T:
        """Call `function` on rank 0 and return its result on all ranks; an error that it raises is raised on all."""
        with self.collective_errors():
            result = function() if self.is_main else None
        box: list[Any] = [result]
        if self.size > 1:
            dist.broadcast_object_list(box, 0, group=self._cpu_group)
        return box[0]

    def check_same_on_all_ranks(self, settings: dict[str, Any]) -> None:
        """Raise UserError, naming the first setting that differs, unless all ranks have the same."""
        first, *others = self.gather(settings)
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                if other[name] != value:
                    message = (
                        f"{name} is {value} in process 0 and {other[name]} in process {rank}: start all of them with "
                        "the same command, on the same data."
                    )
                    self.raise_on_all(UserError("dist.mismatch", message))

    @contextmanager
    def collective_errors(self) -> Iterator[None]:
        """A block that all ranks enter: a UserError or RunFailed that one of them raises is raised on all."""
        if self.size == 1:
            yield
            return
        error: UserError | RunFailed | None = None
        try:
            yield
        except (UserError, RunFailed) as raised:
            error = raised
        message = "" if error is None else str(error)
        if self.num_nodes > 1 and error is not None:
            message = f"On {socket.gethostname()}: {message}"
        failures = self.gather((type(error), getattr(error, "code", ""), message, getattr(error, "steps", ())))
        for kind, code, text, steps in failures:
            if kind is UserError:
                self.raise_on_all(UserError(code, text, steps=steps))
            if kind is RunFailed:
                self.raise_on_all(RunFailed(code, text))

    def raise_on_all(self, error: UserError | RunFailed) -> NoReturn:
        """Raise an error that all ranks have alike, after closing the process groups. One rank per node reports it; the
        others exit with its code."""
        self.close()
        if self.local_rank == 0:
            raise error
        raise SystemExit(2 if isinstance(error, UserError) else 1)

    def close(self) -> None:
        """Wait for all ranks, then destroy the process groups.

        torchrun stops all ranks when one exits with a code, and rank 0 may be writing. A rank that exits with its
        groups alive, after its peers have closed their connections, may abort (SIGABRT), which hides its exit code.
        """
        if self.size > 1:
            with suppress(RuntimeError):  # "Connection closed by peer": of a rank that is already past the barrier
                dist.barrier(self._cpu_group)
            dist.destroy_process_group()


@contextmanager
def init_distributed() -> Iterator[DistContext]:
    """The process group of torchrun for the duration of the block; one rank if torchrun did not start this process."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        yield DistContext()
        return
    try:
        dist.init_process_group("gloo", timeout=SETUP_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            "dist.init",
            f"The processes could not connect ({str(error).splitlines()[0]}). Start them with torchrun; with several "
            "nodes, name the network interface of each: export GLOO_SOCKET_IFNAME=eth0.",
        ) from error
    context = DistContext(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        num_nodes=max(1, int(os.environ.get("GROUP_WORLD_SIZE", "1"))),
    )
    try:
        yield context
    except UserError:
        raise
    except Exception as error:  # whatever it is, torchrun reports it; it is raised again
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)  # as `record` does: torchrun then prints the traceback
        raise
    context.close()
