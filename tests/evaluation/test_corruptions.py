"""Corruptions: compared with single-image references of the authors' definitions; random numbers; severities.

The references below follow make_cifar_c.py with the libraries that it uses (scipy, OpenCV, Pillow) and use the random
numbers of the batched code, so that both add the same noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from cifar100.evaluation.corruptions import CORRUPTIONS, SEVERITIES, CorruptionRng, corrupt

NUMBERS = [3, 14, 159, 2653]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Four images with coarse and fine detail, uint8 [4, 32, 32, 3]."""
    noise = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
    coarse = ndimage.gaussian_filter(noise, (0, 4, 4, 0)) * 600 + 120
    return torch.from_numpy((coarse + 15 * noise).clip(0, 255).astype(np.uint8))


# The definitions, for one image uint8 [32, 32, 3]; results are on the scale 0..255, not yet clipped.


def gaussian_noise(image: np.ndarray, draws: CorruptionRng, scale: float) -> np.ndarray:
    return 255 * (image / 255 + scale * sampled(draws.normal(3, 32, 32)).transpose(1, 2, 0))


def shot_noise(image: np.ndarray, draws: CorruptionRng, photons: float) -> np.ndarray:
    rates = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255 * photons
    return 255 * sampled(draws.poisson(rates)).transpose(1, 2, 0) / photons


def impulse_noise(image: np.ndarray, draws: CorruptionRng, amount: float) -> np.ndarray:
    dice = sampled(draws.uniform(0, 1, 3, 32, 32)).transpose(1, 2, 0)
    result = image.astype(float)
    result[dice < amount] = 0
    result[dice < amount / 2] = 255
    return result


def defocus_blur(image: np.ndarray, _draws: CorruptionRng, radius: float, softness: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disk = np.array(x**2 + y**2 <= radius**2, np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), sigmaX=softness)
    return 255 * np.stack([cv2.filter2D(image[:, :, c] / 255, -1, kernel) for c in range(3)], axis=2)


def glass_blur(image: np.ndarray, draws: CorruptionRng, sigma: float, reach: int, times: int) -> np.ndarray:
    x = (blurred(image / 255, sigma) * 255 + 1e-3).astype(np.uint8)
    for _ in range(times):
        offsets = sampled(draws.integers(-reach, reach, 2, 32, 32))
        for h in range(32 - reach, reach, -1):
            for w in range(32 - reach, reach, -1):
                down, right = offsets[:, h, w]
                x[h, w], x[h + down, w + right] = x[h + down, w + right], x[h, w]
    return 255 * blurred(x / 255, sigma)


def zoom_blur(image: np.ndarray, _draws: CorruptionRng, farthest: float) -> np.ndarray:
    factors = np.arange(1, farthest, 0.01)
    total = image / 255 + sum(enlarged(image / 255, factor) for factor in factors)
    return 255 * total / (len(factors) + 1)


def snow(image: np.ndarray, draws: CorruptionRng, *c: float) -> np.ndarray:
    x = image / 255
    layer = enlarged(sampled(draws.normal(1, 32, 32)).transpose(1, 2, 0) * c[1] + c[0], c[2])[:, :, 0]
    layer[layer < c[3]] = 0
    layer = (layer.clip(0, 1) * 255).astype(np.uint8) / 255
    layer = smeared(layer[:, :, None], float(sampled(draws.uniform(-135, -45))), int(c[4]), c[5])
    grey = (x @ [0.299, 0.587, 0.114])[:, :, None]
    x = c[6] * x + (1 - c[6]) * np.maximum(x, grey * 1.5 + 0.5)
    return 255 * (x + layer + np.rot90(layer, k=2))


def motion_blur(image: np.ndarray, draws: CorruptionRng, radius: int, sigma: float) -> np.ndarray:
    return 255 * smeared(image / 255, float(sampled(draws.uniform(-45, 45))), radius, sigma)


def fog(image: np.ndarray, draws: CorruptionRng, amount: float, decay: float) -> np.ndarray:
    x, clouds = image / 255, diamond_square(draws, decay)[:, :, None]
    return 255 * (x + amount * clouds) * x.max() / (x.max() + amount)


def brightness(image: np.ndarray, _draws: CorruptionRng, amount: float) -> np.ndarray:
    hsv = cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + amount, 0, 1)
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def contrast(image: np.ndarray, _draws: CorruptionRng, factor: float) -> np.ndarray:
    means = image.mean(axis=(0, 1))
    return (image - means) * factor + means


def elastic_transform(image: np.ndarray, draws: CorruptionRng, amount: float, sigma: float, shift: float) -> np.ndarray:
    corners = np.array([[26, 26], [26, 6], [6, 6]], np.float32)
    moved = corners + sampled(draws.uniform(-32 * shift, 32 * shift, 3, 2))
    affine = cv2.getAffineTransform(corners, moved)
    x = cv2.warpAffine((image / 255).astype(np.float32), affine, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
    field = [
        ndimage.gaussian_filter(u, 32 * sigma, mode="reflect", truncate=3)
        for u in sampled(draws.uniform(-1, 1, 2, 32, 32))
    ]
    columns, rows = np.meshgrid(np.arange(32.0), np.arange(32.0))
    places = [rows + 32 * amount * field[1], columns + 32 * amount * field[0]]
    return 255 * np.stack(
        [ndimage.map_coordinates(x[:, :, c], places, order=1, mode="reflect") for c in range(3)], axis=2
    )


def pixelate(image: np.ndarray, _draws: CorruptionRng, factor: float) -> np.ndarray:
    small = Image.fromarray(image).resize((int(32 * factor), int(32 * factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((32, 32), Image.Resampling.BOX), float)


def sampled(values: Tensor) -> np.ndarray:
    return values[0].numpy()


def blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4))


def enlarged(x: np.ndarray, factor: float) -> np.ndarray:
    cut = int(np.ceil(32 / factor))
    top = (32 - cut) // 2
    large = np.asarray(ndimage.zoom(x[top : top + cut, top : top + cut], (factor, factor, 1), order=1))
    trim = (len(large) - 32) // 2
    return large[trim : trim + 32, trim : trim + 32]


def smeared(x: np.ndarray, degrees: float, radius: int, sigma: float) -> np.ndarray:
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    result = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        rows = np.arange(32) + np.ceil(step * np.sin(np.radians(degrees)) - 0.5)
        columns = np.arange(32) + np.ceil(step * np.cos(np.radians(degrees)) - 0.5)
        result += weight * x[np.ix_(rows.clip(0, 31).astype(int), columns.clip(0, 31).astype(int))]
    return result


def diamond_square(draws: CorruptionRng, decay: float) -> np.ndarray:
    clouds, step, wobble = np.zeros((32, 32)), 32, 100.0
    while step >= 2:
        half = step // 2
        noise = wobble * sampled(draws.uniform(-wobble, wobble, 32 // step, 32 // step))
        beside = wobble * sampled(draws.uniform(-wobble, wobble, 32 // step, 32 // step))
        below = wobble * sampled(draws.uniform(-wobble, wobble, 32 // step, 32 // step))
        for i in range(0, 32, step):
            for j in range(0, 32, step):
                around = [clouds[a % 32, b % 32] for a in (i, i + step) for b in (j, j + step)]
                clouds[i + half, j + half] = sum(around) / 4 + noise[i // step, j // step]
        for i in range(0, 32, step):
            for j in range(0, 32, step):
                up, down = clouds[(i - half) % 32, j + half], clouds[i + half, j + half]
                clouds[i, j + half] = (clouds[i, j] + clouds[i, (j + step) % 32] + up + down) / 4 + beside[
                    i // step, j // step
                ]
                left, right = clouds[i + half, (j - half) % 32], clouds[i + half, j + half]
                clouds[i + half, j] = (clouds[i, j] + clouds[(i + step) % 32, j] + left + right) / 4 + below[
                    i // step, j // step
                ]
        step, wobble = half, wobble / decay
    clouds -= clouds.min()
    return clouds / clouds.max()


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, fog),
        *(brightness, contrast, elastic_transform, pixelate),
    )
}
# OpenCV interpolates the affine map in steps of 1/32 pixel
TOLERANCE = {"elastic_transform": 8}


@pytest.mark.parametrize("kind", REFERENCES)
def test_each_corruption_equals_its_definition(kind: str, images: Tensor) -> None:
    for severity in SEVERITIES:
        found = corrupt(images[:2], kind, severity, sample_ids=NUMBERS[:2], seed=7).numpy()
        for number, image, result in zip(NUMBERS, images.numpy()[:2], found, strict=False):
            draws = CorruptionRng(7, kind, severity, [number], CPU)
            expected = REFERENCES[kind](image, draws, *CORRUPTIONS[kind][1][severity - 1]).clip(0, 255)
            difference = np.abs(result - np.floor(expected + 1e-3))
            assert difference.max() <= TOLERANCE.get(kind, 1), severity
            assert difference.mean() < 0.2 * TOLERANCE.get(kind, 1), severity


def test_jpeg_is_similar_to_opencvs(images: Tensor) -> None:
    found = corrupt(images, "jpeg_compression", 5, sample_ids=NUMBERS).numpy()
    ok, code = cv2.imencode(".jpg", images[0].numpy()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    assert ok
    theirs = np.asarray(cv2.imdecode(code, 1), int)[:, :, ::-1]
    assert np.abs(theirs - found[0]).mean() < 3, "another encoder with the same quality"


def test_the_corruptions_are_those_of_the_paper() -> None:
    noise, blur = ["gaussian_noise", "shot_noise", "impulse_noise"], ["defocus", "glass", "motion", "zoom"]
    weather = ["snow", "frost", "fog", "brightness"]
    digital = ["contrast", "elastic_transform", "pixelate", "jpeg_compression"]
    assert list(CORRUPTIONS) == [*noise, *(f"{name}_blur" for name in blur), *weather, *digital]
    severities = {name: arguments for name, (_, arguments) in CORRUPTIONS.items()}
    assert all(len(arguments) == len(SEVERITIES) for arguments in severities.values())
    message = "not the constants of make_cifar_c.py in github.com/hendrycks/robustness, with which they were compared"
    assert zlib.crc32(repr(severities).encode()) == 2274315553, message


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_is_corrupted_the_same_alone_and_in_a_batch(kind: str, images: Tensor) -> None:
    before = images.clone()
    together = corrupt(images, kind, 4, sample_ids=NUMBERS)
    assert together.dtype == torch.uint8
    assert together.shape == images.shape
    assert torch.equal(images, before)
    for place in range(4):
        alone = corrupt(images[place : place + 1], kind, 4, sample_ids=NUMBERS[place : place + 1])[0]
        assert (alone.int() - together[place].int()).abs().max() <= 1, "sums in a different order round differently"
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(corrupt(images, kind, 4, sample_ids=NUMBERS), together), "unaffected by autocast"


DRAWING = sorted(
    CORRUPTIONS.keys() - {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
)


@pytest.mark.parametrize("kind", DRAWING)
def test_random_numbers_depend_only_on_seed_and_sample_id(kind: str, images: Tensor) -> None:
    first = corrupt(images, kind, 3, sample_ids=NUMBERS, seed=1)
    assert torch.equal(first, corrupt(images, kind, 3, sample_ids=NUMBERS, seed=1))
    assert not torch.equal(first, corrupt(images, kind, 3, sample_ids=NUMBERS, seed=2))
    assert not torch.equal(first, corrupt(images, kind, 3, sample_ids=[n + 1 for n in NUMBERS], seed=1))


# With the constants of the paper, elastic_transform shifts less as it distorts more, frost darkens bright images, and
# glass_blur is stronger at severity 3 than at 4.
@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind != "elastic_transform"])
def test_higher_severities_differ_more_from_the_image(kind: str, images: Tensor) -> None:
    many = images.repeat(12, 1, 1, 1)
    distances = [
        (corrupt(many, kind, severity, sample_ids=range(48)).float() - many).square().mean().sqrt().item()
        for severity in SEVERITIES
    ]
    assert distances[0] > 0.3
    assert distances[4] > 1.1 * distances[0]
    assert kind in ("glass_blur", "frost") or all(more > less for less, more in pairwise(distances)), distances


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_uniform_images_and_other_sizes(kind: str) -> None:
    for level in (0, 255):
        plain = torch.full((1, 48, 48, 3), level, dtype=torch.uint8)
        assert corrupt(plain, kind, 5, sample_ids=[0]).shape == (1, 48, 48, 3)
