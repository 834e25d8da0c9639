"""The static site in Chromium: parity with Python, latency, and bytes loaded.

    python benchmarks/browser.py --data-dir DIR [--weights pretrained] [--images 1000] [--photos 200]

The model is exported in int8; Chromium is headless, onnxruntime-web has one thread. Parity is on test images, as PNG
files, spread evenly over the classes, and on generated photos of odd sizes and modes, against `load_predictor` with the
same file. A cold visit has an empty cache, a warm one follows it; the server is on this machine, so no network time
is included. Native onnxruntime and the Gradio app run on the same machine, one after the other.
Writes benchmarks/results/browser.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import web_load
from circumstances import ROOT, circumstances, save_result
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.export.web import export_site
from cifar100.images.convert import to_model_input
from cifar100.inference import Predictor, load_predictor

sys.path.insert(0, str(ROOT / "tests"))
from generated_photos import write_photos

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
VISITS = 5


class Handler(SimpleHTTPRequestHandler):
    """Counts the bytes of response bodies."""

    sent = 0

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        Handler.sent += len(content)
        outputfile.write(content)


def parity(page: Page, site: Path, names: list[str], predictor: Predictor) -> dict[str, Any]:
    """Compare the browser's predictions for these files with Python's."""
    classify, answers = (ROOT / "tests/classify.js").read_text(), list[dict[str, Any]]()
    for start in range(0, len(names), 100):
        answers += page.evaluate(classify, {"paths": names[start : start + 100], "side": 64})
    same, pixels, probability = 0, [], 0.0
    for name, answer in zip(names, answers, strict=True):
        expected = to_model_input(site / name)
        best = predictor.predict(site / name)[0]
        same += answer["ids"][0] == best.class_id
        probability = max(probability, abs(answer["probabilities"][0] - best.probability))
        pixels.append(int(np.abs(np.reshape(answer["pixels"], expected.shape) - expected.astype(int)).max()))
    return {
        "images": len(names),
        "same top-1": same,
        "largest difference of a pixel, of 255": max(pixels),
        "images with any different pixel": sum(value > 0 for value in pixels),
        "largest difference of the top-1 probability": round(probability, 5),
        "milliseconds, decode and resize": quartiles([answer["milliseconds"]["prepare"] for answer in answers]),
        "milliseconds, network": quartiles([answer["milliseconds"]["network"] for answer in answers]),
    }


def visits(browser: Browser, url: str) -> dict[str, Any]:
    """Seconds to the precomputed answer and to the model's own, and bytes, of cold and warm visits."""
    found: dict[str, list[tuple[float, float, int]]] = {"cold": [], "warm": []}
    for _ in range(VISITS):
        context = browser.new_context()
        page = context.new_page()
        for values in found.values():
            before, start = Handler.sent, time.perf_counter()
            page.goto(url)
            expect(page.locator("#bars li")).to_have_count(5)
            first = time.perf_counter() - start
            expect(page.locator("#time")).to_contain_text("for the network")
            own = time.perf_counter() - start
            expect(page.locator("#offline")).to_contain_text("offline")
            values.append((first, own, Handler.sent - before))
        context.close()
    return {
        kind: {
            "seconds to an answer (precomputed)": quartiles([first for first, _, _ in values]),
            "seconds to the model's own answer": quartiles([own for _, own, _ in values]),
            "bytes": statistics.median(sent for _, _, sent in values),
        }
        for kind, values in found.items()
    }


def native(model: Path, threads: int) -> dict[str, float]:
    """Milliseconds per image with onnxruntime in Python."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    return quartiles([1000 * timed(lambda: session.run(None, {"images": image})) for _ in range(200)][10:])


def gradio(model: Path) -> dict[str, Any]:
    """The Gradio app with the same model: startup time, and latency of one client."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "cifar100", "app", "--checkpoint", str(model), "--port", str(web_load.PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            while "http://" not in (line := server.stdout.readline()):
                assert line, "the app did not start"
            ready = time.perf_counter() - start
            asyncio.run(web_load.load(1, 5))  # warm-up
            client = asyncio.run(web_load.load(1, 20))
            return {"seconds from the command to the page": round(ready, 1), "one client": client}
        finally:
            server.terminate()


def timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, (25, 50, 75)).round(2).tolist()
    return {"n": len(values), "lower quartile": low, "median": middle, "upper quartile": high}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("pretrained"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary) / "site"
        print(export_site(args.weights, site, data_dir=args.data_dir, images=args.images))
        size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        with sync_playwright() as playwright:  # `asyncio.run` does not work inside
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            expect.set_options(timeout=120_000)
            seen = visits(browser, url)
            print(json.dumps(seen, indent=2), flush=True)

            test = load_dataset(Config().replace(data_dir=args.data_dir)).test
            rows = np.unique(np.linspace(0, len(test) - 1, args.images).round().astype(int))
            (site / "test").mkdir()
            names = [f"test/{row}.png" for row in rows]
            for row, name in zip(rows, names, strict=True):
                Image.fromarray(test.images[row]).save(site / name)
            photos = [f"photos/{name}" for name in write_photos(site / "photos", args.photos)]
            predictor = load_predictor(site / "model.onnx")
            page = browser.new_page()
            page.goto(url)
            expect(page.locator("#time")).to_contain_text("for the network")
            answers = {
                "test images": parity(page, site, names, predictor),
                "photos": parity(page, site, photos, predictor),
            }
            version = browser.version
            browser.close()
            server.shutdown()
        result = {
            "parity": answers,
            "visits": seen,
            "site, bytes": size,
            "native onnxruntime, milliseconds": {
                f"{threads} thread(s)": native(site / "model.onnx", threads) for threads in (1, 2)
            },
            "gradio": gradio(site / "model.onnx"),
            "chromium": version,
            "onnxruntime": onnxruntime.__version__,
            "circumstances": circumstances(),
        }
    save_result("browser.json", result)


if __name__ == "__main__":
    main()
