"""A report as Markdown, or as one self-contained HTML file with embedded pictures and styles, without scripts.

The caller decides the content, this module the appearance. All text is escaped, including names of classes and runs.
"""

import base64
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jinja2
from markupsafe import Markup, escape

from mets_ray.errors import MetsError

Cell = str | int | float | None
"""A float is shown to 3 decimals, an int with thousands separators, nan and None as a dash; pass others as text."""

_NO_VALUE = "–"
_PNG = b"\x89PNG\r\n\x1a\n"

# "0.83", "-1.2e-3", "83%", "0.83 [0.78, 0.87]", but not "4 of 5" and not "3 leads".
_NUMBER = re.compile(r"[<>≤≥=~±+\-−]*\s*\d[\d\s.,%eE+\-−–±()\[\]/×]*[†*]?")


@dataclass(frozen=True)
class Table:
    """Each row is as long as `header`; its first cell is the row's name. Numeric columns are right-aligned."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Picture:
    """A PNG; `alt` describes it to readers who cannot see it, and must not be empty."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """`text` is plain text; empty lines separate paragraphs. A `collapsed` section opens with heading and text only."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    collapsed: bool = False


@dataclass(frozen=True)
class Finding:
    """One line of a verdict: `stop` is a fault to mend first, `look` is for a person to judge, `fine` was looked at."""

    level: Literal["stop", "look", "fine"]
    title: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report: `alarms` come first, in red, then `notices`, then the `verdict`; `facts` are short values by
    name."""

    title: str
    notices: Sequence[str] = ()
    alarms: Sequence[str] = ()
    verdict: Sequence[Finding] = field(default=(), kw_only=True)
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()


def render(page: Page) -> str:
    """The page as HTML, to be written as UTF-8.

    Raises MetsError for a row that is not as long as its header, a picture that is not a PNG or has no alt text.
    """
    loader = jinja2.PackageLoader("mets_ray.results", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    anchors = _anchors([section.title for section in page.sections])
    sections = [_section(section, anchor) for section, anchor in zip(page.sections, anchors, strict=True)]
    return environment.get_template("page.html.jinja").render(page=page, sections=sections)


def markdown(page: Page) -> str:
    """The page as Markdown, without its facts and pictures."""
    lines = [f"# {page.title}", ""]
    lines += [*(f"**ALARM: {alarm}**" for alarm in page.alarms), *(f"**{notice}**" for notice in page.notices), ""]
    if page.verdict:
        lines += [*(f"- **{one.level}: {one.title}.** {one.text} {one.remedy}".rstrip() for one in page.verdict), ""]
    for section in page.sections:
        lines += [f"## {section.title}", "", *([section.text, ""] if section.text else ())]
        for table in section.tables:
            lines += [*([table.caption, ""] if table.caption else ()), *_markdown_rows(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _code(text: str) -> Markup:
    """The text escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _markdown_rows(table: Table) -> Iterator[str]:
    for cells in (table.header, ["---"] * len(table.header), *table.rows):
        yield f"| {' | '.join(_shown(cell).replace('|', '/') for cell in cells)} |"


def _section(section: Section, anchor: str) -> dict[str, Any]:
    return {
        "anchor": anchor,
        "title": section.title,
        "paragraphs": [text.strip() for text in re.split(r"\n\s*\n", section.text) if text.strip()],
        "tables": [_table(table, section.title) for table in section.tables],
        "pictures": [_picture(picture, section.title) for picture in section.pictures],
        "collapsed": section.collapsed,
        "inside": _inside(section),
    }


def _table(table: Table, section: str) -> dict[str, Any]:
    for row in table.rows:
        if len(row) != len(table.header):
            raise MetsError(
                f"a row of {len(row)} cells under a header of {len(table.header)}",
                where=f"table `{table.caption}`, section `{section}`",
            )
    rows = [[_shown(cell) for cell in row] for row in table.rows]
    columns = [[row[column] for row in rows] for column in range(len(table.header))]
    return {
        "caption": table.caption,
        "header": table.header,
        "rows": rows,
        "numeric": [_is_numeric(column) for column in columns],
    }


def _picture(picture: Picture, section: str) -> dict[str, str]:
    where = f"section `{section}`"
    if not picture.png.startswith(_PNG):
        raise MetsError("a picture is no PNG", where=where)
    if not picture.alt.strip():
        raise MetsError("a picture has no alt text", where=where, hint="say in one sentence what it shows")
    return {
        "base64": base64.b64encode(picture.png).decode(),
        "alt": picture.alt,
        "caption": picture.caption,
        # Width and height, from the PNG's first chunk, keep the layout stable while pictures are decoded.
        "width": str(int.from_bytes(picture.png[16:20], "big")),
        "height": str(int.from_bytes(picture.png[20:24], "big")),
    }


def _shown(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return _NO_VALUE
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _is_numeric(column: Sequence[str]) -> bool:
    """Whether the column has numbers and, apart from them, only dashes and empty cells."""
    told = [text.strip() for text in column if text.strip() not in ("", "-", _NO_VALUE, "—")]
    return bool(told) and all(_NUMBER.fullmatch(text) for text in told)


def _inside(section: Section) -> str:
    """The contents of a collapsed section, for example "2 tables, 1 picture"."""
    counts = ((len(section.tables), "table"), (len(section.pictures), "picture"))
    return ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts if count)


def _anchors(titles: Sequence[str]) -> Iterator[str]:
    """A unique anchor for each title, in plain letters so that a link to it can be typed."""
    given: set[str] = set()
    for title in titles:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        anchor, number = stem, 1
        while anchor in given or anchor in ("contents", "report"):
            number += 1
            anchor = f"{stem}-{number}"
        given.add(anchor)
        yield anchor
