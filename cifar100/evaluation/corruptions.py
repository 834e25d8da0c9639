"""The 15 corruptions of CIFAR-C at 5 severities (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261), in
batches on the device.

    corrupt(images, "fog", 3, sample_ids=range(500))      uint8 [500, S, S, 3] -> the same

Definitions and constants are the authors' for 32 pixels (https://github.com/hendrycks/robustness, make_cifar_c.py),
including the truncation to 8 bits. The random numbers of an image are a pure function of (seed, corruption, severity,
sample id), generated on the CPU, so they are the same on every device and in any batch. They are not the authors': only
the six corruptions without randomness (`contrast`, `brightness`, `defocus_blur`, `zoom_blur`, `pixelate`,
`jpeg_compression`) can match the files of CIFAR-100-C, up to rounding.

Other differences: **frost** uses a synthetic texture instead of six photographs; **motion_blur** and **snow** use a
kernel like ImageMagick's, without its intermediate rounding; **elastic_transform** interpolates exactly instead of in
steps of 1/32 pixel as OpenCV does; **glass_blur** copies pixels instead of swapping them, as the authors' code does
because its two pixels are views of one array.

Shapes: B images of S x S pixels, float32 [B, 3, S, S] in 0..1 internally.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cifar100.evaluation.corruption_filters import (
    box_resize_matrix,
    gaussian_matrix,
    motion_blur_filter,
    plasma_fractal,
    zoom_matrix,
)

SEVERITIES = (1, 2, 3, 4, 5)


class CorruptionRng:
    """Random numbers for the images of a batch, from one generator per image."""

    def __init__(self, seed: int, name: str, severity: int, sample_ids: Sequence[int], device: torch.device) -> None:
        key = (seed, zlib.crc32(name.encode()), severity)
        self.generators = [np.random.default_rng((*key, sample_id)) for sample_id in sample_ids]
        self.device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 [B, *shape] in low..high."""
        return self._stack(lambda generator: generator.random(shape, np.float32)) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """float32 [B, *shape], standard normal."""
        return self._stack(lambda generator: generator.standard_normal(shape, np.float32))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 [B, *shape] in low..high-1."""
        return self._stack(lambda generator: generator.integers(low, high, shape))

    def poisson(self, means: Tensor) -> Tensor:
        """float32, of the shape of `means` [B, …]."""
        rows = zip(self.generators, means.cpu().numpy(), strict=True)
        return torch.from_numpy(np.stack([generator.poisson(row) for generator, row in rows])).to(
            self.device, torch.float32
        )

    def _stack(self, draw: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([draw(generator) for generator in self.generators])).to(self.device)


def gaussian_noise(x: Tensor, rng: CorruptionRng, scale: float) -> Tensor:
    """Gaussian noise of standard deviation `scale`."""
    return x + scale * rng.normal(*x.shape[1:])


def shot_noise(x: Tensor, rng: CorruptionRng, photons: float) -> Tensor:
    """Poisson noise; white is `photons` photons."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Tensor, rng: CorruptionRng, amount: float) -> Tensor:
    """Salt and pepper: a fraction `amount` of the values is 0 or 1, equally often."""
    drawn = rng.uniform(0, 1, *x.shape[1:])
    return torch.where(drawn < amount, (drawn < amount / 2).float(), x)


def defocus_blur(x: Tensor, _rng: CorruptionRng, radius: float, softness: float) -> Tensor:
    """A disk kernel of `radius`, smoothed by a Gaussian (3x3) of standard deviation `softness`."""
    reach = torch.arange(-2, 3, dtype=torch.float32)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).float()
    rim = torch.exp(-(torch.arange(-1, 2) ** 2) / (2 * softness**2))
    rim = torch.outer(rim, rim)[None, None]
    kernel = F.conv2d((disk / disk.sum())[None, None], rim / rim.sum(), padding=1)[0, 0]
    padded, size = F.pad(x, (2, 2, 2, 2), mode="reflect"), x.shape[2]
    taps = [(i, j, weight) for i, row in enumerate(kernel.tolist()) for j, weight in enumerate(row) if weight > 1e-6]
    return sum((weight * padded[:, :, i : i + size, j : j + size] for i, j, weight in taps), torch.zeros_like(x))


def glass_blur(x: Tensor, rng: CorruptionRng, sigma: float, reach: int, times: int) -> Tensor:
    """Blur; each pixel takes the color of one up to `reach` above or left of it; blur again."""
    size = x.shape[2]
    blurred = torch.floor(_gaussian_blur(x, sigma, "nearest") * 255 + 1e-3) / 255
    positions = torch.arange(size, device=x.device)
    inside = (positions > reach) & (positions <= size - reach)
    inside = (inside[:, None] & inside).long()  # [S, S]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    for _ in range(times):
        offsets = rng.integers(-reach, reach, 2, size, size) * inside  # [B, 2, S, S]
        rows, columns = positions[:, None] + offsets[:, 0], positions + offsets[:, 1]
        blurred = blurred.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)
    return _gaussian_blur(blurred, sigma, "nearest")


def motion_blur(x: Tensor, rng: CorruptionRng, radius: int, sigma: float) -> Tensor:
    """One-sided motion blur, in a direction within 45 degrees of horizontal."""
    return motion_blur_filter(x, rng.uniform(-45, 45), radius, sigma)


def zoom_blur(x: Tensor, _rng: CorruptionRng, max_factor: float) -> Tensor:
    """The mean of the image and of enlargements by 1, 1.01, … up to `max_factor`."""
    factors = np.arange(1, max_factor, 0.01).tolist()
    total = x.clone()
    for factor in factors:
        zoom = zoom_matrix(x.shape[2], factor).to(x.device)
        total += zoom @ x @ zoom.T
    return total / (len(factors) + 1)


def snow(  # noqa: PLR0917
    x: Tensor,
    rng: CorruptionRng,
    mean: float,
    scale: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Tensor:
    """Motion-blurred flakes, and the same rotated by 180 degrees, over a lighter image.

    Flakes are Gaussian noise (`mean`, standard deviation `scale`), enlarged by `zoom`, 0 below `threshold`, and blurred
    as by `motion_blur_filter` (`radius`, `sigma`). `keep` is the weight of the original image.
    """
    size = x.shape[2]
    flakes = rng.normal(1, size, size) * scale + mean
    enlarge = zoom_matrix(size, zoom).to(x.device)
    flakes = enlarge @ flakes @ enlarge.T
    flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
    flakes = motion_blur_filter(torch.floor(flakes * 255) / 255, rng.uniform(-135, -45), radius, sigma)
    lighter = torch.maximum(x, 1.5 * _gray(x) + 0.5)
    return keep * x + (1 - keep) * lighter + flakes + flakes.flip(2, 3)


def frost(x: Tensor, rng: CorruptionRng, keep: float, amount: float) -> Tensor:
    """A synthetic, slightly blue ice texture over the image: veins on clouds."""
    clouds, veins = plasma_fractal(x, rng.uniform, 2.0), plasma_fractal(x, rng.uniform, 1.5)
    veins = 1 - 2 * (veins - veins.mean(dim=(2, 3), keepdim=True)).abs()  # brightest along a level line
    ice = (0.25 + 0.35 * clouds + 0.5 * veins.clamp(0, 1) ** 6).clamp(0, 1)
    tint = torch.tensor([0.92, 0.98, 1.0], device=x.device)[:, None, None]
    return keep * x + amount * ice * tint


def fog(x: Tensor, rng: CorruptionRng, amount: float, decay: float) -> Tensor:
    """Clouds made by the diamond-square algorithm, and reduced contrast."""
    brightest = x.amax(dim=(1, 2, 3), keepdim=True)
    return (x + amount * plasma_fractal(x, rng.uniform, decay)) * brightest / (brightest + amount)


def brightness(x: Tensor, _rng: CorruptionRng, amount: float) -> Tensor:
    """The value of HSV raised; hue and saturation unchanged."""
    value = x.amax(dim=1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-6)), raised)


def contrast(x: Tensor, _rng: CorruptionRng, factor: float) -> Tensor:
    """The difference of each pixel from the mean of its channel, times `factor`."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, rng: CorruptionRng, amount: float, sigma: float, shift: float) -> Tensor:
    """An affine map that moves three points by up to `shift`, then random displacements of up to `amount`, smoothed by
    a Gaussian of standard deviation `sigma`; all three are fractions of S."""
    size = x.shape[2]
    center, third = size // 2, size // 3
    corners = torch.tensor([[third, third], [third, -third], [-third, -third]]) + float(center)
    moved = corners + rng.uniform(-shift * size, shift * size, 3, 2).cpu()  # [B, 3, 2]: x, y
    affine = torch.linalg.solve(F.pad(moved, (0, 1), value=1), corners.expand_as(moved)).to(x.device)  # to the source
    pixels = torch.arange(size, dtype=torch.float32, device=x.device)
    grid = torch.stack(
        [*torch.meshgrid(pixels, pixels, indexing="xy"), torch.ones(size, size, device=x.device)], dim=-1
    )
    source = (grid.reshape(1, -1, 3) @ affine).reshape(-1, size, size, 2)
    x = F.grid_sample(x, 2 * source / (size - 1) - 1, padding_mode="reflection", align_corners=True)
    smooth = gaussian_matrix(size, sigma * size, "reflect", truncate=3).to(x.device)
    displacement = amount * size * (smooth @ rng.uniform(-1, 1, 2, size, size) @ smooth.T)  # [B, 2, S, S]: x, y
    source = grid[:, :, :2] + displacement.permute(0, 2, 3, 1)
    return F.grid_sample(x, (2 * source + 1) / size - 1, padding_mode="reflection", align_corners=False)


def pixelate(x: Tensor, _rng: CorruptionRng, factor: float) -> Tensor:
    """Downscaled and upscaled by box filters."""
    size = x.shape[2]
    small = int(size * factor)
    for matrix in (box_resize_matrix(size, small), box_resize_matrix(small, size)):
        rows = matrix.to(x.device)  # values are rounded to 8 bits after each direction, as in Pillow
        x = torch.floor(x @ rows.T * 255 + 0.5) / 255
        x = torch.floor(rows @ x * 255 + 0.5) / 255
    return x


def jpeg_compression(x: Tensor, _rng: CorruptionRng, quality: int) -> Tensor:
    """JPEG by Pillow, on the CPU."""
    pixels = (x * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    decoded = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).to(x.device).permute(0, 3, 1, 2) / 255


Corruption = Callable[..., Tensor]

# The arguments for severities 1 to 5.
CORRUPTIONS: dict[str, tuple[Corruption, list[tuple[Any, ...]]]] = {
    "gaussian_noise": (gaussian_noise, [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)]),
    "shot_noise": (shot_noise, [(500,), (250,), (100,), (75,), (50,)]),
    "impulse_noise": (impulse_noise, [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)]),
    "defocus_blur": (defocus_blur, [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)]),
    "glass_blur": (glass_blur, [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)]),
    "motion_blur": (motion_blur, [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]),
    "zoom_blur": (zoom_blur, [(1.06,), (1.11,), (1.16,), (1.21,), (1.26,)]),
    "snow": (
        snow,
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
    ),
    "frost": (frost, [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]),
    "fog": (fog, [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]),
    "brightness": (brightness, [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)]),
    "contrast": (contrast, [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)]),
    "elastic_transform": (
        elastic_transform,
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
    ),
    "pixelate": (pixelate, [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)]),
    "jpeg_compression": (jpeg_compression, [(80,), (65,), (58,), (50,), (40,)]),
}

CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions, in the order of CORRUPTIONS."""


@torch.no_grad()
def corrupt(images: Tensor, name: str, severity: int, *, sample_ids: Sequence[int], seed: int = 0) -> Tensor:
    """Apply one of CORRUPTIONS at a severity of 1..5 to images uint8 [B, S, S, 3]; the same shape and type.

    `sample_ids` [B] and `seed` determine the random numbers. The constants were chosen for S = 32; at other sizes the
    corruptions look milder or harsher.
    """
    apply, arguments = CORRUPTIONS[name]
    rng = CorruptionRng(seed, name, severity, sample_ids, images.device)
    with torch.autocast(images.device.type, enabled=False):
        x = images.permute(0, 3, 1, 2).contiguous().float() / 255
        corrupted = apply(x, rng, *arguments[severity - 1])
    # the authors truncate; 1e-3 is added so that rounding in fp32 never costs a level
    return (corrupted.clamp(0, 1) * 255 + 1e-3).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _gray(x: Tensor) -> Tensor:
    """The luma of ITU-R BT.601, [B, 1, S, S]."""
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device)[:, None, None]).sum(dim=1, keepdim=True)


def _gaussian_blur(x: Tensor, sigma: float, edges: str) -> Tensor:
    blur = gaussian_matrix(x.shape[2], sigma, edges).to(x.device)
    return blur @ x @ blur.T
