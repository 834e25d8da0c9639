"""cifar100/page and see.py: what visitors get, by its parts here; `test_page_in_browser.py` looks at the whole."""

from __future__ import annotations

import io
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import untrained
from PIL import Image

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.model import resnet18
from cifar100.prediction import rejection
from cifar100.prediction.cam import Model, open_model
from cifar100.prediction.rejection import doubt
from cifar100.support.errors import UserError
from cifar100.support.provenance import TemperatureFit
from cifar100.web import html, service
from cifar100.web.examples import example_files
from cifar100.web.service import Answer, InferenceService, Refusal


def sure_checkpoint(**fields: Any) -> Checkpoint:
    """A whole resnet18 that was never trained, and is sure of what it says all the same."""
    torch.manual_seed(0)
    weights = resnet18().state_dict()
    weights["fc.weight"] *= 100
    return untrained(weights=weights, **fields)


CLASSES: tuple[str, ...] = ("apple", "sweet_pepper", "<b>fox</b>", "\x1b[31mroad", "sea")


def sure_of(place: int) -> Model:
    def see(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = np.zeros((len(pixels), len(CLASSES)), np.float32)
        logits[:, place] = 3
        return logits, np.ones((len(pixels), 4, 4), np.float32)

    evaluation = {"images": 10_000, "top1": 0.76, "top5": 0.94, "superclass_top1": 0.85}
    evaluation["per_class"] = dict(zip(CLASSES, (0.9, 0.2, 0.5, 0.6, 0.7), strict=True))
    families: dict[str, str] = dict.fromkeys(CLASSES, "large_<things>")
    return Model(see, CLASSES, families, 32, 2.0, evaluation, {"network": "resnet18"})


def png(image: np.ndarray | Image.Image) -> bytes:
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, "PNG")
    return content.getvalue()


def photo(seed: int = 0) -> np.ndarray:
    """Smooth enough to be no noise, uint8 [60, 80, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC))


# Answers


def test_an_answer_is_ranked_and_tempered() -> None:
    answer = InferenceService(sure_of(1))("a.png", png(photo()), top_k=3)
    assert [p.class_name for p in answer.predictions] == ["sweet_pepper", "apple", "<b>fox</b>"]
    assert answer.predictions[0].probability == pytest.approx(np.exp(1.5) / (np.exp(1.5) + 4)), "temperature 2"
    assert not answer.doubt
    assert answer.seen.shape == (32, 32, 3)
    assert answer.overlay.shape == (256, 256, 3)
    assert answer.milliseconds > 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.png is not an image that can be read."),
        (b"text", "a.png is not an image that can be read."),
        (png(photo())[:300], "a.png is damaged and cannot be decoded"),
        (bytes(service.MOST_BYTES + 1), "a.png has more than 30 MB"),
    ],
)
def test_what_has_no_answer_is_a_sentence(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        InferenceService(sure_of(0))("a.png", content)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    content = io.BytesIO()
    Image.new("1", (10_000, 3_001)).save(content, "PNG")
    with pytest.raises(UserError, match="more pixels than any photo needs"):
        InferenceService(sure_of(0))("a.png", content.getvalue())


def test_several_go_on_after_a_bad_one() -> None:
    files = [("a", lambda: png(photo())), ("b", lambda: b"text"), ("c", lambda: png(photo(1)))]
    assert [type(of) for of in InferenceService(sure_of(0)).several(files)] == [Answer, Refusal, Answer]


def test_visitors_take_turns() -> None:
    inside, most = 0, 0

    def see(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return np.eye(5, dtype=np.float32)[: len(pixels)], np.ones((len(pixels), 4, 4), np.float32)

    shared = InferenceService(Model(see, CLASSES, {}, 32, 1.0, {}, {}))
    visitors = [threading.Thread(target=shared, args=("a", png(photo()))) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert most == 1


# Unsure


SURE = np.array([9.0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("pixels", "logits", "said"),
    [
        (photo(), SURE, ""),
        (photo(), np.zeros(100), "It looks like none of the classes."),
        (np.full((32, 32, 3), 90, np.uint8), SURE, "The picture is all one colour."),
        (np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), SURE, "The picture is noise."),
    ],
)
def test_doubt(pixels: np.ndarray, logits: np.ndarray, said: str) -> None:
    assert doubt(logits, pixels) == said


def test_correlation_is_that_of_neighbours() -> None:
    """Against numpy's own, of all pairs of neighbours; a chessboard is the opposite of a photo."""
    image = photo()
    grey = np.repeat(image[:, :, :1], 3, axis=2)
    pairs = [(grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1])]
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    assert rejection.correlation(grey) == pytest.approx(expected, abs=0.05)
    chessboard = np.indices((32, 32)).sum(0)[:, :, None] % 2 * np.full(3, 255)
    assert rejection.correlation(chessboard.astype(np.uint8)) == pytest.approx(-1)


# Markup


class Strict(HTMLParser):
    """Fails on tags that do not nest; keeps texts, and attributes by tag."""

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


def test_names_are_text_wherever_they_appear() -> None:
    model = sure_of(2)
    answer = InferenceService(model)("<script>alert(1)</script>.png", png(photo()))
    for page in (
        html.answer(answer, model),
        html.several([answer, Refusal("x", "<i>bad</i>")], model),
        html.about_model(model),
        html.classes(model),
        html.refusal(Refusal("", "<script>")),
    ):
        parsed = Strict(page)
        assert not {"script", "i"} & ({tag for tag, _ in parsed.attributes} - {"i"} if "unsure" in page else set())
        assert "<script>" not in page
        assert "\x1b" not in page
    assert "<b>fox</b>" in "".join(Strict(html.answer(answer, model)).texts)


def test_every_picture_of_an_answer_has_a_text_and_no_address() -> None:
    model = sure_of(0)
    parsed = Strict(html.answer(InferenceService(model)("a.png", png(photo())), model))
    pictures = [attributes for tag, attributes in parsed.attributes if tag == "img"]
    assert len(pictures) == 2
    for attributes in pictures:
        assert attributes["alt"]
        assert (attributes["src"] or "").startswith("data:image/png;base64,")


def test_an_unsure_answer_says_so_and_still_names_the_nearest() -> None:
    model = sure_of(0)
    flat = InferenceService(model)("a.png", png(np.full((50, 50, 3), 7, np.uint8)))
    shown = "".join(Strict(html.answer(flat, model)).texts)
    assert "Unsure" in shown
    assert "all one colour" in shown
    assert "The nearest is apple" in shown


def test_the_model_tab_names_the_worst_classes_first() -> None:
    shown = "".join(Strict(html.about_model(sure_of(0))).texts)
    assert "76.0% of its first answers" in shown
    assert shown.index("sweet pepper") < shown.index("apple")


def test_a_model_without_figures_says_so() -> None:
    bare = Model(sure_of(0).see, CLASSES, {}, 32, 1.0, {}, {})
    assert "never measured" in html.about_model(bare)
    assert all(name in "".join(Strict(html.classes(bare)).texts) for name in ("apple", "sweet pepper", "sea"))


def test_examples_are_pictures_of_our_own() -> None:
    files = example_files()
    assert len(files) >= 4
    assert files == example_files(), "the same every time"
    for content in files.values():
        assert Image.open(io.BytesIO(content)).size == (256, 256)


# Opening a model


def test_a_model_says_what_the_predictor_says(tmp_path: Path) -> None:
    from cifar100.inference import load_predictor

    path = tmp_path / "model.pth"
    sure_checkpoint(calibration=TemperatureFit(temperature=1.5)).save(path)
    model = open_model(path, device="cpu")
    pixels = np.stack([np.asarray(Image.fromarray(photo(i)).resize((32, 32))) for i in range(3)])
    logits, heat = model.see(pixels)
    expected = load_predictor(path, device="cpu").forward(pixels)
    assert (logits.argmax(1) == expected.argmax(1)).all()
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    assert heat.shape == (3, 4, 4)
    assert ((heat >= 0) & (heat <= 1)).all()
    assert (model.temperature, model.image_size) == (1.5, 32)
    assert model.superclass_of["apple"] == "fruit_and_vegetables"


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    untrained(model="resnet34").save(path)
    with pytest.raises(UserError, match=r"model\.pth"):
        open_model(path, device="cpu")
