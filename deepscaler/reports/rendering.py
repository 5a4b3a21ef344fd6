"""From templates to pages that stand alone: no script, no font and no picture comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepscaler import __version__
from deepscaler.artefacts import write_text

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PageTable:
    """A table of a page.

    Attributes:
        caption: what it shows.
        heads: of the columns.
        rows: cells; the first of each row is its heading.
        note: a sentence below it, or "".
        texts: heads of columns that hold texts, which begin at the left and take several lines.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class PageSection:
    """A part of a page.

    Attributes:
        anchor: its id.
        title: its heading.
        paragraphs: texts above tables and pictures.
        tables: below them.
        pictures: `<svg>` elements and their captions, side by side where there is room.
        listing: a long text that is shown when asked for, or "".
    """

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[tuple[str, str]] = field(default=(), repr=False)
    listing: str = ""


def render(title: str, about: str, lead: Sequence[str], sections: Sequence[PageSection]) -> str:
    """The page as HTML.

    Args:
        title: of the page, also its first heading.
        about: the line below it.
        lead: the answer, the most important sentence first.
        sections: what follows; those without content are left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled = [one for one in sections if one.paragraphs or one.tables or one.pictures or one.listing]
    values: dict[str, Any] = {"title": title, "about": about, "lead": lead, "sections": filled}
    return environment.get_template("page.html").render(**values, version=__version__)


def write_page(path: str | Path, page: str) -> None:
    """Replace the file at `path` by the page."""
    write_text(path, page)
