"""What the web app shows, as HTML, each part a function. Names are escaped; images are embedded."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from cifar100.inference import Prediction, Predictor
from cifar100.prediction.model_info import ModelInfo
from cifar100.prediction.rejection import MIN_PROBABILITY, REASON_TEXT
from cifar100.report import style
from cifar100.support.errors import UserError
from cifar100.support.text import escape_control_chars
from cifar100.web.service import Classified

NUM_RANKED = 10
"""Classes in the lists of the best and the worst."""

PLACEHOLDER = '<p class="hint">The answer appears here.</p>'


def escaped(text: object) -> str:
    """Text from data, as text of a page."""
    return html.escape(escape_control_chars(text))


def escaped_name(name: str) -> str:
    """A class name without underscores, escaped."""
    return html.escape(style.display_name(name))


def answer(item: Classified, info: ModelInfo) -> str:
    """One image: bars, what was cropped, the model input and the heatmap."""
    top1, size = item.result.predictions[0], len(item.result.pixels)
    pixels = image(item.result.pixels, f"The model input, {size} by {size} pixels", width=256, css_class="pixelated")
    overlay = image(item.overlay, f"Heatmap: evidence for {top1.class_name}; brighter is more", width=256)
    crop = ""
    if item.thumbnail.shape[0] != item.thumbnail.shape[1]:
        whole = image(item.thumbnail, "The whole image; the center, which is classified, is outlined", width=256)
        crop = f"<figure>{whole}<figcaption>Classified: the outlined center</figcaption></figure>"
    return f"""
<section aria-label="Answer">
{_ranking(item, info)}
<div class="views">
  {crop}
  <figure>{pixels}<figcaption>The model input: {size}×{size} pixels</figcaption></figure>
  <figure>{overlay}<figcaption>Evidence for <b>{escaped_name(top1.class_name)}</b> (brighter is more)</figcaption>
  </figure>
</div>
<p class="hint">{item.milliseconds:.0f} ms · {_weights(info)}</p>
</section>"""


def example(item: Classified, info: ModelInfo) -> str:
    """An image of the package and its answer, before there is one of the visitor's."""
    photo = image(item.thumbnail, "An example photo", width=96)
    return f'<section aria-label="Example"><p class="hint">For example:</p>{photo}{_ranking(item, info)}</section>'


def failure(reason: object) -> str:
    """Why there is no answer."""
    return f'<section role="alert" class="refusal"><p><b>No answer.</b> {escaped(reason)}</p></section>'


def answers(items: Sequence[Classified | UserError], info: ModelInfo) -> str:
    """Several images: a row each."""
    if not items:
        return PLACEHOLDER
    head = "<tr><th>image</th><th>top-1</th><th>then</th></tr>"
    num_failed = sum(isinstance(each, UserError) for each in items)
    count = f"{len(items) - num_failed} of {len(items)} images classified" if num_failed else f"{len(items)} images"
    table = f'<div class="wide"><table>{head}{"".join(_row(each, info) for each in items)}</table></div>'
    return f'<section aria-label="Answers"><p class="hint">{count} · {_weights(info)}</p>{table}</section>'


def _row(item: Classified | UserError, info: ModelInfo) -> str:
    if isinstance(item, UserError):
        return f'<tr class="refusal"><td colspan="3">{escaped(item)}</td></tr>'
    top1, *others = item.result.predictions[:3]
    reason = item.result.reason
    unsure = f' <span class="badge" title="{escaped(REASON_TEXT[reason])}">unsure</span>' if reason else ""
    more = "<br>".join(f"{escaped_name(other.class_name)} {other.probability:.1%}" for other in others)
    return (
        f"<tr><td>{image(item.thumbnail, '', width=64)}</td>"
        f"<td><b>{escaped_name(top1.class_name)}</b> {top1.probability:.1%}{unsure}"
        f"<br><small>{escaped_name(info.superclass(top1.class_id))}</small>"
        f"<br><small>{escaped(item.name)}</small></td><td>{more}</td></tr>"
    )


def about_model(predictor: Predictor) -> str:
    """The model: what it is, how accurate, its best and worst classes, its limits."""
    info = predictor.info
    details = {
        "weights": f"{info.name}, SHA-256 {info.digest}",
        "network": info.network,
        "trained on": info.dataset.train_description,
        "selection": str(info.selection or "unknown"),
        "probabilities": _calibration(predictor),
        "runs on": info.hardware,
    } | ({"assumed": "; ".join(info.notes)} if info.notes else {})
    rows = "".join(f"<tr><th scope='row'>{escaped(k)}</th><td>{escaped(v)}</td></tr>" for k, v in details.items())
    return f"<h2>Model</h2><table>{rows}</table>{_accuracy(info)}{_limits(info)}"


def _calibration(predictor: Predictor) -> str:
    fit = predictor.info.calibration
    if fit is None or predictor.temperature == 1:
        return "not calibrated"
    return f"calibrated, temperature {fit.temperature:.3g} {fit.origin}"


def _accuracy(info: ModelInfo) -> str:
    measured = info.evaluation or info.metrics
    if not info.accuracy:
        return "<p>Its accuracy is unknown: <code>cifar100 evaluate</code> measures it.</p>"
    names = {"top5": "top-5", "superclass_top1": "superclass accuracy"}
    others = "".join(f", {measured[key]:.1%} {name}" for key, name in names.items() if measured.get(key) is not None)
    text = f"""<h2>Accuracy</h2>
<p><b>{escaped(info.accuracy)}</b>{others}. {1 - measured["top1"]:.0%} of its top-1 predictions are wrong.</p>"""
    if not measured.get("per_class"):
        return text
    ranked = sorted(measured["per_class"].items(), key=lambda item: item[1])
    for title, some in (("Lowest accuracy", ranked[:NUM_RANKED]), ("Highest", ranked[: -NUM_RANKED - 1 : -1])):
        bars = "".join(_percent_bar(escaped_name(name), "", accuracy) for name, accuracy in some)
        text += f"<h3>{title}</h3><ol class='bars'>{bars}</ol>"
    return text


def _limits(info: ModelInfo) -> str:
    return f"""<h2>Limits</h2>
<p>It predicts one of its {len(info.classes)} classes for any image. <i>Unsure</i> marks answers below
{MIN_PROBABILITY:.0%}, single-color images and noise; it misses most images of other classes. The model input has
{info.image_size}×{info.image_size} pixels. Do not rely on it for anything that matters, and never to judge people.
</p>"""


def classes(info: ModelInfo) -> str:
    """All classes, by superclass if there are any."""
    groups: dict[str, list[str]] = {}
    for class_id, name in enumerate(info.classes):
        groups.setdefault(info.superclass(class_id) or "classes", []).append(name)
    cards = ""
    for group, names in sorted(groups.items()):
        items = "".join(f"<li>{escaped_name(name)}</li>" for name in names)
        cards += f"<div class='card'><h3>{escaped_name(group)}</h3><ul>{items}</ul></div>"
    return f"<p>{len(info.classes)} classes in {len(groups)} groups.</p><div class='cards'>{cards}</div>"


def image(pixels: np.ndarray, text: str, *, width: int, css_class: str = "") -> str:
    """An <img> of uint8 [H, W, 3], embedded, with this alternative text; `width` is that of its longer side."""
    high, wide = (max(1, width * side // max(pixels.shape)) for side in pixels.shape[:2])
    size, source = f'width="{wide}" height="{high}"', style.data_uri(style.png(pixels, optimize=False), "png")
    return f'<img class="{css_class}" alt="{escaped(text)}" {size} src="{source}">'


def _weights(info: ModelInfo) -> str:
    return f"{escaped(info.name)} <code>{info.digest}</code>"


def _ranking(item: Classified, info: ModelInfo) -> str:
    """A bar for each class, the top-1 larger; before them why the answer is unsure, if it is."""
    reason = item.result.reason
    unsure = f'<p class="unsure"><span class="badge">Unsure</span> {escaped(REASON_TEXT[reason])}</p>' if reason else ""
    bars = "".join(_bar(prediction, info) for prediction in item.result.predictions)
    return f'{unsure}<ol class="bars ranking">{bars}</ol>'


def _bar(prediction: Prediction, info: ModelInfo) -> str:
    superclass = escaped_name(info.superclass(prediction.class_id))
    return _percent_bar(escaped_name(prediction.class_name), superclass, prediction.probability)


def _percent_bar(name: str, subtitle: str, fraction: float) -> str:
    return (
        f'<li><span class="name">{name}<small>{subtitle}</small></span>'
        f'<span class="track" aria-hidden="true"><span style="width:{fraction:.1%}"></span></span>'
        f'<span class="share">{fraction:.1%}</span></li>'
    )
