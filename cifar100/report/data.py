"""`cifar100 data report`: statistics and duplicates of a dataset, as text and as a self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from cifar100.config import AugmentConfig
from cifar100.dataset import Dataset
from cifar100.dataset.base import spread_rows
from cifar100.evaluation.duplicates import (
    CombinedSplits,
    DuplicatePair,
    exact_duplicates,
    near_duplicates,
    rows_in_train,
)
from cifar100.report.sections import footer
from cifar100.report.style import data_uri, display_name
from cifar100.support.files import atomic_write
from cifar100.support.progress import progress
from cifar100.support.terminal import emit
from cifar100.support.text import escape_control_chars

EXAMPLES = 10
"""Images per class in the grid."""
MOST_CLASSES, MOST_PAIRS = 200, 60
TILE = 64
"""Maximum width and height of an image on the page, in pixels; larger ones are downscaled."""


@dataclass(frozen=True)
class DatasetReport:
    """Statistics and duplicates of a dataset."""

    dataset: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the channels of the train images, in 0..1."""
    exact: list[DuplicatePair]
    near: list[DuplicatePair]
    rows: CombinedSplits


def analyze_dataset(dataset: Dataset, *, say: Callable[[str], None] = emit) -> DatasetReport:
    """Analyze all images of a dataset, which takes minutes for 60,000. `say` gets progress messages."""
    rows = CombinedSplits(dataset)
    train = dataset.train.images.reshape(-1, 3)
    mean = train.mean(axis=0, dtype=np.float64) / 255
    parts = np.array_split(train, max(1, len(train) // 10_000_000))  # all squares in float64 would take gigabytes
    squares = np.sum([np.square(part / 255 - mean).sum(axis=0) for part in parts], axis=0)
    with progress("images compared", len(rows.images), say) as advance:
        near = near_duplicates(rows.images, advance=advance)
    std = np.sqrt(squares / len(train))
    return DatasetReport(dataset, tuple(mean.tolist()), tuple(std.tolist()), exact_duplicates(rows.images), near, rows)


def summary(found: DatasetReport) -> str:
    """The report as plain text."""
    dataset, published = found.dataset, AugmentConfig()
    lines = [str(dataset), *(f"  {note}" for note in dataset.notes)]
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        fewest, most = split.class_range(len(dataset.classes))
        each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        lines.append(f"  {name:<8}{len(split):,} images, {each} of each of {len(dataset.classes):,} classes")
    for name, own, theirs in (("mean", found.mean, published.mean), ("std", found.std, published.std)):
        beside = "" if dataset.spec.name != "CIFAR-100" else f"   published {_numbers(theirs)}"
        lines.append(f"  {name:<8}{_numbers(own)}{beside}   (red, green, blue of the train images, in 0..1)")
    for title, pairs in (("exact duplicates", found.exact), ("near duplicates", found.near)):
        lines.append(f"  {title}: {len(pairs):,} pairs")
        for place, words in (("train", "within train"), ("test", "within test"), ("across", "a test image in train")):
            some = [pair for pair in pairs if found.rows.location(pair) == place]
            conflicts = sum(found.rows.labels_conflict(pair) for pair in some)
            lines.append(f"    {words:<24}{len(some):>6,}   with different labels {conflicts:>5,}")
    for title, pairs in (("exactly", found.exact), ("exactly or nearly", [*found.exact, *found.near])):
        count = len(rows_in_train(pairs, found.rows))
        lines.append(f"  test images that occur {title} in train: {count:,} ({count / len(dataset.test):.2%})")
    return "\n".join(lines)


def write_page(found: DatasetReport, path: Path) -> None:
    """Write the report as one HTML file. Raises RunFailed if that fails."""
    dataset, rows = found.dataset, found.rows
    shown = range(min(len(dataset.classes), MOST_CLASSES))
    grid = "".join(_class_strip(dataset, class_id) for class_id in shown)
    if len(dataset.classes) > MOST_CLASSES:
        grid += f"<p>… and {len(dataset.classes) - MOST_CLASSES:,} classes more.</p>"
    across = [pair for pair in found.exact if rows.location(pair) == "across"]
    within = [pair for pair in found.exact if rows.location(pair) != "across"]
    near_across = [pair for pair in found.near if rows.location(pair) == "across"]
    conflicts = [pair for pair in found.near if rows.labels_conflict(pair) and rows.location(pair) != "across"]
    others = [pair for pair in found.near if not rows.labels_conflict(pair) and rows.location(pair) != "across"]
    sections = [
        ("The same pixels in train and in test", across),
        ("The same pixels twice in one split", within),
        ("Nearly the same in train and in test", near_across),
        ("Nearly the same in one split, with different labels", conflicts),
        ("Nearly the same in one split, with the same label", others),
    ]
    galleries = "".join(_gallery(title, pairs, found) for title, pairs in sections)
    title = escape(escape_control_chars(dataset.spec.name))
    notes = "".join(f"<p>{escape(escape_control_chars(note))}</p>" for note in dataset.notes)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}: the data</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>{title}: the data</h1>
<p>{escape(escape_control_chars(dataset.info))}</p>{notes}
{_tables(found)}
<p>Near duplicates are found by their pixels: images averaged to 8×8 that correlate, then details of the full images,
shifted by up to two pixels, possibly flipped (marked ↔). The number is the correlation of the details. Other crops of a
photo are not found.</p>
{galleries}
<h2>The classes</h2>
<p>{EXAMPLES} train images of each, evenly spread over the class.</p>
<div class="classes">{grid}</div>
<footer><p>{escape(footer())}</p></footer>
</body></html>
"""
    atomic_write(path, page)


STYLE = """
:root { --ink: #1b1f24; --soft: #56606c; --paper: #fffffe; --panel: #f4f5f7; --line: #d5d9df; --orange: #c24f00;
  color-scheme: light dark; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #a2abb6; --paper: #15181d; --panel: #1e2228; --line: #343a43; --orange: #f08a3c; } }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .3rem; } p { max-width: 46rem; color: var(--soft); }
table { border-collapse: collapse; font-size: .9rem; margin: 0 0 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: bottom; padding: .25rem 0 .25rem 1rem;
  border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--soft); } th:first-child { text-align: left; padding-left: 0; }
td { white-space: nowrap; }
img { image-rendering: pixelated; display: block; max-width: 100%; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); gap: .6rem; }
figure { margin: 0; background: var(--panel); padding: .5rem; border-radius: .4rem; break-inside: avoid; }
figcaption { font-size: .78rem; line-height: 1.35; margin-top: .35rem; } .differ { color: var(--orange); }
footer { margin-top: 2rem; font-size: .85rem; }
.classes { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .5rem 1.2rem; }
.classes img { width: 100%; } .classes div { break-inside: avoid; font-size: .85rem; }
@media (max-width: 40rem) { th, td { padding-left: .5rem; font-size: .8rem; } }
@media print { h2, h2 + p { break-after: avoid; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .pairs { grid-template-columns: repeat(5, 1fr); } .classes { grid-template-columns: 1fr 1fr; } }
"""


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _tables(found: DatasetReport) -> str:
    """Channel statistics, next to the published ones, and the numbers of duplicate pairs."""
    published, is_cifar100 = AugmentConfig(), found.dataset.spec.name == "CIFAR-100"
    rows = "<tr><th>channels of the train images, in 0..1</th><th>red</th><th>green</th><th>blue</th></tr>"
    for name, own, theirs in (("mean", found.mean, published.mean), ("std", found.std, published.std)):
        for what, values in ((name, own), *(((f"{name}, published", theirs),) if is_cifar100 else ())):
            rows += f"<tr><th>{what}</th>{''.join(f'<td>{value:.4f}</td>' for value in values)}</tr>"
    pairs = "<tr><th>pairs (of them with different labels)</th><th>in train</th><th>in test</th><th>in both</th></tr>"
    for name, some in (("the same pixels", found.exact), ("nearly the same", found.near)):
        counts = ""
        for place in ("train", "test", "across"):
            here = [pair for pair in some if found.rows.location(pair) == place]
            counts += f"<td>{len(here):,} ({sum(found.rows.labels_conflict(pair) for pair in here):,})</td>"
        pairs += f"<tr><th>{name}</th>{counts}</tr>"
    exact, either = (len(rows_in_train(some, found.rows)) for some in (found.exact, [*found.exact, *found.near]))
    percent = f"{100 * either / len(found.dataset.test):.2f}\N{NO-BREAK SPACE}%"
    text = f"{exact:,} test images occur in train with the same pixels, {either:,} ({percent}) with these or nearly."
    return f"<table>{rows}</table><table>{pairs}</table><p>{text}</p>"


def _gallery(title: str, pairs: Sequence[DuplicatePair], found: DatasetReport) -> str:
    if not pairs:
        return f"<h2>{title}</h2><p>None.</p>"
    more = f"The {MOST_PAIRS} most alike of" if len(pairs) > MOST_PAIRS else ""
    count = f"{len(pairs):,} pair" + "s" * (len(pairs) > 1)
    figures = "".join(_figure(pair, found) for pair in pairs[:MOST_PAIRS])
    return f'<h2>{title}</h2><p>{f"{more} {count}".strip()}.</p><div class="pairs">{figures}</div>'


def _figure(pair: DuplicatePair, found: DatasetReport) -> str:
    rows, classes = found.rows, found.dataset.classes
    tiles = [_tile(rows.images[row]) for row in (pair.first, pair.second)]
    image = np.concatenate([tiles[0], np.full((len(tiles[0]), 1, 3), 127, np.uint8), tiles[1]], axis=1)
    names = [escape(display_name(classes[rows.labels[row]])) for row in (pair.first, pair.second)]
    labels = names[0] if not rows.labels_conflict(pair) else f'<b class="differ">{names[0]} / {names[1]}</b>'
    splits = [
        f"train {row}" if row < rows.num_train else f"test {row - rows.num_train}" for row in (pair.first, pair.second)
    ]
    likeness = "" if pair.exact else f"<br>{pair.correlation:.2f}{' ↔' * pair.mirrored}"
    width = 2 * image.shape[1] if image.shape[1] < 2 * TILE else image.shape[1]
    return (
        f'<figure><img src="{_png(image)}" width="{width}" alt="{names[0]} and {names[1]}">'
        f"<figcaption>{labels}<br>{', '.join(splits)}{likeness}</figcaption></figure>"
    )


def _class_strip(dataset: Dataset, class_id: int) -> str:
    of_class = np.flatnonzero(dataset.train.labels == class_id)
    chosen = of_class[spread_rows(len(of_class), EXAMPLES)]
    name = escape(display_name(dataset.classes[class_id]))
    if not len(chosen):
        return f"<div>{class_id} {name}: no train images</div>"
    strip = np.concatenate([_tile(image) for image in dataset.train.images[chosen]], axis=1)
    return f'<div>{class_id} {name}<img src="{_png(strip)}" alt="examples of {name}"></div>'


def _tile(image: np.ndarray) -> np.ndarray:
    if len(image) <= TILE:
        return image
    return np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BOX))


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return data_uri(file.getvalue(), "png")
