"""Record the operations that would run on an Apple GPU, on a machine without one.

Everything is computed on the CPU. `_Placement`, a TorchFunctionMode, makes `.to("mps")` and `device="mps"` mark the
storage of a tensor instead of moving it, and `.device` returns "mps" for a marked tensor, so that Python code takes the
same branches as on a Mac. `_Operations`, a TorchDispatchMode below it, intercepts each ATen operation on a marked
tensor, including the backward pass, and marks its results. As on the real device, an operation must not mix tensors of
two devices. Calls inside a kernel are not recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MPS, CPU = torch.device("mps"), torch.device("cpu")

SYNCHRONIZING_METHODS = {"item", "tolist", "cpu", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__"}
"""Tensor methods that synchronize the CPU with the device."""

SYNCHRONIZING_OPERATIONS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique_dim",
    "_unique2",
}
"""ATen operations that synchronize, because their result or its shape is needed on the CPU."""


VALIDATED_ON_THE_CPU_ONLY = {"one_hot"}
"""Functions that validate the values of their arguments on the CPU, but not on a GPU."""


@dataclass(frozen=True)
class TensorKind:
    """The properties of a tensor that determine which kernel runs."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    is_channels_last: bool
    """Whether it is contiguous in channels_last but not in NCHW; a 1x1 feature map is contiguous in both."""

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        return cls(tensor.dtype, tuple(tensor.shape), channels_last and not tensor.is_contiguous())


@dataclass(frozen=True)
class Operation:
    """A call of an ATen operation, such as "add.Tensor", on the device."""

    name: str
    inputs: tuple[TensorKind, ...]
    outputs: tuple[TensorKind, ...]


@dataclass
class Recording:
    """The operations and synchronizations of the device."""

    operations: Counter[Operation] = field(default_factory=Counter)
    synchronizations: list[str] = field(default_factory=list)
    """Synchronizing calls and copies between CPU and device inside `step`."""
    num_steps: int = 0
    _in_step: bool = False

    def names(self) -> set[str]:
        return {operation.name for operation in self.operations}

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count synchronizations inside this block as part of a training step."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def synchronized(self, what: str) -> None:
        if self._in_step:
            self.synchronizations.append(what)


_marked: dict[int, StorageWeakRef] = {}  # the weak reference keeps the address from being reused


def _mark(value: Any) -> None:
    for tensor in tree_leaves(value):
        if isinstance(tensor, Tensor):
            storage = tensor.untyped_storage()
            _marked[storage._cdata] = StorageWeakRef(storage)


def on_device(tensor: Tensor) -> bool:
    return tensor.untyped_storage()._cdata in _marked


def _names_mps(value: Any) -> bool:
    return isinstance(value, torch.device | str) and str(value).partition(":")[0] == "mps"


_PROPERTIES: dict[Any, Callable[[Tensor], Any]] = {
    torch.Tensor.device.__get__: lambda tensor: MPS if on_device(tensor) else CPU,  # type: ignore[attr-defined]
    torch.Tensor.is_mps.__get__: on_device,  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda tensor: not on_device(tensor),  # type: ignore[attr-defined]
}


class _Placement(TorchFunctionMode):
    """The Python level: marked tensors appear to be on "mps"."""

    def __init__(self, recording: Recording, operations: _Operations) -> None:
        super().__init__()
        self.recording = recording
        self.operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _PROPERTIES:
            return _PROPERTIES[func](args[0])
        name = getattr(func, "__name__", "")
        if name == "_parse_to" or func is torch.device:  # these only parse the name of a device
            return func(*args, **kwargs)
        is_ours = bool(args) and isinstance(args[0], Tensor) and on_device(args[0])
        if name in SYNCHRONIZING_METHODS and is_ours:
            self.recording.synchronized(f"Tensor.{name}")
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert mps:0 device type tensor to numpy")
        named = [value for value in tree_leaves((args[1:], kwargs)) if isinstance(value, torch.device | str)]
        if is_ours and (name == "cpu" or (name == "to" and any(str(value).startswith("cpu") for value in named))):
            return self._to_cpu(func, args, kwargs)
        if not any(map(_names_mps, named)):
            if not any(isinstance(value, Tensor) and on_device(value) for value in tree_leaves((args, kwargs))):
                return func(*args, **kwargs)
            with self.operations.creating(checked=name in VALIDATED_ON_THE_CPU_ONLY):
                return func(*args, **kwargs)
        args, kwargs = tree_map(lambda value: CPU if _names_mps(value) else value, (args, kwargs))
        if name == "to" and not is_ours:
            return self._to_device(func, args, kwargs)
        with self.operations.creating():
            result = func(*args, **kwargs)
        _mark(result)
        return result

    def _to_cpu(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        self.recording.synchronized("copy to the CPU")
        result = func(args[0].detach(), *args[1:], **kwargs).clone()
        _marked.pop(result.untyped_storage()._cdata, None)
        return result

    def _to_device(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        self.recording.synchronized("copy to the device")
        result = func(*args, **kwargs)
        if result.untyped_storage()._cdata == args[0].untyped_storage()._cdata:
            result = result.clone(memory_format=torch.preserve_format)
        if isinstance(args[0], torch.nn.Parameter):
            result = result.detach()
        _mark(result)
        return result


class _Operations(TorchDispatchMode):
    """The dispatcher level: records the operations on marked tensors."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording
        self.num_creating = 0
        self.checked = False

    @contextmanager
    def creating(self, *, checked: bool = False) -> Iterator[None]:
        """Attribute operations without tensor arguments to the device in this block; if `checked`, ignore those that
        synchronize."""
        self.num_creating += 1
        self.checked = checked
        try:
            yield
        finally:
            self.num_creating -= 1
            self.checked = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        ours = [tensor for tensor in tensors if on_device(tensor)]
        if not ours and (tensors or not self.num_creating):
            return func(*args, **kwargs)
        base, _, overload = str(func).removeprefix("aten.").partition(".")
        others = [tensor for tensor in tensors if tensor.ndim > 0 and not on_device(tensor)]
        if self.checked and base in SYNCHRONIZING_OPERATIONS:
            return func(*args, **kwargs)
        if base in SYNCHRONIZING_OPERATIONS:
            self.recording.synchronized(base)
        elif base in ("copy_", "_foreach_copy_", "_copy_from"):
            if others:
                self.recording.synchronized(f"{base} between devices")
        elif others:
            kinds = [(TensorKind.of(tensor), on_device(tensor)) for tensor in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} of {kinds}")
        result = func(*args, **kwargs)
        results = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        if base not in ("copy_", "_foreach_copy_") or on_device(args[0] if base == "copy_" else args[0][0]):
            _mark(results)
        name = base if overload == "default" else f"{base}.{overload}"
        operation = Operation(name, tuple(map(TensorKind.of, tensors)), tuple(map(TensorKind.of, results)))
        self.recording.operations[operation] += 1
        return result


@contextmanager
def recorded() -> Iterator[Recording]:
    """Record the operations of this block on "mps"."""
    recording = Recording()
    operations = _Operations(recording)
    with _Placement(recording, operations), operations:
        yield recording


@cache
def _native_functions() -> dict[str, dict[str, Any]]:
    """The entries of the installed PyTorch's native_functions.yaml, by name and overload."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].partition("(")[0]: entry for entry in entries}


def mps_kernel(name: str) -> str | None:
    """How an operation is implemented on MPS: "MPS" by a dedicated kernel, "composite" by other operations, and None if
    it is not, so that PyTorch would raise NotImplementedError."""
    entry = _native_functions().get(name)
    if entry is None:
        return None
    keys = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
    if delegate := entry.get("structured_delegate"):
        keys |= {key.strip() for keys in _native_functions()[delegate]["dispatch"] for key in keys.split(",")}
    if "MPS" in keys:
        return "MPS"
    return "composite" if not keys or any(key.startswith("Composite") for key in keys) else None
