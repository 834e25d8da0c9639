"""All interfaces report the same probabilities and the same "unsure" for an image, and name the weights."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar100.checkpoints.checkpoint import load_checkpoint
from cifar100.cli.main import main
from cifar100.compute.device import select_device
from cifar100.dataset import synthetic
from cifar100.dataset.base import Split
from cifar100.evaluation import metrics
from cifar100.evaluation.eval_split import load_eval_split
from cifar100.evaluation.evaluate import evaluate_split, format_samples
from cifar100.export.web import answer
from cifar100.images.fit import FITS
from cifar100.inference import Predictor, load_predictor
from cifar100.prediction import contact_sheet
from cifar100.prediction.torch_backend import TorchBackend
from cifar100.report.galleries import galleries
from cifar100.report.sections import ReportInput
from cifar100.report.style import thumbnail
from cifar100.web import html, server
from cifar100.web.app import _Handlers
from cifar100.web.service import InferenceService

pytestmark = pytest.mark.usefixtures("narrow_checkpoints")

TEMPERATURE = 1.5  # the temperature of the models in `exports`
LABELS = np.array([0, 50, 99])


def images() -> np.ndarray:
    """A synthetic image, noise and a single color, uint8 [3, 32, 32, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return np.stack([synthetic.make().test.images[0], noise, np.full((32, 32, 3), 90, np.uint8)])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("a", "noise", "uniform")]
    for path, pixels in zip(paths, images(), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture(params=["best.pth", "best.safetensors", "best.onnx"])
def predictor(request: pytest.FixtureRequest, exports: Path) -> Predictor:
    return load_predictor(exports / request.param, device="cpu")


def run(capsys: pytest.CaptureFixture[str], predictor: Predictor, files: list[Path], *flags: object) -> str:
    words = ["predict", *files, "--checkpoint", predictor.info.source, "--device", "cpu", *flags]
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_reference_predictions_are_calibrated_and_flagged(predictor: Predictor) -> None:
    """The reference for the other tests: softmax(logits / temperature); all three reasons occur."""
    expected = metrics.softmax(predictor.backend.logits(images()) / TEMPERATURE)
    results = list(predictor.classify(images()))
    for result, probabilities in zip(results, expected, strict=True):
        assert result.predictions[0].probability == pytest.approx(probabilities.max())
    assert [result.reason for result in results][1:] == ["noise", "uniform"]


def test_terminal_json_csv_and_sheet(
    predictor: Predictor, files: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(predictor.classify(files, top_k=3))
    entries: list[Any] = []
    captions: list[str] = []
    draw = contact_sheet.contact_sheet

    def recorded(given: Any, caption: Any) -> bytes:
        entries.extend(given)
        captions.append("\n".join(caption))
        return draw(given, caption)

    monkeypatch.setattr(contact_sheet, "contact_sheet", recorded)
    sheet = files[0].parent / "sheet.png"
    table = run(capsys, predictor, files, "--top-k", "3", "--montage", sheet, "--explain", sheet)
    assert all(predictor.info.digest in text for text in (table.splitlines()[0], *captions))
    assert len(captions) == 2
    rows = re.findall(r"(\d+\.\d\d)%  \w+ +(\d+)", table)
    assert rows == [(f"{100 * p.probability:.2f}", str(p.class_id)) for result in expected for p in result.predictions]
    assert table.count("UNSURE") == sum(result.unsure for result in expected)

    lines = [json.loads(line) for line in run(capsys, predictor, files, "--top-k", "3", "--json").splitlines()]
    rows = list(csv.DictReader(io.StringIO(run(capsys, predictor, files, "--top-k", "1", "--csv"))))
    for result, line, row, entry in zip(expected, lines, rows, entries[:3], strict=True):
        top1 = result.predictions[0]
        assert [item["probability"] for item in line["predictions"]] == pytest.approx(
            [p.probability for p in result.predictions], rel=1e-5
        )
        assert (line["unsure"], line["reason"]) == (result.unsure, result.reason)
        assert line["model"] == {"name": predictor.info.name, "sha256": predictor.info.digest}
        assert line["temperature"] == TEMPERATURE
        assert float(row["probability"]) == pytest.approx(top1.probability, rel=1e-4)
        assert (row["unsure"], row["reason"]) == (str(result.unsure).lower(), result.reason)
        assert (row["model"], row["sha256"]) == (predictor.info.name, predictor.info.digest)
        assert entry.probability == pytest.approx(top1.probability, rel=1e-5)
        assert entry.label.endswith("unsure") == result.unsure, "a long label is cut at its start"


def test_web_page_and_api(predictor: Predictor, files: list[Path]) -> None:
    service, handlers = InferenceService(predictor), _Handlers(predictor)
    for path, result in zip(files, predictor.classify(files), strict=True):
        top1 = result.predictions[0]
        page = html.answer(service(path.name, path.read_bytes()), predictor.info)
        assert page.index(f'class="share">{top1.probability:.1%}<') < page.index("</li>")
        assert ("Unsure" in page) == result.unsure
        assert predictor.info.digest in page
        response = handlers.predict(str(path))
        assert response["predictions"][0]["probability"] == pytest.approx(top1.probability, rel=1e-5)
        assert (response["unsure"], response["reason"]) == (result.unsure, result.reason)
        assert response["model"] == {"name": predictor.info.name, "sha256": predictor.info.digest}


def unusual_files(folder: Path) -> list[Path]:
    """Images of various modes, orientations and sizes."""
    small = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    rgb = Image.fromarray(small).resize((90, 60), Image.Resampling.BICUBIC)
    gray, exif = rgb.convert("L"), Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    alpha = Image.merge("RGBA", (*rgb.split(), gray))
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "turned.jpg": (rgb, {"exif": exif}),
        "alpha.png": (alpha, {}),
        "palette.gif": (rgb.quantize(8), {"transparency": 0}),
        "gray.webp": (gray, {}),
        "deep.png": (deep, {}),
        "tiny.png": (rgb.resize((8, 8)), {}),
        "large.jpg": (rgb.resize((2700, 1800)), {}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return [folder / name for name in images]


@pytest.mark.parametrize("fit", FITS)
def test_unusual_images_get_the_same_prediction_in_every_interface(
    fit: str, exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, words = unusual_files(tmp_path), ["--fit", fit, "--views", "2"]
    served = app_predictor(monkeypatch, "--checkpoint", exports / "best.onnx", *words)
    lines = run(capsys, served, paths, "--json", *words).splitlines()
    rows = csv.DictReader(io.StringIO(run(capsys, served, paths, "--csv", "--top-k", "1", *words)))
    handlers = _Handlers(served)
    answers = []
    for path, line, row in zip(paths, map(json.loads, lines), rows, strict=True):
        response, top1 = handlers.predict(str(path)), line["predictions"][0]
        for other in (response["predictions"][0], row):
            assert other["class_name"] == top1["class_name"]
            assert float(other["probability"]) == pytest.approx(top1["probability"], rel=1e-4)
        assert f'class="share">{top1["probability"]:.1%}<' in handlers.show(str(path))
        reasons = {line["reason"], response["reason"], row["reason"]}
        assert len(reasons) == 1
        answers.append(top1["probability"])
    assert len(set(answers)) == len(paths), "the probabilities of different images differ"


def app_predictor(monkeypatch: pytest.MonkeyPatch, *words: str | Path | int) -> Predictor:
    """The predictor that `cifar100 app` serves with these options."""
    served: list[Predictor] = []
    monkeypatch.setattr(server, "serve", lambda predictor, **_: served.append(predictor))
    assert main(["app", *map(str, words), "--device", "cpu"]) == 0
    return served[0]


def test_each_interface_applies_the_fit_and_the_views(
    exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)).save(path)
    found = []
    for fit, views in zip(FITS, (1, 2, 1), strict=True):
        predictor = load_predictor(exports / "best.onnx", device="cpu", fit=fit, views=views)
        (result,) = predictor.classify([path])
        top1 = result.predictions[0]
        line = json.loads(run(capsys, predictor, [path], "--json", "--fit", fit, "--views", views))
        served = app_predictor(monkeypatch, "--checkpoint", exports / "best.onnx", "--fit", fit, "--views", views)
        for answered in (line, _Handlers(served).predict(str(path))):
            assert (answered["fit"], answered["views"]) == (fit, views)
            assert answered["predictions"][0]["probability"] == pytest.approx(top1.probability, rel=1e-5)
        found.append(top1.probability)
    assert len(set(found)) == 3


def test_static_site(predictor: Predictor, files: list[Path]) -> None:
    for path, result in zip(files, predictor.classify(files), strict=True):
        found = answer(path.read_bytes(), predictor.backend)
        assert [item["probability"] for item in found["predictions"]] == pytest.approx(
            [p.probability for p in result.predictions], abs=1e-5
        )
        assert found["reason"] == result.reason


def report_cards(exports: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The cards of a report on the three images, and the lines of `evaluate --samples`."""
    checkpoint, compute = load_checkpoint(exports / "best.pth"), select_device("cpu", "fp32")
    data, _, config = load_eval_split(checkpoint, dataset="synthetic")
    split = Split(images(), LABELS, "")
    evaluation = evaluate_split(checkpoint, data, split, config.augment, compute, name="test")
    subject = ReportInput(
        checkpoint=checkpoint,
        name="best.pth",
        dataset=data,
        images=split.images,
        evaluation=evaluation,
        compute=compute,
        history=[],
    )
    confusion = metrics.confusion_matrix(evaluation.logits, LABELS)
    shown = galleries(subject, TorchBackend(checkpoint, compute, "best.pth"), confusion)
    cards = {card["src"]: card for card in [*shown["mistakes"], *shown["hits"]]}
    lines = format_samples(evaluation, data.classes, 3, temperature=TEMPERATURE)[1:]
    for pixels, line in zip(split.images, lines, strict=True):
        yield cards[thumbnail(pixels)], line


def test_report_and_samples_of_evaluate(exports: Path) -> None:
    predictor = load_predictor(exports / "best.pth", device="cpu", precision="fp32")
    for (card, line), result in zip(report_cards(exports), predictor.classify(images()), strict=True):
        found = [item["probability"] for item in card["top5"]]
        assert found == pytest.approx([p.probability for p in result.predictions], rel=1e-4)
        assert bool(card["unsure"]) == result.unsure
        assert f"{result.predictions[0].class_name} {result.predictions[0].probability:.1%}" in line
