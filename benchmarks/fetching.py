"""The time to download CIFAR-100 from each source, served on this machine, without the network.

    python benchmarks/fetching.py --pickles DIR --parquet DIR

DIR contains the published files. Sources are the Hub's parquet files, which are decoded, verified and written as the
binary version, and the home page's archive, built here from the pickles, so with an MD5 of its own. Each time includes
reading the downloaded dataset. Also measured: the fingerprint of both splits, from arrays in memory. Writes
benchmarks/results/fetching.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from circumstances import RESULTS, circumstances

from cifar100.dataset import Dataset, download, read
from cifar100.dataset.base import canonical_split

ROUNDS = 3
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


class Handler(SimpleHTTPRequestHandler):
    """Serves a directory, with the headers that huggingface_hub needs."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", download.HUB_REVISION)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def seconds(work: Callable[[], Dataset]) -> float:
    """Seconds to load the published dataset."""
    start = time.perf_counter()
    dataset = work()
    taken = time.perf_counter() - start
    assert dataset.is_verified, dataset
    return round(taken, 2)


def fetched() -> Dataset:
    """The dataset, downloaded into an empty directory."""
    with tempfile.TemporaryDirectory() as folder:
        return download.download_cifar100(Path(folder), say=lambda _: None)


def fingerprinted(dataset: Dataset) -> Dataset:
    """The dataset with both splits in canonical order, fingerprints computed anew."""
    train, test = (canonical_split(s.images, s.labels, len(dataset.classes)) for s in (dataset.train, dataset.test))
    return Dataset(dataset.spec, train, test, dataset.source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pickles", type=Path, required=True)
    parser.add_argument("--parquet", type=Path, required=True)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as served:
        archive = Path(served, download.ARCHIVE)
        with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
            tar.add(args.pickles / "cifar-100-python", "cifar-100-python")
        hub = Path(served, "datasets", download.HUB_REPOSITORY, "resolve", download.HUB_REVISION)
        for name in download.HUB_FILES:
            (hub / name).parent.mkdir(parents=True, exist_ok=True)
            (hub / name).symlink_to((args.parquet / name).resolve())
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            here = f"http://127.0.0.1:{server.server_address[1]}"
            download.ARCHIVE_MD5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
            download.HOMES = (f"{here}/",)
            dataset = read(args.pickles)
            times: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                for name, endpoint in (("hub", here), ("home page", NOWHERE)):
                    os.environ["HF_ENDPOINT"] = endpoint
                    times.setdefault(f"fetch from the {name}", []).append(seconds(fetched))
                times.setdefault("fingerprint", []).append(seconds(partial(fingerprinted, dataset)))
            server.shutdown()
    result = {name: {"seconds": sorted(taken), "median": statistics.median(taken)} for name, taken in times.items()}
    text = json.dumps(result | {"circumstances": circumstances()}, indent=2) + "\n"
    (RESULTS / "fetching.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
