"""Accuracy on photos: crop, pad or stretch to a square, one view or two; and how often "unsure" is right.

    python benchmarks/photos.py DIR

benchmarks/photos.csv lists the photos, labeled by eye: file, class (empty: none of the 100), kind (an object cut out on
a transparent background, or a scene), source, license, half. DIR holds each source extracted into a directory of the
package's name: for Debian (bookworm) `apt-get download NAME` and `dpkg -x NAME_*.deb DIR/NAME`; for npm `npm pack
@stdlib/NAME` and `tar xf stdlib-NAME-*.tgz -C DIR/stdlib-NAME`. "x.rcc!y" is the file y in the Qt resource file x.

The half "choose" chooses the configuration; the half "report" compares each with the default (exact McNemar test).
Writes benchmarks/results/photos.json.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import struct
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances, save_result
from PIL import Image
from scipy.stats import binomtest

from cifar100.images.convert import to_rgb
from cifar100.images.fit import FITS
from cifar100.inference import Predictor, load_predictor

PHOTOS = Path(__file__).with_name("photos.csv")
DEFAULT = ("crop", 1)


def photo(folder: Path, file: str) -> Image.Image:
    """A photo of the list, upright RGB."""
    if file.endswith("face.dat"):  # the raccoon of SciPy, without a header
        pixels = np.frombuffer(bz2.decompress((folder / file).read_bytes()), np.uint8)
        return Image.fromarray(pixels.reshape(768, 1024, 3))
    path, _, inner = file.partition("!")
    if not inner:
        return to_rgb(folder / path)
    found = [content for name, content in resources((folder / path).read_bytes()) if name.endswith(f"/{inner}")]
    return to_rgb(found[0], name=file)


def resources(data: bytes, node: int = 0, path: str = "") -> Iterator[tuple[str, bytes]]:
    """(path, content) of each uncompressed file in a binary Qt resource file of format 2 or 3."""
    magic, _, tree, contents, names = struct.unpack_from(">4s4I", data)
    assert magic == b"qres"
    name, flags, count, first = struct.unpack_from(">IHII", data, tree + 22 * node)
    if node:
        (length,) = struct.unpack_from(">H", data, names + name)
        path += "/" + data[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
    if flags & 2:  # a directory
        for child in range(first, first + count):
            yield from resources(data, child, path)
    elif not flags & 5:  # neither zlib nor zstd
        (start,) = struct.unpack_from(">I", data, tree + 22 * node + 10)
        (length,) = struct.unpack_from(">I", data, contents + start)
        yield path, data[contents + start + 4 : contents + start + 4 + length]


def figures(ranks: np.ndarray, unsure: np.ndarray, known: np.ndarray, among: np.ndarray) -> dict[str, Any]:
    """Fractions of the photos `among`; `ranks` is the place of the true class, from 0."""
    ranks, flagged = ranks[among & known], unsure[among & known]
    return {
        "photos": len(ranks),
        "top-1": round(float((ranks == 0).mean()), 4),
        "top-5": round(float((ranks < 5).mean()), 4),
        "unsure": round(float(flagged.mean()), 4),
        "unsure although right": round(float(flagged[ranks == 0].mean()), 4),
        "photos of no class": int((among & ~known).sum()),
        "unsure, of no class": round(float(unsure[among & ~known].mean()), 4),
    }


def title(fit: str, views: int) -> str:
    return f"{fit}, {views} view{'s' * (views > 1)}"


def paired(ours: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Photos that only one of two gets right, and the p-value of the exact McNemar test."""
    won, lost = int((ours & ~others).sum()), int((others & ~ours).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return {"won": won, "lost": lost, "p": round(p, 4)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="pretrained")
    args = parser.parse_args()
    with PHOTOS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    backend = load_predictor(args.weights, device="cpu", precision="fp32").backend
    classes = list(backend.info.classes)
    labels = np.array([classes.index(row["class"]) if row["class"] else -1 for row in rows])
    known = labels >= 0
    choose, scene = (
        np.array([row[key] == value for row in rows]) for key, value in (("half", "choose"), ("kind", "scene"))
    )

    start = time.process_time()
    images = [photo(args.folder, row["file"]) for row in rows]
    decoding = (time.process_time() - start) / len(rows)
    next(Predictor(backend).classify(images[:1]))  # the first forward pass is slower
    ranks, results = {}, {}
    for fit, views in product(FITS, (1, 2)):
        predictor = Predictor(backend, fit=fit, views=views)
        start = time.process_time()
        found = list(predictor.classify(images, top_k=len(classes)))
        seconds = (time.process_time() - start) / len(rows)
        unsure = np.array([result.unsure for result in found])
        ranked = np.array([[prediction.class_id for prediction in result.predictions] for result in found])
        place = (ranked == labels[:, None]).argmax(axis=1)
        ranks[fit, views] = place
        groups = {"choose": choose, "report": ~choose, "report, scenes": ~choose & scene, "all": known | ~known}
        results[title(fit, views)] = {name: figures(place, unsure, known, among) for name, among in groups.items()} | {
            "CPU seconds per photo, without decoding": round(seconds, 4)
        }

    best = max(ranks, key=lambda key: (ranks[key][choose & known] == 0).mean())
    judged = ~choose & known
    for key, place in ranks.items():
        results[title(*key)]["against the default on the half for reporting"] = {
            f"top-{k}": paired(place[judged] < k, ranks[DEFAULT][judged] < k) for k in (1, 5)
        }
    covered = len({row["class"] for row in rows} - {""})
    result = {
        "photos": {"of a class": int(known.sum()), "of none": int((~known).sum()), "classes": covered},
        "results": results,
        "chosen on the half for choosing": {"fit": best[0], "views": best[1]},
        "CPU seconds per photo to decode": round(decoding, 4),
        "circumstances": circumstances(),
    }
    save_result("photos.json", result)


if __name__ == "__main__":
    main()
