"""How figures look, and how one becomes a picture: SVG that follows the reader's light or dark, and PNG, light.

Colours are of the Okabe-Ito palette, told apart by colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from cifar100.support.text import escape_control_chars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1b1f24", "#c8ccd2", "#fffffe"
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
"""Colours and lines of things side by side; both change, so that print in grey tells them apart too."""

_DARK = {INK: "#e4e7eb", FAINT: "#3b414a", PAPER: "#15181d", BLUE: "#4aa8e0", ORANGE: "#f08a3c", GREEN: "#35c79d"}
_FONT = "DejaVu Sans,Verdana,sans-serif"  # of one width, so that texts keep to the places they were given


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, drawn without a display and without touching the user's matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """The house's look for one pair of axes: ink, thin lines, no box."""
    axes.set_facecolor("none")
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(FAINT)
    if grid:
        axes.grid(color=FAINT, linewidth=0.6, alpha=0.7)
        axes.set_axisbelow(True)
    legend = axes.get_legend()
    if legend is not None:
        for text in legend.get_texts():
            text.set_color(INK)


def display_name(name: object) -> str:
    """A name from data as people write it; control characters in it are shown, not followed."""
    return escape_control_chars(name).replace("_", " ")


def escape_mathtext(name: object) -> str:
    """A name from data as text for a figure: no formula begins at its dollar, and nothing in it breaks an XML file."""
    return escape_control_chars(name).replace("$", r"\$")


def to_svg(figure: Figure) -> str:
    """The figure as SVG whose ink and paper follow the reader's colour scheme, its texts as text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cifar100"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that our font lacks: the reader's will have them
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    light, dark = "", ""
    for number, (colour, at_night) in enumerate(_DARK.items()):
        svg = svg.replace(colour, f"var(--c{number})")
        light, dark = f"{light}--c{number}:{colour};", f"{dark}--c{number}:{at_night};"
    style = (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}text{{font-family:{_FONT}}}"
    )
    opening, _, rest = svg.partition(">")
    return f"{opening}><style>{style}</style>{rest}"


def to_png(figure: Figure, dpi: int = 140) -> bytes:
    """The figure as PNG on white, for places that take no SVG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that our font lacks
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def data_uri(content: bytes | str, kind: str) -> str:
    """A picture as an address that holds it: `kind` is "svg+xml", "png" or "jpeg"."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def thumbnail(pixels: Any, largest: int = 128) -> str:
    """Pixels uint8 [H, W, 3] as a data address: exact for small images, at most `largest` on a side otherwise."""
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= 48:
        image.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "png")
    image.thumbnail((largest, largest))
    image.save(buffer, "JPEG", quality=88)
    return data_uri(buffer.getvalue(), "jpeg")
