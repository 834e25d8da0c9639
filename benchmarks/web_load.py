"""Latency of the web app for 200 clients, alone and with ten malicious images.

    python benchmarks/web_load.py [--weights pretrained] [--clients 200] [--seconds 60] [--out FILE]

Starts `cifar100 app` and runs the clients twice. Each uploads a photo, asks for a prediction,
waits for the answer, pauses up to two seconds, and repeats. The malicious images are progressive JPEGs of 29 megapixels
with over a hundred scans, all sent at the start.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from circumstances import circumstances
from PIL import Image

PORT = 7941
URL = f"http://127.0.0.1:{PORT}/gradio_api"


def photo(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    content = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    small.resize((640, 480), Image.Resampling.BICUBIC).save(content, "JPEG")
    return content.getvalue()


def malicious_image() -> bytes:
    """A progressive JPEG that is expensive to decode."""
    content = io.BytesIO()
    Image.new("L", (5400, 5400), 128).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * 120 + b"\xff\xd9"


async def ask(client: httpx.AsyncClient, content: bytes) -> str:
    """The text of the server's last event: "complete" and the answer, or the error."""
    uploaded = await client.post(f"{URL}/upload", files={"files": ("a.jpg", content, "image/jpeg")})
    uploaded.raise_for_status()
    file = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
    event = await client.post(f"{URL}/call/predict", json={"data": [file, 5]})
    event.raise_for_status()
    return (await client.get(f"{URL}/call/predict/{event.json()['event_id']}")).text


async def client_loop(number: int, end: float, seconds: list[float], failures: list[str]) -> None:
    rng, content = random.Random(number), photo(number)
    await asyncio.sleep(2 * rng.random())
    async with httpx.AsyncClient(timeout=120) as client:
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                text = await ask(client, content)
                if "event: complete" in text:
                    seconds.append(time.monotonic() - start)
                else:
                    failures.append(text[-200:])
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                failures.append(repr(error))
            await asyncio.sleep(2 * rng.random())


async def attack(content: bytes) -> None:
    async with httpx.AsyncClient(timeout=120) as client:
        await ask(client, content)


async def load(num_clients: int, duration: float, num_malicious: int = 0) -> dict[str, object]:
    """Latency of this number of clients, and of as many malicious images at the start."""
    seconds: list[float] = []
    failures: list[str] = []
    content = malicious_image()
    end = time.monotonic() + duration
    clients = [client_loop(number, end, seconds, failures) for number in range(num_clients)]
    await asyncio.gather(*clients, *(attack(content) for _ in range(num_malicious)))
    percentiles = {f"p{q}": round(float(np.percentile(seconds, q)), 3) for q in (50, 90, 99, 100)}
    return {
        "malicious_images": num_malicious,
        "answers": len(seconds),
        "failures": len(failures),
        "first": failures[:3],
        **percentiles,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    command = [sys.executable, "-m", "cifar100", "app", "--checkpoint", args.weights, "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        try:
            assert app.stdout is not None
            app.stdout.readline()
            asyncio.run(load(4, 3))
            rounds = [asyncio.run(load(args.clients, args.seconds, count)) for count in (0, 10)]
        finally:
            app.terminate()
    result = {"clients": args.clients, "seconds": args.seconds, "rounds": rounds, **circumstances()}
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
