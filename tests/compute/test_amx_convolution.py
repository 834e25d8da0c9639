"""compute/amx_convolution.py: GEMM gives the output and gradients of the convolution, and is used only if faster."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from cifar100.compute import amx_convolution
from cifar100.compute.amx_convolution import Conv1x1, Conv3x3

SHAPES = [
    pytest.param(512, 512, 4, 4, 1, id="GEMM for output and both gradients"),
    pytest.param(256, 512, 8, 8, 2, id="stride 2"),
    pytest.param(256, 256, 8, 8, 1, id="GEMM for the weight gradient only"),
    pytest.param(256, 512, 5, 7, 2, id="odd height and width"),
    pytest.param(512, 512, 1, 1, 1, id="one pixel"),
]


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the CPU has AMX; the matrix products run on any CPU."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)


def results(layer: Conv3x3, images: torch.Tensor, above: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The output and its gradients with respect to images and weights, under bf16 autocast."""
    images = images.clone().requires_grad_()
    layer.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    output.backward(above.to(output.dtype))
    assert images.grad is not None
    assert layer.weight.grad is not None
    return output.detach().float(), images.grad, layer.weight.grad


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize("rows_at_once", [40, 1024], ids=["in parts", "at once"])
@pytest.mark.parametrize(("in_channels", "out_channels", "height", "width", "stride"), SHAPES)
def test_gemm_equals_the_convolution(
    in_channels: int,
    out_channels: int,
    height: int,
    width: int,
    stride: int,
    rows_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amx_convolution, "GEMM_ROWS_PER_THREAD", rows_at_once)
    torch.manual_seed(0)
    layer = Conv3x3(in_channels, out_channels, stride=stride)
    images = torch.randn(8, in_channels, height, width).bfloat16().float()
    layer.weight.data = layer.weight.data.bfloat16().float()
    exact = images.clone().requires_grad_(), layer.weight.detach().clone().requires_grad_()
    expected = F.conv2d(*exact, stride=stride, padding=1)
    above = torch.randn_like(expected).bfloat16().float()
    of_images, of_weight = torch.autograd.grad(expected, exact, above)
    for ours, reference in zip(results(layer, images, above), (expected.detach(), of_images, of_weight), strict=True):
        assert ours.shape == reference.shape
        # each value is rounded once to bf16 (8 significant bits); CPUs that emulate bf16 also round partial sums
        torch.testing.assert_close(ours, reference, rtol=2**-7, atol=2**-7 * float(reference.abs().max()))


@pytest.mark.usefixtures("amx")
def test_output_is_channels_last() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = Conv3x3(512, 512)(torch.randn(2, 512, 4, 4))
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "width", "autocast", "has_amx", "expected"),
    [
        (512, 4, True, True, True),
        (512, 4, False, True, False),
        (512, 4, True, False, False),
        (512, 9, True, True, False),
        (64, 4, True, True, False),
    ],
    ids=["small maps", "fp32", "no AMX", "wide maps", "few channels"],
)
def test_gemm_only_if_it_is_faster(
    channels: int, width: int, autocast: bool, has_amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        output = Conv3x3(channels, channels)(torch.randn(1, channels, width, width))
    assert output.grad_fn is not None
    assert ("GemmConvolution" in output.grad_fn.name()) is expected


def test_frozen_weights_and_images_get_no_gradient(amx: None) -> None:
    layer = Conv3x3(512, 512)
    layer.weight.requires_grad_(False)
    images = torch.randn(2, 512, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images).float().sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize("in_channels", [3, 6, 8, 12, 16])
def test_gradients_of_a_narrow_shortcut(in_channels: int) -> None:
    """Without the workaround for oneDNN #6035 this crashes with one thread, and hangs or is off by 40 % with two."""
    torch.manual_seed(0)
    layer = torch.nn.utils.convert_conv2d_weight_memory_format(Conv1x1(in_channels, 16, stride=2), torch.channels_last)
    images = torch.randn(32, in_channels, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    output = layer(images)
    output.square().sum().backward()

    exact_images = images.detach().double().requires_grad_()
    exact_weight = layer.weight.detach().double().requires_grad_()
    F.conv2d(exact_images, exact_weight, stride=2).square().sum().backward()
    assert output.shape == (32, 16, 16, 16)
    for actual, exact in ((images.grad, exact_images.grad), (layer.weight.grad, exact_weight.grad)):
        assert actual is not None
        assert exact is not None
        assert (actual - exact).norm() < 1e-5 * exact.norm()
