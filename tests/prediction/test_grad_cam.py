"""Grad-CAM: its maps against the formula on the whole graph and against CAM's closed form; its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import untrained
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cifar100.inference import load_predictor
from cifar100.model import ResNet
from cifar100.prediction.grad_cam import draw_explanations, grad_cam, load_explainer
from cifar100.prediction.overlay import apply_colormap, overlay
from cifar100.support.errors import UserError


@pytest.fixture(scope="module")
def model() -> ResNet:
    """A narrow network whose batch norms have seen images."""
    torch.manual_seed(0)
    model = ResNet((1, 1, 1, 1), 10, width=8)
    for _ in range(5):
        model(torch.randn(32, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def slow_grad_cam(model: ResNet, image: Tensor, class_id: int) -> Tensor:
    """The paper's equations 1 and 2, for one image [3, H, W], with a graph of the whole network."""
    x = F.relu(model.bn1(model.conv1(image[None])))
    features = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    (gradients,) = torch.autograd.grad(model.fc(features.mean(dim=(2, 3)))[0, class_id], features)
    result = torch.zeros(features.shape[2:])
    for channel in range(features.shape[1]):
        result += gradients[0, channel].mean() * features[0, channel].detach()
    return result.clamp(min=0)


@pytest.mark.parametrize("classes", [None, [3, 0, 9, 3, 1, 7]])
def test_maps_are_those_of_the_paper(model: ResNet, images: Tensor, classes: list[int] | None) -> None:
    logits, maps = grad_cam(model, images, classes)
    assert maps.shape == (6, 4, 4)
    assert torch.equal(logits, model(images))
    for image, answer, chosen, found in zip(images, logits, classes or logits.argmax(dim=1), maps, strict=True):
        expected = slow_grad_cam(model, image, int(chosen))
        torch.testing.assert_close(found * expected.max(), expected, rtol=1e-4, atol=1e-6)
        assert found.max() == (expected.max() > 0), answer


def test_evidence_of_all_cells_is_the_logit(model: ResNet, images: Tensor) -> None:
    """CAM's identity (Zhou et al. 2016): what makes the last stage the layer to look at."""
    features: list[Tensor] = []

    def keep(_model: object, _inputs: object, output: Tensor) -> None:
        features.append(output)

    hook = model.layer4.register_forward_hook(keep)
    with torch.no_grad():
        logits = model(images)
    hook.remove()
    evidence = torch.einsum("ck,bkij->bcij", model.fc.weight.detach(), features[0])
    torch.testing.assert_close(evidence.mean(dim=(2, 3)) + model.fc.bias.detach(), logits, rtol=1e-4, atol=1e-5)
    _, maps = grad_cam(model, images)
    for shown, cells, chosen in zip(maps, evidence, logits.argmax(dim=1), strict=True):
        torch.testing.assert_close(shown, F.relu(cells[chosen]) / cells[chosen].max(), rtol=1e-4, atol=1e-5)


def test_nothing_is_left_behind(model: ResNet, images: Tensor) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        _, maps = grad_cam(model, images)
        assert not torch.is_grad_enabled()
    assert model.training
    model.eval()
    assert not maps.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.layer4._forward_hooks


def test_a_class_that_nothing_speaks_for(images: Tensor) -> None:
    model = ResNet((1, 1, 1, 1), 10, width=8)
    with torch.no_grad():
        model.fc.weight[2] = -1  # features are never negative, so every cell speaks against it
    _, maps = grad_cam(model, images, [2] * 6)
    assert torch.equal(maps, torch.zeros(6, 4, 4))


@pytest.mark.parametrize("classes", [[1, 2], [0, 1, 2, 3, 4, 10], [0, 1, 2, 3, 4, -1]])
def test_classes_that_are_not_there(model: ResNet, images: Tensor, classes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"6 ids in 0\.\.9"):
        grad_cam(model, images, classes)
    assert not model.layer4._forward_hooks


def test_overlay_shows_the_picture_and_the_map() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    flat = overlay(pixels, np.zeros((4, 4), np.float32))
    assert flat.shape == (256, 256, 3)
    assert flat.dtype == np.uint8
    assert (flat[:, 128:].astype(int) - flat[:, :128]).min() >= 70, "the picture is seen where the map is empty"
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    hot = overlay(pixels, heat)
    assert hot[10, 245].tolist() == [239, 240, 186], "white, under the map's brightest colour"
    assert np.array_equal(hot[130:], flat[130:]), "and nowhere else"
    assert overlay(np.zeros((300, 300, 3), np.uint8), heat).shape == (300, 300, 3)


def test_heat_is_read_by_eyes_that_confuse_colours() -> None:
    values = np.linspace(0, 1, 256)
    lightness = apply_colormap(values) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    published = 255 * colormaps["inferno"](values)[:, :3]
    assert np.abs(apply_colormap(values) - published).max() < 18, "the named map, but for its fine bends"


def test_an_explainer_says_what_the_predictor_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained().save(tmp_path / "model.pth")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(3)]
    explain = load_explainer(tmp_path / "model.pth", device="cpu", precision="fp32")
    explanations = list(explain(images, top_k=3))
    predictor = load_predictor(tmp_path / "model.pth", device="cpu", precision="fp32")
    for explanation, expected in zip(explanations, predictor.predict_batch(images, top_k=3), strict=True):
        found = [(p.class_name, p.class_id, pytest.approx(p.probability, rel=1e-5)) for p in explanation.predictions]
        assert found == [tuple(prediction) for prediction in expected]
    assert all(e.class_id == e.predictions[0].class_id and e.heat.max() in (0, 1) for e in explanations)
    assert next(explain(images, class_id=7)).class_id == 7
    with pytest.raises(UserError, match="from 0 to 99"):
        next(explain(images, class_id=100))
    sheet = draw_explanations(explanations, ["one", "two", "\x1b[2Jthree"])
    assert isinstance(sheet, Image.Image)
    assert sheet.size == (2 * 256 + 280 + 4 * 16, 3 * (256 + 16) + 16)
