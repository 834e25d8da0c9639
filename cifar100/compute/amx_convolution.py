"""Convolutions of the network; on CPUs with Intel AMX, 3x3 convolutions of small feature maps are computed as GEMM.

oneDNN fills the 16 rows of an AMX tile from one row of a feature map. The deep layers have 2 to 8 pixels per row, so it
reaches only 0.04 to 0.4 TFLOP/s on a core that reaches 1.0 for GEMM. There, the convolution is a GEMM of im2col patches
(Chellapilla et al. 2006, https://inria.hal.science/inria-00112631), for as many images at once as fit in the cache.
Both accumulate in fp32, so only the rounding to bf16 differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

GEMM_ROWS_PER_THREAD = 1024
"""im2col patches per thread and GEMM; with fewer, oneDNN uses a single thread."""

# When GEMM is faster (benchmarks/results/convolution.json); widths are those of the output, in pixels.
MAX_WIDTH_GEMM, MIN_CHANNELS_GEMM = 4, 512  # output and input gradient
MAX_WIDTH_GEMM_WGRAD, MIN_CHANNELS_GEMM_WGRAD = 8, 256  # weight gradient; weaker, so `Conv3x3.forward` checks it

REGISTER_CHANNELS = 16
"""fp32 numbers in a vector register of AVX-512; AVX2 has 8."""


class Conv3x3(nn.Conv2d):
    """3x3 `nn.Conv2d` with padding 1: [B, in, H, W] -> [B, out, H/stride, W/stride], rounded up. It has a bias only
    after a batch norm was folded into it.

    Under bf16 autocast on a CPU with AMX it computes small feature maps as GEMM; otherwise it is `nn.Conv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        width = -(-input.shape[3] // stride)
        small = width <= MAX_WIDTH_GEMM_WGRAD and self.out_channels >= MIN_CHANNELS_GEMM_WGRAD
        if small and input.device.type == "cpu" and _autocast_bf16() and torch.cpu._is_amx_tile_supported():
            rows = input.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            result = _GemmConvolution.apply(rows, self.weight.to(torch.bfloat16), stride)
            return result if self.bias is None else result + self.bias[:, None, None]
        return super().forward(input)


class Conv1x1(nn.Conv2d):
    """`nn.Conv2d` of 1x1 without padding: [B, in, H, W] -> [B, out, H/stride, W/stride], rounded up."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        if self.training and stride > 1 and self.in_channels < REGISTER_CHANNELS:
            # With a stride, oneDNN's weight gradient of so few channels in channels_last writes past its buffer:
            # wrong gradients, a crash or a hang (https://github.com/uxlfoundation/oneDNN/issues/6035).
            return F.conv2d(input[:, :, ::stride, ::stride], self.weight, self.bias)
        return super().forward(input)


def _autocast_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _GemmConvolution(torch.autograd.Function):
    """The convolution and its two gradients, each by the faster of oneDNN and GEMM."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        out_channels, in_channels = weight.shape[:2]
        if _gemm_is_faster(images.shape[3], stride, out_channels):
            return convolution_gemm(images, weight.permute(2, 3, 1, 0).reshape(9 * in_channels, out_channels), stride)
        return F.conv2d(images, weight, stride=stride, padding=1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        grad_output = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        grad_images, grad_weight = None, None
        if ctx.needs_input_grad[0]:
            out_channels, in_channels = weight.shape[:2]
            if ctx.stride == 1 and _gemm_is_faster(images.shape[3], 1, in_channels):
                mirrored = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out_channels, in_channels)
                grad_images = convolution_gemm(grad_output, mirrored, 1)
            else:
                grad_images = conv2d_input(images.shape, weight, grad_output, stride=ctx.stride, padding=1)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(images, grad_output, ctx.stride)
        return grad_images, grad_weight, None


def _gemm_is_faster(width: int, stride: int, out_channels: int) -> bool:
    return -(-width // stride) <= MAX_WIDTH_GEMM and out_channels >= MIN_CHANNELS_GEMM


def _im2col(images: Tensor, stride: int) -> Tensor:
    """[B, C, H, W], channels_last -> [B * H/stride * W/stride, 9 C]: the 3x3 patch around each pixel, 0 outside."""
    batch, channels, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    of_image, of_row, of_column, of_channel = padded.stride()
    out_height, out_width = -(-height // stride), -(-width // stride)
    patches = padded.as_strided(
        (batch, out_height, out_width, 3, 3, channels),
        (of_image, of_row * stride, of_column * stride, of_row, of_column, of_channel),
    )
    return patches.reshape(-1, 9 * channels)


def convolution_gemm(images: Tensor, matrix: Tensor, stride: int) -> Tensor:
    """im2col patches of [B, C, H, W] times [9 C, out] -> [B, out, H/stride, W/stride], channels_last."""
    batch, _, height, width = images.shape
    result = images.new_empty(batch, -(-height // stride), -(-width // stride), matrix.shape[1])
    at_once = _images_at_once(result.shape[1] * result.shape[2])
    for some, output in zip(images.split(at_once), result.split(at_once), strict=True):
        torch.mm(_im2col(some, stride), matrix, out=output.view(-1, matrix.shape[1]))
    return result.permute(0, 3, 1, 2)


def _images_at_once(rows: int) -> int:
    """The number of images, with this number of patches each, per GEMM."""
    return max(1, torch.get_num_threads() * GEMM_ROWS_PER_THREAD // rows)


def weight_gradient(images: Tensor, grad_output: Tensor, stride: int) -> Tensor:
    """Images [B, in, H, W] and output gradient [B, out, H/stride, W/stride] -> bf16 [out, in, 3, 3], summed in fp32."""
    out_channels, in_channels = grad_output.shape[1], images.shape[1]
    total = images.new_zeros(out_channels, 9 * in_channels, dtype=torch.float32)
    at_once = _images_at_once(grad_output.shape[2] * grad_output.shape[3])
    for image_chunk, grad_chunk in zip(images.split(at_once), grad_output.split(at_once), strict=True):
        rows = grad_chunk.permute(0, 2, 3, 1).reshape(-1, out_channels)
        total += rows.t().contiguous() @ _im2col(image_chunk, stride)
    return total.view(out_channels, 3, 3, in_channels).permute(0, 3, 1, 2).to(images.dtype)
