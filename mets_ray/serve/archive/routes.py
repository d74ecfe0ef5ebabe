"""The routes of the archive, and its page. They are there only where an archive is configured."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from mets_ray.archive.cohorts import CohortCount
from mets_ray.archive.results import Hit, SearchPage
from mets_ray.archive.schema import FILTER_COLUMNS
from mets_ray.errors import RequestError
from mets_ray.serve import audit
from mets_ray.serve.archive import messages
from mets_ray.serve.archive.question import Question
from mets_ray.serve.archive.questions import ArchiveCalls, Questions, check_where, checked_k, facts_of
from mets_ray.serve.openapi import COHORT_BODY, SEARCH_BODY
from mets_ray.serve.query_route import post_with_query
from mets_ray.serve.reading import Reader
from mets_ray.serve.service import Service, Timings, error_facts, warned

SearchQuery = Annotated[messages.SearchQuery, Query()]

_LINES = "application/x-ndjson"
_LINES_AT_ONCE = 1000
_OWN_COLUMNS = ("age", "sex")  # they have fields of their own
_INNER_COLUMNS = ("dataset", "shard", "shard_row", "statement_ids")  # where files lie, and hashes of texts
_LIMITS = ("archive_max_k", "archive_max_words", "archive_max_where_chars", "archive_max_cohort", "max_label_chars")


class ArchiveRoutes:
    """Answers of the archive's routes."""

    def __init__(self, service: Service, archive: ArchiveCalls) -> None:
        self._service = service
        self._archive = archive
        self._config = service.config
        self._questions = Questions(service)

    async def facts(self) -> messages.ArchiveAnswer:
        facts, config = await self._archive.facts(), self._config
        return messages.ArchiveAnswer(
            records=facts.records,
            patients=facts.patients,
            model_version=self._service.predictor.model_version,
            columns=[messages.Column(name=name, kind=kind) for name, kind in FILTER_COLUMNS.items()],
            shows_reports=config.archive_reports,
            finds_reports=config.archive_reports and facts.has_reports,
            writes_cohorts=config.archive_cohort_uri is not None,
            limits={name: getattr(config, name) for name in _LIMITS},
        )

    async def search(self, request: Request, reader: Reader, query: messages.SearchQuery) -> messages.SearchAnswer:
        timings = Timings()
        asked, windows = await reader.search(request, query)
        _note(request, asked)
        k = checked_k(asked, self._config)
        since = timings.stop("decode", timings.began)
        question = await self._questions.of(asked, windows)
        since = timings.stop("question", since)
        page = await self._archive.search(question, k, asked.where, asked.cursor, asked.one_per_patient)
        reports = await self._reports(question, asked, windows)
        timings.stop("search", since)
        return self._answer(page, reports, timings, () if windows is None else windows.warnings)

    async def _reports(
        self, question: Question, asked: messages.SearchOptions, windows: object
    ) -> list[messages.ReportFound] | None:
        if not asked.nearest_reports:
            return None
        if windows is None and question.record_id is None:
            raise RequestError(
                422, "reports_of_words", "`nearest_reports` are those of an ECG", hint="give `ecg` or `record_id`"
            )
        found = await self._archive.nearest_reports(question, asked.nearest_reports, asked.where)
        return [messages.ReportFound(**report._asdict()) for report in found]

    def _answer(
        self,
        page: SearchPage,
        reports: list[messages.ReportFound] | None,
        timings: Timings,
        warnings: Sequence[tuple[str, str]],
    ) -> messages.SearchAnswer:
        return messages.SearchAnswer(
            hits=[_hit(hit) for hit in page.hits],
            next_cursor=page.cursor,
            terms=[
                messages.TermAnswer(
                    words=term.words,
                    weight=term.weight,
                    negated=term.negated,
                    class_name=term.class_name or None,
                    not_calibrated=term.not_calibrated or None,
                )
                for term in page.terms
            ],
            nearest_reports=reports,
            records=page.records,
            model_version=self._service.predictor.model_version,
            warnings=warned(warnings),
            timings_ms=timings.total(),
        )

    async def cohort(self, request: Request, reader: Reader) -> Response:
        until = time.monotonic() + self._config.archive_cohort_deadline_s
        asked, windows = await reader.cohort(request)
        _note(request, asked)
        check_where(asked.where, self._config)
        if asked.format == "parquet" and self._config.archive_cohort_uri is None:
            raise RequestError(
                403, "no_cohort_folder", "this server writes no files", hint="ask for ndjson, or set archive_cohort_uri"
            )
        question = await self._questions.of(asked, windows)
        counted = await self._archive.count(question, asked.above, asked.where)
        if asked.format != "count" and counted.records > self._config.archive_max_cohort:
            fact = f"{counted.records} records fit; at most {self._config.archive_max_cohort} are listed"
            raise RequestError(422, "cohort_too_large", fact, hint="raise `above`, or filter with `where`")
        uri = None
        if asked.format == "parquet":
            uri = await self._archive.write_cohort(question, asked.above, asked.where)
        summary = _counted(counted, uri)
        if asked.format == "ndjson":
            return StreamingResponse(self._lines(question, asked, summary, until), media_type=_LINES)
        return Response(summary.model_dump_json(), media_type="application/json")

    async def _lines(
        self, question: Question, asked: messages.CohortRequest, summary: messages.CohortAnswer, until: float
    ) -> AsyncIterator[bytes]:
        """A line for each record, then the summary; an error takes the place of what is missing."""
        cursor: str | None = None
        try:
            while True:
                if time.monotonic() > until:
                    limit_s = self._config.archive_cohort_deadline_s
                    raise RequestError(503, "deadline", f"not done within {limit_s:g} s", hint="raise `above`")
                page = await self._archive.cohort_page(question, asked.above, asked.where, _LINES_AT_ONCE, cursor)
                yield b"".join(_line(hit) for hit in page.hits)
                cursor = page.cursor
                if cursor is None:
                    break
            yield summary.model_dump_json().encode() + b"\n"
        except RequestError as error:
            yield messages.CohortError(error=error_facts(error)).model_dump_json().encode() + b"\n"
        except Exception:
            fault = RequestError(500, "internal_error", "the server failed; see its log")
            yield messages.CohortError(error=error_facts(fault)).model_dump_json().encode() + b"\n"
            raise

    async def ecg(self, request: Request, record_id: str, source: str | None) -> messages.ArchiveEcg:
        """A record; its samples are not validated one by one."""
        audit.note_query(request, record_id=record_id)
        if max(len(record_id), len(source or "")) > messages.MOST_ID_CHARS:
            raise RequestError(404, "unknown_record", "no id is that long", hint="see /v1/search")
        found = await self._archive.ecg(record_id, source)
        signal, hit = found.signal, found.hit
        return messages.ArchiveEcg.model_construct(
            record_id=hit.record_id,
            patient_id=hit.patient_id,
            age=facts_of(hit.columns.get("age")),
            sex=hit.columns.get("sex"),
            leads=list(signal.leads),
            sampling_rate_hz=signal.sampling_rate_hz,
            duration_s=signal.duration_s,
            highpass_hz=signal.highpass_hz,
            signal_uv=found.signal_uv.tolist(),
            windows=1,
            warnings=[],
            report=found.report if self._config.archive_reports and found.report else None,
            notice=messages.NOTICE,
        )


def add_archive(app: FastAPI, service: Service, reader: Reader, archive: ArchiveCalls) -> None:
    """Add the routes of an archive."""
    routes = ArchiveRoutes(service, archive)

    @post_with_query(app, "/v1/search", summary="Find ECGs by words, a report or an ECG", openapi_extra=SEARCH_BODY)
    async def search(request: Request, query: SearchQuery) -> Response:
        answer = await routes.search(request, reader, query)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post(
        "/v1/cohort",
        summary="Count or list all ECGs that are at least so similar",
        openapi_extra=COHORT_BODY,
        response_model=None,
    )
    async def cohort(request: Request) -> Response:
        return await routes.cohort(request, reader)

    @app.get("/v1/archive", summary="What can be searched, and the columns that filters may name")
    async def facts() -> messages.ArchiveAnswer:
        return await routes.facts()

    @app.get(
        "/v1/archive/ecg/{record_id:path}",
        summary="A record of the archive as it was prepared",
        response_model=messages.ArchiveEcg,
    )
    async def ecg(request: Request, record_id: str, source: str | None = None) -> Response:
        found = await routes.ecg(request, record_id, source)
        return Response(found.model_dump_json(), media_type="application/json")


def _note(request: Request, asked: messages.SearchOptions | messages.CohortRequest) -> None:
    """What is asked, by its hash: first of all, so that a refused query is in the log as well."""
    words = getattr(asked, "words", None)
    audit.note_query(
        request,
        words=None if words is None else [word.text for word in words],
        report=getattr(asked, "report", None),
        record_id=getattr(asked, "record_id", None),
        where=asked.where,
    )


def _hit(hit: Hit) -> messages.SearchHit:
    columns = hit.columns
    return messages.SearchHit(
        record_id=hit.record_id,
        patient_id=hit.patient_id,
        similarity=hit.similarity,
        percentile=hit.percentile,
        probability=hit.probability,
        age=facts_of(columns.get("age")),
        sex=columns.get("sex"),
        columns={name: facts_of(value) for name, value in columns.items() if name not in _OWN_COLUMNS + _INNER_COLUMNS},
        terms=[messages.HitTerm(**term._asdict()) for term in hit.terms],
    )


def _line(hit: Hit) -> bytes:
    record = messages.CohortRecord(
        record_id=hit.record_id,
        patient_id=hit.patient_id,
        source=hit.columns["source"],
        similarity=round(hit.similarity, 6),
        percentile=round(hit.percentile, 4),
        probability=hit.probability,
    )
    return record.model_dump_json().encode() + b"\n"


def _counted(counted: CohortCount, uri: str | None) -> messages.CohortAnswer:
    return messages.CohortAnswer(
        count=counted.records, patients=counted.patients, of_records=counted.of_records, uri=uri
    )
