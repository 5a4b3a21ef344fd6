"""Pictures as SVG inside a page: they follow its colours and tell a screen reader what they show."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from deepscaler.pictures.style import GRID, INK, QUIET, SERIES

VARIABLES = {
    INK.lower(): "--ink",
    "#000000": "--ink",
    QUIET.lower(): "--quiet",
    GRID.lower(): "--grid",
    "#ffffff": "--paper",
    **{colour.lower(): f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
"""Colours of `style` and the variables of a page's style sheet that stand for them."""
FONT = "system-ui, sans-serif"


def inline_svg(figure: Any, name: str, title: str, told: str) -> str:
    """The figure as an `<svg>` element, as wide as what holds it.

    Args:
        figure: a matplotlib figure.
        name: letters, digits and `-`; unique in the page.
        title: what it shows, in a few words.
        told: what is to be seen in it, for who can't see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = _own_names(drawing, name)
    drawing = re.sub(r"#[0-9a-f]{6}\b", _variable, drawing)
    drawing = re.sub(r"font-family: [^;\"]*", f"font-family: {FONT}", drawing)
    drawing = re.sub(r"font: ([^;\"]*?px) [^;\"]*", rf"font: \1 {FONT}", drawing)
    drawing = re.sub(r"(\d\.\d{2})\d+", r"\1", drawing)  # a hundredth of a point is finer than any screen
    [(box, rest)] = re.findall(r"^<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>(.*)$", drawing, flags=re.DOTALL)
    ids = f"{name}-title", f"{name}-told"
    names = f'role="img" aria-labelledby="{ids[0]} {ids[1]}"'
    head = f'<svg {box} {names} xmlns:xlink="http://www.w3.org/1999/xlink">'
    words = f'<title id="{ids[0]}">{html.escape(title)}</title><desc id="{ids[1]}">{html.escape(told)}</desc>'
    return str(head + words + rest.strip())


def _own_names(drawing: str, name: str) -> str:
    """Ids that nothing refers to are left out, and the others begin with the picture's name."""
    used = set(re.findall(r"(?:href=\"|url\()#([\w-]+)", drawing))
    drawing = re.sub(
        r' id="([\w.-]+)"', lambda one: f' id="{name}-{one[1]}"' if one[1] in used else "", drawing
    )
    return re.sub(r"(href=\"|url\()#([\w-]+)", rf"\1#{name}-\2", drawing)


def _variable(found: re.Match[str]) -> str:
    colour = found[0]
    return f"var({VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour
