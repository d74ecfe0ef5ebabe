"""CSV tables of a source, read as text by RFC 4180: no type is inferred, and no row is shifted."""

import csv
import hashlib
import io
from dataclasses import dataclass

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.sources.cells import is_missing


@dataclass(frozen=True)
class Table:
    """`rows`: the number of the line that a row begins on, and its cells by column, "" where the value is missing.
    `data`: the file's bytes. `counts`: what the numbers count, `line` or `row`."""

    uri: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    data: bytes
    counts: str = "line"


def read_table(uri: str, required: tuple[str, ...]) -> Table:
    """`parse_csv` of a file. Raises DatasetError."""
    return parse_csv(uri, storage.read_bytes(uri), required)


def parse_csv(uri: str, data: bytes, required: tuple[str, ...]) -> Table:
    """The table of a CSV file in UTF-8. Words for a missing value, such as `nan` and `NULL`, are "" in every column.
    Columns without a name and empty lines are left out.

    Raises DatasetError if it is not a UTF-8 CSV, has no rows, lacks one of the `required` columns, has a
    column twice, or has a row with more or fewer cells than columns; empty cells behind the last column do not count.
    """
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = next(([name.strip() for name in cells] for cells in lines if _is_filled(cells)), [])
        names = tuple(name for name in header if name)
        check_columns(uri, names, required)
        rows, line = [], lines.line_num + 1
        for cells in lines:
            if _is_filled(cells):
                rows.append((line, _values(cells, header, f"{uri}, line {line}")))
            line = lines.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"`{uri}` is not a CSV in UTF-8: {error}") from error
    if not rows:
        raise DatasetError(f"`{uri}` has no rows")
    return Table(uri, names, tuple(rows), data)


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


def _is_filled(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _values(cells: list[str], header: list[str], where: str) -> dict[str, str]:
    count = len(cells)
    while len(cells) > len(header) and not cells[-1].strip():  # `a,b,` below `x,y`
        cells = cells[:-1]
    if len(cells) != len(header):
        raise DatasetError(
            f"the row has {count} cells, the first line names {len(header)} columns",
            where=where,
            hint='put a text that contains a comma or a line end into double quotes: "sinus rhythm, normal"',
        )
    return {name: "" if is_missing(cell) else cell for name, cell in zip(header, cells, strict=True) if name}


def sha256_of(*files: bytes) -> str:
    """One hash of several files in this order. Lengths are hashed too, so moving bytes between files changes it."""
    digest = hashlib.sha256()
    for data in files:
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
