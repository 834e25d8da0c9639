"""cifar100/inference.py: the Predictor with a fake model, and with checkpoints."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FakeBackend, assert_one_sentence
from PIL import Image

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset.classes import CLASSES
from cifar100.evaluation.metrics import softmax
from cifar100.inference import BATCH_SIZE, Prediction, Predictor, load_predictor
from cifar100.model import resnet18
from cifar100.support.errors import UserError

# The Predictor


def by_brightness(pixels: np.ndarray) -> np.ndarray:
    """A model that predicts class v for an image of mean value v: logits [B, 100]."""
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (32, 32, 3)
    return -np.abs(pixels.mean(axis=(1, 2, 3))[:, None] - np.arange(100)).astype(np.float32)


PREDICTOR = Predictor(FakeBackend(by_brightness, CLASSES))


def gray(value: int) -> np.ndarray:
    return np.full((32, 32), value, np.uint8)


def test_predictions_are_sorted_and_have_names() -> None:
    predictions = PREDICTOR.predict(gray(40), top_k=3)
    assert [p.class_id for p in predictions] == [40, 39, 41]
    assert [p.class_name for p in predictions] == [CLASSES[40], CLASSES[39], CLASSES[41]]
    assert predictions[0].probability > predictions[1].probability == predictions[2].probability


def test_equally_likely_classes_are_sorted_by_id() -> None:
    levels = np.arange(100, dtype=np.float32) % 3
    undecided = Predictor(FakeBackend(lambda pixels: np.tile(levels, (len(pixels), 1)), CLASSES))
    expected = [*range(2, 100, 3), *range(1, 100, 3), *range(0, 100, 3)]
    assert [p.class_id for p in undecided.predict(gray(0), top_k=100)] == expected


def test_two_views_average_the_logits_of_the_image_and_its_flip() -> None:
    def by_left_half(pixels: np.ndarray) -> np.ndarray:
        return by_brightness(pixels[:, :, :16].repeat(2, axis=2))

    image = np.full((32, 32), 20, np.uint8)
    image[:, 16:] = 60
    (expected,) = softmax(-(np.abs(np.arange(100) - 20) + np.abs(np.arange(100) - 60))[None] / 2)
    predictor = Predictor(FakeBackend(by_left_half, CLASSES), views=2)
    assert next(predictor.probabilities([image])) == pytest.approx(expected)
    for explain in (False, True):
        (result,) = predictor.classify([image], top_k=100, explain=explain)
        assert [p.probability for p in result.predictions] == pytest.approx(sorted(expected, reverse=True))


@pytest.mark.parametrize("views", [0, 3, "2"])
def test_invalid_numbers_of_views(views: Any) -> None:
    with pytest.raises(UserError) as caught:
        Predictor(PREDICTOR.backend, views=views)
    assert caught.value.code == "predict.views"


def test_probabilities_of_all_classes_sum_to_1() -> None:
    predictions = PREDICTOR.predict(gray(40), top_k=100)
    probabilities = [p.probability for p in predictions]
    assert sorted(p.class_id for p in predictions) == list(range(100))
    assert sum(probabilities) == pytest.approx(1, abs=1e-12)
    assert probabilities == sorted(probabilities, reverse=True)


def test_top_k_does_not_change_the_probabilities() -> None:
    assert PREDICTOR.predict(gray(40), top_k=1) == PREDICTOR.predict(gray(40), top_k=100)[:1]


def test_top_k_is_5_by_default() -> None:
    assert len(PREDICTOR.predict(gray(40))) == 5
    assert [len(p) for p in PREDICTOR.predict_batch([gray(1), gray(2)])] == [5, 5]


def test_a_prediction_unpacks_as_name_id_and_probability() -> None:
    prediction = PREDICTOR.predict(gray(7), top_k=1)[0]
    class_name, class_id, probability = prediction
    assert (class_name, class_id) == (CLASSES[7], 7)
    assert prediction == Prediction(class_name, class_id, probability)
    assert [type(value) for value in prediction] == [str, int, float]


def test_softmax_neither_overflows_nor_loses_small_probabilities() -> None:
    result = softmax(np.array([[1e4, 1e4, -1e4], [0, 0, -100]], np.float32))
    np.testing.assert_allclose(result, [[0.5, 0.5, 0], [0.5, 0.5, np.exp(-100) / 2]], rtol=1e-12)


@pytest.mark.parametrize("top_k", [0, 101, -1, 2.5, 5.0, True, "5", None, [5]], ids=repr)
@pytest.mark.parametrize("method", ["predict", "predict_batch", "predict_stream"])
def test_invalid_top_k(method: str, top_k: Any) -> None:
    image = gray(1) if method == "predict" else [gray(1)]
    with pytest.raises(UserError) as caught:
        getattr(PREDICTOR, method)(image, top_k)
    assert_one_sentence(str(caught.value), "top_k", repr(top_k), "1 to 100")


@pytest.mark.parametrize("top_k", [1, 100, np.int64(3)])
def test_valid_top_k(top_k: Any) -> None:
    assert len(PREDICTOR.predict(gray(1), top_k)) == top_k


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE, BATCH_SIZE + 1])
def test_a_batch_is_classified_in_order(count: int) -> None:
    values = [i % 100 for i in range(count)]
    predictions = PREDICTOR.predict_batch([gray(value) for value in values], top_k=1)
    assert [p[0].class_id for p in predictions] == values


def stacked(images: list[np.ndarray]) -> np.ndarray:
    return np.stack(images).reshape(len(images), *images[0].shape[:2], -1)


@pytest.mark.parametrize("kind", [list, tuple, iter, stacked], ids=lambda kind: kind.__name__)
def test_a_batch_may_be_any_iterable(kind: Callable[[Any], Any]) -> None:
    predictions = PREDICTOR.predict_batch(kind([gray(3), gray(5)]), top_k=1)
    assert [p[0].class_id for p in predictions] == [3, 5]


class Tracked(np.ndarray):
    """An image whose lifetime is tracked by a weak reference."""


def test_a_generator_is_consumed_batch_by_batch() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    drawn, most_alive, batches = 0, 0, []

    def images() -> Iterator[np.ndarray]:
        nonlocal drawn, most_alive
        for i in range(1000):
            image = gray(i % 100).view(Tracked)
            alive.append(weakref.ref(image, alive.remove))
            most_alive = max(most_alive, len(alive))
            drawn += 1
            yield image

    def forward(pixels: np.ndarray) -> np.ndarray:
        batches.append(len(pixels))
        return by_brightness(pixels)

    for named, prediction in enumerate(Predictor(FakeBackend(forward, CLASSES)).predict_stream(images(), top_k=1)):
        assert prediction[0].class_id == named % 100
        assert drawn - named <= 2 * BATCH_SIZE
    assert drawn == 1000
    assert 0 < most_alive <= 2 * BATCH_SIZE
    assert batches == [BATCH_SIZE] * 7 + [1000 - 7 * BATCH_SIZE]


@pytest.mark.parametrize("batch", ["photo.jpg", Path("photo.jpg")])
def test_a_single_path_is_not_a_batch(batch: Any) -> None:
    with pytest.raises(UserError) as caught:
        PREDICTOR.predict_batch(batch)
    assert_one_sentence(str(caught.value), "batch", "predict")


ONE_IMAGE = {
    "PIL": Image.new("RGB", (32, 32)),
    "HWC": np.zeros((32, 32, 3), np.uint8),
    "HW": np.zeros((32, 32), np.uint8),
    "CHW tensor": torch.zeros(3, 32, 32),
}


@pytest.mark.parametrize("batch", ONE_IMAGE.values(), ids=ONE_IMAGE)
def test_a_single_image_is_not_a_batch(batch: Any) -> None:
    with pytest.raises(UserError) as caught:
        PREDICTOR.predict_batch(batch)
    assert_one_sentence(str(caught.value), "batch")


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        PREDICTOR.predict(tmp_path / "missing.png")
    assert_one_sentence(str(caught.value), "missing.png")


def test_the_repr_names_the_source() -> None:
    assert "from memory" in repr(PREDICTOR)


# Checkpoints

NAMES = ["ant", "bat", "cat", "dog", "eel", "fox", "gnu"]
MEAN, STD, SIZE = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7], 24
IMAGES = [np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8) for i in range(5)]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A resnet18 of seven classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet18(len(NAMES))
    return model.state_dict()


@pytest.fixture(scope="module")
def checkpoint_path(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best_model.pth"
    Checkpoint(model="resnet18", weights=weights, classes=NAMES, image_size=SIZE, mean=MEAN, std=STD).save(path)
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint_path: Path) -> Predictor:
    return load_predictor(checkpoint_path, device="cpu", precision="fp32")


def test_names_size_and_source_come_from_the_checkpoint(predictor: Predictor, checkpoint_path: Path) -> None:
    assert predictor.classes == tuple(NAMES)
    assert predictor.image_size == SIZE
    assert str(checkpoint_path) in repr(predictor)
    assert {p.class_name for p in predictor.predict(IMAGES[0], top_k=7)} == set(NAMES)


def direct_probabilities(weights: dict[str, torch.Tensor]) -> np.ndarray:
    """The probabilities, computed directly with the model."""
    model = resnet18(len(NAMES))
    model.load_state_dict(weights)
    inputs = (torch.from_numpy(np.stack(IMAGES)) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        return model.eval()(inputs.permute(0, 3, 1, 2)).softmax(dim=1).numpy()


def test_weights_and_normalization_come_from_the_checkpoint(
    predictor: Predictor, weights: dict[str, torch.Tensor]
) -> None:
    expected = direct_probabilities(weights)
    found = np.stack(list(predictor.probabilities(IMAGES)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_predict_equals_predict_batch(predictor: Predictor) -> None:
    together = predictor.predict_batch(IMAGES, top_k=7)
    for image, expected in zip(IMAGES, together, strict=True):
        alone = predictor.predict(image, top_k=7)
        assert [p.class_id for p in alone] == [p.class_id for p in expected]
        assert [p.probability for p in alone] == pytest.approx([p.probability for p in expected], rel=1e-4, abs=1e-7)


def test_the_default_device_and_precision_predict(checkpoint_path: Path) -> None:
    predictions = load_predictor(str(checkpoint_path)).predict(IMAGES[0], top_k=7)
    assert sum(p.probability for p in predictions) == pytest.approx(1)
