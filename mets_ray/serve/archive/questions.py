"""From what a request asks to what the archive is searched with: words, reports and ECGs become directions here."""

from typing import Any, Protocol

from mets_ray.archive.cohorts import CohortCount
from mets_ray.archive.facts import ArchiveFacts
from mets_ray.archive.query import Direction, Query, Term
from mets_ray.archive.results import CohortPage, NearReport, SearchPage
from mets_ray.archive.words import query_texts, read_query, report_query
from mets_ray.errors import ConfigError, RequestError
from mets_ray.model.windows import Windows, mean_embedding
from mets_ray.serve.archive.messages import USUAL_K, CohortRequest, SearchOptions, SearchRequest, SearchTerm
from mets_ray.serve.archive.question import Question
from mets_ray.serve.archive.replica import StoredEcg
from mets_ray.serve.class_lists import check_texts
from mets_ray.serve.service import Service
from mets_ray.serve.settings import ServeConfig

MOST_REPORT_CHARS = 4096


class ArchiveCalls(Protocol):
    """The methods of `ArchiveReplica`, wherever it runs. Each raises RequestError."""

    async def facts(self) -> ArchiveFacts: ...

    async def search(
        self, question: Question, k: int, where: str | None, cursor: str | None, one: bool
    ) -> SearchPage: ...

    async def nearest_reports(self, question: Question, k: int, where: str | None) -> tuple[NearReport, ...]: ...

    async def count(self, question: Question, above: float, where: str | None) -> CohortCount: ...

    async def cohort_page(
        self, question: Question, above: float, where: str | None, k: int, cursor: str | None
    ) -> CohortPage: ...

    async def write_cohort(self, question: Question, above: float, where: str | None) -> str: ...

    async def ecg(self, record_id: str, source: str | None) -> StoredEcg: ...


class Questions:
    """Turns requests into questions, with the model and the text cache of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._config: ServeConfig = service.config

    async def of(self, asked: SearchOptions | CohortRequest, windows: Windows | None) -> Question:
        """What is looked for. windows: of the request's ECG. Raises RequestError 422 for words that cannot be used."""
        if windows is not None:
            return Question((Direction(mean_embedding(await self._service.embeddings(windows))),))
        assert isinstance(asked, SearchRequest | CohortRequest)
        if asked.record_id is not None:
            return Question(record_id=asked.record_id, source=asked.source)
        try:
            query = self._of_words(asked.words) if asked.words is not None else self._of_report(asked.report or "")
            return Question(await self._read(query))
        except ConfigError as error:
            raise RequestError(422, "bad_query", error.fact, hint=error.hint) from error

    def _of_words(self, words: list[SearchTerm]) -> Query:
        if len(words) > self._config.archive_max_words:
            fact = f"there are {len(words)} texts; at most {self._config.archive_max_words} are taken"
            raise RequestError(422, "too_many_words", fact, hint="leave some out")
        return Query(tuple(Term(word.text, word.weight, word.negated) for word in words))

    def _of_report(self, report: str) -> Query:
        if len(report) > MOST_REPORT_CHARS:
            fact = f"the report has {len(report)} characters; at most {MOST_REPORT_CHARS} are taken"
            raise RequestError(422, "report_too_long", fact, hint="send its findings only")
        return report_query(self._service.predictor, report)

    async def _read(self, query: Query) -> tuple[Direction, ...]:
        predictor = self._service.predictor
        texts = query_texts(predictor, query)
        check_texts(texts, self._config)
        await self._service.learn(texts)
        return read_query(predictor, query)  # at once: what was learnt is still there, and nothing else is asked for


def checked_k(options: SearchOptions, config: ServeConfig) -> int:
    """How many records are wanted. Raises RequestError 422 for options beyond the limits of `config`."""
    k = min(USUAL_K, config.archive_max_k) if options.k is None else options.k
    if not 1 <= k <= config.archive_max_k:
        fact = f"`k` is {k}; it is at least 1 and at most {config.archive_max_k}"
        raise RequestError(422, "bad_k", fact, hint="ask for more with `next_cursor`, or for all with /v1/cohort")
    if not 0 <= options.nearest_reports <= config.archive_max_k:
        fact = f"`nearest_reports` is {options.nearest_reports}; it is at most {config.archive_max_k}"
        raise RequestError(422, "bad_k", fact, hint="ask for fewer")
    if options.nearest_reports and not config.archive_reports:
        raise RequestError(403, "no_reports", "this server shows no reports", hint="see the setting archive_reports")
    if options.cursor is not None and len(options.cursor) > 4096:
        raise RequestError(422, "bad_query", "`cursor` is not one that this server gave", hint="send `next_cursor`")
    check_where(options.where, config)
    return k


def check_where(where: str | None, config: ServeConfig) -> None:
    """Raise RequestError 422 for a filter that is too long to be parsed."""
    if where is not None and len(where) > config.archive_max_where_chars:
        fact = f"`where` has {len(where)} characters; at most {config.archive_max_where_chars} are parsed"
        raise RequestError(422, "where_too_long", fact, hint="filter what was found, or ask in parts")


def facts_of(value: Any) -> Any:
    """A value of a column as JSON can hold it: NaN becomes null, a time its ISO form."""
    if isinstance(value, float) and value != value:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
