"""The network's convolutions; the 3x3 one keeps a CPU's matrix tiles (Intel AMX) busy on small maps too.

oneDNN fills the 16 rows of a tile from one row of a map, and the deep layers have 2 to 8 pixels in theirs: it then
reaches 0.04 to 0.4 TFLOP/s on a core that makes 1.0 of a plain matrix product. So there the convolution is that
product: the 3x3 windows of some images, few enough to stay in the cache, times the weights (im2col; Chellapilla et al.
2006, https://inria.hal.science/inria-00112631). Sums are in fp32 either way, so only the rounding of bf16 differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

ROWS_AT_ONCE = 1024
"""Windows that a thread multiplies at once: fewer, and oneDNN leaves the product to a single thread."""

# Where the product is faster (benchmarks/results/convolution.json); widths are the result's, in pixels.
WIDEST_PRODUCT, FEWEST_CHANNELS = 4, 512
WIDEST_WEIGHT_GRADIENT, FEWEST_CHANNELS_OF_WEIGHT_GRADIENT = 8, 256

CHANNELS_OF_A_REGISTER = 16
"""fp32 numbers in a vector register of AVX-512; AVX2 has 8."""


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` of 3x3, padding 1: [B, in, H, W] -> [B, out, H/stride, W/stride], rounded up. It has a bias only once
    a batch norm was folded into it.

    In bf16 autocast on a CPU with AMX it computes small maps by matrix products; elsewhere it is `nn.Conv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        width = -(-input.shape[3] // stride)
        small = width <= WIDEST_WEIGHT_GRADIENT and self.out_channels >= FEWEST_CHANNELS_OF_WEIGHT_GRADIENT
        if small and input.device.type == "cpu" and _autocast_bf16() and torch.cpu._is_amx_tile_supported():
            rows = input.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            result = _SmallMaps.apply(rows, self.weight.to(torch.bfloat16), stride)
            return result if self.bias is None else result + self.bias[:, None, None]
        return super().forward(input)


class Conv1x1(nn.Conv2d):
    """`nn.Conv2d` of 1x1 without padding: [B, in, H, W] -> [B, out, H/stride, W/stride], rounded up."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        stride = self.stride[0]
        if self.training and stride > 1 and self.in_channels < CHANNELS_OF_A_REGISTER:
            # With a stride, oneDNN's weight gradient of so few channels in channels_last writes past its buffer:
            # wrong gradients, a crash or a hang (https://github.com/uxlfoundation/oneDNN/issues/6035).
            return F.conv2d(input[:, :, ::stride, ::stride], self.weight, self.bias)
        return super().forward(input)


def _autocast_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


class _SmallMaps(torch.autograd.Function):
    """The convolution and its two gradients, each by the faster of oneDNN and the matrix product."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        out_channels, in_channels = weight.shape[:2]
        if _product_is_faster(images.shape[3], stride, out_channels):
            return _product(images, weight.permute(2, 3, 1, 0).reshape(9 * in_channels, out_channels), stride)
        return F.conv2d(images, weight, stride=stride, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_images, of_weight = None, None
        if ctx.needs_input_grad[0]:
            out_channels, in_channels = weight.shape[:2]
            if ctx.stride == 1 and _product_is_faster(images.shape[3], 1, in_channels):
                mirrored = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out_channels, in_channels)
                of_images = _product(gradient, mirrored, 1)
            else:
                of_images = conv2d_input(images.shape, weight, gradient, stride=ctx.stride, padding=1)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(images, gradient, ctx.stride)
        return of_images, of_weight, None


def _product_is_faster(width: int, stride: int, out_channels: int) -> bool:
    return -(-width // stride) <= WIDEST_PRODUCT and out_channels >= FEWEST_CHANNELS


def _windows(images: Tensor, stride: int) -> Tensor:
    """[B, C, H, W], channels_last -> [B * H/stride * W/stride, 9 C]: the 3x3 window around each pixel, 0 outside."""
    batch, channels, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    of_image, of_row, of_column, of_channel = padded.stride()
    tall, wide = -(-height // stride), -(-width // stride)
    windows = padded.as_strided(
        (batch, tall, wide, 3, 3, channels),
        (of_image, of_row * stride, of_column * stride, of_row, of_column, of_channel),
    )
    return windows.reshape(-1, 9 * channels)


def _product(images: Tensor, matrix: Tensor, stride: int) -> Tensor:
    """The windows of [B, C, H, W] times [9 C, out] -> [B, out, H/stride, W/stride], channels_last."""
    batch, _, height, width = images.shape
    result = images.new_empty(batch, -(-height // stride), -(-width // stride), matrix.shape[1])
    at_once = _images_at_once(result.shape[1] * result.shape[2])
    for some, place in zip(images.split(at_once), result.split(at_once), strict=True):
        torch.mm(_windows(some, stride), matrix, out=place.view(-1, matrix.shape[1]))
    return result.permute(0, 3, 1, 2)


def _images_at_once(rows: int) -> int:
    """How many images, of so many windows each, are multiplied at once."""
    return max(1, torch.get_num_threads() * ROWS_AT_ONCE // rows)


def _weight_gradient(images: Tensor, gradient: Tensor, stride: int) -> Tensor:
    """bf16 [out, in, 3, 3], summed in fp32 over the parts of the batch."""
    out_channels, in_channels = gradient.shape[1], images.shape[1]
    total = images.new_zeros(out_channels, 9 * in_channels, dtype=torch.float32)
    at_once = _images_at_once(gradient.shape[2] * gradient.shape[3])
    for some, above in zip(images.split(at_once), gradient.split(at_once), strict=True):
        rows = above.permute(0, 2, 3, 1).reshape(-1, out_channels)
        total += rows.t().contiguous() @ _windows(some, stride)
    return total.view(out_channels, 3, 3, in_channels).permute(0, 3, 1, 2).to(images.dtype)
