"""Files of format version 1, which stored sentences in place of fields, in the form of version 2."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from cifar100.support.provenance import DatasetInfo

_COUNT = r"[\d,]{1,15}"
_DATASET = re.compile(
    r"(?P<name>.+?)"
    r"( \((?P<verified>verified)\)| (?P<altered>layout, but NOT the published images)"
    rf"| \((?P<classes>{_COUNT}) classes, (?P<size>\d{{1,5}})x\d+\))?"
    rf": (?P<train>{_COUNT}) train and (?P<test>{_COUNT}) test images( from .*)?",
    re.DOTALL,
)


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, of the JSON beside weights, or of ONNX metadata. Values of wrong types are kept."""
    content = dict(content)
    if isinstance(content.get("dataset", ""), str):
        content["dataset"] = _dataset(content)
    return content


def _dataset(content: dict[str, Any]) -> dict[str, Any]:
    """`DatasetInfo` as a dict."""
    match, fingerprint = _DATASET.fullmatch(content.get("dataset", "")), content.pop("fingerprint", "")
    if match is None:
        return asdict(DatasetInfo(fingerprint=fingerprint))
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
    return asdict(info)


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)
