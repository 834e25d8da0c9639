"""Check the content of an untrusted file before anything of it is converted, printed or allocated.

The values come from a .pth file, from the JSON next to a .safetensors file, or from the metadata of an ONNX file. Each
function returns what is wrong, as the rest of a sentence, or "" if nothing is. torch is imported only for tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cifar100.support.provenance import read_records
from cifar100.support.settings import is_number

MAX_CLASSES = 100_000
MAX_IMAGE_SIZE = 1024
MAX_VALUES = 1_000_000
MAX_DEPTH = 6
MAX_TEXT = 10_000
"""Characters of one string."""

TENSOR_FIELDS = ("weights", "training_weights", "optimizer")

KINDS: dict[str, type] = {
    **dict.fromkeys((*TENSOR_FIELDS, "config", "metrics", "evaluation", "versions"), dict),
    **dict.fromkeys(("loop", "scaler"), dict),
    **dict.fromkeys(("classes", "superclasses", "superclass_of", "history", "assumed", "left_aside"), list),
    **dict.fromkeys(("recipe", "compute"), str),
    "modified": bool,
}
"""{field of a checkpoint: its type}. A missing field is read as empty."""

TEXT_FIGURES = ("split", "compute")
FIGURES = ("images", "loss", "top1", "top5", "superclass_top1", "seconds", "images_per_second", "elapsed_seconds")
"""Keys of `metrics` and `evaluation` whose values are text (TEXT_FIGURES) and numbers (FIGURES)."""


def size_problem(content: Mapping[str, Any]) -> str:
    """The first field whose value is not plain data or is too large, described; "" if there is none.

    Limits: MAX_TEXT characters per string, 64 bits per integer, MAX_VALUES values per field, MAX_DEPTH levels of
    nesting. Tensors are allowed only in TENSOR_FIELDS. Call it before anything else uses the content.
    """
    for name, value in content.items():
        problem = _excess(value, tensors=name in TENSOR_FIELDS)
        if problem:
            return f"its {str(name)[:40]} holds {problem}"
    return ""


def field_problem(content: Mapping[str, Any]) -> str:
    """What is wrong with the fields of a checkpoint: sizes, types, ranges. Of tensors only that they are tensors."""
    problem = size_problem(content)
    if problem:
        return problem
    for name in ("weights", "training_weights"):
        if name in content and not is_state_dict(content[name]):
            return f"its {name} are no state dict"
    if not isinstance(content.get("model"), str):
        return "it names no model"
    for name, kind in KINDS.items():
        if not isinstance(content.get(name, kind()), kind):
            return f"its {name} is a {type(content[name]).__name__}"
    try:
        read_records(content)
    except ValueError as error:
        return str(error)
    return _class_problem(content) or _pixel_problem(content) or _figure_problem(content)


def is_state_dict(value: Any) -> bool:
    """Whether this is a dict of tensors by name."""
    from torch import Tensor

    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _excess(value: Any, *, tensors: bool) -> str:
    """What in `value` is not plain data or exceeds the limits; "" if nothing does.

    A list that occurs several times is counted each time: a file of a few bytes can expand to any number of values.
    """
    waiting = [(value, 0)]
    for count in range(MAX_VALUES):
        if not waiting:
            return ""
        item, depth = waiting.pop()
        if not isinstance(item, dict | list | tuple):
            problem = _leaf_excess(item, tensors=tensors)
            if problem:
                return problem
            continue
        if depth >= MAX_DEPTH or len(item) + len(waiting) + count > MAX_VALUES:
            break
        if isinstance(item, dict):
            if not all(
                (isinstance(key, str) and len(key) <= MAX_TEXT) or (tensors and type(key) is int) for key in item
            ):
                return "keys that are no names"
            item = item.values()
        waiting += [(part, depth + 1) for part in item]
    return "more values than a checkpoint has"


def _leaf_excess(item: Any, *, tensors: bool) -> str:
    if isinstance(item, str):
        return f"a text of {len(item):,} characters" if len(item) > MAX_TEXT else ""
    if isinstance(item, int):
        return "" if abs(item) < 1 << 63 else "a number of more than 64 bits"
    is_tensor = tensors and hasattr(item, "untyped_storage")
    return "" if item is None or isinstance(item, float) or is_tensor else f"a {type(item).__name__}"


def _class_problem(content: Mapping[str, Any]) -> str:
    classes, superclasses = content.get("classes"), content.get("superclasses", [])
    places = content.get("superclass_of", [])
    if not classes or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if len(classes) > MAX_CLASSES:
        return f"it names {len(classes):,} classes; more than {MAX_CLASSES:,} are not believed"
    if not all(isinstance(name, str) for name in superclasses):
        return "its superclasses are no list of names"
    if len(places) != (len(classes) if superclasses else 0):
        return f"its superclass_of is of {len(places):,} classes, not {len(classes):,}"
    if not all(type(place) is int and 0 <= place < len(superclasses) for place in places):
        return "its superclass_of names superclasses that there are not"
    return ""


def _pixel_problem(content: Mapping[str, Any]) -> str:
    for name in ("mean", "std"):
        values = content.get(name)
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(is_number, values)):
            return "its mean and std are not three numbers each"
    if max(map(abs, [*content["mean"], *content["std"]])) > 1000:
        return "its mean and std are not of pixels in 0..1"
    if min(content["std"]) < 1e-6:
        return "its std is not above 0"
    size = content.get("image_size", 32)
    if type(size) is not int or not 1 <= size <= MAX_IMAGE_SIZE:
        return "its image_size is no size in pixels"
    return ""


def _figure_problem(content: Mapping[str, Any]) -> str:
    for field in ("metrics", "evaluation"):
        found = content.get(field, {})
        wrong = [name for name in FIGURES if not (found.get(name) is None or is_number(found[name]))]
        wrong += [name for name in TEXT_FIGURES if not isinstance(found.get(name) or "", str)]
        wrong += [name for name in ("per_class", "per_superclass") if not _is_shares(found.get(name, {}))]
        if wrong:
            return f"its {field} has a wrong {wrong[0]}"
    if not all(isinstance(value, str) for value in content.get("versions", {}).values()):
        return "its versions are no text"
    if not all(isinstance(name, str) for field in ("assumed", "left_aside") for name in content.get(field, [])):
        return "its assumed or left_aside are no names"
    if not all(isinstance(row, dict) for row in content.get("history", [])):
        return "its history is not a list of rows"
    return ""


def _is_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def tensor_problem(weights: Mapping[str, Any]) -> str:
    """Why these tensors cannot be the weights of a network: of a kind that is not computed with, not finite, or
    variances below 0. Their shapes must have been checked: a few bytes of a file can claim any size."""
    import torch

    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
    for name, tensor in weights.items():
        short_name = name[:100]
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in kinds:
            kind = f"{tensor.layout}, {tensor.dtype}, on {tensor.device}".replace("torch.", "")
            return f"its {short_name} is of a kind that is not read ({kind})"
        as_fp32 = tensor.float()
        if not bool(torch.isfinite(as_fp32).all()):
            return f"its {short_name} holds numbers that are not finite"
        if name.endswith("running_var") and bool((as_fp32 < 0).any()):
            return f"its {short_name} holds variances below 0"
    return ""
