"""The columns of an index: what is known of each record, where its signal lies, and its embedding."""

from typing import Literal

import pyarrow as pa

Kind = Literal["number", "integer", "text", "texts", "integers"]

FILTER_COLUMNS: dict[str, Kind] = {
    "record_id": "text",
    "patient_id": "text",
    "source": "text",
    "fold": "integer",
    "age": "number",
    "sex": "text",
    "device": "text",
    "site": "text",
    "recorded_at": "text",
    "leads_missing": "texts",
    "suspect": "text",
    "flat_s": "number",
    "clipped_s": "number",
    "wander_share": "number",
    "hum_ratio": "number",
    "statement_ids": "integers",
}
"""The columns that a filter may name, and what they hold.

age: in years. device, site, recorded_at: null where they are not known; the time is
ISO 8601, so that texts compare as times do. suspect: a fault of the leads that the signal suggests, such
as two that were swapped; "" for none. flat_s, clipped_s: the worst lead's seconds without a signal and at its limit;
wander_share, hum_ratio: see `ecg.signal_quality`. These are null where `prepare` measured nothing. statement_ids:
`text_id` of each statement of the report.
"""

PATIENT = ["source", "patient_id"]
"""The columns that tell patients apart: two hospitals may both have a patient 17."""

PLACE_COLUMNS = ("dataset", "shard", "shard_row")
"""Where a record's signal lies: the data set, as a key of `ArchiveFacts.datasets`, the path of its shard as in the data
set's card, and the row there, of a recording's mean that of its first window."""

_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float32(),
    "integer": pa.int32(),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "integers": pa.list_(pa.int64()),
}
_ALWAYS = ("record_id", "patient_id", "source")

HIT_COLUMNS = (*(name for name in FILTER_COLUMNS if name not in ("record_id", "patient_id")), *PLACE_COLUMNS)
"""The columns that a hit comes with, beside its ids."""


def table_schema(dimension: int, *, reports: bool) -> pa.Schema:
    """Columns of the index; `report` only where the index keeps reports."""
    columns = [pa.field(name, _TYPES[kind], nullable=name not in _ALWAYS) for name, kind in FILTER_COLUMNS.items()]
    columns += [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("shard_row", pa.int32(), nullable=False),
    ]
    if reports:
        columns.append(pa.field("report", pa.string()))
    return pa.schema([*columns, pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False)])
