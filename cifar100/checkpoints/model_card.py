"""The model card of a checkpoint: what it is, how good, on what, trained how and where; all out of the checkpoint."""

from __future__ import annotations

import html
import json
import re

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.support.text import escape_control_chars, trained_on

HUB_DATASETS = {"CIFAR-100": "uoft-cs/cifar100", "CIFAR-10": "uoft-cs/cifar10"}


def model_card(checkpoint: Checkpoint, repository: str) -> str:
    """Markdown with a front matter as the Hugging Face hub reads it."""
    dataset = trained_on(checkpoint.dataset)
    lines = [
        "---",
        *_front_matter(checkpoint, repository),
        "---",
        "",
        f"# {_text(repository.rsplit('/', maxsplit=1)[-1])}",
        "",
    ]
    if dataset.startswith("SYNTHETIC"):
        lines += ["**Trained on made-up images, to try the toolkit: its answers and figures mean nothing.**", ""]
    size, count = checkpoint.image_size, len(checkpoint.classes)
    lines += [
        f"A {_text(checkpoint.model)} for {size}x{size} RGB images of {count:,} classes, made with cifar100.",
        "",
        "```python",
        "from cifar100 import load_predictor",
        "",
        f'predictor = load_predictor("hf://{repository}")',
        'for class_name, class_id, probability in predictor.predict("photo.jpg"):',
        '    print(f"{class_name}: {probability:.2%}")',
        "```",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in [*_figures(checkpoint), *_origin(checkpoint, dataset)]),
        "",
        f"It names one of its {count:,} classes whatever it is shown; how often that is wrong, the figures say. Not "
        "for decisions about people, or anything that matters if wrong.",
        "",
        "## Classes",
        "",
        f"{count:,}: " + ", ".join(_text(name) for name in checkpoint.classes),
        "",
    ]
    return "\n".join(lines)


def _figures(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Accuracy, with what it was measured on."""
    measured, evaluated = checkpoint.evaluation or checkpoint.metrics, bool(checkpoint.evaluation)
    if "top1" not in measured:
        return [("accuracy", "not measured")]
    split = _text(measured.get("split", "an unnamed split"))
    on = f"the {measured['images']:,} {split} images" if evaluated and "images" in measured else f"the {split} images"
    seed = checkpoint.config.get("seed")
    run = "one run" + (f", seed {seed}" if isinstance(seed, int) else "")
    kept = f"; kept as {_text(checkpoint.chosen_on)}" if checkpoint.chosen_on else ""
    figures = [("**top-1**", f"**{measured['top1']:.2%}** on {on}, single view; n = {run}{kept}")]
    others = {"top5": "top-5", "superclass_top1": "superclass"}
    figures += [(name, f"{measured[key]:.2%}") for key, name in others.items() if measured.get(key) is not None]
    computed = measured.get("compute") if evaluated else checkpoint.compute
    return [*figures, ("figures computed by", _text(computed))] if computed else figures


def _origin(checkpoint: Checkpoint, dataset: str) -> list[tuple[str, str]]:
    """What it was trained on, how, with what."""
    said = [("trained on", _text(dataset))]
    if checkpoint.recipe:
        names = ("epochs", "batch_size", "optimizer", "lr")
        settings = [f"{name} {checkpoint.config[name]}" for name in names if name in checkpoint.config]
        said.append(("recipe", _text(", ".join([checkpoint.recipe, *settings]))))
    if checkpoint.compute:
        said.append(("hardware", _text(checkpoint.compute)))
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (checkpoint.mean, checkpoint.std))
    said.append(("pixels", f"in 0..1, less {mean}, over {std}"))
    if checkpoint.calibration.get("temperature"):
        said.append(("temperature", f"{checkpoint.calibration['temperature']:.3f}"))
    versions = ", ".join(f"{name} {version}" for name, version in checkpoint.versions.items())
    return [*said, ("versions", _text(versions))]


def _front_matter(checkpoint: Checkpoint, repository: str) -> list[str]:
    """YAML, of which JSON is a part."""
    known = next((name for name in HUB_DATASETS if checkpoint.dataset.startswith(f"{name} (verified)")), None)
    said: dict[str, object] = {
        "library_name": "cifar100",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": ["cifar100", "resnet", "image-classification"],
    }
    top1, images = checkpoint.evaluation.get("top1"), checkpoint.evaluation.get("split")
    if known:
        said["datasets"] = [HUB_DATASETS[known]]
    if known and top1 is not None:
        said["model-index"] = [
            {
                "name": repository.rsplit("/", maxsplit=1)[-1],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": known, "type": HUB_DATASETS[known], "split": images},
                        "metrics": [{"type": "accuracy", "value": top1}],
                    }
                ],
            }
        ]
    return [f"{name}: {json.dumps(value)}" for name, value in said.items()]


def _text(name: object) -> str:
    """Names from data as text of Markdown, whatever is in them."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(escape_control_chars(name), quote=False))
