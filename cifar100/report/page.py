"""The HTML pages of reports, which load nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from cifar100.report.style import display_name
from cifar100.support.text import escape_control_chars

MARK = '<meta name="generator" content="cifar100 report">'
"""Identifies a page that this module wrote."""


def render(template: str, content: dict[str, Any]) -> str:
    """The page of a template here with this content; control characters and HTML in it are escaped.

    Raises UndefinedError if something that the template needs is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    options |= {"undefined": StrictUndefined, "finalize": _shown}
    environment = Environment(loader=PackageLoader("cifar100", "report"), autoescape=True, **options)
    environment.filters["display_name"] = display_name
    return environment.get_template(template).render(content)


def _shown(value: object) -> object:
    """Text with control characters escaped; HTML of the templates, and no-break spaces, as they are."""
    if not isinstance(value, str) or value.isprintable() or hasattr(value, "__html__"):
        return value
    return "\u00a0".join(map(escape_control_chars, value.split("\u00a0")))
