"""cifar100 similar"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from cifar100.cli.options import ModelOptions
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit, emit_error

if TYPE_CHECKING:
    import numpy as np

    from cifar100.images.sources import ImageSource
    from cifar100.inference import Predictor


@dataclass(frozen=True, kw_only=True)
class Similar(ModelOptions):
    """Find the images in a folder that are most similar to an image.

    Prints the cosine similarity, -1 to 1, and the path, most similar first.
    """

    image: Positional[str]
    """Query image: a file, a URL, or "-" for standard input."""

    inputs: Annotated[tuple[str, ...], arg(name="in")]
    """Images to search: directories, files, glob patterns such as 'photos/**/*.jpg'."""

    count: int = 12
    """Number of images to find."""

    sheet: Path | None = None
    """Also write a contact sheet with the query and the images found (PNG)."""

    def run(self) -> int:
        if self.count < 1:
            raise UserError("similar.count", f"--count is {self.count}; it must be 1 or more.")
        import numpy as np

        from cifar100.images.sources import ImageSource, expand_inputs, load_images
        from cifar100.prediction.contact_sheet import TILE_SIZE, Entry, contact_sheet
        from cifar100.prediction.output import model_lines
        from cifar100.support.files import atomic_write, check_writable
        from cifar100.support.text import escape_control_chars

        if not self.inputs:
            raise UserError("similar.no_images", "--in: name images or directories.")
        if self.sheet is not None:
            check_writable("--sheet", self.sheet)
        predictor = self.load_predictor()
        query = [ImageSource(self.image)]  # read once: it may be standard input
        (shown,) = load_images(query, predictor.image_size, num_previews=1, preview_size=TILE_SIZE)
        if shown.pixels is None:
            emit_error(shown.problem)
            return 1
        features, sources = embed(expand_inputs(self.inputs), predictor)
        if not sources:
            raise UserError("similar.no_images", f"--in {self.inputs[0]}: no image can be read.")
        similarity = features @ predictor.embed([shown.pixels])[0]
        weights = f"model: {model_lines(predictor)[0]}"
        emit(escape_control_chars(weights))
        order = np.argsort(-similarity, kind="stable")[: self.count]
        for row in order:
            emit(f"{similarity[row]:7.4f}  {escape_control_chars(sources[row].name)}", wrapped=False)
        if self.sheet is not None:
            found = [sources[row] for row in order]
            images = [shown, *load_images(found, TILE_SIZE, num_previews=len(found), preview_size=TILE_SIZE)]
            texts = [(os.path.basename(self.image), "query")]
            texts += [(f"similarity {similarity[row]:.4f}", sources[row].name) for row in order]
            entries = [
                Entry((image.preview,), name, label, None)
                for image, (label, name) in zip(images, texts, strict=True)
                if image.preview is not None
            ]
            atomic_write(self.sheet, contact_sheet(entries, [weights]))
        return 0


def embed(sources: list[ImageSource], predictor: Predictor) -> tuple[np.ndarray, list[ImageSource]]:
    """The features [N, 512] of the readable images, and their sources; the others are reported on stderr."""
    from cifar100.images.sources import load_images
    from cifar100.support.progress import progress

    read: list[ImageSource] = []

    with progress("images", len(sources), emit_error, stream=sys.stderr) as done:

        def pixels():
            for source, image in zip(sources, load_images(sources, predictor.image_size), strict=True):
                done(1)
                if image.pixels is None:
                    emit_error(image.problem)
                else:
                    read.append(source)
                    yield image.pixels

        return predictor.embed(pixels()), read
