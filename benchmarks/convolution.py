"""The GEMM of `cifar100.compute.amx_convolution` against oneDNN's convolution, by shape and direction.

    python benchmarks/convolution.py

bf16, channels_last, 256 images; the best of some repetitions, in ms. The shapes are those of ResNet-18's layers for
images of 16, 24 and 32 pixels. Writes benchmarks/results/convolution.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from circumstances import circumstances, save_result
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from cifar100.compute.amx_convolution import convolution_gemm, weight_gradient
from cifar100.compute.device import disable_malloc_trim

IMAGES = 256
SHAPES = [  # in, out, side, stride
    *((512, 512, side, 1) for side in (2, 3, 4)),
    *((256, 512, side, 2) for side in (4, 6, 8)),
    *((256, 256, side, 1) for side in (4, 6, 8)),
    *((128, 128, side, 1) for side in (8, 12, 16)),
]


def milliseconds(work: Callable[[], object], repetitions: int = 5) -> float:
    """The shortest of some repetitions."""
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(1000 * min(times), 2)


def measure(in_channels: int, out_channels: int, side: int, stride: int) -> dict[str, float]:
    """Milliseconds of forward, input gradient and weight gradient, by both implementations if there are two."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)

    images, weight = random(IMAGES, in_channels, side, side), random(out_channels, in_channels, 3, 3)
    above = random(IMAGES, out_channels, side // stride, side // stride)
    forward = weight.permute(2, 3, 1, 0).reshape(9 * in_channels, out_channels)
    works: dict[str, Callable[[], object]] = {
        "forward": lambda: F.conv2d(images, weight, stride=stride, padding=1),
        "forward_product": lambda: convolution_gemm(images, forward, stride),
        "to_images": lambda: conv2d_input(images.shape, weight, above, stride=stride, padding=1),
        "to_weights": lambda: conv2d_weight(images, weight.shape, above, stride=stride, padding=1),
        "to_weights_product": lambda: weight_gradient(images, above, stride),
    }
    if stride == 1:
        mirrored = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out_channels, in_channels)
        works["to_images_product"] = lambda: convolution_gemm(above, mirrored, 1)
    return {name: milliseconds(work) for name, work in works.items()}


def main() -> None:
    disable_malloc_trim()
    rows = []
    for shape in SHAPES:
        rows.append(dict(zip(("in", "out", "side", "stride"), shape, strict=True)) | measure(*shape))
        print(rows[-1], flush=True)
    result = {"milliseconds": rows, "threads": torch.get_num_threads(), "circumstances": circumstances()}
    save_result("convolution.json", result)


if __name__ == "__main__":
    main()
