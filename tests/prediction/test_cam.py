"""Class activation maps: proportional to Grad-CAM, in both backends; overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_checkpoint
from matplotlib import colormaps
from PIL import Image

from cifar100.augmentation.batched import normalize
from cifar100.checkpoints import weights
from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.cli.main import main
from cifar100.compute.device import select_device
from cifar100.inference import load_predictor
from cifar100.prediction.cam import apply_colormap, normalize_cams, overlay, top1_heatmaps
from cifar100.prediction.torch_backend import TorchBackend

pytestmark = pytest.mark.usefixtures("narrow_checkpoints")

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), np.uint8)


@pytest.fixture
def checkpoint() -> Checkpoint:
    return random_checkpoint()


@pytest.fixture
def backend(checkpoint: Checkpoint) -> TorchBackend:
    return TorchBackend(checkpoint, select_device("cpu", "fp32"))


def grad_cam(checkpoint: Checkpoint, class_ids: list[int]) -> np.ndarray:
    """Grad-CAM of the unfolded network by autograd (Selvaraju et al. 2017, eq. 1 and 2): float32 [B, h, w]."""
    model = checkpoint.build().eval()
    features: list[Any] = []
    model.layer4.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    logits = model(normalize(torch.from_numpy(PIXELS), tuple(checkpoint.mean), tuple(checkpoint.std)))
    (gradients,) = torch.autograd.grad(logits[range(len(PIXELS)), class_ids].sum(), features[0])
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * features[0]).sum(dim=1).relu().detach().numpy()


@pytest.mark.parametrize("class_ids", [None, [3, 0, 9, 3, 1, 7]])
def test_cams_are_proportional_to_grad_cam(
    checkpoint: Checkpoint, backend: TorchBackend, class_ids: list[int] | None
) -> None:
    logits, cams = backend.logits_and_cams(PIXELS)
    assert cams.shape == (6, 100, 4, 4)
    chosen = logits.argmax(axis=1).tolist() if class_ids is None else class_ids
    expected = 16 * grad_cam(checkpoint, chosen)  # its gradient includes the mean over 4x4 cells
    np.testing.assert_allclose(np.maximum(cams[range(6), chosen], 0), expected, rtol=1e-3, atol=1e-4)


def test_maps_average_to_the_unchanged_logits(checkpoint: Checkpoint, backend: TorchBackend) -> None:
    logits, cams = backend.logits_and_cams(PIXELS)
    assert np.array_equal(logits, backend.logits(PIXELS)), "--explain does not change the probabilities"
    bias = checkpoint.weights["fc.bias"].numpy()
    np.testing.assert_allclose(cams.mean(axis=(2, 3)) + bias, logits, atol=1e-4)


def test_both_backends_agree(exports: Path) -> None:
    results: list[Any] = []
    for name, precision in (("best.pth", "fp32"), ("best.onnx", "auto")):
        predictor = load_predictor(exports / name, device="cpu", precision=precision)
        results.append(list(predictor.classify(PIXELS, explain=True)))
    for torch_result, onnx_result in zip(*results, strict=True):
        assert [p.class_id for p in torch_result.predictions] == [p.class_id for p in onnx_result.predictions]
        np.testing.assert_allclose(torch_result.heatmap, onnx_result.heatmap, atol=1e-3)


def test_predict_explain_loads_the_model_once_and_works_in_batches(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    batches: list[int] = []
    load, forward = weights.load_weights, TorchBackend.logits_and_cams

    def logits_and_cams(backend: TorchBackend, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches.append(len(pixels))
        return forward(backend, pixels)

    monkeypatch.setattr(weights, "load_weights", lambda *args, **options: opened.append(args) or load(*args, **options))
    monkeypatch.setattr(TorchBackend, "logits_and_cams", logits_and_cams)
    monkeypatch.setattr(TorchBackend, "logits", None)  # one forward pass computes both
    for number in range(5):
        Image.fromarray(PIXELS[number]).save(tmp_path / f"{number}.png")
    options = ["--checkpoint", exports / "best.pth", "--explain", tmp_path / "sheet.png", "--batch-size", "2"]
    assert main([str(word) for word in ("predict", tmp_path, "--device", "cpu", *options)]) == 0
    assert len(opened) == 1
    assert batches == [2, 2, 1]


def test_heatmaps_are_of_the_top1_class_in_0_to_1() -> None:
    logits = np.array([[0, 1, 0], [2, 1, 0]], np.float32)
    cams = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    heatmaps = top1_heatmaps(logits, cams)
    for heatmap, cam in zip(heatmaps, (cams[0, 1], cams[1, 0]), strict=True):
        np.testing.assert_allclose(heatmap, np.maximum(cam, 0) / cam.max(), rtol=1e-6)
    assert not normalize_cams(np.full((1, 4, 4), -1.0)).any(), "a map without positive values is 0"


def test_overlay_shows_the_image_and_the_map() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    flat = overlay(pixels, np.zeros((4, 4), np.float32))
    assert flat.shape == (256, 256, 3)
    assert flat.dtype == np.uint8
    assert (flat[:, 128:].astype(int) - flat[:, :128]).min() >= 70, "the image is visible if the map is empty"
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 3] = 1
    hot = overlay(pixels, heatmap)
    assert hot[10, 245].tolist() == [239, 240, 186], "white, blended with the brightest color of the map"
    assert np.array_equal(hot[130:], flat[130:]), "unchanged elsewhere"
    assert overlay(np.zeros((300, 300, 3), np.uint8), heatmap).shape == (300, 300, 3)


def test_the_colormap_increases_in_lightness() -> None:
    values = np.linspace(0, 1, 256)
    lightness = apply_colormap(values) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    published = 255 * colormaps["inferno"](values)[:, :3]
    assert np.abs(apply_colormap(values) - published).max() < 18, "an approximation of inferno"
