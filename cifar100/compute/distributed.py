"""The processes of one training: which of them this is, its part of the work, and what they tell one another.

`torchrun` starts them and gives each its number in the environment. A training without it is `DistContext()`: one
process, whose part is everything, which asks nobody and uses nothing of torch.distributed.
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cifar100.support.errors import RunFailed, UserError
from cifar100.support.machine import usable_cores

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long the processes wait for one another before they train: one of them may be downloading the dataset."""

_STORE_SECONDS = 3.0
_BROKEN = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Timed out waiting")
_joined = itertools.count()


class _LostContact(RunFailed):
    """Another process is gone, or what it said before it went."""


@dataclass
class DistContext:
    """One process's view of all those that train together."""

    rank: int = 0
    """The number of this process, from 0; process 0 alone writes and speaks."""
    size: int = 1
    local_rank: int = 0
    """Its number on its own machine: that of its GPU."""
    host: int = 0
    """The number of its machine."""
    hosts: int = 1
    backend: str = ""
    """What carries the gradients: gloo between CPUs, NCCL between GPUs."""
    _store: Store | None = None  # what all can read and write while the first machine's torchrun lives
    _talk: Any = None  # a group between CPUs; None: the group that waits with PATIENCE
    _gradients: Any = None  # a group, of what `backend` says

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the run's files and tells how it goes."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"{self.size} processes on {self.hosts} host{'s' * (self.hosts > 1)}, {self.backend}"

    def part(self, start: int, stop: int) -> slice:
        """This process's part of the places start..stop: in the order of the ranks, the first ones' larger by one where
        they do not divide, and the last ones' empty where there are fewer places than processes."""
        each, more = divmod(stop - start, self.size)
        first, last = (start + rank * each + min(rank, more) for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def connect(self, device: torch.device, seconds: float) -> None:
        """Make ready for training on `device`; from here on who does not answer for so many seconds is lost."""
        if self.size == 1:
            return
        timeout, self.backend = timedelta(seconds=seconds), "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._talk = dist.new_group(backend="gloo", timeout=timeout)
        self._gradients = self._talk if self.backend == "gloo" else dist.new_group(backend="nccl", timeout=timeout)

    def replicate(self, model: nn.Module, *, sync_bn: bool = False, compiled: bool = False) -> nn.Module:
        """The model, wrapped so that a backward pass leaves the mean of all processes' gradients in it.

        It begins as process 0's. Buffers, which are batch norm's running statistics, go their own ways: `equalise`.
        `sync_bn` takes the statistics of a batch over all processes. Raises UserError where that is asked of CPUs.
        `compiled` is whether the result will be, which DDP does not support for a static graph.
        """
        if self.size == 1:
            return model
        if sync_bn and self.backend != "nccl":
            raise UserError("--sync-bn is for GPUs: PyTorch has no synchronised batch norm for the CPU.")
        if sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model, self._gradients)
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        options: dict[str, Any] = {"process_group": self._gradients, name: False}
        # gradients need no memory and no copy of their own; each backward pass reaches the same weights
        options |= {"gradient_as_bucket_view": True, "static_graph": not compiled}
        replica = DistributedDataParallel(model, **options)
        if self.backend == "gloo":
            # after its first backward passes, two with a static graph, it lays the gradients out anew; three or more
            # then sum up in another order: without this rehearsal a resumed run would not have the bits of a whole one
            replica.eval()
            for _ in range(2):
                replica(torch.zeros(1, 3, 32, 32)).sum().backward()
            replica.train().zero_grad()
        return replica

    def equalise(self, model: nn.Module) -> None:
        """Give every process's model process 0's buffers: the running statistics that are saved and evaluated."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0, group=self._gradients)

    def agree(self, *wishes: int) -> tuple[int, ...]:
        """The largest of all processes' numbers, place by place: what one of them wants, all then do."""
        if self.size == 1:
            return wishes
        numbers = torch.tensor(wishes)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._talk)
        return tuple(numbers.tolist())

    def agree_after(self, step: int) -> bool:
        """Whether to `agree` after this step of the run, counted from 0: the same answer in all processes.

        Between GPUs after every 16th, as it takes 50 to 100 microseconds where a step takes a few milliseconds. Between
        CPUs after each: 16 steps could take longer than the 30 seconds that torchrun waits after SIGTERM.
        """
        return self.backend != "nccl" or (step + 1) % 16 == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._talk)
        return values

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives in process 0, in every process; what it raises there, all raise."""
        made: Any = None
        with self.together():
            made = make() if self.leads else None
        if self.size > 1:
            box = [made]
            dist.broadcast_object_list(box, 0, group=self._talk)
            made = box[0]
        return made

    def refuse_differences(self, settings: dict[str, Any]) -> None:
        """Raise UserError, naming the first that differs, where these are not the same in all processes."""
        first, *others = self.gather(settings)
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                if other[name] != value:
                    raise UserError(
                        f"{name} is {value} in process 0 and {other[name]} in process {rank}: "
                        "start all of them with the same command, on the same data."
                    )

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave well, or none: what one of them raises in it, all raise after it."""
        if self.size == 1:
            yield
            return
        problem = None
        try:
            yield
        except Exception as error:
            problem = error
        said = self._told(problem) if problem else ""
        problems = self.gather((isinstance(problem, UserError), said))
        if problem is not None and not isinstance(problem, UserError | RunFailed):
            raise problem  # a defect keeps its traceback where it happened
        for is_mistake, text in problems:
            if text:
                raise UserError(text) if is_mistake else RunFailed(text)

    def explained(self, error: Exception) -> Exception:
        """RunFailed where an error says that another process is gone; any other error as it is."""
        is_broken = isinstance(error, dist.DistError) or any(word in str(error) for word in _BROKEN)
        if self.size == 1 or not (isinstance(error, RuntimeError) and is_broken):
            return error
        words = self._ask(lambda store: store.get("last words").decode() if store.check(["last words"]) else "")
        what = words or (
            "Lost contact with another process: it was killed, or its machine or the network is gone "
            f"({_first_sentence(error)})."
        )
        return _LostContact(f"{what} The run can go on from its last save with --resume.")

    def _told(self, error: BaseException) -> str:
        """An error as the other processes tell it."""
        text = str(error) if isinstance(error, UserError | RunFailed) else f"{type(error).__name__}: {error}"
        return text if self.hosts == 1 else f"On {socket.gethostname()}: {text}"

    def _leave(self, error: BaseException) -> bool:
        """Say for those that are left behind what ends this process; whether it is the one to tell on its machine."""
        if not isinstance(error, _LostContact):
            words = f"Process {self.rank} failed: {self._told(error).rstrip('.')}."
            self._ask(lambda store: store.set("last words", words))
        return self._ask(lambda store: store.add(f"told on {self.host}", 1)) in (None, 1)

    def _ask(self, question: Callable[[Store], T]) -> T | None:
        """The store's answer; None where there is none in a few seconds, as it may be gone with the first machine."""
        answers: list[T] = []

        def ask(store: Store) -> None:
            with suppress(RuntimeError):
                answers.append(question(store))

        if self._store is not None:
            thread = threading.Thread(target=ask, args=[self._store], daemon=True)
            thread.start()
            thread.join(_STORE_SECONDS)
        return answers[0] if answers else None


@contextmanager
def join() -> Iterator[DistContext]:
    """The processes that train together, for as long as the block lasts: torchrun's, or this one alone.

    An error that ends the block is the end of all. One for the user is told once a machine: it leaves the block in one
    process there, and the others exit without a word, with the code that it has on the command line.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield DistContext()
        return
    processes = _join()
    try:
        yield processes
        with suppress(RuntimeError):
            dist.barrier(processes._talk)  # torchrun ends all when one has ended, and the first may still be writing
    except (Exception, KeyboardInterrupt) as error:
        failure = processes.explained(error) if isinstance(error, Exception) else error
        tells = processes._leave(failure)
        code = 2 if isinstance(failure, UserError) else 130 if isinstance(failure, KeyboardInterrupt) else 1
        atexit.register(_exit_at_once, code)
        if not tells and isinstance(failure, UserError | RunFailed | KeyboardInterrupt):
            raise SystemExit(code) from None
        if failure is error:
            raise
        raise failure from error
    dist.destroy_process_group()


def _exit_at_once(code: int) -> None:
    """At exit torch would wait for what is still under way with the processes that are gone, until it times out."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _join() -> DistContext:
    _use_the_cores()
    try:
        from torch.distributed.distributed_c10d import PrefixStore  # not in every build of torch
        from torch.distributed.rendezvous import rendezvous

        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        store = PrefixStore(f"cifar100 {next(_joined)}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError, ImportError) as error:
        raise RunFailed(
            f"The processes did not find one another ({_first_sentence(error)}). Start them with torchrun; between "
            "machines, name the network interface of each: export GLOO_SOCKET_IFNAME=eth0."
        ) from error
    number = {name: int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")}
    return DistContext(
        rank=rank,
        size=size,
        local_rank=number["LOCAL_RANK"],
        host=number["GROUP_RANK"],
        hosts=max(1, number["GROUP_WORLD_SIZE"]),
        _store=store,
    )


def _first_sentence(error: Exception) -> str:
    """Of what torch.distributed says: without the places in its source before it, and the advice after it."""
    return str(error).partition("\n")[0].rpartition("] ")[2].partition(". ")[0].rstrip(".")


def _use_the_cores() -> None:
    """Share the machine's cores among its processes, where torchrun gave one to each because the user said nothing."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > 1 and os.environ.get("OMP_NUM_THREADS") == "1" and not _user_chose_threads():
        torch.set_num_threads(max(1, usable_cores() // here))


def _user_chose_threads() -> bool:
    """Whether OMP_NUM_THREADS was there before torchrun, which started this process, set it."""
    try:
        began_with = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:  # not a Linux: nothing tells
        return False
    return any(setting.startswith(b"OMP_NUM_THREADS=") for setting in began_with.split(b"\0"))
