"""Files of format version 1, which stored sentences in place of fields, in the form of version 2."""

from __future__ import annotations

from typing import Any

from cifar100.support.provenance import DatasetInfo, Selection

_MODIFIED = ", changed"

_SELECTIONS = {
    "the best top-1 on test": Selection(rule="best", split="test"),
    "the best top-1 on val": Selection(rule="best", split="val"),
    "the latest epoch": Selection(rule="last"),
    "the last epoch": Selection(rule="last"),
    "the latest step": Selection(rule="step"),
}


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Convert the fields of a version 1 checkpoint, or JSON file next to weights, to those of version 2.

    Values of wrong types are kept, for `field_problem` to report.
    """
    content = dict(content)
    if isinstance(content.get("dataset", ""), str):
        content["dataset"] = _dataset(content.get("dataset", ""), content.pop("fingerprint", ""))
    if isinstance(content.get("chosen_on", ""), str):
        selection = _SELECTIONS.get(content.pop("chosen_on", ""))
        content["selection"] = None if selection is None else selection.to_dict()
    if isinstance(content.get("calibration"), dict):
        content["calibration"] = _calibration(content["calibration"])
    return upgrade_recipe(content)


def upgrade_recipe(content: dict[str, Any]) -> dict[str, Any]:
    """Replace the ", changed" that version 1 appended to a modified "recipe" by the field "modified".

    Also for the config.json of a run; content of version 2 is returned as it is.
    """
    recipe = content.get("recipe")
    if "modified" in content or not isinstance(recipe, str):
        return content
    return content | {"recipe": recipe.removesuffix(_MODIFIED), "modified": recipe.endswith(_MODIFIED)}


def _dataset(sentence: str, fingerprint: str) -> dict[str, Any]:
    """`DatasetInfo` as a dict, without the numbers of images."""
    name = sentence.partition(":")[0]
    verified = True if name.endswith(" (verified)") else None
    name = name.removesuffix(" (verified)").removeprefix("unknown")
    synthetic = name.startswith("SYNTHETIC")
    return DatasetInfo(name=name, verified=verified, synthetic=synthetic, fingerprint=fingerprint).to_dict()


def _calibration(values: dict[str, Any]) -> dict[str, Any] | None:
    """`TemperatureFit` as a dict; None without a temperature."""
    if "temperature" not in values:
        return None
    origin = str(values.get("origin"))
    is_test = "cross-fitting on test" in origin  # it is not evaluated on the same images
    fitted_on = "test-crossfit" if is_test else "val" if "its training held out" in origin else ""
    return {"temperature": values["temperature"], "fitted_on": fitted_on}
