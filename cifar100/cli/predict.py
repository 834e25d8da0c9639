"""cifar100 predict"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from cifar100.cli.foreign_weights import ForeignWeights
from cifar100.config import DeviceName
from cifar100.support.errors import UserError
from cifar100.support.terminal import emit, emit_error

if TYPE_CHECKING:
    import numpy as np

    from cifar100.images.sources import Loaded, Source
    from cifar100.inference import Prediction, Predictor
    from cifar100.prediction.contact_sheet import Entry

OWN = Path("logs/cifar100/best_model.pth")
MOST_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify images and print the top-k classes.

    Exit code 0 where all could be read, 1 where some could not; these are listed at the end and stop nothing.
    """

    images: Positional[tuple[str, ...]]
    """Image files, directories, glob patterns, URLs, or `-` for stdin."""

    checkpoint: Path | None = None
    """Model (default: logs/cifar100/best_model.pth if it exists, else "pretrained", the bundled weights)."""

    top_k: int = 5
    """Number of classes to print per image."""

    batch_size: int = 128
    """Batch size."""

    calibrated: bool = False
    """Apply the stored temperature (calibrated probabilities), as the web app does. The order of the classes stays."""

    device: DeviceName = "auto"
    """Device to run on."""

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
        from cifar100.images.sources import find
        from cifar100.inference import load_predictor
        from cifar100.prediction.contact_sheet import Entry
        from cifar100.prediction.output import Csv, JsonLines, Table
        from cifar100.support.progress import progress

        checkpoint = self.checkpoint or (OWN if os.path.exists(OWN) else Path("pretrained"))
        facts = self.foreign.facts()
        predictor = load_predictor(checkpoint, device=self.device, calibrated=self.calibrated, **facts)
        for note in predictor.notes:
            _tell(note)
        if predictor.trained_on.synthetic:
            _tell("this model was trained on made-up images; its answers mean nothing")
        sources = find(self.images, _tell)
        listing = Table(source.name for source in sources)
        if self.json or self.csv:
            listing = JsonLines(predictor.assumed) if self.json else Csv()
        shown: list[tuple[Entry, np.ndarray]] = []
        problems: list[str] = []
        emit(listing.head(), end="")
        with progress("images", len(sources), _tell, stream=sys.stderr) as done:
            for image, predictions in self._named(predictor, sources):
                if predictions is None:
                    problems.append(image.problem)
                    emit(listing.failed(image.name, image.problem), end="")
                else:
                    emit(listing.named(image.name, predictions), end="")
                    if image.picture is not None and image.pixels is not None:
                        best = predictions[0]
                        entry = Entry((image.picture,), image.name, best.class_name, best.probability)
                        shown.append((entry, image.pixels))
                done(1)
        self._draw(checkpoint, shown, len(sources) - len(problems))
        for problem in problems[:MOST_LISTED]:
            _tell(problem)
        if len(problems) > MOST_LISTED:
            _tell(f"and {len(problems) - MOST_LISTED:,} more")
        if problems and len(sources) > 1:
            _tell(f"{len(problems):,} of {len(sources):,} images could not be read.")
        return 1 if problems else 0

    def _check(self) -> None:
        from cifar100.support.files import check_writable

        if not self.images:
            raise UserError("Which image? Name one, as in cifar100 predict photo.jpg.")
        if self.json and self.csv:
            raise UserError("--json and --csv: choose one of them.")
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}; it must be 1 or more.")
        for flag, path in (("--montage", self.montage), ("--explain", self.explain)):
            if path is not None:
                check_writable(flag, path)

    def _named(self, predictor: Predictor, sources: list[Source]) -> Iterator[tuple[Loaded, list[Prediction] | None]]:
        """The images in their order, each with what is in it; None for those that could not be read."""
        from cifar100.images.sources import load
        from cifar100.prediction.contact_sheet import MOST, SIDE

        waiting: deque[Loaded] = deque()  # read, and not told of yet

        def pixels() -> Iterator[np.ndarray]:
            wanted = MOST if self.montage or self.explain else 0
            for image in load(sources, predictor.image_size, pictures=wanted, picture_size=SIDE):
                waiting.append(image)
                if image.pixels is not None:
                    yield image.pixels

        for predictions in predictor.predict_stream(pixels(), self.top_k, self.batch_size):
            while waiting[0].problem:
                yield waiting.popleft(), None
            yield waiting.popleft(), predictions
        while waiting:
            yield waiting.popleft(), None

    def _draw(self, checkpoint: Path, shown: list[tuple[Entry, np.ndarray]], count: int) -> None:
        """The sheets that were asked for, of these images out of `count`."""
        from cifar100.prediction.contact_sheet import contact_sheet
        from cifar100.support.files import atomic_write

        wanted = [path for path in (self.montage, self.explain) if path is not None]
        if wanted and not shown:
            _tell("no picture could be read, so none was drawn")
            return
        entries = [entry for entry, _ in shown]
        if self.montage is not None:
            atomic_write(self.montage, contact_sheet(entries))
        if self.explain is not None:
            from cifar100.prediction.cam import open_model
            from cifar100.prediction.overlay import overlay

            see = open_model(checkpoint, device=self.device, **self.foreign.facts()).see
            entries = [
                entry._replace(pictures=(*entry.pictures, overlay(pixels, see(pixels[None])[1][0])))
                for entry, pixels in shown
            ]
            atomic_write(self.explain, contact_sheet(entries))
        for path in wanted:
            of_all = f" of {count:,}" if count > len(entries) else ""
            _tell(f"drew {len(entries):,}{of_all} pictures on {path}")


def _tell(what: str) -> None:
    emit_error(what)
