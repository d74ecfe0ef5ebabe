"""XML from strangers as a tree of elements: no entity, no DTD, nothing external, and a bounded size and depth.

Parsed by expat, which Python has: defusedxml refuses entities too, but bounds neither depth nor number of elements, and
a tree of empty elements takes thirty times the file.
"""

import base64
import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from xml.parsers import expat

import numpy as np
from jaxtyping import Float

from mets_ray.errors import RecordError

_MAX_BYTES = 64 * 1024**2  # in an aECG's decimal digits, 12 leads of 500 Hz for 40 minutes

_MAX_DEPTH = 64  # an aECG is 15 deep

# Elements and attributes. An aECG with marks on each beat of 10 s has 3,400, a Philips file 1,600. Freeing a tree holds
# all other threads: one of 100,000 took 130 ms.
_MAX_NODES = 30_000

# In parts, so that other threads get their turn. Each costs what is open to be read again (expat 2.5), so they are few.
_PART_BYTES = 1024**2

# A tag or a comment that is open is read again with each part, and holds all other threads. Samples are neither.
_MAX_TAG_BYTES = 1024**2

_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")

_AROUND = b" \t\r\n\0"  # before the declaration and behind the root, where expat allows none of them, or no zeros

_PROLOG = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\])?\s*>)", re.DOTALL)
_ROOT = re.compile(r"\s*<(?:[\w.-]+:)?([\w.-]+)[\s/>]")

_CHUNK = 64 * 1024  # characters of numbers; one number takes up to 60 bytes on its way


def root_name(head: bytes) -> str | None:
    """The name of a document's outermost element, without its namespace, from its first bytes; None if it is no XML."""
    if head.startswith(_UTF16):
        text = head[: len(head) // 2 * 2].decode(_utf16_name(head), "replace")
    else:
        text = head.decode("latin-1").removeprefix("ï»¿")
    text = text.removeprefix("\ufeff")
    position = 0
    while found := _PROLOG.match(text, position):
        position = found.end()
    root = _ROOT.match(text, position)
    return root[1] if root else None


def parse(data: bytes) -> ET.Element:
    """The outermost element. Namespaces are taken off names: each of these formats has one.

    The encoding is the one declared, unless the bytes are UTF-8 throughout; where the declared one fails, Latin-1.
    Raises RecordError `too_large`, and `unreadable_file` for what is no XML, or holds a DTD, an entity or too many
    elements.
    """
    if len(data) > _MAX_BYTES:
        raise RecordError("too_large", f"the XML has {len(data)} bytes, and at most {_MAX_BYTES} are read")
    if data.startswith(_UTF16):
        encodings: tuple[str | None, ...] = (_utf16_name(data),)
    else:
        data = data.removeprefix(codecs.BOM_UTF8).strip(_AROUND)
        encodings = ("utf-8",) if _is_utf8(data) else (None, "iso-8859-1")
    faults = []
    for encoding in encodings:
        try:
            return _Reader(encoding).read(data)
        except (expat.ExpatError, LookupError, ValueError) as error:  # an encoding that Python does not know
            faults.append(error)
    raise RecordError("unreadable_file", f"this XML cannot be read: {faults[0]}", hint="export the file again")


def text_of(element: ET.Element | None, path: str = ".") -> str:
    """The text below `path`, in one line; "" where there is none."""
    found = None if element is None else element.find(path)
    return "" if found is None else " ".join("".join(found.itertext()).split())


def attribute_of(element: ET.Element | None, path: str, name: str) -> str:
    """An attribute of the element at `path`; "" where there is none."""
    found = None if element is None else element.find(path)
    return "" if found is None else found.get(name, "").strip()


def number_of(text: str) -> float | None:
    """A number, also with a decimal comma; None for anything else, and for NaN and infinity."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def numbers_of(text: str) -> Float[np.ndarray, " sample"]:
    """The numbers of a list that is separated by white space. Raises RecordError `unreadable_file`."""
    try:
        parts = [np.array(part.split(), dtype=np.float64) for part in _parts(text)]
    except ValueError:
        raise RecordError("unreadable_file", "a list of samples contains something that is not a number") from None
    return np.concatenate(parts) if parts else np.empty(0)


def base64_of(text: str) -> bytes:
    """What base64 holds, in lines or not. Raises RecordError `unreadable_file`."""
    try:
        return base64.b64decode(text.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except ValueError:
        raise RecordError("unreadable_file", "the samples are not base64") from None


class _Reader:
    def __init__(self, encoding: str | None) -> None:
        self._builder = ET.TreeBuilder()
        self._depth = 0
        self._nodes = 0
        self._parser = expat.ParserCreate(encoding)
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._builder.data
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._entity

    def read(self, data: bytes) -> ET.Element:
        for start in range(0, len(data), _PART_BYTES):
            self._parser.Parse(data[start : start + _PART_BYTES], False)
            if start - self._parser.CurrentByteIndex > _MAX_TAG_BYTES:
                raise RecordError(
                    "unreadable_file", f"a tag or a comment in the XML is longer than {_MAX_TAG_BYTES} bytes"
                )
        self._parser.Parse(b"", True)
        root: ET.Element = self._builder.close()
        return root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._nodes += 1 + len(attributes)
        if self._depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise RecordError(
                "unreadable_file", f"the XML has more than {_MAX_NODES} elements, or is more than {_MAX_DEPTH} deep"
            )
        self._builder.start(_bare(name), {_bare(key): value for key, value in attributes.items()})

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(_bare(name))

    def _doctype(self, name: str, system_id: str | None, public_id: str | None, has_internal_subset: int) -> None:
        if has_internal_subset:  # GE's files name an external DTD, which is never opened
            raise RecordError("unreadable_file", "the XML brings its own DTD, and none is read")

    def _entity(self, *declaration: object) -> None:
        raise RecordError("unreadable_file", "the XML declares an entity, and none is read")


def _bare(name: str) -> str:
    return name.rpartition(":")[2]


def _utf16_name(data: bytes) -> str:
    return "utf-16be" if data.startswith((b"\xfe\xff", b"\0<")) else "utf-16le"


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parts(text: str) -> Iterator[str]:
    """`text` in parts that begin and end between two numbers."""
    start = 0
    while start < len(text):
        end = start + _CHUNK
        while end < len(text) and not text[end].isspace():
            end += 1
        yield text[start:end]
        start = end
