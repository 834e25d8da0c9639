"""The HTML pages of reports, which load nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from cifar100.report.style import display_name

MARK = '<meta name="generator" content="cifar100 report">'
"""Identifies a page that this module wrote."""


def render(template: str, content: dict[str, Any]) -> str:
    """The page of a template here with this content; names in it are escaped. Raises UndefinedError if something that
    the template needs is missing."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def source(name: str) -> str:
        return files("cifar100.report").joinpath(name).read_text(encoding="utf-8")

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=FunctionLoader(source), autoescape=True, undefined=StrictUndefined, **options)
    environment.filters["display_name"] = display_name
    return environment.get_template(template).render(content, css=Markup(source("page.css")))  # noqa: S704  ours
