"""What the page shows, as HTML, each part a function. Names are escaped; pictures travel inside, none is a file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cifar100.inference import Prediction
from cifar100.prediction.cam import Model
from cifar100.support.text import escape_control_chars
from cifar100.web.service import Answer, Refusal

WORST = 10

NOTHING = '<p class="hint">The answer appears here.</p>'


def escaped(text: object) -> str:
    """Text from data, as text of a page."""
    return html.escape(escape_control_chars(text))


def words(name: str) -> str:
    """A class name as people write it, escaped."""
    return escaped(name.replace("_", " "))


def answer(of: Answer, model: Model) -> str:
    """One picture: verdict, bars, what the network saw and where."""
    best = of.predictions[0]
    size = len(of.seen)
    seen = picture(
        of.seen, f"The picture as the network sees it, {size} by {size} pixels", side=256, classes="pixelated"
    )
    overlay = picture(of.overlay, f"Heat map: where the network saw {best.class_name}; brighter counts more", side=256)
    return f"""
<section aria-label="Answer">
{_verdict(of, model)}
<ol class="bars">{"".join(_bar(prediction, model) for prediction in of.predictions)}</ol>
<div class="views">
  <figure>{seen}<figcaption>What the network sees: {size}×{size} pixels</figcaption></figure>
  <figure>{overlay}<figcaption>Where it saw <b>{words(best.class_name)}</b> (bright)</figcaption></figure>
</div>
<p class="hint">{of.milliseconds:.0f} ms, from the file to the answer</p>
</section>"""


def refusal(of: Refusal) -> str:
    """Why there is no answer."""
    return f'<section role="alert" class="refusal"><p><b>No answer.</b> {escaped(of.reason)}</p></section>'


def several(answers: Sequence[Answer | Refusal], model: Model) -> str:
    """Many pictures: a row each."""
    if not answers:
        return NOTHING
    rows = []
    for of in answers:
        if isinstance(of, Refusal):
            rows.append(f'<tr class="refusal"><td colspan="3">{escaped(of.reason)}</td></tr>')
            continue
        best, *others = of.predictions[:3]
        unsure = f' <span class="badge" title="{escaped(of.doubt)}">unsure</span>' if of.doubt else ""
        family = words(model.superclass_of.get(best.class_name, ""))
        more = "<br>".join(f"{words(other.class_name)} {other.probability:.0%}" for other in others)
        rows.append(
            f"<tr><td>{picture(of.thumbnail, '', side=64)}</td>"
            f"<td><b>{words(best.class_name)}</b> {best.probability:.0%}{unsure}<br><small>{family}</small>"
            f"<br><small>{escaped(of.name)}</small></td><td>{more}</td></tr>"
        )
    head = "<tr><th>picture</th><th>likeliest</th><th>then</th></tr>"
    bad = sum(isinstance(of, Refusal) for of in answers)
    told = f"{len(answers) - bad} of {len(answers)} pictures answered" if bad else f"{len(answers)} pictures"
    table = f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'
    return f'<section aria-label="Answers"><p class="hint">{told}</p>{table}</section>'


def about_model(model: Model) -> str:
    """The card of the model: what it is, how good, what it confuses most."""
    figures = model.evaluation
    rows = "".join(f"<tr><th scope='row'>{escaped(k)}</th><td>{escaped(v)}</td></tr>" for k, v in model.about.items())
    text = f"<h2>What it is</h2><table>{rows}</table>"
    if not figures:
        return text + "<p>Its accuracy was never measured: <code>cifar100 evaluate</code> does.</p>"
    text += f"""<h2>How good it is</h2>
<p>On {figures["images"]:,} test images of CIFAR-100 that it was not trained on:
<b>{figures["top1"]:.1%}</b> of its first answers are right, {figures["top5"]:.1%} of its first five hold the right one,
{figures["superclass_top1"]:.1%} are of the right superclass. {1 - figures["top1"]:.0%} of its answers are wrong.</p>"""
    ranked = sorted(figures["per_class"].items(), key=lambda item: item[1])
    for title, some in (("Its worst classes", ranked[:WORST]), ("Its best", ranked[: -WORST - 1 : -1])):
        bars = "".join(_share(words(name), "", share) for name, share in some)
        text += f"<h3>{title}</h3><ol class='bars'>{bars}</ol>"
    return f"""{text}<h2>What it is not for</h2>
<p>It names one of its {len(model.classes)} classes whatever it is shown; <i>unsure</i> is a warning that misses two of
three strange pictures. It sees {model.image_size}×{model.image_size} pixels. Nothing that matters should hang on it,
and nothing about people at all.</p>"""


def classes(model: Model) -> str:
    """All classes, by superclass where there are any."""
    families: dict[str, list[str]] = {}
    for name in model.classes:
        families.setdefault(model.superclass_of.get(name, "classes"), []).append(name)
    cards = ""
    for family, names in sorted(families.items()):
        items = "".join(f"<li>{words(name)}</li>" for name in names)
        cards += f"<div class='card'><h3>{words(family)}</h3><ul>{items}</ul></div>"
    return f"<p>The {len(model.classes)} classes, in {len(families)} groups.</p><div class='cards'>{cards}</div>"


def picture(pixels: np.ndarray, text: str, *, side: int, classes: str = "") -> str:
    """An <img> of uint8 [H, W, 3], its content inside."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    size = f'width="{side}" height="{side}"'
    return f'<img class="{classes}" alt="{escaped(text)}" {size} src="data:image/png;base64,{data}">'


def _verdict(of: Answer, model: Model) -> str:
    best = of.predictions[0]
    guess = f"<b>{words(best.class_name)}</b>, {best.probability:.1%}"
    if of.doubt:
        said = f'<span class="badge">Unsure</span> {escaped(of.doubt)} The nearest is {guess}.'
        return f'<p class="verdict unsure">{said}</p>'
    family = model.superclass_of.get(best.class_name, "")
    return f'<p class="verdict">{guess} <small>{words(family)}</small></p>'


def _bar(prediction: Prediction, model: Model) -> str:
    family = model.superclass_of.get(prediction.class_name, "")
    return _share(words(prediction.class_name), words(family), prediction.probability)


def _share(name: str, more: str, share: float) -> str:
    return (
        f'<li><span class="name">{name}<small>{more}</small></span>'
        f'<span class="track" aria-hidden="true"><span style="width:{share:.1%}"></span></span>'
        f'<span class="share">{share:.1%}</span></li>'
    )


STYLE = """
.gradio-container { max-width: min(1080px, 100vw) !important; margin: 0 auto !important; overflow-x: hidden; }
.gradio-container { --soft: #565e6b; --line: #d5d9e0; }
.dark .gradio-container, .gradio-container.dark { --soft: #b4bbc7; --line: #3a3f49; }
.page-head h1 { font-size: 1.7rem; margin: .4rem 0 .2rem; }
.cifar { color: var(--body-text-color); line-height: 1.5; }
.cifar h2 { font-size: 1.25rem; margin: 1.2rem 0 .4rem; }
.cifar h3 { font-size: 1.05rem; margin: 1rem 0 .3rem; }
.cifar .hint, .cifar small { color: var(--soft) !important; }
.cifar .verdict { font-size: 1.35rem; margin: .2rem 0 .8rem; }
.cifar .verdict small { font-size: .95rem; margin-left: .4rem; }
.cifar .badge { background: #8a5a00; color: #fff; border-radius: 6px; padding: .05rem .5rem; font-size: .9em;
  white-space: nowrap; }
.cifar .refusal { border-left: 4px solid #c0392b; padding: .5rem .8rem; background: var(--background-fill-secondary); }
.cifar ol.bars { list-style: none; margin: 0; padding: 0; }
.cifar ol.bars li { display: grid; grid-template-columns: minmax(8rem, 13rem) 1fr 4rem; gap: .7rem; align-items: center;
  margin: .3rem 0; padding: 0; }
.cifar .name small { display: block; line-height: 1.1; }
.cifar .track { background: var(--line); border-radius: 6px; height: .9rem; overflow: hidden; }
.cifar .track span { display: block; height: 100%; background: #2f7dd1; min-width: 2px; }
.cifar .share { text-align: right; font-variant-numeric: tabular-nums; }
.cifar .views { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 .4rem; }
.cifar .views figure { margin: 0; flex: 1 1 8rem; max-width: 256px; }
.cifar .views img { width: 100%; height: auto; border-radius: 8px; margin: 0; }
.cifar img.pixelated { image-rendering: pixelated; }
.cifar figcaption { font-size: .9rem; color: var(--soft) !important; }
.cifar .wide { overflow-x: auto; }
.cifar table, .cifar tr, .cifar th, .cifar td { border: 0 !important; }
.cifar table { border-collapse: collapse; width: 100%; }
.cifar th, .cifar td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line) !important;
  vertical-align: top; overflow-wrap: anywhere; }
.cifar tr.refusal td { border-left: 4px solid #c0392b !important; }
.cifar td img { border-radius: 6px; margin: 0; max-width: none; }
.cifar .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .8rem; }
.cifar .card { border: 1px solid var(--line); border-radius: 10px; padding: .6rem .9rem; }
.cifar .card h3 { margin: 0 0 .3rem; }
.cifar .card ul { margin: 0; padding-left: 1.1rem; }
:focus-visible { outline: 3px solid #2f7dd1 !important; outline-offset: 2px; }
@media (max-width: 560px) {
  .tab-container button { padding: 0 .55rem !important; font-size: .9rem !important; }
  .gradio-container main, .gradio-container .main { padding-left: .4rem !important; padding-right: .4rem !important; }
  .cifar ol.bars li { grid-template-columns: 1fr 3.6rem; row-gap: .1rem; }
  .cifar .track { grid-row: 2; grid-column: 1 / -1; }
}
"""

HEAD = """<script>
document.addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
  if (!file || event.defaultPrevented) return;
  document.querySelector("#picture button[aria-label='Remove Image']")?.click();
  setTimeout(() => {
    const input = document.querySelector("#picture input[type=file]"), carried = new DataTransfer();
    if (!input) return;
    carried.items.add(file);
    input.files = carried.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, 100);
});
new MutationObserver(() => document.querySelectorAll('#examples img[alt=""]').forEach(image => {
  image.alt = "Example: " + decodeURIComponent(image.src).split("/").pop().replace(/[.].*/, "");
})).observe(document, { childList: true, subtree: true });
</script>"""
"""Takes a picture that is pasted anywhere on the page (gradio has a button for it alone), and names the example
pictures, which gradio leaves without, for those who do not see them."""
