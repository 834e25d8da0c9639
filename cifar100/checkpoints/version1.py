"""Files of format version 1, which stored sentences in place of fields, in the form of version 2."""

from __future__ import annotations

import re
from typing import Any

from cifar100.support.provenance import DatasetInfo, Selection

_COUNT = r"[\d,]{1,15}"
_DATASET = re.compile(
    r"(?P<name>.+?)"
    r"( \((?P<verified>verified)\)| (?P<altered>layout, but NOT the published images)"
    rf"| \((?P<classes>{_COUNT}) classes, (?P<size>\d{{1,5}})x\d+\))?"
    rf": (?P<train>{_COUNT}) train and (?P<test>{_COUNT}) test images( from .*)?",
    re.DOTALL,
)

_MODIFIED = ", changed"

_BEST = {
    "the best top-1 on test": Selection(rule="best", split="test"),
    "the best top-1 on val": Selection(rule="best", split="val"),
}


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, of the JSON next to weights, or of ONNX metadata. Values of wrong types are kept."""
    content = dict(content)
    if isinstance(content.get("dataset", ""), str):
        content["dataset"] = _dataset(content)
    if isinstance(content.get("chosen_on", ""), str):
        content["selection"] = _selection(content.pop("chosen_on", ""))
    if isinstance(content.get("calibration"), dict):
        content["calibration"] = _calibration(content["calibration"])
    return upgrade_recipe(content)


def upgrade_recipe(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file, or of a run's config.json, in which "recipe" may say whether it was modified."""
    recipe = content.get("recipe")
    if "modified" in content or not isinstance(recipe, str):
        return content
    return content | {"recipe": recipe.removesuffix(_MODIFIED), "modified": recipe.endswith(_MODIFIED)}


def _dataset(content: dict[str, Any]) -> dict[str, Any]:
    """`DatasetInfo` as a dict."""
    match, fingerprint = _DATASET.fullmatch(content.get("dataset", "")), content.pop("fingerprint", "")
    if match is None:
        return DatasetInfo(fingerprint=fingerprint).to_dict()
    found = match.groupdict()
    classes, size = content.get("classes"), content.get("image_size")
    info = DatasetInfo(
        name=found["name"],
        verified=True if found["verified"] else False if found["altered"] else None,
        synthetic=found["name"].startswith("SYNTHETIC"),
        num_train=_number(found["train"]),
        num_test=_number(found["test"]),
        num_classes=len(classes) if isinstance(classes, list) else 0,
        image_size=size if isinstance(size, int) else 0,
        fingerprint=fingerprint,
    )
    return info.to_dict()


def _selection(sentence: str) -> dict[str, Any] | None:
    """`Selection` as a dict; None if unknown."""
    if sentence in _BEST:
        return _BEST[sentence].to_dict()
    if sentence in ("the latest epoch", "the last epoch"):
        return Selection(rule="last").to_dict()
    if sentence == "the latest step":
        return Selection(rule="step").to_dict()
    return Selection(rule="periodic").to_dict() if re.fullmatch(r"every \d+ epochs", sentence) else None


def _calibration(values: dict[str, Any]) -> dict[str, Any] | None:
    """`TemperatureFit` as a dict; None without a temperature."""
    if "temperature" not in values:
        return None
    origin = str(values.get("origin", ""))
    values = {"temperature": values["temperature"]}
    match = re.search(rf"on (test|val|train)\b(?:, ({_COUNT}) images)?", origin)
    if match:
        return values | {"fitted_on": f"{match[1]}-crossfit", "num_images": _number(match[2] or "")}
    match = re.match(rf"the ({_COUNT}) train images that its training held out", origin)
    return values | ({"fitted_on": "val", "num_images": _number(match[1])} if match else {})


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)
