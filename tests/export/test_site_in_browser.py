"""The static site in a real browser: predictions compared with Python's, offline use, invalid input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import TIMEOUT_MS, contrast, launcher, watched
from conftest import ROOT, narrow_network, random_checkpoint
from generated_photos import write_photos
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from cifar100.export import export
from cifar100.export.web import export_site
from cifar100.images.convert import to_model_input
from cifar100.images.sources import example_photos
from cifar100.inference import load_predictor

pytestmark = pytest.mark.slow

BELOW = "some/where"
"""The path of the site on its server."""

CACHE = os.environ.get("XDG_CACHE_HOME", "")
"""The user's cache, before the tests set their own: the runtime is downloaded only once."""


class Server:
    """Serves a folder; `paths` are the requested paths, `sent` the number of bytes in the response bodies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[str] = []
        self.sent = 0
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *arguments: object) -> None:
                """Log nothing."""

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                super().do_GET()

            def copyfile(self, source: Any, outputfile: Any) -> None:
                content = source.read()
                outer.sent += len(content)
                outputfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.port = self.server.server_address[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/{BELOW}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop answering requests."""
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving(site: Path, tmp_path: Path) -> Iterator[Server]:
    """Serve a copy of the site under the path BELOW."""
    shutil.copytree(site, tmp_path / "www" / BELOW)
    server = Server(tmp_path / "www")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def site(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site exported from best.onnx, with the real runtime."""
    out = tmp_path_factory.mktemp("site") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", CACHE)
        export_site(exports / "best.onnx", out, say=lambda _: None)
    return out


@pytest.fixture
def server(site: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(site, tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Browser]]:
    with launcher() as launch:
        yield launch


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Browser:
    return launch("--host-resolver-rules=MAP insecure.test 127.0.0.1")


@pytest.fixture
def context(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    with watched(browser, f"{server.origin}/", f"http://insecure.test:{server.port}/") as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Page:
    """The page, after its model is loaded and its first example classified."""
    page = context.new_page()
    page.goto(server.url)
    wait_for_answer(page)
    return page


def wait_for_answer(page: Page) -> None:
    """Wait until the model has classified the image shown."""
    expect(page.locator("#time")).to_contain_text("for the network")


def send(page: Page, *files: Path) -> None:
    page.locator("#files").set_input_files([str(file) for file in files])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "flower.png"
    Image.open(example_photos()[0]).resize((256, 256)).save(path)
    return path


# Predictions


def test_pixels_and_predictions_equal_pythons(page: Page, server: Server, exports: Path) -> None:
    """200 generated photos of unusual sizes and modes: input pixels differ by at most 1 from Pillow's."""
    names = write_photos(server.folder / BELOW / "photos", 200)
    paths = [f"photos/{name}" for name in names]
    answers = page.evaluate((ROOT / "tests/classify.js").read_text(), {"paths": paths, "side": 64})
    predictor = load_predictor(exports / "best.onnx")
    largest, same = 0, 0
    for name, answer in zip(names, answers, strict=True):
        path = server.folder / BELOW / "photos" / name
        expected = to_model_input(path)
        largest = max(largest, int(np.abs(np.reshape(answer["pixels"], expected.shape) - expected.astype(int)).max()))
        (result,) = predictor.classify([path])
        predicted = result.predictions
        same += answer["ids"][0] == predicted[0].class_id
        np.testing.assert_allclose(answer["probabilities"][0], predicted[0].probability, atol=1e-4, err_msg=name)
        assert answer["reason"] == result.reason, name
    assert largest <= 1
    assert same >= 199


def test_an_example_is_shown_before_the_model_is_loaded(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.route("**/model.onnx*", lambda route: None)  # never answered
    page.goto(server.url)
    expect(page.locator("#bars li")).to_have_count(5)
    expect(page.locator("#loading")).to_contain_text("MB")
    early = page.locator("#bars").inner_text()
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#bars")).not_to_have_text(early, use_inner_text=True)
    expect(page.locator("#bars li")).to_have_count(5)
    page.unroute("**/model.onnx*")
    page.reload()
    wait_for_answer(page)
    assert page.locator("#bars").inner_text() == early


def test_the_answer_shows_bars_superclasses_input_and_map(page: Page, photo: Path) -> None:
    send(page, photo)
    expect(page.locator("#picture")).to_have_attribute("aria-label", re.compile("evidence for .+ is strongest"))
    wait_for_answer(page)
    assert page.locator("#bars small").count() == 5
    assert page.locator("#seen canvas").evaluate("canvas => [canvas.width, canvas.height]") == [32, 32]
    assert page.locator("#picture").evaluate("canvas => canvas.width") == 256
    look = "canvas => canvas.toDataURL()"
    first = page.locator("#picture").evaluate(look)
    page.locator("#bars button").nth(1).click()
    assert page.locator("#bars button").nth(1).get_attribute("aria-pressed") == "true"
    second = page.locator("#picture").evaluate(look)
    page.get_by_label("Show where the evidence is").uncheck()
    plain = page.locator("#picture").evaluate(look)
    assert len({first, second, plain}) == 3


def test_custom_classes_without_superclasses_or_temperature(
    browser: Browser, tmp_path: Path, site: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph takes floats here, and class names contain markup."""
    monkeypatch.setattr("cifar100.checkpoints.checkpoint.build_model", narrow_network)
    classes = ["<b>blue</b>", "dark_red", "green"]
    weights = narrow_network("resnet18", 3).state_dict()
    checkpoint = random_checkpoint(classes=classes, superclasses=[], superclass_of=[], weights=weights)
    checkpoint.save(tmp_path / "own.pth")
    export(tmp_path / "own.pth", "onnx", tmp_path / "own.onnx", input_format="float", images=20)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    export_site(tmp_path / "own.onnx", tmp_path / "site", examples=[photo], say=lambda _: None)
    with serving(tmp_path / "site", tmp_path) as server:
        page = browser.new_page()
        page.goto(server.url)
        wait_for_answer(page)
        assert page.locator("#bars .name").all_inner_texts()[0].replace(" ", "_") in classes
        assert page.locator("#bars button").count() == 3
        page.get_by_role("button", name="3 classes").click()
        assert page.locator("#classes li").all_inner_texts() == ["<b>blue</b>", "dark red", "green"]
        page.keyboard.press("Escape")
        page.get_by_role("button", name="About the model").click()
        expect(page.locator("#about")).to_contain_text("not calibrated")
        expect(page.locator("#about")).to_contain_text("not measured")
        page.close()


# Caching and network access


def test_the_second_visit_works_offline(context: BrowserContext, server: Server, photo: Path) -> None:
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#offline")).to_contain_text("offline")
    for large in ("model.onnx", "ort-wasm-simd-threaded.wasm.gz"):
        assert len([path for path in server.paths if large in path]) == 1, "downloaded once, not again for the cache"
    server.stop()
    page.goto(server.url)
    wait_for_answer(page)
    send(page, photo)
    wait_for_answer(page)
    policy = page.evaluate("async () => (await fetch('worker.js')).headers.get('Content-Security-Policy')")
    assert "default-src 'self'" in policy, "in workers the policy applies only as a header"


def wait_until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true; the page's Content-Security-Policy forbids `wait_for_function`."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def test_a_new_export_replaces_the_old_one(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#offline")).to_contain_text("offline")
    wait_until(page, "navigator.serviceWorker.controller?.state === 'activated'")
    page.evaluate("() => { window.replaced = navigator.serviceWorker.controller; }")
    folder = server.folder / BELOW
    changed = (folder / "strings.js").read_text().replace("What is in this image?", "Que voit-on ici ?")
    (folder / "strings.js").write_text(changed)
    first, _, rest = (folder / "sw.js").read_text().partition(";\n")
    files = json.loads(first.removeprefix("const FILES = ")) | {
        "strings.js": hashlib.sha256(changed.encode()).hexdigest()
    }
    (folder / "sw.js").write_text(f"const FILES = {json.dumps(files)};\n{rest}")
    before = len(server.paths)
    # Chromium itself looks for a new service worker only a second after the last request, which reloads postpone; and
    # a reload before the new one is active may never end.
    page.evaluate("async () => { await (await navigator.serviceWorker.ready).update(); }")
    wait_until(page, "navigator.serviceWorker.controller !== window.replaced")
    wait_until(page, "navigator.serviceWorker.controller.state === 'activated'")
    page.reload()
    expect(page).to_have_title("Que voit-on ici ?")
    assert not [path for path in server.paths[before:] if ".onnx" in path], "unchanged files are not downloaded again"


def test_files_of_another_version_are_not_cached(context: BrowserContext, server: Server) -> None:
    """A visitor who comes while a new version is being uploaded."""
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#offline")).to_contain_text("offline")
    folder = server.folder / BELOW
    first, _, rest = (folder / "sw.js").read_text().partition(";\n")
    files = json.loads(first.removeprefix("const FILES = ")) | {"strings.js": "0" * 64}  # not there yet
    (folder / "sw.js").write_text(f"const FILES = {json.dumps(files)};\n{rest}")
    page.evaluate("async () => { window.next = (await (await navigator.serviceWorker.ready).update()).installing; }")
    wait_until(page, "window.next === null || window.next.state === 'redundant'")
    page.reload()
    expect(page).to_have_title("What is in this image?")
    expect(page.locator("#problem")).to_be_hidden()


def test_works_without_storage_and_reports_it(context: BrowserContext, server: Server, photo: Path) -> None:
    """Plain http is not a secure context: no caches, no service worker, no digests, no camera."""
    page = context.new_page()
    page.goto(f"http://insecure.test:{server.port}/{BELOW}/")
    wait_for_answer(page)
    expect(page.locator("#offline")).to_contain_text("no storage")
    page.get_by_role("button", name="About the model").click()
    expect(page.locator("#about")).to_contain_text("not verified")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#camera [role=alert]")).to_contain_text("no camera")
    page.keyboard.press("Escape")
    send(page, photo)
    wait_for_answer(page)


def test_no_request_leaves_the_host(
    launch: Callable[..., Browser], server: Server, photo: Path, tmp_path: Path
) -> None:
    """From the page, the worker and the service worker: requests to other hosts would go through the proxy."""
    (tmp_path / "proxy").mkdir()
    proxy = Server(tmp_path / "proxy")
    browser = launch(proxy={"server": proxy.origin, "bypass": "127.0.0.1"})
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#offline")).to_contain_text("offline")
    send(page, photo)
    wait_for_answer(page)
    page.reload()
    wait_for_answer(page)
    asked = page.evaluate("fetch('http://elsewhere.test/').then(({ status }) => status, () => 'forbidden')")
    assert asked == "forbidden"
    assert proxy.paths == []
    page.goto("http://elsewhere.test/")
    assert proxy.paths, "the proxy records requests"
    browser.close()
    proxy.stop()


# Input methods


def test_by_keyboard_alone(page: Page) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#examples') !== null"):
            break
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_contain_text("%")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is visible"


def test_dropped_and_pasted(page: Page) -> None:
    make = """async (how) => {
        const canvas = new OffscreenCanvas(64, 48), pen = canvas.getContext("2d");
        pen.fillStyle = "orange";
        pen.fillRect(0, 0, 64, 24);
        const carried = new DataTransfer();
        carried.items.add(new File([await canvas.convertToBlob()], "made.png", { type: "image/png" }));
        if (how === "drop") document.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
        else document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried }));
    }"""
    for how in ("drop", "paste"):
        page.locator("#examples button").first.click()
        expect(page.locator("#picture")).not_to_have_js_property("width", 64)
        page.evaluate(make, how)
        expect(page.locator("#picture")).to_have_js_property("width", 64)
        wait_for_answer(page)


def test_camera(page: Page) -> None:
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#picture")).to_have_js_property("width", 640)
    wait_for_answer(page)
    assert page.locator("#camera video").evaluate("video => video.srcObject") is None, "the camera is still on"


def test_several_at_once(page: Page, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    send(page, photo, tmp_path / "text.png", tmp_path / "noise.png")
    expect(page.locator("#several li")).to_have_count(3)
    expect(page.locator("#several li").nth(2)).to_contain_text("Unsure")
    expect(page.locator("#several li").nth(1)).to_contain_text("not an image")
    page.locator("#several button").nth(2).click()
    expect(page.locator("#verdict")).to_contain_text("noise")
    expect(page.locator("#picture")).to_have_js_property("width", 40)
    expect(page.locator("#several p")).to_be_empty()


def test_too_many_at_once(page: Page, photo: Path, tmp_path: Path) -> None:
    """The first 100 are listed, and the page says so; a single image ends the list."""
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "tile.png")
    send(page, *[tmp_path / "tile.png"] * 101)
    expect(page.locator("#several li")).to_have_count(100)
    expect(page.locator("#several p")).to_contain_text("the first 100")
    send(page, photo)
    expect(page.locator("#several")).to_be_hidden()
    expect(page.locator("#bars li")).to_have_count(5)


# Bad input


def gradient(width: int, height: int) -> Image.Image:
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(row, (height, width)))


def cut(source: Callable[[Path], None], share: float = 0.5) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        source(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def saved(format: str, size: tuple[int, int] = (300, 200)) -> Callable[[Path], None]:
    return lambda path: gradient(*size).convert("RGB").save(path, format)


def written(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def write_two_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 30)


BAD = {
    "text.jpg": (written(b"no image"), "not an image"),
    "empty.png": (written(b""), "empty"),
    "page.png": (written(b"<!doctype html><html></html>"), "not an image"),
    "drawing.svg": (written(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), "SVG"),
    "photo.heic": (written(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)), "HEIC"),
    "scan.tif": (saved("TIFF"), "TIFF"),
    "cut.jpg": (cut(saved("JPEG")), "incomplete"),
    "cut.png": (cut(saved("PNG")), "incomplete"),
    "cut.gif": (cut(saved("GIF")), "incomplete"),
    "cut.webp": (cut(saved("WEBP")), "incomplete"),
    "cut.bmp": (cut(saved("BMP")), "incomplete"),
    "header.jpg": (cut(saved("JPEG"), 0.01), "incomplete"),
    "thin.png": (saved("PNG", (4000, 2)), "too long and thin"),
    "large.bin": (write_two_gigabytes, "larger than 100 MB"),
}


def test_the_page_reports_invalid_files_and_keeps_working(page: Page, photo: Path, tmp_path: Path) -> None:
    for name, (make, message) in BAD.items():
        make(tmp_path / name)
        send(page, tmp_path / name)
        expect(page.locator("#verdict")).to_have_class("refusal")
        expect(page.locator("#verdict")).to_contain_text(message)
        assert page.locator("#bars li").count() == 0, name
        send(page, photo)
        wait_for_answer(page)


def test_too_many_pixels_are_rejected_and_48_megapixels_are_classified(
    page: Page, tmp_path: Path, exports: Path
) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    send(page, tmp_path / "bomb.png")
    expect(page.locator("#verdict")).to_contain_text("more pixels")
    gradient(8000, 6000).save(tmp_path / "large.png", compress_level=1)
    send(page, tmp_path / "large.png")
    expect(page.locator("#bars li")).to_have_count(5)
    expected = load_predictor(exports / "best.onnx").predict(tmp_path / "large.png")[0]
    assert expected.class_name.replace("_", " ") in page.locator("#bars .name").first.inner_text()


def test_a_worker_that_dies_is_replaced(page: Page, photo: Path) -> None:
    """The crash is simulated by an error event."""
    page.evaluate(
        """() => {
            const start = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (message) {
                Worker.prototype.postMessage = start;
                this.dispatchEvent(new ErrorEvent("error", { message: "out of memory" }));
            };
        }"""
    )
    send(page, photo)
    expect(page.locator("#verdict")).to_contain_text("given up")
    send(page, photo)
    wait_for_answer(page)


@pytest.mark.parametrize(
    "name", ["model.onnx", "runtime/ort.wasm.bundle.min.js", "runtime/ort-wasm-simd-threaded.wasm.gz"]
)
@pytest.mark.parametrize("damage", ["missing", "modified"])
def test_a_missing_or_modified_file_is_named_and_can_be_retried(
    context: BrowserContext, server: Server, photo: Path, name: str, damage: str
) -> None:
    path = server.folder / BELOW / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif name.endswith(".js"):
        path.write_bytes(b"this is no module")
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#problem")).to_contain_text(name)
    expect(page.locator("#bars li")).to_have_count(5)  # of the example, computed in advance
    send(page, photo)
    expect(page.locator("#verdict")).to_contain_text("model could not be loaded")
    expect(page.locator("#loading")).to_be_hidden()
    page.get_by_role("button", name="100 classes").click()
    assert page.locator("#classes li").count() == 100
    page.keyboard.press("Escape")
    path.write_bytes(content)
    page.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_an_invalid_model_json_is_reported(context: BrowserContext, server: Server) -> None:
    (server.folder / BELOW / "model.json").write_text("{")
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#problem")).to_contain_text("model.json")


def test_a_browser_without_webassembly_is_reported(context: BrowserContext, server: Server) -> None:
    """The worker deletes it, as if the browser had it disabled."""
    worker = server.folder / BELOW / "worker.js"
    worker.write_text(f"{worker.read_text()}\ndelete self.WebAssembly;\n")
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#problem")).to_contain_text("WebAssembly")
    expect(page.locator("#bars li")).to_have_count(5)


# Layout


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1280, "dark"), (1280, "light")])
def test_layout_and_contrast_in_light_and_dark_mode(
    context: BrowserContext, server: Server, width: int, scheme: Any
) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(server.url)
    wait_for_answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "horizontal overflow"
    for where in ("#verdict", "#lead", "#bars .name small", "figcaption", ".primary", "#time", "footer"):
        assert contrast(page, where) >= 4.5, where
    assert page.locator(".fill").first.evaluate("bar => getComputedStyle(bar).transitionDuration") == "0s"
    for name in ("classes", "about"):
        page.locator(f"#open-{name}").click()
        assert page.locator(f"#{name}").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth"), name
        page.keyboard.press("Escape")


def test_embedded(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.goto(f"{server.url}?embed")
    wait_for_answer(page)
    expect(page.locator("footer")).to_be_hidden()
    expect(page.get_by_role("link", name="Open the full page")).to_have_attribute("href", "./")
