"""A model as a static web site: the classifier runs in the visitor's browser, and images never leave the device.

The site is the files in site/ (plain ES modules), and what is made here: the model as ONNX, model.json (its classes,
thresholds and accuracy: all that the page says), the runtime, example images, the list of files in the service worker.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cifar100.checkpoints.hub import download_model, is_hub_address
from cifar100.dataset.classes import CLASSES
from cifar100.export.check import ParityReport
from cifar100.export.web_runtime import FILES, LICENSE, PACKAGE, VERSION, runtime_files
from cifar100.images.convert import to_rgb
from cifar100.images.sources import example_photos
from cifar100.prediction.backend import Backend, open_backend
from cifar100.prediction.cam import normalize_cams
from cifar100.prediction.model_info import ModelInfo
from cifar100.prediction.onnx_backend import OnnxBackend
from cifar100.prediction.predictor import Predictor
from cifar100.prediction.rejection import MIN_AUTOCORRELATION, MIN_PIXEL_STD, MIN_PROBABILITY
from cifar100.support.errors import RunFailed, UserError
from cifar100.support.files import atomic_write
from cifar100.support.provenance import assumptions
from cifar100.support.terminal import Say, emit

SITE = Path(__file__).parent / "site"
FORMAT = "cifar100-web"
MODEL = "model.onnx"
EXAMPLE_SIDE = 512
"""Maximum width and height of an example image, in pixels."""
TOP_K = 5


@dataclass(frozen=True)
class Site:
    """The result of `export_site`."""

    folder: Path
    files: int
    bytes: int
    check: ParityReport | None
    """Comparison of the graph with its checkpoint; None if the model was already an ONNX file."""

    def __str__(self) -> str:
        check = f"{self.check}\n\n" if self.check else ""
        return (
            f"{check}{self.folder}: {self.files} files, {self.bytes / 1e6:.1f} MB; put it on any web server, "
            "or add --serve to open it here"
        )


def export_site(
    path: Path,
    out: Path,
    *,
    runtime: Path | None = None,
    examples: Sequence[Path] = (),
    data_dir: Path | None = None,
    images: int = 1000,
    options: Mapping[str, Any] | None = None,
    say: Say = emit,
) -> Site:
    """Write a site for the model at `path` into the folder `out`, which must be new, empty, or an earlier site.

    `path` is an ONNX file of ours, or whatever `load_weights` takes: that is exported as int8 if its train images are
    here (`data_dir`), else in fp32, and checked as `export` does. `examples` are images for visitors to try; without
    them, a model of CIFAR-100's classes has those of the package. `runtime` is a folder with onnxruntime-web, `options`
    are those of `load_weights` for third-party files. Raises UserError for what cannot be read, found or written,
    RunFailed if the graph fails its check.
    """
    _check_output_dir(out)
    runtime_contents = runtime_files(runtime, say)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            info = open_backend(path, device="cpu", **options or {}).info
            export_options = {"data_dir": data_dir, "images": images, "options": options, "say": say}
            local = download_model(path) if is_hub_address(path) else path
            graph, check = _graph(local, Path(temporary), export_options)
            files = _files(graph, check, runtime_contents, examples, info)
        _write_files(files, out)
    except OSError as error:
        raise RunFailed("export.unwritable", f"{out} could not be written ({error.strerror or error}).") from None
    return Site(out, len(files), sum(map(len, files.values())), check)


def _check_output_dir(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("export.out", f"--out {out} is a file; a site is a directory.")
    if out.is_dir() and any(out.iterdir()) and not _is_site(out):
        raise UserError("export.out", f"--out {out} is neither empty nor an earlier site: choose another directory.")


def _is_site(folder: Path) -> bool:
    try:
        return json.loads((folder / "model.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _graph(path: Path, folder: Path, export_options: dict[str, Any]) -> tuple[Path, ParityReport | None]:
    """The model as an ONNX file, written to `folder` if it is not one already. `export_options` are for `export`."""
    from cifar100.export import export

    if path.suffix.lower() == ".onnx":
        return path, None
    graph = folder / MODEL
    try:
        return graph, export(path, "onnx-int8", graph, **export_options)
    except (UserError, RunFailed) as error:
        if error.code not in ("export.calibration_images", "export.agreement"):
            raise
        export_options["say"](f"exporting in fp32, 4 times as large as int8: {error}")
    return graph, export(path, "onnx", graph, **export_options)


def _files(
    graph: Path,
    check: ParityReport | None,
    runtime_contents: dict[str, bytes],
    examples: Sequence[Path],
    info: ModelInfo,
) -> dict[str, bytes]:
    """{path in the site: content}, the service worker last. `info` describes the exported weights."""
    backend, content = OnnxBackend(graph), graph.read_bytes()
    metadata = backend.metadata
    script, binary = FILES
    texts = {path.name: path.read_bytes() for path in sorted(SITE.iterdir()) if path.is_file()}
    files = {name: text.replace(b"\r\n", b"\n") for name, text in texts.items()}  # as a git host would change them
    service_worker = files.pop("sw.js")  # last: browsers that see a new one fetch the other files
    files["runtime/LICENSE"] = files.pop("LICENSE.runtime")
    files[f"runtime/{Path(script).stem}.js"] = runtime_contents[script]  # not every server knows .mjs as JavaScript
    files[f"runtime/{binary}.gz"] = gzip.compress(runtime_contents[binary], mtime=0)  # not every server compresses
    files[MODEL] = content
    shown = _examples(metadata, examples)
    files |= {example.path: example.content for example in shown}
    described = model_json(metadata) | {
        "evaluation": accuracy_metrics(metadata, check),
        "files": {
            "model": _entry(MODEL, files[MODEL]),
            "wasm": _entry(f"runtime/{binary}.gz", files[f"runtime/{binary}.gz"]) | {"content_sha256": FILES[binary]},
            "runtime": _entry(f"runtime/{Path(script).stem}.js", runtime_contents[script]),
        },
        "examples": [
            {"path": example.path, "name": example.name, "answer": answer(example.content, backend)}
            for example in shown
        ],
    }
    described["about"]["weights"] = {"name": info.name, "sha256": info.digest}
    described["about"]["precision"] = "int8" if b"QuantizeLinear" in content else "fp32"
    files["model.json"] = json.dumps(described, separators=(",", ":")).encode()
    files["README.md"] = readme(metadata).encode()
    offline = files.keys() - {"README.md", "runtime/LICENSE"}
    kept = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(offline)}
    files["sw.js"] = f"const FILES = {json.dumps(kept, indent=1)};\n\n".encode() + service_worker
    return files


def model_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """The content of model.json for the metadata of an exported graph, without its files, accuracy and examples.

    Probabilities are softmax(logits / temperature); `unsure` holds the thresholds of `prediction.rejection`.
    """
    fit = metadata["calibration"]
    return {
        "format": FORMAT,
        "version": 1,
        "classes": metadata["classes"],
        "superclasses": metadata["superclasses"],
        "superclass_of": metadata["superclass_of"],
        "image_size": metadata["image_size"],
        "takes": metadata["takes"],
        "temperature": 1.0 if fit is None else fit.temperature,
        "unsure": {
            "min_probability": MIN_PROBABILITY,
            "min_pixel_std": MIN_PIXEL_STD,
            "min_autocorrelation": MIN_AUTOCORRELATION,
        },
        "about": {
            "network": metadata["model"],
            "trained_on": metadata["dataset"].train_description,
            "calibration": "" if fit is None else fit.origin,
            "versions": metadata["versions"],
            "assumed": assumptions(*(metadata[name] for name in ("assumed", "classes", "superclasses"))),
        },
        "runtime": {"name": PACKAGE, "version": VERSION, "license": LICENSE},
    }


def accuracy_metrics(metadata: dict[str, Any], check: ParityReport | None) -> dict[str, Any]:
    """The accuracy of the model: its evaluation, else the check of its graph, else the metrics of its epoch."""
    if metadata["evaluation"]:
        names = ("top1", "top5", "superclass_top1", "images", "split")
        return {name: metadata["evaluation"][name] for name in names if name in metadata["evaluation"]}
    if check is not None and check.top1 is not None:
        return {"top1": check.top1, "images": check.images, "split": "test"}
    return metadata.get("metrics", {})


def answer(content: bytes, backend: Backend) -> dict[str, Any]:
    """What the page's worker would answer for an image file: for examples, before the model is loaded."""
    (result,) = Predictor(backend).classify([content], TOP_K)
    (cams,) = backend.logits_and_cams(result.pixels[None])[1]
    maps = normalize_cams(cams).astype(np.float64).round(3)
    return {
        "predictions": [
            {"id": class_id, "probability": round(probability, 5), "map": maps[class_id].ravel().tolist()}
            for _, class_id, probability in result.predictions
        ],
        "reason": result.reason,
        "mapSize": list(cams.shape[1:]),
    }


class Example(NamedTuple):
    """An image for visitors to try."""

    path: str
    name: str
    content: bytes


def _examples(metadata: dict[str, Any], paths: Sequence[Path]) -> list[Example]:
    """The images as small JPEG files, without the metadata of the originals (places, names of people)."""
    if not paths and metadata["classes"] == list(CLASSES):
        paths = example_photos()
    made: list[Example] = []
    for number, path in enumerate(paths, start=1):
        image = to_rgb(path)
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE), Image.Resampling.LANCZOS)
        image.info = {}  # a comment would be saved too
        content = io.BytesIO()
        image.save(content, "JPEG", quality=90)
        made.append(Example(f"examples/{number}.jpg", path.stem, content.getvalue()))
    return made


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_files(files: dict[str, bytes], out: Path) -> None:
    """Write the files to `out`, the service worker last; the examples of an earlier site are removed."""
    shutil.rmtree(out / "examples", ignore_errors=True)
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)


def readme(metadata: dict[str, Any]) -> str:
    """A README.md whose front matter makes the directory a static Space on the Hugging Face Hub."""
    top1 = metadata["evaluation"].get("top1")
    figure = f"{top1:.1%} top-1 on its test images. " if top1 is not None else ""
    return f"""---
title: What is in this image?
emoji: 🔎
colorFrom: blue
colorTo: indigo
sdk: static
app_file: index.html
pinned: false
---

A {metadata["model"]} that predicts one of {len(metadata["classes"]):,} classes, as a static page: it runs in the
browser, and images never leave the device. {figure}Made with cifar100; any web server can serve this folder.
"""
