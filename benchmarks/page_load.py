"""The web app under load: 50 clients on 127.0.0.1 for a minute, each uploading an image and waiting for its answer.

    python benchmarks/page_load.py [--weights pretrained] [--clients 50] [--seconds 60]

The app runs in its own process, the clients in threads of this one, on the same cores. A request is what a browser
does: upload, predict call, answer. One client alone is measured first. Writes benchmarks/results/page_load.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter

import httpx
import numpy as np
from circumstances import RESULTS, circumstances

from cifar100.images.sources import example_photos

PORT = 7899
ADDRESS = f"http://127.0.0.1:{PORT}/gradio_api"
PATIENCE = 60.0


def one_round(client: httpx.Client, name: str, content: bytes) -> str:
    """Upload an image and wait for the answer; "" or the error."""
    try:
        paths = client.post("/upload", files={"files": (name, content, "image/png")}).raise_for_status().json()
        picture = {"path": paths[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        asked = client.post("/call/predict", json={"data": [picture, 5]}).raise_for_status().json()
        with client.stream("GET", f"/call/predict/{asked['event_id']}") as answer:
            lines = [line for line in answer.iter_lines() if line]
    except httpx.HTTPError as error:
        return type(error).__name__
    if "event: complete" not in lines:
        return lines[-1][:100] if lines else "no answer"
    said = json.loads(lines[-1].removeprefix("data: "))[0]
    return "" if len(said["predictions"]) == 5 else "not five classes"


def visit(until: float, pictures: list[tuple[str, bytes]], latencies: list[float], problems: Counter[str]) -> None:
    """The requests of one client until this time; the last one is completed."""
    with httpx.Client(base_url=ADDRESS, timeout=PATIENCE, trust_env=False) as client:
        number = 0
        while time.perf_counter() < until:
            start = time.perf_counter()
            problem = one_round(client, *pictures[number % len(pictures)])
            latencies.append(time.perf_counter() - start)
            number += 1
            if problem:
                problems[problem] += 1


def run(clients: int, seconds: float) -> dict[str, object]:
    """Latency and throughput of this number of clients."""
    pictures = [(path.name, path.read_bytes()) for path in example_photos()]
    latencies: list[float] = []
    problems: Counter[str] = Counter()
    start = time.perf_counter()
    arguments = (start + seconds, pictures, latencies, problems)
    threads = [threading.Thread(target=visit, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    milliseconds = np.percentile(np.array(latencies) * 1000, (50, 90, 95, 99, 100)).round(1).tolist()
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "rounds": len(latencies),
        "lost or refused": dict(problems),
        "rounds a second": round(len(latencies) / took, 1),
        "latency, ms": dict(zip(("p50", "p90", "p95", "p99", "max"), milliseconds, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    start = time.perf_counter()
    command = [sys.executable, "-m", "cifar100", "app", "--checkpoint", asked.weights, "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "The page is at" in server.stdout.readline()
            ready = time.perf_counter() - start
            run(1, 2)  # warm
            result = {
                "seconds from the command to the page": round(ready, 1),
                "alone": run(1, 10),
                "together": run(asked.clients, asked.seconds),
                "circumstances": circumstances(),
            }
            assert server.poll() is None, "the server did not live on"
        finally:
            server.terminate()
    (RESULTS / "page_load.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
