"""cifar100 predict"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.cli.options import ModelOptions
from cifar100.images.fit import DEFAULT_FIT, Fit
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit, emit_error

if TYPE_CHECKING:
    import numpy as np

    from cifar100.images.sources import ImageSource, LoadedImage
    from cifar100.inference import Predictor, Result
    from cifar100.prediction.contact_sheet import Entry
    from cifar100.prediction.output import Csv, JsonLines, Table

MAX_PROBLEMS = 20
"""Images that could not be read and are listed one by one at the end."""


@dataclass(frozen=True, kw_only=True)
class Predict(ModelOptions):
    """Classify images and print the top-k classes.

    Exit code 1 if some images could not be read; these are listed at the end.
    """

    images: Positional[tuple[str, ...]]
    """Image files, directories, glob patterns, URLs, or `-` for stdin."""

    example: bool = False
    """Classify the photos in the package, each named after its content; a cat is none of the 100 classes."""

    top_k: int = 5
    """Number of classes to print per image."""

    batch_size: int = 128
    """Batch size."""

    calibrated: bool = True
    """Divide the logits by the temperature stored with the weights, if there is one. The ranking stays the same."""

    fit: Fit = DEFAULT_FIT
    """How images become square: the center, padded with gray, or stretched."""

    views: Literal[1, 2] = 1
    """2: the mean over the image and its horizontal flip, in twice the time."""

    json: bool = False
    """Print JSON Lines (one object per image) instead of a table."""

    csv: bool = False
    """Print CSV (one row per image and class) instead of a table."""

    montage: Path | None = None
    """Also write a contact sheet of the images with their classes to this PNG file."""

    explain: Path | None = None
    """Also write class activation maps to this PNG file."""

    foreign: ForeignWeights = field(default_factory=ForeignWeights)

    def run(self) -> int:
        self._check()
        from cifar100.images.sources import ImageSource, example_photos, expand_inputs

        predictor = self.load_predictor(
            calibrated=self.calibrated, fit=self.fit, views=self.views, **self.foreign.options()
        )
        if predictor.info.dataset.synthetic:
            emit_error("this model was trained on synthetic images; its predictions mean nothing")
        if self.example:
            sources = [ImageSource(str(path)) for path in example_photos()]
        else:
            sources = expand_inputs(self.images, emit_error)
        problems = self._print(predictor, sources)
        for problem in problems[:MAX_PROBLEMS]:
            emit_error(problem)
        if len(problems) > MAX_PROBLEMS:
            emit_error(f"and {len(problems) - MAX_PROBLEMS:,} more")
        if problems and len(sources) > 1:
            emit_error(f"{len(problems):,} of {len(sources):,} images could not be read.")
        return 1 if problems else 0

    def _check(self) -> None:
        from cifar100.support.files import check_writable

        if self.example and self.images:
            raise UserError("predict.example", "--example takes no images; leave one of them out.")
        if not self.images and not self.example:
            raise UserError("predict.no_images", "Name an image, as in cifar100 predict photo.jpg, or add --example.")
        if self.json and self.csv:
            raise UserError("predict.format", "--json and --csv exclude each other.")
        if self.batch_size < 1:
            raise UserError("predict.batch_size", f"--batch-size is {self.batch_size}; it must be 1 or more.")
        for flag, path in (("--montage", self.montage), ("--explain", self.explain)):
            if path is not None:
                check_writable(flag, path)

    def _print(self, predictor: Predictor, sources: list[ImageSource]) -> list[str]:
        """Print the results and write the sheets; the messages of the images that could not be read."""
        from cifar100.support.progress import progress

        writer = self._writer(predictor, sources)
        sheets, problems, cropped = _Sheets(), [], []
        emit(writer.header(), end="", wrapped=False)
        with progress("images", len(sources), emit_error, stream=sys.stderr) as done:
            for image, result in self._classify(predictor, sources):
                name = self._shown(image)
                if result is None:
                    problems.append(image.problem)
                    emit(writer.failure(name, image.problem), end="", wrapped=False)
                else:
                    emit(writer.result(name, result), end="", wrapped=False)
                    sheets.add(name, image, result)
                    if image.visible_fraction < 0.5:
                        cropped.append((name, image.visible_fraction))
                done(1)
        if cropped:
            name, fraction = cropped[0]
            total = f" ({len(cropped):,} images lost more than half)" if len(cropped) > 1 else ""
            emit_error(f"only the central {fraction:.0%} of {name} was used{total}; --fit pad uses the whole image")
        sheets.write(self.montage, self.explain, len(sources) - len(problems), predictor)
        return problems

    def _shown(self, image: ImageSource | LoadedImage) -> str:
        """The name of an image in the output."""
        return Path(image.name).name if self.example else image.name

    def _writer(self, predictor: Predictor, sources: list[ImageSource]) -> Table | JsonLines | Csv:
        from cifar100.prediction.output import Csv, JsonLines, Table, model_lines

        if not self.json and not self.csv:
            return Table(predictor, map(self._shown, sources))
        emit_error(f"model: {', '.join(model_lines(predictor))}")
        return JsonLines(predictor) if self.json else Csv(predictor)

    def _classify(
        self, predictor: Predictor, sources: list[ImageSource]
    ) -> Iterator[tuple[LoadedImage, Result | None]]:
        """The images in order, each with its result; None for those that could not be read."""
        from cifar100.images.sources import load_images
        from cifar100.prediction.contact_sheet import MAX_ENTRIES, TILE_SIZE

        num_previews = MAX_ENTRIES if self.montage or self.explain else 0
        images = load_images(
            sources, predictor.image_size, predictor.fit, num_previews=num_previews, preview_size=TILE_SIZE
        )
        while batch := list(islice(images, self.batch_size)):
            pixels = [image.pixels for image in batch if image.pixels is not None]
            results = predictor.classify(pixels, self.top_k, self.batch_size, explain=self.explain is not None)
            for image in batch:
                yield image, None if image.pixels is None else next(results)


class _Sheets:
    """The contact sheets: of the images that were loaded for display, and of their class activation maps."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.overlays: list[np.ndarray] = []

    def add(self, name: str, image: LoadedImage, result: Result) -> None:
        from cifar100.prediction.cam import overlay
        from cifar100.prediction.contact_sheet import Entry

        if image.preview is None:
            return
        top1 = result.predictions[0]
        label = f"{top1.class_name}, unsure" if result.unsure else top1.class_name
        self.entries.append(Entry((image.preview,), name, label, top1.probability))
        if result.heatmap is not None:
            self.overlays.append(overlay(result.pixels, result.heatmap))

    def write(self, montage: Path | None, explain: Path | None, num_images: int, predictor: Predictor) -> None:
        """Write the sheets that were requested, of these out of `num_images` images."""
        from cifar100.prediction.contact_sheet import contact_sheet
        from cifar100.prediction.output import model_lines
        from cifar100.support.files import atomic_write

        paths = [path for path in (montage, explain) if path is not None]
        if paths and not self.entries:
            emit_error("no image could be read, so no sheet was written")
            return
        weights, about = model_lines(predictor)
        caption = [f"model: {weights}", about]
        if montage is not None:
            atomic_write(montage, contact_sheet(self.entries, caption))
        if explain is not None:
            pairs = zip(self.entries, self.overlays, strict=True)
            entries = [entry._replace(images=(*entry.images, map_)) for entry, map_ in pairs]
            atomic_write(explain, contact_sheet(entries, caption))
        for path in paths:
            of_all = f" of {num_images:,}" if num_images > len(self.entries) else ""
            emit_error(f"wrote {len(self.entries):,}{of_all} images to {path}")
