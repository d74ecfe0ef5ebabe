"""How a table of numbers in text is laid out: what separates its cells, its decimal mark, and where its rows begin."""

import codecs
import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mets_ray.ecg.formats.arrays import malformed
from mets_ray.ecg.formats.text_columns import column_of, names_of
from mets_ray.ecg.leads import standard_lead

HEAD_BYTES = 64 * 1024
"""What is searched for the first row of numbers."""

_MOST_LINES_BEFORE = 64
_BLANKS = " "
_SEPARATORS = (";", "\t", ",", _BLANKS)

# What may stand for a missing sample: as Arrow reads it.
_MISSING = frozenset({"", "na", "nan", "null", "n/a", "#n/a", "-nan", "inf", "-inf", "+inf"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)

_MOST_HEADER_BYTES = 16 * 1024  # of a table that begins with its header


@dataclass(frozen=True)
class Layout:
    """separator: `;`, tab, `,`, or a blank for any white space. decimal: `.` or `,`. columns: how many. names: of the
    columns, None where the table has no header. start: the byte at which the first row of numbers begins. before: the
    lines above it."""

    separator: str
    decimal: str
    columns: int
    names: tuple[str, ...] | None
    start: int
    before: tuple[str, ...] = ()


def layout_of(data: bytes) -> Layout:
    """The layout of a table in UTF-8, found by its first two rows of numbers.

    Lines before them are skipped, except the last one or two where they are a header (`text_columns.names_of`). Raises
    RecordError `malformed_file` where no row of numbers is near the beginning, or a line before it could be one.
    """
    before: list[str] = []
    for (start, line), (_, following) in itertools.pairwise([*_lines(data[:HEAD_BYTES]), (0, "")]):
        found = _row(line, may_count=not before or not _has_names(before[-1]))
        if found is not None and (not following or _fits(following, found)):
            separator, decimal, columns = found
            if separator != "," and data.find(b",", start) >= 0:  # the first row may hold whole numbers only
                decimal = ","
            if any(_is_almost_a_row(one, separator, columns) for one in before):
                raise malformed("a line before the first row of numbers looks like one, and cannot be read")
            above = [_cells(one.lstrip("\ufeff#% "), separator) for one in before[-2:]]
            above = [[] if _is_numbering(cells) else cells for cells in above]
            return Layout(separator, decimal, columns, names_of(above, _cells(line, separator)), start, tuple(before))
        before.append(line)
        if len(before) > _MOST_LINES_BEFORE:
            break
    raise malformed("the text holds no table of numbers", "write a line of lead names, then a row of numbers a sample")


def layout_of_header(data: bytes) -> Layout:
    """The layout of a table whose first line is its header, with commas between cells and points as decimal marks.

    Raises RecordError `malformed_file`.
    """
    line, start = _first_line(data)
    if b"," not in line and (b";" in line or b"\t" in line):
        raise malformed(
            "the columns are not separated by commas", "write 0.12,0.34: decimal points, and commas between columns"
        )
    try:
        names = [cell.strip() for cell in next(csv.reader([line.decode("utf-8", "replace")]), [])]
    except csv.Error as error:
        raise malformed("the header of the table cannot be read") from error
    if not any(names):
        raise malformed("the table has no header", "begin with a line of lead names: I,II,III,aVR,...")
    return Layout(",", ".", len(names), tuple(names), start)


def _first_line(data: bytes) -> tuple[bytes, int]:
    """The first line, without the mark of UTF-8, and the byte at which the second begins."""
    begin = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    head = data[begin : begin + _MOST_HEADER_BYTES]
    line = re.split(rb"[\r\n]", head, maxsplit=1)[0]
    if len(line) == _MOST_HEADER_BYTES:  # to search the whole body for its end would hold all other threads
        raise malformed(f"the first line is longer than {len(line)} bytes", "begin with a line of lead names: I,II,III")
    end = begin + len(line)
    return line, min(end + (2 if data.startswith(b"\r\n", end) else 1), len(data))


def _lines(head: bytes) -> Iterator[tuple[int, str]]:
    """Lines that hold something, each with the byte at which it begins."""
    for match in re.finditer(rb"[^\r\n]+", head):
        line = match[0].decode("utf-8", "replace").strip(" ")
        if line.strip():
            yield match.start(), line


def _row(line: str, *, may_count: bool) -> tuple[str, str, int] | None:
    """Separator, decimal mark and number of cells of a row of numbers; None for another line.

    may_count: whether cells that count (0, 1, 2, …) are a header: below names they are samples.
    """
    for separator in _SEPARATORS:
        if separator != _BLANKS and separator not in line:
            continue
        cells = _cells(line, separator)
        for decimal in ".,":
            if _are_numbers(cells, decimal) and not (may_count and _is_numbering(cells)):
                return separator, decimal, len(cells)
    return None


def _has_names(line: str) -> bool:
    """Whether a line names a lead in one of its cells."""
    return any(
        standard_lead(column_of(cell).name)
        for separator in _SEPARATORS
        for cell in _cells(line.lstrip("\ufeff#% "), separator)
    )


def _is_numbering(cells: list[str]) -> bool:
    """Whether cells only count columns, as in pandas' header for an array: `,0,1,2,…`."""
    numbers = [cell for cell in cells if cell]
    return len(numbers) > 2 and any(numbers == [str(first + at) for at in range(len(numbers))] for first in (0, 1))


def _is_almost_a_row(line: str, separator: str, columns: int) -> bool:
    cells = _cells(line, separator)
    return len(cells) == columns and any(map(_NUMBER.match, cells)) and not _is_numbering(cells)


def _fits(line: str, layout: tuple[str, str, int]) -> bool:
    separator, decimal, columns = layout
    cells = _cells(line, separator)
    return len(cells) == columns and _are_numbers(cells, decimal if separator == "," else ".,")


def _cells(line: str, separator: str) -> list[str]:
    if separator == _BLANKS:
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _are_numbers(cells: list[str], decimals: str) -> bool:
    """Whether all cells are numbers or missing, at least one a number, with one of the `decimals` as their mark."""
    found = False
    for cell in cells:
        plain = cell.replace(",", ".") if "," in decimals else cell
        if _NUMBER.fullmatch(plain):
            found = True
        elif cell.casefold() not in _MISSING:
            return False
    return found
