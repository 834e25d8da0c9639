"""The web app in a real browser and through its API: served on 127.0.0.1, with random weights."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import contrast, launcher, watched
from PIL import Image
from playwright.sync_api import Page, expect
from test_app import confident_checkpoint

from cifar100.images.sources import example_photos
from cifar100.inference import Predictor, load_predictor
from cifar100.web import app
from cifar100.web.server import serving
from cifar100.web.service import MAX_BYTES, MAX_IMAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    confident_checkpoint().save(path)
    with serving(load_predictor(path, device="cpu"), keep_seconds=20) as address:
        yield address


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo.png, noise.png, text.png (not an image), large.png (above the size limit)."""
    folder = tmp_path_factory.mktemp("photos")
    Image.open(example_photos()[0]).resize((256, 256)).save(folder / "photo.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "text.png").write_text("no picture")
    (folder / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    return folder


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A browser page; the test fails on requests to other hosts and on violations of the Content-Security-Policy."""
    with launcher() as launch, watched(launch(), address) as context:
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_role("tab", name="Image", exact=True)).to_be_visible()
        yield page


def send(page: Page, *files: Path) -> None:
    place = "#files" if len(files) > 1 else "#image"
    page.locator(f"{place} input[type=file]").set_input_files([str(file) for file in files])


def test_uploads_of_one_and_of_several_files(page: Page, photos: Path) -> None:
    send(page, photos / "photo.png")
    expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)
    shown, heatmap = (image.get_attribute("alt") or "" for image in page.locator("#answer img").all())
    assert shown == "The model input, 32 by 32 pixels"
    assert heatmap.startswith("Heatmap: evidence for")
    assert all(
        image.evaluate("image => image.complete && image.naturalWidth > 0")
        for image in page.locator("#answer img").all()
    )
    expect(page.locator("#answer")).to_contain_text(" ms · model.pth")

    page.get_by_role("button", name="Clear").or_(page.locator("#image button[aria-label*='emove']")).first.click()
    expect(page.locator("#answer")).to_contain_text("The answer appears here")
    send(page, photos / "text.png")
    expect(page.locator("#answer [role=alert]")).to_contain_text("text.png is not an image that can be read")

    page.get_by_role("tab", name="Several").click()
    send(page, photos / "photo.png", photos / "text.png", photos / "noise.png")
    expect(page.locator("#answers tr")).to_have_count(4)
    expect(page.locator("#answers tr.refusal")).to_contain_text("text.png is not an image")
    expect(page.locator("#answers .badge")).to_have_count(1)  # the noise
    expect(page.locator("#answers")).to_contain_text("2 of 3 images classified")


def test_a_file_that_is_too_large_is_refused_and_the_app_keeps_working(page: Page, photos: Path) -> None:
    send(page, photos / "large.png")
    expect(page.get_by_text("maximum allowed size").or_(page.get_by_text("exceeded")).first).to_be_visible()
    page.reload()
    send(page, photos / "photo.png")
    expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)


def test_too_many_images_are_reported(page: Page, photos: Path) -> None:
    page.get_by_role("tab", name="Several").click()
    send(page, *[photos / "noise.png"] * (MAX_IMAGES + 1))
    expect(page.locator("#answers [role=alert]")).to_contain_text(f"send {MAX_IMAGES} at once")


def test_an_example_can_be_chosen_by_keyboard(page: Page) -> None:
    examples = page.locator("#examples button, #examples [role=button]")
    expect(examples.first.locator("img")).to_have_attribute("alt", "Example: bee")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#examples') !== null"):
            break
    page.keyboard.press("Enter")
    expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)
    assert page.locator("#answer[aria-live=polite], #answer [aria-live=polite]").count() >= 1


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_fits_phones_and_is_readable_in_light_and_dark_mode(page: Page, photos: Path, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    page.reload()
    send(page, photos / "photo.png")
    expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "horizontal overflow"
    for where in ("#answer [aria-label=Answer] .share", "#answer figcaption", "#answer .name small"):
        assert contrast(page, where) >= 4.5, where
    for tab in ("Model", "Classes", "API"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


# The API


def test_api_predictions_and_errors(address: str, photos: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False)
    answer = client.predict(handle_file(str(photos / "photo.png")), 3, api_name="/predict")
    assert set(answer) == {"predictions", "unsure", "reason", "model", "temperature", "fit", "views", "milliseconds"}
    assert [set(item) for item in answer["predictions"]] == [
        {"class_name", "class_id", "probability", "superclass"}
    ] * 3
    with pytest.raises(AppError, match=r"text\.png is not an image that can be read"):
        client.predict(handle_file(str(photos / "text.png")), 3, api_name="/predict")
    with pytest.raises(AppError, match="a top_k from 1 to 100"):
        client.predict(handle_file(str(photos / "photo.png")), 0, api_name="/predict")
    described = client.view_api(return_format="dict")
    assert isinstance(described, dict)
    assert list(described["named_endpoints"]) == ["/predict"]


def test_urls_are_not_fetched(address: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False)
    for path in (f"{address}config?fetched", "http://169.254.169.254/latest"):
        with pytest.raises(AppError, match="URLs are not fetched"):
            client.predict({"path": path, "meta": {"_type": "gradio.FileData"}}, 3, api_name="/predict")
    with pytest.raises(AppError):
        client.predict({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, 3, api_name="/predict")


def test_uploads_are_deleted(address: str, photos: Path) -> None:
    from gradio_client import Client, handle_file

    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    client = Client(address, verbose=False, analytics_enabled=False)
    client.predict(handle_file(str(photos / "noise.png")), 3, api_name="/predict")
    deadline = time.monotonic() + 120
    while list(folder.rglob("noise.png")) and time.monotonic() < deadline:
        time.sleep(1)
    assert not list(folder.rglob("noise.png"))
    assert list(folder.rglob("bee.jpg")), "the examples are kept"


def test_listens_on_localhost_only(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address) as response:
        assert "default-src 'self'" in response.headers["content-security-policy"]


def test_the_temporary_folder_is_deleted_on_exit(tmp_path: Path) -> None:
    confident_checkpoint().save(tmp_path / "model.pth")
    before = os.environ.get("GRADIO_TEMP_DIR", "")
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(load_predictor(tmp_path / "model.pth", device="cpu")))
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir()
    assert not folder.exists()
    os.environ["GRADIO_TEMP_DIR"] = before


# Camera and clipboard; overload


def test_camera(page: Page) -> None:
    """Uses the fake video device of Chromium."""
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#image video')?.readyState >= 2")  # a frame is available
    page.get_by_label("capture photo").click()
    expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)


@pytest.mark.parametrize("by_key", [False, True])
def test_clipboard(page: Page, by_key: bool) -> None:
    page.evaluate(
        """async () => {
            const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
            canvas.width = canvas.height = 64;
            pen.fillStyle = "orange";
            pen.fillRect(0, 0, 64, 32);
            const picture = await new Promise(done => canvas.toBlob(done, "image/png"));
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }"""
    )
    for number in range(2):  # the second time after removing the first image
        if by_key:
            page.keyboard.press("Control+v")
        else:
            page.get_by_label("Paste from clipboard").click()
        expect(page.locator("#answer [aria-label=Answer] ol.bars li")).to_have_count(5)
        if number == 0:
            page.get_by_label("Remove Image").click()
            expect(page.locator("#answer")).to_contain_text("The answer appears here")


@pytest.fixture
def slow_model(tmp_path: Path) -> Predictor:
    """A predictor that takes $TEST_SECONDS per batch."""
    confident_checkpoint().save(tmp_path / "model.pth")
    predictor = load_predictor(tmp_path / "model.pth", device="cpu")
    logits_and_cams = predictor.backend.logits_and_cams

    def slow(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(float(os.environ.get("TEST_SECONDS", "0")))
        return logits_and_cams(pixels)

    predictor.backend.logits_and_cams = slow
    return predictor


def test_the_app_keeps_working_after_a_timeout(
    slow_model: Predictor, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    monkeypatch.setattr(app, "TIMEOUT", 2.0)
    with serving(slow_model) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        photo = handle_file(str(photos / "photo.png"))
        monkeypatch.setenv("TEST_SECONDS", "5")
        with pytest.raises(AppError, match="took too long"):
            client.predict(photo, 3, api_name="/predict")
        monkeypatch.setenv("TEST_SECONDS", "0")
        monkeypatch.setattr(app, "TIMEOUT", 60.0)
        assert len(client.predict(photo, 3, api_name="/predict")["predictions"]) == 3


def test_requests_beyond_the_queue_limit_are_refused(
    slow_model: Predictor, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio_client import Client, handle_file

    monkeypatch.setattr(app, "MAX_QUEUE", 3)
    monkeypatch.setattr(app, "MAX_CONCURRENT", 2)
    with serving(slow_model) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        photo = handle_file(str(photos / "photo.png"))
        monkeypatch.setenv("TEST_SECONDS", "1")
        jobs = [client.submit(photo, 3, api_name="/predict") for _ in range(20)]
        answered, refusals = 0, set()
        for job in jobs:
            try:
                answered += len(job.result(timeout=120)["predictions"]) == 3
            except Exception as error:
                refusals.add(str(error))
        assert answered >= 4, "those being processed and those in the queue"
        assert answered < 20
        assert refusals
        assert all("queue is full" in text.lower() for text in refusals), refusals
        monkeypatch.setenv("TEST_SECONDS", "0")
        assert len(client.predict(photo, 3, api_name="/predict")["predictions"]) == 3
