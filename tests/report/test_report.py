"""`cifar100 report`: correct figures, no network requests, and any checkpoint is supported."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence, untrained
from PIL import Image

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.checkpoints.weights import state_dict_sha256
from cifar100.cli.main import main
from cifar100.compute.device import select_device
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.dataset.classes import SUPERCLASS_OF
from cifar100.evaluation import metrics
from cifar100.evaluation.corruption_results import CELLS, Robustness, results_path
from cifar100.evaluation.corruptions import CATEGORIES, CORRUPTIONS
from cifar100.evaluation.eval_split import load_eval_split
from cifar100.evaluation.evaluate import Evaluation, evaluate, evaluate_split
from cifar100.inference import load_predictor
from cifar100.model import resnet18
from cifar100.report.build import history_of, report, stored_temperature
from cifar100.report.curves import curve_panel
from cifar100.report.sections import ReportInput
from cifar100.report.selection import (
    confused_pairs,
    least_confident_correct,
    most_confident_errors,
    superclass_order,
)
from cifar100.report.style import display_name, new_figure, thumbnail, to_png
from cifar100.report.verdict import verdict
from cifar100.report.write import write_report
from cifar100.support.errors import UserError
from cifar100.support.provenance import FittedOn, Selection, TemperatureFit
from cifar100.training.logger import COLUMNS

PLOTS = {"classes", "confusion", "coverage", "curves", "reliability", "reliability_after", "superclass_confusion"}


def rows(count: int) -> list[dict[str, Any]]:
    """The history of a run of `count` epochs."""
    return [
        dict.fromkeys(COLUMNS)
        | {"epoch": epoch, "learning_rate": 0.1, "train_loss": 4 / epoch, "train_top1": 0.1 * epoch, "split": "test"}
        | {"loss": 3 / epoch, "top1": 0.09 * epoch, "images_per_second": 100.0, "elapsed_seconds": 3600.0 * epoch}
        for epoch in range(1, count + 1)
    ]


class Page(HTMLParser):
    """The content of a page: its text, image sources, ids and links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.text = html, ""
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.text += " "
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        if self.inside not in ("style", "script"):
            self.text += data

    @property
    def words(self) -> str:
        """The text with whitespace collapsed."""
        return " ".join(self.text.split())

    def svgs(self) -> Iterator[str]:
        """The embedded SVG images."""
        for address in self.addresses:
            if address.startswith("data:image/svg+xml;base64,"):
                yield base64.b64decode(address.partition(",")[2]).decode()


HOSTILE = "<img src=x onerror=alert(1)>$\\frac{$ & \x1b[31m日本"
NAMES = sorted([HOSTILE, "a_b", "cat", "dog"])


@pytest.fixture(scope="module")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with five images in each class of NAMES."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("own")
    for name in NAMES:
        (folder / name).mkdir()
        for number in range(5):
            Image.fromarray(rng.integers(0, 255, (40, 52, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(own_images: Path) -> Checkpoint:
    """An untrained checkpoint of these images; they have no superclasses."""
    data = load_dataset(Config().replace(data_dir=own_images, test_fraction=0.6))
    none: dict[str, Any] = {"superclasses": [], "superclass_of": []}
    trained: dict[str, Any] = {
        "recipe": "baseline",
        "selection": Selection(rule="best", split="test"),
        "history": rows(3),
    }
    trained |= {
        "weights": resnet18(len(NAMES)).state_dict(),
        "classes": NAMES,
        "config": {"test_fraction": 0.6, "policy": "\x1b[31m"},
        "dataset": data.info,
    }
    return untrained(**none | trained)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render no figure: for tests of the text or the numbers."""
    monkeypatch.setattr("cifar100.report.write.to_png", lambda *_: b"")
    monkeypatch.setattr("cifar100.report.write.to_svg", lambda _: "")


@pytest.fixture(scope="module")
def report_dir(checkpoint: Checkpoint, own_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report on the checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(folder / "model.pth")
    assert main(["report", str(folder / "model.pth"), "--data-dir", str(own_images), "--device", "cpu"]) == 0
    return folder / "report"


@pytest.fixture(scope="module")
def page(report_dir: Path) -> Page:
    return read(report_dir / "index.html")


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def assert_self_contained(page: Page) -> None:
    """The page references no other resource and contains no scripts."""
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.html
    for svg in page.svgs():
        assert not re.search(r'(href|src)="(?!#|data:)', svg)
        assert "@import" not in svg


def test_the_report_is_next_to_the_checkpoint_with_its_plots(report_dir: Path) -> None:
    assert {path.stem for path in report_dir.glob("*.png")} == PLOTS - {"superclass_confusion"}


def test_the_page_makes_no_requests(page: Page) -> None:
    assert_self_contained(page)


def test_links_have_targets(page: Page) -> None:
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    assert len(links) >= 8
    assert set(links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_figures_equal_the_evaluation(report_dir: Path, page: Page) -> None:
    figures = json.loads((report_dir / "report.json").read_text())
    assert figures["images"] == 12
    assert f"{100 * figures['top1']:.2f} %" in page.words
    assert f"{figures['loss']:.4f}" in page.words
    assert "Of 12 test images," in page.words
    assert "12 test images, single view, 32×32 pixels" in page.words
    assert "two-fold cross-fitting on 12 images of the test split" in page.words
    assert "selected on the test images themselves: the accuracy is optimistic" in page.words
    assert (figures["calibration"]["fitted_on"], figures["calibration"]["num_images"]) == ("test-crossfit", 12)
    assert figures["calibration"]["ece_before"] == figures["ece"]
    assert figures["coverage"][0]["accuracy"] == pytest.approx(figures["top1"])
    for name, accuracy in figures["per_class"].items():
        assert f"{display_name(name)} {100 * accuracy:.0f} %" in page.words
        scores = figures["class_scores"][name]
        assert scores["recall"] == pytest.approx(accuracy)
        precision_recall = f"{100 * scores['precision']:.2f} % {100 * scores['recall']:.2f} %"
        row = f"{scores['images']} {precision_recall} {scores['f1']:.3f} {scores['roc_auc']:.4f}"
        assert f"{display_name(name)} {row}" in page.words
    assert f"weighted 12 {100 * figures['weighted']['precision']:.2f} %" in page.words
    assert figures["weighted"]["recall"] == pytest.approx(figures["top1"])


@pytest.mark.slow
def test_the_nearest_train_images_of_mistakes(checkpoint: Checkpoint, own_images: Path, tmp_path: Path) -> None:
    """Three per mistake, and the first is the nearest by the cosine similarity of the features."""
    checkpoint.save(tmp_path / "model.pth")
    where = {"data_dir": own_images, "device": "cpu"}
    page = report([tmp_path / "model.pth"], tmp_path / "with", neighbors=True, **where).read_text()
    data, test, _ = load_eval_split(checkpoint, data_dir=own_images)
    wrong = evaluate(checkpoint, **where).logits.argmax(axis=1) != test.labels
    assert page.count('alt="similar train image: ') == 3 * wrong.sum() > 0
    predictor = load_predictor(tmp_path / "model.pth", device="cpu", precision="fp32")
    similarity = predictor.embed(test.images[wrong]) @ predictor.embed(data.train.images).T
    for place in similarity.argmax(axis=1):
        assert thumbnail(data.train.images[place]) in page


def test_plots_follow_the_color_scheme(page: Page) -> None:
    svgs = list(page.svgs())
    assert len(svgs) == 4 + 1 + 2 + 1, "curves, confusion matrix, reliability, coverage"
    for svg in svgs:
        assert "prefers-color-scheme:dark" in svg
        assert "fill: #000000" not in svg, "black on black"


@pytest.mark.parametrize(("losses", "scale"), [([4.6, 2.0, 0.5], "linear"), ([1.1, 3e7, 1.2], "log")])
def test_the_loss_axis_is_logarithmic_if_the_losses_span_decades(losses: list[float], scale: str) -> None:
    history = [{"epoch": n, "train_loss": 1.0, "loss": loss, "split": "test"} for n, loss in enumerate(losses, 1)]
    (axes,) = curve_panel("loss", {"": history}).axes
    assert axes.get_yscale() == scale


def test_names_are_escaped(page: Page) -> None:
    assert "superclasses" not in page.ids
    assert "<img src=x onerror=alert(1)>$" in page.text
    assert "<img src=x" not in page.html
    assert "\x1b" not in page.html
    (confusion,) = [svg for svg in page.svgs() if "predicted class" in svg]
    assert "&lt;img src=x onerror=alert(1)&gt;$\\frac{$ &amp; \\x1b[31m日本" in confusion
    assert "\x1b" not in confusion


def test_the_errors_on_corrupted_images_are_shown(checkpoint: Checkpoint, own_images: Path, tmp_path: Path) -> None:
    """With one of 75 cells missing: a table with means of complete kinds in the page, a PNG, and JSON."""
    path = tmp_path / "model.pth"
    checkpoint.save(path)
    test = load_dataset(Config().replace(data_dir=own_images, test_fraction=0.6)).test
    assert list(CORRUPTIONS) == [kind for kinds in CATEGORIES.values() for kind in kinds]
    figures = {"top5": 0.9, "loss": 1.0, "seconds": 1.0}
    identity = {"weights": "x", "dataset": "x", "fingerprint": test.fingerprint, "image_size": 32, "precision": "fp32"}
    identity |= {"sha256": state_dict_sha256(checkpoint.weights), "source": "computed", "images": 400, "seed": 7}
    cells = {cell: {"top1": 0.99 - number / 100} | figures for number, cell in enumerate(CELLS)}
    del cells["jpeg_compression", 5]
    known = Robustness(identity, "cpu", {"top1": 0.75} | figures, cells)
    kept = {"format": "cifar100-corruptions", "version": 1, "evaluations": [known.to_json()]}
    results_path(path).write_text(json.dumps(kept))
    index = report([path], data_dir=own_images, device="cpu")
    page = read(index)
    assert "robustness" in page.ids
    assert "gaussian noise 1 2 3 4 5 3 shot noise 6 7 8 9 10 8 impulse" in page.words
    assert "weather snow 36" in page.words
    assert "jpeg compression 71 72 73 74 – –" in page.words
    assert "over 74 of 75 cells; on the same clean images the error is 25.00 %" in page.words
    assert "400 test images, corrupted by cifar100 with seed 7, in fp32" in page.words
    assert page.html.count("--e:") == 74 + 14
    assert "--e:0.740" in page.html
    with Image.open(index.parent / "corruptions.png") as image:
        assert min(image.size) > 500
    assert len(json.loads((index.parent / "report.json").read_text())["robustness"]["cells"]) == 74


def test_the_history_after_a_best_checkpoint_is_included(checkpoint: Checkpoint, tmp_path: Path) -> None:
    kept, path = tmp_path / "metrics.jsonl", tmp_path / "best_model.pth"
    assert history_of(path, checkpoint) == rows(3)
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows(9)))
    assert history_of(path, checkpoint) == rows(9)
    kept.write_text("".join(json.dumps(row | {"top1": 0.5}) + "\n" for row in rows(9)))
    assert history_of(path, checkpoint) == rows(3), "the metrics belong to another run"
    for damaged in ("{", "3\n"):
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows(3)) + damaged)
        assert history_of(path, checkpoint) == rows(3)


@pytest.mark.usefixtures("undrawn")
def test_a_single_image_and_no_history(checkpoint: Checkpoint, own_images: Path, tmp_path: Path) -> None:
    bare = replace(checkpoint, history=[], selection=None)
    data, split, config = load_eval_split(bare, data_dir=own_images)
    one, compute = split.take(np.array([0])), select_device("cpu", "fp32")
    evaluation = evaluate_split(bare, data, one, config.augment, compute, name="test")
    subject = ReportInput(
        checkpoint=bare,
        name="model.pth",
        dataset=data,
        images=one.images,
        evaluation=evaluation,
        compute=compute,
        history=[],
    )
    page = read(write_report(subject, tmp_path / "report"))
    assert "One image is too few to fit a temperature" in page.words
    assert "3 classes without images are left out" in page.words
    assert "curves" not in page.ids


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ("000000000011111111112222222222", "Of 30 test images, 100.00 % are classified correctly."),
        ("000000000011111111110000022222", "lowest for red fox (50 %) and highest for cat (100 %)."),
        ("000000000000000000000000000000", "The mean recall of the classes is not better than chance, 33.33 %."),
    ],
)
def test_the_verdict(predicted: str, expected: str) -> None:
    answers, labels = np.array([int(digit) for digit in predicted]), np.repeat([0, 1, 2], 10)
    words = verdict(evaluation_of(answers, labels)).replace("\N{NO-BREAK SPACE}", " ")
    assert expected in words
    assert words.count(". ") == (0 if (answers == labels).all() else 1)


@pytest.mark.parametrize(
    ("rare", "common", "better"), [(44, 396, True), (0, 450, False), (50, 0, False), (8, 380, False)]
)
def test_chance_does_not_depend_on_the_sizes_of_the_classes(rare: int, common: int, better: bool) -> None:
    """Of 450 images of one class and 50 of another, 88 % of each are better than chance, although the larger class is
    90 % of them all."""
    labels = np.repeat([0, 1], [450, 50])
    answers = np.repeat([0, 1, 1, 0], [common, 450 - common, rare, 50 - rare])
    assert evaluation_of(answers, labels).is_better_than_chance is better


def evaluation_of(answers: np.ndarray, labels: np.ndarray) -> Evaluation:
    """The evaluation of predictions as class ids."""
    classes = ("cat", "dog", "red_fox")[: labels.max() + 1]
    hits = answers == labels
    return Evaluation(
        split="test",
        classes=classes,
        images=len(labels),
        loss=1.0,
        top1=float(hits.mean()),
        top5=1.0,
        superclass_top1=None,
        per_class={name: float(hits[labels == label].mean()) for label, name in enumerate(classes)},
        per_superclass={},
        seconds=1.0,
        compute="cpu",
        logits=np.eye(len(classes), dtype=np.float32)[answers],
        labels=labels,
    )


def test_files_that_are_not_a_report_are_not_overwritten(
    checkpoint: Checkpoint, own_images: Path, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "model.pth")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("site", "file"):
        with pytest.raises(UserError) as caught:
            report([tmp_path / "model.pth"], tmp_path / name, data_dir=own_images)
        assert_one_sentence(str(caught.value), tmp_path / name)
    assert (tmp_path / "site" / "index.html").read_text() == (tmp_path / "file").read_text() == "mine"


def test_non_finite_weights(checkpoint: Checkpoint, own_images: Path, tmp_path: Path) -> None:
    weights = dict(checkpoint.weights)
    weights["fc.bias"] = weights["fc.bias"] * float("nan")
    replace(checkpoint, weights=weights).save(tmp_path / "model.pth")
    with pytest.raises(UserError) as caught:
        report([tmp_path / "model.pth"], data_dir=own_images, device="cpu")
    assert caught.value.code == "checkpoint.values"
    assert_one_sentence(str(caught.value), tmp_path / "model.pth", "fc.bias")


def test_the_temperature_stored_with_the_weights(checkpoint: Checkpoint) -> None:
    assert stored_temperature(checkpoint) is None
    used: dict[FittedOn, bool] = {"val": True, "sibling-val": True, "": True, "test-crossfit": False}
    for fitted_on, is_used in used.items():
        fit = TemperatureFit(temperature=0.7, fitted_on=fitted_on)
        assert stored_temperature(replace(checkpoint, calibration=fit)) == (fit if is_used else None)
    assert stored_temperature(replace(checkpoint, calibration=TemperatureFit(temperature=1e-9))) is None


def random_predictions(count: int = 600, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1
    return metrics.softmax(logits), labels


def test_galleries_show_the_extreme_predictions() -> None:
    probabilities, labels = random_predictions()
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    mistakes = most_confident_errors(probabilities, labels, 10)
    assert (predicted[mistakes] != labels[mistakes]).all()
    assert (np.diff(confidence[mistakes]) <= 0).all()
    assert confidence[mistakes[0]] == confidence[predicted != labels].max()
    hits = least_confident_correct(probabilities, labels, 10)
    assert (predicted[hits] == labels[hits]).all()
    assert confidence[hits[0]] == confidence[predicted == labels].min()
    assert most_confident_errors(probabilities, predicted, 10) == []


def test_confused_pairs_equal_the_slow_reference() -> None:
    probabilities, labels = random_predictions()
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(probabilities, labels)
    pairs = confused_pairs(confusion, probabilities, labels, pairs=5, examples=4)
    counts = {
        (a, b): sum(1 for true, answer in zip(labels, predicted, strict=True) if {true, answer} == {a, b})
        for a in range(12)
        for b in range(a)
    }
    assert [pair.num_a_as_b + pair.num_b_as_a for pair in pairs] == sorted(counts.values(), reverse=True)[:5]
    for pair in pairs:
        assert pair.num_a_as_b >= pair.num_b_as_a
        assert pair.num_a_as_b == ((labels == pair.class_a) & (predicted == pair.class_b)).sum()
        assert len(pair.rows) == min(4, pair.num_a_as_b + pair.num_b_as_a)
        for row in pair.rows:
            assert {labels[row], predicted[row]} == {pair.class_a, pair.class_b}
    assert confused_pairs(np.diag([3, 4]), probabilities, labels, pairs=5, examples=4) == []


def test_classes_are_ordered_by_superclass() -> None:
    order = superclass_order(SUPERCLASS_OF, 100)
    assert sorted(order) == list(range(100))
    assert np.array(SUPERCLASS_OF)[order].tolist() == [group for group in range(20) for _ in range(5)]
    assert superclass_order((), 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("fraction", "images"), [(0.76, 10_000), (0.5, 10), (0.0, 5), (1.0, 1)])
def test_the_wilson_interval_equals_scipys(fraction: float, images: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(round(fraction * images), images).proportion_ci(method="wilson")
    assert metrics.wilson_interval(fraction, images) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.fixture(scope="module")
def cifar100_report(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report on two runs, with 100 classes and 20 superclasses."""
    folder = tmp_path_factory.mktemp("runs")
    for name, epochs in (("short", 2), ("long", 5)):
        (folder / name).mkdir()
        untrained(history=rows(epochs)).save(folder / name / "last.pth")
    paths = [folder / name / "last.pth" for name in ("short", "long")]
    return report(paths, data_dir=tiny_data, device="cpu")


@pytest.mark.slow
def test_100_classes_and_two_runs(cifar100_report: Path, tiny_data: Path) -> None:
    page = read(cifar100_report)
    assert_self_contained(page)
    assert {path.stem for path in cifar100_report.parent.glob("*.png")} == PLOTS
    with Image.open(cifar100_report.parent / "confusion.png") as image:
        assert min(image.size) > 2000, "the names of a hundred classes must be readable"
    names = re.findall(r"<li>([^<>]+)</li>", page.html.partition('class="heads"')[2])
    assert names[:100] == names[100:200], "columns and rows have the same order"
    assert [names.index(name) for name in ("beaver", "whale", "aquarium fish", "tractor")] == [0, 4, 5, 99]
    curves = [svg for svg in page.svgs() if "lighter: train" in svg]
    assert len(curves) == 2
    assert all(">short</text>" in svg and ">long</text>" in svg for svg in curves)
    assert re.search(r"short 2 18\.00 % 18\.00 % \(epoch 2\) test 2:00:00", page.words)
    assert re.search(r"long 5 45\.00 % 45\.00 % \(epoch 5\) test 5:00:00", page.words)
    first = next(address for address in page.addresses if address.startswith("data:image/png"))
    with Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))) as image:
        pixels = np.asarray(image)
    images = load_dataset(Config().replace(data_dir=tiny_data)).test.images
    assert any((pixels == image).all() for image in images), "the images are the test images, exactly"


@pytest.mark.slow
def test_a_report_on_synthetic_images_warns(tmp_path: Path) -> None:
    untrained().save(tmp_path / "model.pth")
    assert "Synthetic images" in read(report([tmp_path / "model.pth"], dataset="synthetic", device="cpu")).text


NAMES_OF_A_CELL = """([row, column]) => {
    const matrix = document.querySelector('.matrix'), cells = matrix.querySelector('img').getBoundingClientRect();
    const cell = cells.width / 100;
    matrix.scrollTo(column * cell - 40, row * cell - 40);
    const moved = matrix.querySelector('img').getBoundingClientRect();
    const x = moved.left + (column + .5) * cell, y = moved.top + (row + .5) * cell;
    const box = matrix.getBoundingClientRect();
    const name = (list, at) => [...matrix.querySelectorAll(list + ' li')].find(li => {
        const r = li.getBoundingClientRect();
        return at(r) && r.left >= box.left && r.top >= box.top && r.right <= box.right && r.bottom <= box.bottom;
    })?.textContent;
    return [name('.sides', r => r.top <= y && y <= r.bottom), name('.heads', r => r.left <= x && x <= r.right)];
}"""


@pytest.mark.slow
def test_in_a_browser(cifar100_report: Path) -> None:
    """No requests, and no horizontal overflow, at the widths of a phone, a tablet and a desktop."""
    address = cifar100_report.resolve().as_uri()
    pytest.importorskip("playwright.sync_api")
    from chromium import launcher

    with launcher() as launch:
        browser = launch()
        backgrounds = set()
        for scheme in ("light", "dark"):
            for width in (360, 820, 1440):
                view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                requests: list[str] = []
                messages: list[str] = []
                view.on("request", lambda request, requests=requests: requests.append(request.url))
                view.on("console", lambda message, messages=messages: messages.append(message.text))
                view.goto(address)
                assert [url for url in requests if not url.startswith("data:")] == [address]
                assert messages == []
                assert view.evaluate("document.documentElement.scrollWidth") <= width
                spilled = view.evaluate(
                    "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && "
                    "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
                )
                assert spilled == []
                broken = view.evaluate("[...document.images].filter(e => !e.naturalWidth).length")
                assert broken == 0
                backgrounds.add((scheme, view.evaluate("getComputedStyle(document.body).backgroundColor")))
                view.check("#zoom")
                assert view.evaluate("document.querySelector('.matrix img').clientWidth") >= 2000
                seen = view.evaluate(NAMES_OF_A_CELL, [57, 83])
                assert seen == ["chimpanzee", "shrew"], "row and column names stay visible when scrolling"
                assert view.evaluate("document.documentElement.scrollWidth") <= width
                view.close()
        browser.close()
    assert len(backgrounds) == 2, "one background color in light mode and one in dark mode"


@pytest.mark.usefixtures("undrawn")
def test_the_threshold_of_a_coverage_is_a_probability_of_predict(
    checkpoint: Checkpoint, own_images: Path, tmp_path: Path
) -> None:
    """It is divided by the temperature that is stored with the weights."""
    replace(checkpoint, calibration=TemperatureFit(temperature=0.5)).save(tmp_path / "model.pth")
    page = report([tmp_path / "model.pth"], data_dir=own_images, device="cpu")
    rows = json.loads((page.parent / "report.json").read_text())["coverage"]
    predictor = load_predictor(tmp_path / "model.pth", device="cpu", precision="fp32")
    test = load_dataset(Config().replace(data_dir=own_images, test_fraction=0.6)).test
    likely = [best[0].probability for best in predictor.predict_batch(test.images, top_k=1)]
    assert rows[0]["threshold"] == pytest.approx(min(likely), abs=1e-3)


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_selected_on_other_images_is_not_called_optimistic(
    checkpoint: Checkpoint, own_images: Path, page: Page, tmp_path: Path
) -> None:
    replace(checkpoint, dataset=replace(checkpoint.dataset, fingerprint="0" * 64)).save(tmp_path / "model.pth")
    other = read(report([tmp_path / "model.pth"], data_dir=own_images, device="cpu", split="test"))
    assert "the accuracy is optimistic" in page.words
    assert "the accuracy is optimistic" not in other.words


def test_plots_of_many_classes_are_limited_in_size() -> None:
    with Image.open(io.BytesIO(to_png(new_figure(170, 170)))) as image:
        assert max(image.size) <= 3000


def test_seven_runs_and_a_single_evaluated_epoch_can_be_told_apart() -> None:
    history = [{"epoch": n, "loss": None, "top1": 0.7 if n == 40 else None, "train_top1": 0.5} for n in range(1, 41)]
    figure = curve_panel("top1", {str(number): history for number in range(9)})
    lines = [line for line in figure.axes[0].get_lines() if np.size(line.get_xdata()) == 1]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9
    assert all(line.get_marker() == "o" for line in lines)
