"""The page itself: content in, one HTML file out that asks the network for nothing."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from cifar100.report.style import pretty

MARK = '<meta name="generator" content="cifar100 report">'
"""What tells a page of ours from another."""


def render(content: dict[str, Any]) -> str:
    """The page of this content; names in it are escaped, whatever they hold. Raises UndefinedError where the content
    lacks something that `page.html` asks for."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("cifar100.report")
    css = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))  # noqa: S704  ours
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pretty"] = pretty
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(content, css=css)
