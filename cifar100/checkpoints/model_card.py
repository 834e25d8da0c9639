"""The model card of a checkpoint: results, training data, recipe and hardware, from the fields of the checkpoint."""

from __future__ import annotations

import html
import json
import re

from cifar100.checkpoints.checkpoint import Checkpoint
from cifar100.support.provenance import recipe_title
from cifar100.support.text import escape_control_chars

HUB_DATASETS = {"CIFAR-100": "uoft-cs/cifar100", "CIFAR-10": "uoft-cs/cifar10"}


def model_card(checkpoint: Checkpoint, repository: str, *, transformers_js: bool = False) -> str:
    """Markdown with front matter for the Hugging Face Hub; `transformers_js` if that package can load the model."""
    lines = [
        "---",
        *_front_matter(checkpoint, repository),
        "---",
        "",
        f"# {_text(repository.rsplit('/', maxsplit=1)[-1])}",
        "",
    ]
    if checkpoint.dataset.synthetic:
        lines += ["**Trained on synthetic images for a smoke test: predictions and figures are meaningless.**", ""]
    size, count = checkpoint.image_size, len(checkpoint.classes)
    lines += [
        f"A {_text(checkpoint.model)} for {size}x{size} RGB images of {count:,} classes, trained with cifar100.",
        "",
        "```python",
        "from cifar100 import load_predictor",
        "",
        f'predictor = load_predictor("hf://{repository}")',
        'for class_name, class_id, probability in predictor.predict("photo.jpg"):',
        '    print(f"{class_name}: {probability:.2%}")',
        "```",
        "",
        *(_javascript(repository) if transformers_js else []),
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in [*_figures(checkpoint), *_origin(checkpoint)]),
        "",
        f"It predicts one of its {count:,} classes for any image. Not for decisions about people, or any use in which "
        "errors matter.",
        "",
        "## Classes",
        "",
        f"{count:,}: " + ", ".join(_text(name) for name in checkpoint.classes),
        "",
    ]
    return "\n".join(lines)


def _javascript(repository: str) -> list[str]:
    return [
        "In JavaScript, with transformers.js:",
        "",
        "```js",
        'import { pipeline } from "@huggingface/transformers";',
        f'const classify = await pipeline("image-classification", "{repository}");',
        'console.log(await classify("photo.jpg"));',
        "```",
        "",
    ]


def _figures(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Accuracy, and the images that it was measured on."""
    measured, evaluated = checkpoint.evaluation or checkpoint.metrics, bool(checkpoint.evaluation)
    if measured.get("top1") is None:
        return [("accuracy", "not measured")]
    split = _text(measured.get("split", "an unnamed split"))
    on = f"the {measured['images']:,} {split} images" if evaluated and "images" in measured else f"the {split} images"
    seed = checkpoint.config.get("seed")
    run = "one run" + (f", seed {seed}" if isinstance(seed, int) else "")
    kept = f"; selected: {checkpoint.selection}" if checkpoint.selection else ""
    figures = [("**top-1**", f"**{measured['top1']:.2%}** on {on}, single view; {run}{kept}")]
    others = {"top5": "top-5", "superclass_top1": "superclass"}
    figures += [(name, f"{measured[key]:.2%}") for key, name in others.items() if measured.get(key) is not None]
    computed = measured.get("compute") if evaluated else checkpoint.compute
    return [*figures, ("evaluated on", _text(computed))] if computed else figures


def _origin(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Training data, recipe, hardware, preprocessing, versions."""
    rows = [("trained on", _text(checkpoint.dataset.train_description))]
    if checkpoint.recipe:
        names = ("epochs", "batch_size", "optimizer", "lr")
        settings = [f"{name} {checkpoint.config[name]}" for name in names if name in checkpoint.config]
        rows.append(("recipe", _text(", ".join([recipe_title(checkpoint.recipe, checkpoint.modified), *settings]))))
    if checkpoint.compute:
        rows.append(("hardware", _text(checkpoint.compute)))
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (checkpoint.mean, checkpoint.std))
    rows.append(("normalization", f"pixels in 0..1, mean {mean}, std {std}"))
    if checkpoint.notes:
        rows.append(("assumed", _text("; ".join(checkpoint.notes))))
    if checkpoint.calibration:
        rows.append(("temperature", f"{checkpoint.calibration.temperature:.3f}, {checkpoint.calibration.origin}"))
    versions = ", ".join(f"{name} {version}" for name, version in checkpoint.versions.items())
    return [*rows, ("versions", _text(versions))]


def _front_matter(checkpoint: Checkpoint, repository: str) -> list[str]:
    """YAML, written as JSON."""
    known = checkpoint.dataset.name if checkpoint.dataset.verified else ""
    fields: dict[str, object] = {
        "library_name": "cifar100",
        "license": "mit",
        "pipeline_tag": "image-classification",
        "tags": ["cifar100", "resnet", "image-classification"],
    }
    top1, split = checkpoint.evaluation.get("top1"), checkpoint.evaluation.get("split")
    if known in HUB_DATASETS:
        fields["datasets"] = [HUB_DATASETS[known]]
    if known in HUB_DATASETS and top1 is not None:
        fields["model-index"] = [
            {
                "name": repository.rsplit("/", maxsplit=1)[-1],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": known, "type": HUB_DATASETS[known], "split": split},
                        "metrics": [{"type": "accuracy", "value": top1}],
                    }
                ],
            }
        ]
    return [f"{name}: {json.dumps(value)}" for name, value in fields.items()]


def _text(name: object) -> str:
    """Escape names from data for Markdown."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(escape_control_chars(name), quote=False))
