"""Selection of device and precision. (Several ranks, each with its own device: `cifar100.compute.distributed`.)"""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from cifar100.config import USE_MPS
from cifar100.support.errors import UserError
from cifar100.support.machine import processor_name

Model = TypeVar("Model", bound=nn.Module)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, the precision of the network's arithmetic, and the reason as text."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights for inference; trained weights stay fp32."""
        return _DTYPES[self.precision]

    def prepare(self, model: Model) -> Model:
        """Move the model to the device, with its memory format."""
        return nn.utils.convert_conv2d_weight_memory_format(model.to(self.device), memory_format(self.device))

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass in this precision; weights stay fp32. Run the backward pass outside it, in
        `full_precision`."""
        if self.precision == "fp32" and self.device.type == "cuda":
            return self.full_precision()
        return torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32")

    def full_precision(self) -> AbstractContextManager[object]:
        """The context in which fp32 convolutions on CUDA, and their gradients, do not use TF32, which has 10 bits of
        mantissa and is cuDNN's default. No effect in any other precision or on any other device."""
        if self.precision != "fp32" or self.device.type != "cuda":
            return nullcontext()
        cudnn = torch.backends.cudnn
        return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)

    def synchronize(self) -> None:
        """Wait until the device is idle, before reading a timer."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def __str__(self) -> str:
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            name = f"threads: {torch.get_num_threads()}" if self.device.type == "cpu" else processor_name()
        return f"{self.device.type} ({name}), {self.precision}: {self.reason}"


def memory_format(device: torch.device) -> torch.memory_format:
    """The memory format of images and convolution weights on a device.

    On MPS it is NCHW: up to PyTorch 2.13 batch norm computes wrong gradients there for channels_last tensors
    (https://github.com/pytorch/pytorch/issues/175189), and up to 2.14 convolutions are slow for them
    (https://github.com/pytorch/pytorch/issues/193349).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def select_device(
    device: str = "auto",
    precision: str = "auto",
    *,
    compile: bool = False,
    local_rank: int | None = None,
) -> Compute:
    """The device and precision of these names, or the best for "auto".

    `local_rank` selects the GPU in distributed training. Raises UserError if the device or precision is unknown or not
    available, or if `compile` is requested on a device that does not benefit.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if local_rank is not None and device == "mps":
        raise UserError(
            "device.processes",
            "--device mps is for one process: PyTorch has no distributed backend for Apple GPUs. Try --device cpu.",
        )
    if device == "auto":
        use_mps = USE_MPS and local_rank is None
        device = next(name for name in available if available[name] and (name != "mps" or use_mps))
    elif device not in available:
        raise UserError("device.unknown", f"--device {device}: choose auto, {', '.join(available)}.")
    elif not available[device]:
        there = ", ".join(name for name in available if available[name])
        raise UserError(
            "device.absent", f"--device {device} is not available to PyTorch on this machine; choose from {there}."
        )
    selected = torch.device(device)
    if local_rank is not None and device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                "device.processes",
                f"Process {local_rank + 1} of this machine found {torch.cuda.device_count()} GPUs; start at most one "
                "process per GPU, or use --device cpu.",
            )
        selected = torch.device(device, local_rank)
    # PyTorch 2.13 trains four times slower compiled: github.com/pytorch/pytorch/issues/192551
    if compile and device == "mps":
        raise UserError("device.compile", "--compile makes training slower on Apple GPUs; omit it.")
    best, reason = _best_precision(device)
    if precision == "auto":
        return Compute(selected, best, reason)
    _refuse_precision(precision, device)
    return Compute(selected, precision, "as requested" if precision != best else f"as requested; {reason}")


def _refuse_precision(precision: str, device: str) -> None:
    """Raise UserError if the device does not compute in this precision."""
    if precision not in _DTYPES:
        raise UserError("device.precision", f"--precision {precision}: choose auto, {', '.join(_DTYPES)}.")
    if precision == "fp16" and device == "cpu":
        raise UserError("device.precision", "--precision fp16 is for GPUs; on the CPU choose bf16 or fp32.")


def _best_precision(device: str) -> tuple[str, str]:
    if device == "cuda":
        if cuda_has_bf16():
            return "bf16", "this GPU supports bf16"
        return "fp16", "this GPU does not support bf16; the loss is scaled"
    if device == "mps":
        return "fp32", "lower precision was not measured on Apple GPUs yet"
    if torch.cpu._is_amx_tile_supported():
        return "bf16", "this CPU has AMX-BF16"
    if torch.cpu._is_avx512_bf16_supported():
        return "bf16", "this CPU has AVX512-BF16"
    return "fp32", "this CPU has no fast bf16"


def cuda_has_bf16() -> bool:
    """Whether the current NVIDIA GPU multiplies bf16 in hardware (since Ampere)."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16) rather than by emulation."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def disable_malloc_trim() -> bool:
    """Make glibc keep freed memory instead of returning it to the system; returns whether that worked.

    Each step frees and allocates gigabytes. The system zeroes every page that was returned, which takes a fifth of a
    step. The process then keeps its peak size.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameter numbers, from malloc.h
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, -1) == 1  # no mmap, no trimming


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is for exhausted memory of the device or the machine."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
