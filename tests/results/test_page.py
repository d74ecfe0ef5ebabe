"""report_page.py: one file, well formed, escaped, and nothing loaded from anywhere."""

import base64
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.pictures.classes import draw_confusion
from mets_ray.results.page import Page, Picture, Section, Table, render

EVIL = '<script>alert("1")</script>\' onload=x & {{ 7 * 7 }}'
PNG = draw_confusion(np.eye(2, dtype=np.int64), ("A", "B"), "")
VOID = {"meta", "link", "img"}


class Read(HTMLParser):
    """Elements in their order with attributes, texts by element, and whether every element was closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return [text for name, text in self.texts if name == tag]


def page(**parts):
    table = Table(
        "AUROC by class",
        ("Class", "AUROC", "Records", "Note"),
        [["NORM", 0.81236, 2158, "first"], [EVIL, math.nan, 0, "3 leads"], ["MI", None, 12, ""]],
    )
    sections = (
        Section("Scores", "One paragraph.\n\nAnother\none.", tables=(table,)),
        Section("Scores", pictures=(Picture(PNG, "Two classes, none confused.", "Confusion."),)),
        Section("Ω", "Long.", tables=(table, table), pictures=(Picture(PNG, "Again."),), collapsed=True),
    )
    given = {"title": "Evaluation", "notices": ("Mind this.",), "alarms": ("Leak!",), "facts": {"Seed": "0"}}
    return Page(**({"sections": sections} | given | parts))


def test_the_page_needs_nothing_else():
    html = render(page())
    read = Read(html)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in read.elements}
    for _, attributes in read.elements:
        for name in ("src", "href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\(", re.sub(r"base64,[^\"]*", "", html))
    assert any("default-src 'none'" in meta.get("content", "") for meta in read.of("meta"))
    (content,) = {attributes["src"].removeprefix("data:image/png;base64,") for attributes in read.of("img")}
    assert base64.b64decode(content) == PNG


def test_every_text_is_escaped():
    everywhere = Page(
        title=EVIL,
        notices=(EVIL,),
        alarms=(EVIL,),
        facts={EVIL: EVIL},
        sections=(
            Section(EVIL, EVIL, tables=(Table(EVIL, (EVIL,), [[EVIL]]),), pictures=(Picture(PNG, EVIL, EVIL),)),
            Section(EVIL, tables=(Table(EVIL, (EVIL,), [[EVIL]]),), collapsed=True),
        ),
    )
    html = render(everywhere)
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in html
    read = Read(html)
    assert read.of("img")[0]["alt"] == EVIL
    for tag in ("title", "h1", "h2", "li", "dt", "dd", "a", "p", "span", "th", "figcaption"):
        assert EVIL in read.text(tag), tag


def test_headings_contents_and_landmarks():
    read = Read(render(page()))
    assert read.of("html") == [{"lang": "en"}]
    assert [tag for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)] == ["h1", "h2", "h2", "h2", "h2"]
    targets = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(targets) == len(set(targets))
    links = [attributes["href"].removeprefix("#") for attributes in read.of("a")]
    assert links == ["report", "scores", "scores-2", "section"]
    assert set(links) <= set(targets)
    for attributes in read.of("section") + read.of("nav"):
        assert attributes["aria-labelledby"] in targets
    assert len(read.of("main")) == 1


def test_every_picture_has_its_alt_and_size_and_every_table_caption_and_scopes():
    read = Read(render(page()))
    assert [attributes["alt"] for attributes in read.of("img")] == ["Two classes, none confused.", "Again."]
    height, width = (int(read.of("img")[0][name]) for name in ("height", "width"))
    assert (width, height) == (660, 552)
    assert read.text("figcaption") == ["Confusion."]
    assert len(read.of("caption")) == len(read.of("table")) == 3
    assert {attributes["scope"] for attributes in read.of("th")} == {"row", "col"}
    scrolled = [attributes for attributes in read.of("div") if attributes["class"] == "scroll"]
    assert len(scrolled) == 3
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolled)


def test_numbers_are_shown_alike_and_stand_right():
    read = Read(render(page()))
    assert read.text("td")[:8] == ["0.812", "2,158", "first", "–", "0", "3 leads", "–", "12"]
    right = [attributes.get("class") == "number" for attributes in read.of("td")[:3]]
    assert right == [True, True, False]
    assert [attributes.get("class") for attributes in read.of("th")[:4]] == [None, "number", "number", None]


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (("0.83 [0.78, 0.87]", "–"), True),
        (("+0.02", "−0.1", "1e-3", "83%"), True),
        (("0.5 †", "7"), True),
        (("<0.001", "0.5 ± 0.1"), True),
        (("12 leads", "7"), False),
        (("–", ""), False),
        (("1AVB", "3AVB"), False),
    ],
)
def test_a_column_is_of_numbers_or_it_is_not(cells, right):
    table = Table("t", ("name", "cell"), [["row", cell] for cell in cells])
    found = {
        attributes.get("class")
        for attributes in Read(render(Page("p", sections=[Section("s", tables=[table])]))).of("td")
    }
    assert found == ({"number"} if right else {None})


def test_a_collapsed_section_shows_heading_and_text_and_says_what_is_inside():
    read = Read(render(page()))
    assert read.text("summary") == ["2 tables, 1 picture"]
    order = [tag for tag, _ in read.elements]
    assert order.index("details") > len(order) - order[::-1].index("h2") - 1
    assert Read(render(page(sections=[Section("Empty", collapsed=True)]))).of("details") == []


def test_alarms_come_first_and_absent_parts_leave_nothing():
    html = render(page())
    assert html.index('class="alarms"') < html.index('class="notices"') < html.index('class="facts"')
    bare = Read(render(Page("Bare", sections=[Section("One", "a\n\nb\n \nc")])))
    assert not {"ul", "dl", "nav", "table", "img"} & {tag for tag, _ in bare.elements}
    assert bare.text("p") == ["a", "b", "c"]
    Read(render(Page("Nothing")))


def test_light_dark_phone_and_paper_are_thought_of():
    html = render(page())
    for query in ("prefers-color-scheme: dark", "@media print", "max-width: 560px", "width=device-width"):
        assert query in html


def test_faults_are_named():
    def of(**parts):
        return Page("p", sections=[Section("Scores", **parts)])

    with pytest.raises(MetsError, match="2 cells under a header of 1") as caught:
        render(of(tables=[Table("AUROC", ("Class",), [["a", 1]])]))
    assert "table `AUROC`, section `Scores`" in str(caught.value)
    with pytest.raises(MetsError, match="no PNG"):
        render(of(pictures=[Picture(b"<svg/>", "alt")]))
    with pytest.raises(MetsError, match="no alt text"):
        render(of(pictures=[Picture(PNG, " ")]))
