"""Parquet tables of a source, as text: the same `Table` as of a CSV."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray.errors import DatasetError
from mets_ray.sources.cells import is_missing
from mets_ray.sources.csv_table import Table, check_columns

_MAGIC = b"PAR1"
_BATCH_ROWS = 4096
_LIST_MARKS = {"statements": "\n", "labels": ";"}  # what separates the parts of a list where it is text


def is_parquet(data: bytes) -> bool:
    """Whether a file is Parquet, by its content."""
    return data.startswith(_MAGIC)


def parse_parquet(uri: str, data: bytes, required: tuple[str, ...]) -> Table:
    """The table of a Parquet file: numbers as text, null and words for a missing value as "". Lists, in the columns
    `statements` and `labels` alone, are joined as a CSV has them. Columns of other types are left out.

    Raises DatasetError if it is damaged, has no rows, or lacks one of the `required` columns.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"`{uri}` is not a Parquet file: {type(error).__name__}") from error
    names = tuple(field.name for field in table.schema if _is_text(field))
    check_columns(uri, names, required)
    if not table.num_rows:
        raise DatasetError(f"`{uri}` has no rows")
    return Table(uri, names, enumerate(_rows(table.select(names)), start=1), data, counts="row")


def _rows(table: pa.Table) -> Iterator[dict[str, str]]:
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield {name: _text(name, value) for name, value in zip(table.column_names, values, strict=True)}


def _is_text(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return field.name in _LIST_MARKS
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        value = _LIST_MARKS[name].join(str(part) for part in value if part is not None)
    text = "" if value is None else str(value)
    return "" if is_missing(text) else text
