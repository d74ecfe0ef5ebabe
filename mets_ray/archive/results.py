"""What an archive answers: hits with their similarity, percentile and probability, and where the next page begins."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class TermMatch(NamedTuple):
    """How well one term of the query fits a record; as in `Hit`."""

    similarity: float
    percentile: float
    probability: float | None = None


@dataclass(frozen=True)
class Hit:
    """One record.

    similarity: cosine of its embedding and the query, in [-1, 1]. percentile: how many percent of the archive's records
    are less similar, from a sample of them (`ArchiveFacts.sample`). probability: calibrated, of the query's only term,
    where the bundle has a calibration for its words and the record lacks no leads; otherwise None. terms: the same for
    each term, in the query's order. columns: `archive.schema.HIT_COLUMNS` of the record by name: age, sex, source, and
    where its signal lies (`dataset`, `shard`, `shard_row`).
    """

    record_id: str
    patient_id: str
    similarity: float
    percentile: float
    probability: float | None
    terms: tuple[TermMatch, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TermFacts:
    """A term as it was understood: its words, and the calibrated class that they name, or why there is none."""

    words: str
    weight: float
    negated: bool
    class_name: str
    not_calibrated: str


@dataclass(frozen=True)
class SearchPage:
    """Hits, the best first. cursor: gives the next page of the same search; None where this is the last one. records:
    how many the archive holds."""

    hits: tuple[Hit, ...]
    cursor: str | None
    terms: tuple[TermFacts, ...]
    records: int


@dataclass(frozen=True)
class CohortPage:
    """Records above a threshold, in the archive's order. cursor: as in `SearchPage`."""

    hits: tuple[Hit, ...]
    cursor: str | None


class NearReport(NamedTuple):
    """A report of a similar ECG: retrieved, not written for the ECG that was asked about, and never a diagnosis."""

    report: str
    similarity: float
    records: int
    record_id: str
    notice: str
