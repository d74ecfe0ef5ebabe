"""HTTP requests and responses of the archive, as OpenAPI shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mets_ray.serve.bodies import JsonEcg
from mets_ray.serve.messages import ErrorFacts, SignalParameters, Warned

NOTICE = (
    "Research software, not a medical device. Results are retrieval by similarity, not diagnosis: that an ECG or a "
    "report is listed says nothing certain about a patient."
)

USUAL_K = 24
MOST_ID_CHARS = 500

_WHERE = "a filter on columns, for example `age > 60 and sex = 'female'`; /v1/archive lists the columns"


def _as_terms(words: Any) -> Any:
    """`a` and [`a`, `b`] as terms."""
    some = [words] if isinstance(words, str) else words
    return [{"text": one} if isinstance(one, str) else one for one in some] if isinstance(some, list) else some


class SearchTerm(BaseModel):
    """Something that the ECGs should show, or with `not`, should not show."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    text: str
    weight: float = Field(1.0, allow_inf_nan=False, description="how much it counts beside the others; above 0")
    negated: bool = Field(False, alias="not", description="look for ECGs that do not show it")


class SearchOptions(BaseModel):
    """Which records may be found, and how many at once."""

    model_config = ConfigDict(extra="forbid")

    where: str | None = Field(None, description=_WHERE)
    k: int | None = Field(
        None, description=f"records in one answer; default: {USUAL_K}, or the server's `archive_max_k` if it is less"
    )
    cursor: str | None = Field(None, description="`next_cursor` of the answer before, with the same question")
    one_per_patient: bool = Field(True, description="only the most similar record of each patient")
    nearest_reports: int = Field(
        0,
        description="with `ecg` or `record_id`: also this many reports of the most similar ECGs, where they are shown",
    )


class SearchQuery(SearchOptions, SignalParameters):
    """Query string of a search by an ECG whose body is not JSON."""


class _Asked(BaseModel):
    """What is looked for: exactly one of the four."""

    words: Annotated[list[SearchTerm] | None, BeforeValidator(_as_terms)] = Field(
        None, fail_fast=True, description="texts, one or several, each a string or with its weight and `not`"
    )
    report: str | None = Field(None, description="a report in English; its statements are looked for together")
    record_id: str | None = Field(
        None, max_length=MOST_ID_CHARS, description="a record of the archive; its own patient is left out"
    )
    source: str | None = Field(
        None, max_length=MOST_ID_CHARS, description="of `record_id`, where several have a record with this id"
    )
    ecg: JsonEcg | None = None

    @model_validator(mode="after")
    def _one_of_four(self) -> "_Asked":
        if sum(one is not None for one in (self.words, self.report, self.record_id, self.ecg)) != 1:
            raise ValueError("give exactly one of `words`, `report`, `record_id` and `ecg`")
        if self.source is not None and self.record_id is None:
            raise ValueError("`source` belongs to `record_id`; to find records of one source, filter with `where`")
        return self


class SearchRequest(_Asked, SearchOptions):
    """A search in JSON."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "words": ["complete left bundle branch block", {"text": "first degree AV block", "weight": 0.5}],
                    "where": "age > 60",
                },
                {"record_id": "14217", "k": 10},
            ]
        },
    )


class CohortRequest(_Asked):
    """All records that are at least so similar."""

    model_config = ConfigDict(extra="forbid")

    above: float = Field(ge=-1.0, le=1.0, allow_inf_nan=False, description="the lowest similarity")
    where: str | None = Field(None, description=_WHERE)
    format: Literal["count", "ndjson", "parquet"] = Field(
        "count",
        description="count: how many; ndjson: a line for each record; parquet: a file in the server's folder for them",
    )


class TermAnswer(BaseModel):
    """A part of the question as it was understood."""

    words: str
    weight: float
    negated: bool
    class_name: str | None = Field(description="the calibrated class that the words name")
    not_calibrated: str | None = Field(description="why there is no probability")


class HitTerm(BaseModel):
    """How well one part of the question fits a record."""

    similarity: float
    percentile: float
    probability: float | None


class SearchHit(BaseModel):
    """A record that was found."""

    record_id: str
    patient_id: str
    similarity: float = Field(description="cosine of the ECG and the question")
    percentile: float = Field(description="percent of the archive that is less similar")
    probability: float | None = Field(description="calibrated; of a question of one calibrated class")
    age: float | None
    sex: str | None
    columns: dict[str, Any] = Field(description="what else the index holds of it")
    terms: list[HitTerm] = Field(description="by part of the question")


class ReportFound(BaseModel):
    """A report of a similar ECG: it was written for that one, and is no diagnosis of the one that was asked about."""

    report: str
    similarity: float
    records: int = Field(description="records with this report")
    record_id: str
    notice: str


class SearchAnswer(BaseModel):
    """The most similar records, best first."""

    model_config = ConfigDict(protected_namespaces=())

    hits: list[SearchHit]
    next_cursor: str | None = Field(description="for the next page; null: this was the last one")
    terms: list[TermAnswer]
    nearest_reports: list[ReportFound] | None = None
    records: int = Field(description="records of the archive")
    model_version: str
    warnings: list[Warned]
    timings_ms: dict[str, float]
    notice: str = NOTICE


class CohortAnswer(BaseModel):
    """How many records are at least so similar."""

    line: Literal["summary"] = "summary"
    count: int
    patients: int
    of_records: int = Field(description="records that pass the filter")
    uri: str | None = Field(None, description="the Parquet file that was written")
    notice: str = NOTICE


class CohortRecord(BaseModel):
    """A line of a cohort."""

    line: Literal["record"] = "record"
    record_id: str
    patient_id: str
    source: str
    similarity: float
    percentile: float
    probability: float | None


class CohortError(BaseModel):
    """The last line of a list that could not be completed."""

    line: Literal["error"] = "error"
    error: ErrorFacts


class Column(BaseModel):
    """A column that `where` may name."""

    name: str
    kind: str


class ArchiveAnswer(BaseModel):
    """What can be searched."""

    model_config = ConfigDict(protected_namespaces=())

    records: int
    patients: int
    model_version: str
    columns: list[Column]
    shows_reports: bool
    finds_reports: bool = Field(description="whether `nearest_reports` can be asked for: they are shown and indexed")
    writes_cohorts: bool
    limits: dict[str, float]
    notice: str = NOTICE


class ArchiveEcg(BaseModel):
    """A record of the archive: the form of `EcgAnswer`, and what is known of it."""

    record_id: str
    patient_id: str
    age: float | None
    sex: str | None
    leads: list[str]
    sampling_rate_hz: int
    duration_s: float
    highpass_hz: float | None = Field(description="cut-off of the filter that it has passed; null: none")
    signal_uv: list[list[int]]
    windows: int
    warnings: list[Warned]
    report: str | None = Field(description="null where reports are not shown")
    notice: str = NOTICE
