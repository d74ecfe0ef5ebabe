"""CSV tables of a source, read as text by RFC 4180: no type is inferred, and no row is shifted."""

import codecs
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.sources.cells import FIRST_OF_FILLED, is_missing

_OTHER_MARKS = {b";": "semicolons", b"\t": "tabs", b"|": "`|`"}
_MOST_HEADER_BYTES = 64 * 1024
_LONGEST_CELL = 2**31 - 1  # characters


@dataclass(frozen=True)
class Table:
    """`rows`, to be read once: the number of the line that a row begins on, and its cells by column, "" where the value
    is missing. `data`: the file's bytes. `counts`: what the numbers count, `line` or `row`."""

    uri: str
    columns: tuple[str, ...]
    rows: Iterable[tuple[int, dict[str, str]]]
    data: bytes
    counts: str = "line"


def read_table(uri: str, required: tuple[str, ...]) -> Table:
    """`parse_csv` of a file. Raises DatasetError."""
    return parse_csv(uri, storage.read_bytes(uri), required)


def parse_csv(uri: str, data: bytes, required: tuple[str, ...]) -> Table:
    """The table of a CSV file in UTF-8. Words for a missing value, such as `nan` and `NULL`, are "" in every column.
    Columns without a name and empty lines are left out.

    Raises DatasetError if it is not a UTF-8 CSV, lacks one of the `required` columns or has a column twice; its `rows`
    raise it, when they are read, if there are none, or one has more or fewer cells than columns. Empty cells behind
    the last column do not count.
    """
    _check_separator(uri, data, required)
    csv.field_size_limit(_LONGEST_CELL)  # of this process, whose default is 128 KiB: reports may be longer
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), strict=True)
    with _csv_faults(uri):
        header = next(([name.strip() for name in cells] for cells in lines if _is_filled(cells)), [])
    names = tuple(name for name in header if name)
    check_columns(uri, names, required)
    return Table(uri, names, _rows(uri, lines, header), data)


def _rows(uri: str, lines: Any, header: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    line, is_empty = lines.line_num + 1, True
    with _csv_faults(uri):
        for cells in lines:
            if _is_filled(cells):
                is_empty = False
                yield line, _values(cells, header, uri, line)
            line = lines.line_num + 1
    if is_empty:
        raise DatasetError(f"`{uri}` has no rows")


@contextmanager
def _csv_faults(uri: str) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            hint = "save it in UTF-8; Excel calls that `CSV UTF-8`"
            raise DatasetError(f"`{uri}` is not a CSV in UTF-8: {error}", hint=hint) from error
        raise DatasetError(
            f"`{uri}` is not a CSV: {error}", hint="put texts with commas or quotes in quotes"
        ) from error


def check_columns(uri: str, names: tuple[str, ...], required: tuple[str, ...]) -> None:
    """Raise DatasetError where a table has no columns, lacks a required one, or has one twice."""
    if not names:
        raise DatasetError(f"`{uri}` is not a CSV: its first line names no column")
    missing = [name for name in required if name not in names]
    if missing:
        raise DatasetError(
            f"column {', '.join(f'`{name}`' for name in missing)} is missing; there are "
            + ", ".join(f"`{name}`" for name in names),
            where=uri,
            hint=f"the first line must name {', '.join(f'`{name}`' for name in required)}",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"there are two columns {', '.join(f'`{name}`' for name in twice)}", where=uri)


def _check_separator(uri: str, data: bytes, required: tuple[str, ...]) -> None:
    """Raise DatasetError where the first line has the required columns, but other marks than commas between them."""
    line = data[:_MOST_HEADER_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().splitlines()[:1]
    for mark, words in _OTHER_MARKS.items() if line and b"," not in line[0] else ():
        cells = {cell.strip(b' "') for cell in line[0].split(mark)}
        if len(cells) > 1 and {name.encode() for name in required} & cells:
            raise DatasetError(
                f"the columns are separated by {words} and not by commas",
                where=uri,
                hint="save the table as a CSV with commas",
            )


def _is_filled(cells: list[str]) -> bool:
    return bool("".join(cells).strip())


def _values(cells: list[str], header: list[str], uri: str, line: int) -> dict[str, str]:
    count = len(cells)
    while len(cells) > len(header) and not cells[-1].strip():  # `a,b,` below `x,y`
        cells = cells[:-1]
    if len(cells) != len(header):
        raise DatasetError(
            f"the row has {count} cells, the first line names {len(header)} columns",
            where=f"{uri}, line {line}",
            hint='put a text that contains a comma or a line end into double quotes: "sinus rhythm, normal"',
        )
    return {
        name: cell if not cell or cell[:1] in FIRST_OF_FILLED or not is_missing(cell) else ""
        for name, cell in zip(header, cells, strict=True)
        if name
    }


def sha256_of(*files: bytes) -> str:
    """One hash of several files in this order. Lengths are hashed too, so moving bytes between files changes it."""
    digest = hashlib.sha256()
    for data in files:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
