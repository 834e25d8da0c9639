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
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("cifar100.report")
    css = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))  # noqa: S704  ours
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["display_name"] = display_name
    source = here.joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(content, css=css)
