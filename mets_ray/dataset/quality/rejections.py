"""Why records were kept out of a data set, with examples, and what mends each reason."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.shard_writer import ShardSummary, rejected_path

_EXAMPLES = 3

MENDING = {
    "amplitude_too_large": "Check the gain and the unit. Without `prepare.highpass_hz` an offset counts as amplitude.",
    "duplicate_lead": "Rename or remove one of the two signals.",
    "duplicate_record_id": "Give each record an id of its own; the first one was kept.",
    "empty_report": "Nothing to learn from, unless the report is in another column or file: set the source so.",
    "flat_lead": "An electrode was off. A lead that was never recorded should not be in the file as zeros.",
    "header_mismatch": "Copy the record again: its header does not describe its signal file.",
    "implausible_sampling_rate": "Correct the rate in the header.",
    "missing_file": "Copy the file to where the manifest says, or correct the manifest; then run `prepare` again.",
    "missing_leads": "Export all leads. Leads that were never recorded can be stated as absent by the source.",
    "missing_unit": "State the unit in the header; it is never guessed.",
    "no_findings": "The report says that none was made. Nothing to mend.",
    "non_finite": "NaN marks a gap: choose a stretch without one.",
    "sampling_rate_mismatch": "Resample the signals of the record to one rate.",
    "too_short": "Lower `prepare.duration_s` if most records are as short.",
    "truncated_file": "Copy the file again: its end is missing.",
    "unknown_lead": "Rename the lead to I, II, III, aVR, aVL, aVF or V1 to V6, if it is one of them.",
    "unknown_unit": "Write the unit as V, mV or uV.",
    "unreadable_cell": "Correct the cell in the table.",
    "unreadable_header": "Copy the file again; if it is whole, it does not follow its format.",
    "unsafe_path": "Name records by their path below the source's folder.",
    "unsupported_format": "Convert the record to a format that is read.",
}
"""What to do about a reason; for a reason of a source or format of one's own, the hint of its error is shown."""

_NO_MENDING = "See the example; `rejected/` lists all of them."


@dataclass(frozen=True)
class Rejection:
    """Records of one reason: `examples` are (record id, what was wrong), `mending` what to do."""

    reason: str
    records: int
    examples: tuple[tuple[str, str], ...]
    mending: str


def read_rejections(dataset_uri: str, card: DatasetCard) -> list[Rejection]:
    """The reasons of `card.rejected`, most frequent first. Files are read until each reason has its examples."""
    examples: dict[str, list[tuple[str, str]]] = {reason: [] for reason in card.rejected}
    hints: dict[str, str] = {}
    folder = storage.join(dataset_uri, "rejected")
    for uri in storage.list_files(folder, suffix=".parquet") if card.rejected else ():
        if all(len(found) >= min(_EXAMPLES, card.rejected[reason]) for reason, found in examples.items()):
            break
        name = uri.rpartition("/")[2].removesuffix(".parquet")
        for row in _rows(dataset_uri, name):
            found = examples.get(row["reason"])
            if found is not None and len(found) < _EXAMPLES:
                found.append((row["record_id"], row["detail"]))
                hints.setdefault(row["reason"], row.get("hint") or "")
    ranked = sorted(card.rejected.items(), key=lambda item: (-item[1], item[0]))
    return [
        Rejection(reason, count, tuple(examples[reason]), MENDING.get(reason) or hints.get(reason) or _NO_MENDING)
        for reason, count in ranked
    ]


def _rows(dataset_uri: str, name: str) -> list[dict[str, str]]:
    """The rejected records of a shard; none if they were mended since, which leaves the file of an earlier run."""
    try:
        progress = storage.unseal(storage.read_bytes(storage.join(dataset_uri, "progress", f"{name}.json")))
        if not ShardSummary.model_validate(progress.facts).rejected:
            return []
        data = storage.read_bytes(storage.join(dataset_uri, rejected_path(name)))
        table = pq.read_table(pa.BufferReader(data))
    except (storage.MissingFileError, ValueError, pa.ArrowException):
        return []
    wanted = [column for column in ("record_id", "reason", "detail", "hint") if column in table.column_names]
    rows: list[dict[str, str]] = table.select(wanted).to_pylist()
    return rows
