"""XML from strangers: bombs, entities, encodings."""

import time
import tracemalloc

import numpy as np
import pytest

from mets_ray.ecg.formats import xml_tree
from mets_ray.ecg.formats.xml_tree import numbers_of, parse, root_name
from mets_ray.errors import RecordError

LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(10))


@pytest.mark.parametrize(
    "text",
    [
        f"<!DOCTYPE a [{LAUGHS}]><a>&a9;</a>",
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        '<!DOCTYPE a [<!ENTITY % b SYSTEM "http://127.0.0.1/x"> %b;]><a/>',
        f'<!DOCTYPE a [<!ATTLIST b c CDATA "{"x" * 10_000}">]><a>{"<b/>" * 1000}</a>',
        "<a>" * 65 + "</a>" * 65,
        "<a>",
        "<a></b>",
        "text",
        "",
    ],
    ids=lambda text: text[:40],
)
def test_bombs_and_what_is_no_xml_are_refused(text):
    began = time.monotonic()
    with pytest.raises(RecordError) as caught:
        parse(text.encode("latin-1"))
    assert caught.value.reason == "unreadable_file"
    assert time.monotonic() - began < 2


def test_an_external_dtd_is_named_and_never_opened():
    assert parse(b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/restecg.dtd"><a>x</a>').text == "x"


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize(("before", "behind"), [(b"\r\n ", b""), (b"\xef\xbb\xbf\n", b""), (b"", b"\n\0\0\0")])
def test_blanks_before_the_declaration_and_zeros_behind_the_root(encoding, before, behind):
    whole = f'<?xml version="1.0" encoding="{encoding}"?><a>\xe9</a>'.encode(encoding)
    assert parse(before + whole + behind).text == "\xe9"
    assert root_name(before + whole) == "a"


def test_elements_and_attributes_are_counted_and_small(monkeypatch):
    data = b"<a>" + b"<b c=''/>" * 1000 + b"</a>"
    tracemalloc.start()
    parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 2001 * xml_tree._MAX_NODES < 20 * 8 * 2**20, "the largest body of a server, twenty times"
    monkeypatch.setattr(xml_tree, "_MAX_NODES", 2000)
    for many in (data, b"<a " + b" ".join(b"k%d=''" % number for number in range(2000)) + b"/>"):
        with pytest.raises(RecordError, match="more than 2000 elements"):
            parse(many)
    with pytest.raises(RecordError) as caught:
        parse(bytes(xml_tree._MAX_BYTES + 1))
    assert caught.value.reason == "too_large"


def test_long_tags_and_comments_are_refused_before_they_are_whole():
    for data in (b"<a b='" + b"x" * 4_000_000, b"<a><!--" + b"x" * 4_000_000 + b"--></a>"):
        with pytest.raises(RecordError, match="longer than 1048576 bytes"):
            parse(data)
    assert len(parse(b"<a>" + b"x" * 4_000_000 + b"</a>").text) == 4_000_000, "text is neither"
    assert len(parse(b"<a b='" + b"x" * 1_000_000 + b"'/>").get("b")) == 1_000_000


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("<a>é µ</a>".encode(), "é µ"),
        ("\ufeff<a>é µ</a>".encode(), "é µ"),
        ("<?xml version='1.0' encoding='UTF-16'?><a>é µ</a>".encode("utf-16"), "é µ"),
        ("<a>é µ</a>".encode("utf-16-be"), "é µ"),
        # declared, and not so
        ("<?xml version='1.0' encoding='UTF-16'?><a>é µ</a>".encode(), "é µ"),
        ("<?xml version='1.0' encoding='UTF-8'?><a>é µ</a>".encode("utf-16"), "é µ"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a>é µ</a>".encode("latin-1"), "é µ"),
        ("<?xml version='1.0' encoding='windows-1252'?><a>é €</a>".encode("cp1252"), "é €"),
        ("<?xml version='1.0' encoding='no-such-code'?><a>é µ</a>".encode("latin-1"), "é µ"),
        ("<a>é µ</a>".encode("latin-1"), "é µ"),
        ("<?xml version='1.0' encoding='UTF-8'?><a>é µ</a>".encode("latin-1"), "é µ"),
    ],
)
def test_encodings(data, word):
    assert root_name(data) == "a"
    assert parse(data).text == word


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<?xml version='1.0'?>\n<!-- <b> -->\n<!DOCTYPE a SYSTEM 'x'>\n<x:a y='1'>", "a"),
        (b"<!DOCTYPE a [ <!ENTITY b 'c'> ]><a>", "a"),
        (b"<!-- cut off", None),
        (b"\x89HDF", None),
        (b"", None),
        (b"I,II\n<a>", None),
    ],
)
def test_the_outermost_element_is_found_in_the_first_bytes(head, name):
    assert root_name(head) == name


def test_long_lists_of_numbers_are_cut_between_two():
    numbers = np.arange(100_000)
    assert np.array_equal(numbers_of("\n".join(map(str, numbers))), numbers)
    assert len(numbers_of(" \t ")) == 0
    with pytest.raises(RecordError):
        numbers_of("1 2 three")
