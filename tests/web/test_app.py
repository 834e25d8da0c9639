"""Components of the web app; `test_app_in_browser.py` tests the app end to end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from conftest import FakeBackend, untrained
from image_bytes import image_bytes
from PIL import Image

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.dataset.classes import CLASSES as PUBLISHED_CLASSES
from cifar100.images.square import PADDING_COLOR
from cifar100.inference import Predictor
from cifar100.model import resnet18
from cifar100.prediction.rejection import rejection_reason, spatial_autocorrelation
from cifar100.support.errors import UserError
from cifar100.support.provenance import DatasetInfo, TemperatureFit
from cifar100.web import html, service
from cifar100.web.app import _Handlers, build
from cifar100.web.decoding import decode
from cifar100.web.service import Classified, InferenceService


def confident_checkpoint(**fields: Any) -> Checkpoint:
    """An untrained resnet18 with a scaled head, so that its predictions are confident."""
    torch.manual_seed(0)
    weights = resnet18().state_dict()
    weights["fc.weight"] *= 100
    return untrained(weights=weights, **fields)


CLASSES: tuple[str, ...] = ("apple", "sweet_pepper", "<b>fox</b>", "\x1b[31mroad", "sea")


def predictor_favoring(class_id: int) -> Predictor:
    def logits(pixels: np.ndarray) -> np.ndarray:
        found = np.zeros((len(pixels), len(CLASSES)), np.float32)
        found[:, class_id] = 3
        return found

    evaluation = {"images": 10_000, "top1": 0.76, "top5": 0.94, "superclass_top1": 0.85}
    evaluation["per_class"] = dict(zip(CLASSES, (0.9, 0.2, 0.5, 0.6, 0.7), strict=True))
    return predictor_of(
        logits,
        superclasses=("large_<things>",),
        superclass_of=(0,) * len(CLASSES),
        calibration=TemperatureFit(temperature=2.0),
        evaluation=evaluation,
    )


def predictor_of(logits: Callable[[np.ndarray], np.ndarray], **fields: Any) -> Predictor:
    backend = FakeBackend(logits, CLASSES)
    backend.info = replace(backend.info, **fields)
    return Predictor(backend)


def photo(seed: int = 0) -> np.ndarray:
    """A smooth random image, which is not classified as noise: uint8 [60, 80, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC))


# Predictions


def test_predictions_are_sorted_and_calibrated() -> None:
    answer = InferenceService(predictor_favoring(1))("a.png", image_bytes(photo()), top_k=3)
    predictions = answer.result.predictions
    assert [p.class_name for p in predictions] == ["sweet_pepper", "apple", "<b>fox</b>"]
    assert predictions[0].probability == pytest.approx(np.exp(1.5) / (np.exp(1.5) + 4)), "softmax at temperature 2"
    assert not answer.result.unsure
    assert answer.result.pixels.shape == (32, 32, 3)
    assert answer.overlay.shape == (256, 256, 3)
    assert answer.milliseconds > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.png is not an image that can be read."),
        (b"text", "a.png is not an image that can be read."),
        (image_bytes(photo())[:300], "a.png is damaged and cannot be decoded"),
        (bytes(service.MAX_BYTES + 1), "a.png is larger than 30 MB"),
    ],
)
def test_invalid_files_raise_a_user_error(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        InferenceService(predictor_favoring(0))("a.png", content)


def test_classify_all_continues_after_an_invalid_file() -> None:
    files = [("a", lambda: image_bytes(photo())), ("b", lambda: b"text"), ("c", lambda: image_bytes(photo(1)))]
    answers = InferenceService(predictor_favoring(0)).classify_all(files)
    assert [type(of) for of in answers] == [Classified, UserError, Classified]


def test_forward_passes_do_not_overlap() -> None:
    inside, most = 0, 0

    def logits(pixels: np.ndarray) -> np.ndarray:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return np.eye(5, dtype=np.float32)[: len(pixels)]

    shared = InferenceService(predictor_of(logits))
    visitors = [threading.Thread(target=shared, args=("a", image_bytes(photo()))) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert most == 1


# Unsure


CONFIDENT, UNDECIDED = np.array([0.96, 0.01, 0.01, 0.01, 0.01]), np.full(100, 0.01)


@pytest.mark.parametrize(
    ("pixels", "probabilities", "reason"),
    [
        (photo(), CONFIDENT, ""),
        (photo(), UNDECIDED, "low_confidence"),
        (photo(), np.array([0.39, 0.31, 0.3]), "low_confidence"),
        (photo(), np.array([0.40, 0.3, 0.3]), ""),
        (photo() // 10 + 120, CONFIDENT, ""),  # faint, but not of a single color
        (np.full((32, 32, 3), 90, np.uint8), CONFIDENT, "uniform"),
        (np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), CONFIDENT, "noise"),
    ],
)
def test_rejection_reason(pixels: np.ndarray, probabilities: np.ndarray, reason: str) -> None:
    assert rejection_reason(probabilities, pixels) == reason


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.full((60, 80, 3), (250, 0, 0), np.uint8), "uniform"),
        (np.full((60, 80, 3), PADDING_COLOR, np.uint8), "uniform"),
        (np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8), "noise"),
        (photo(), ""),
        (np.tile(photo(), (1, 80, 1))[:10], ""),
    ],
)
def test_padding_does_not_affect_rejection(image: np.ndarray, reason: str) -> None:
    backend = FakeBackend(lambda pixels: np.tile(np.log(CONFIDENT), (len(pixels), 1)), CLASSES)
    (result,) = Predictor(backend, fit="pad").classify([image])
    assert result.reason == reason


def test_spatial_autocorrelation_is_the_correlation_of_adjacent_pixels() -> None:
    """Compared with np.corrcoef over all pairs of adjacent pixels; a checkerboard gives -1."""
    image = photo()
    gray = np.repeat(image[:, :, :1], 3, axis=2)
    pairs = [(gray[:, 1:], gray[:, :-1]), (gray[1:], gray[:-1])]
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    assert spatial_autocorrelation(gray) == pytest.approx(expected, abs=0.05)
    checkerboard = np.indices((32, 32)).sum(0)[:, :, None] % 2 * np.full(3, 255)
    assert spatial_autocorrelation(checkerboard.astype(np.uint8)) == pytest.approx(-1)


# Markup


class StrictParser(HTMLParser):
    """Fails on unbalanced tags; collects the text and the attributes of each tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_names_are_escaped_in_all_markup() -> None:
    predictor = predictor_favoring(2)
    info = predictor.info
    answer = InferenceService(predictor)("<script>alert(1)</script>.png", image_bytes(photo()))
    for page in (
        html.answer(answer, info),
        html.answers([answer, UserError("app.x", "<i>bad</i>")], info),
        html.about_model(predictor),
        html.classes(info),
        html.failure("<script>"),
    ):
        assert "script" not in {tag for tag, _ in StrictParser(page).attributes}
        assert "<i>bad" not in page
        assert "<script>" not in page
        assert "\x1b" not in page
    assert "<b>fox</b>" in "".join(StrictParser(html.answer(answer, info)).texts)


def test_images_of_an_answer_have_alt_text_and_are_embedded() -> None:
    predictor = predictor_favoring(0)
    parsed = StrictParser(html.answer(InferenceService(predictor)("a.png", image_bytes(photo())), predictor.info))
    images = [attributes for tag, attributes in parsed.attributes if tag == "img"]
    assert len(images) == 3
    assert (images[0]["width"], images[0]["height"]) == ("256", "192"), "the whole image, with its aspect ratio"
    for attributes in images:
        assert attributes["alt"]
        assert (attributes["src"] or "").startswith("data:image/png;base64,")


def test_an_unsure_answer_is_marked_and_still_has_its_top1_class() -> None:
    predictor = predictor_favoring(0)
    flat = InferenceService(predictor)("a.png", image_bytes(np.full((50, 50, 3), 7, np.uint8)))
    shown = "".join(StrictParser(html.answer(flat, predictor.info)).texts)
    assert "Unsure" in shown
    assert "single color" in shown
    assert "apple" in shown


def test_the_model_tab_lists_the_worst_classes_first() -> None:
    shown = "".join(StrictParser(html.about_model(predictor_favoring(0))).texts)
    assert "76.0%" in shown
    assert shown.index("sweet pepper") < shown.index("apple")


def test_a_model_without_an_evaluation() -> None:
    predictor = predictor_of(lambda pixels: np.zeros((len(pixels), 5)))
    assert "unknown" in html.about_model(predictor)
    shown = "".join(StrictParser(html.classes(predictor.info)).texts)
    assert all(name in shown for name in ("apple", "sweet pepper", "sea"))


def test_a_run_is_shown_with_the_accuracy_of_its_epoch() -> None:
    metrics = {"split": "test", "top1": 0.75, "top5": 1.0, "superclass_top1": None}
    shown = html.about_model(predictor_of(lambda pixels: np.zeros((len(pixels), 5)), metrics=metrics))
    assert "75.0% top-1 on test images" in shown
    assert "unknown" not in shown.partition("Accuracy")[2]


def test_a_model_with_other_classes_shows_its_dataset_and_no_examples(tmp_path: Path) -> None:
    own = predictor_of(lambda pixels: np.zeros((len(pixels), 5)), dataset=DatasetInfo(name="<my> photos"))
    blocks = build(own, decode, tmp_path / "own")
    shown = json.dumps(blocks.get_config_file())
    assert "&lt;my&gt; photos" in shown
    assert blocks.title == "Image classifier"
    assert not list((tmp_path / "own").iterdir())


def test_a_cifar100_model_starts_with_a_classified_example(tmp_path: Path) -> None:
    backend = FakeBackend(lambda pixels: np.tile(np.arange(100.0), (len(pixels), 1)), PUBLISHED_CLASSES)
    components = build(Predictor(backend), decode, tmp_path).get_config_file()["components"]
    (shown,) = (of["props"]["value"] for of in components if of["props"].get("elem_id") == "answer")
    assert 'aria-label="Example"' in shown
    assert html.escaped_name(PUBLISHED_CLASSES[-1]) in shown


def test_the_api_takes_its_default_top_k_for_any_number_of_classes(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(image_bytes(photo()))
    handlers = _Handlers(Predictor(FakeBackend(lambda pixels: np.zeros((len(pixels), 2), np.float32), ("a", "b"))))
    assert len(handlers.predict(str(tmp_path / "photo.png"))["predictions"]) == 2
    for wrong in (0, 6, None):
        with pytest.raises(gr.Error, match="a top_k from 1 to 5"):
            handlers.predict(str(tmp_path / "photo.png"), wrong)
