"""The style of plots, as SVG that follows the reader's color scheme, and as PNG.

Colors are of the Okabe-Ito palette, which color-blind readers can distinguish (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np

from cifar100.support.text import escape_control_chars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1b1f24", "#c8ccd2", "#fffffe"
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
"""Colors and line styles of series; both change, so that they also differ in grayscale."""

_DARK = {INK: "#e4e7eb", FAINT: "#3b414a", PAPER: "#15181d", BLUE: "#4aa8e0", ORANGE: "#f08a3c", GREEN: "#35c79d"}
_FONT = "DejaVu Sans,Verdana,sans-serif"  # of similar widths, so that texts keep their places


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without a display and without affecting the user's matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Titles, colors, thin lines, no box."""
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
    """A name from data, with spaces instead of underscores and control characters escaped."""
    return escape_control_chars(name).replace("_", " ")


def escape_mathtext(name: object) -> str:
    """A name from data as text in a plot: a dollar does not start a formula, control characters are escaped, and a
    legend does not omit it for an underscore at its start."""
    text = escape_control_chars(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def to_svg(figure: Figure) -> str:
    """The figure as SVG whose colors follow the reader's color scheme, with texts as text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cifar100"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing glyphs: the reader's font will have them
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    light, dark = "", ""
    for number, (color, dark_color) in enumerate(_DARK.items()):
        svg = svg.replace(color, f"var(--c{number})")
        light, dark = f"{light}--c{number}:{color};", f"{dark}--c{number}:{dark_color};"
    style = (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}text{{font-family:{_FONT}}}"
    )
    opening, _, rest = svg.partition(">")
    return f"{opening}><style>{style}</style>{rest}"


MAX_PNG_SIDE = 3000
"""Matplotlib needs about 100 bytes per pixel to draw a matrix."""


def to_png(figure: Figure, dpi: int = 140) -> bytes:
    """The figure as PNG on white, of at most `MAX_PNG_SIDE` pixels."""
    dpi = min(dpi, int(MAX_PNG_SIDE / max(figure.get_size_inches())))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing glyphs
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def data_uri(content: bytes | str, kind: str) -> str:
    """An image as a data URI: `kind` is "svg+xml", "png" or "jpeg"."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def png(pixels: np.ndarray, *, optimize: bool = True) -> bytes:
    """Pixels uint8 [H, W, 3] as a PNG file; `optimize` takes ten times as long for a few percent."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=optimize)
    return buffer.getvalue()


def thumbnail(pixels: np.ndarray, largest: int = 128) -> str:
    """Pixels uint8 [H, W, 3] as a data URI: exact for small images, otherwise at most `largest` pixels wide."""
    from PIL import Image

    if max(pixels.shape) <= 48:
        return data_uri(png(pixels), "png")
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((largest, largest))
    image.save(buffer, "JPEG", quality=88)
    return data_uri(buffer.getvalue(), "jpeg")
