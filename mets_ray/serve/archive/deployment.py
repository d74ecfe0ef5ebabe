"""The archive's deployment, with replicas and memory of its own: a search never takes the model's time."""

import asyncio
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from mets_ray.archive.cohorts import CohortCount
from mets_ray.archive.facts import ArchiveFacts
from mets_ray.archive.results import CohortPage, NearReport, SearchPage
from mets_ray.errors import MetsError, RequestError
from mets_ray.serve.archive.opened import OpenedArchive
from mets_ray.serve.archive.question import Question
from mets_ray.serve.archive.replica import ArchiveReplica, StoredEcg
from mets_ray.serve.deployments import scale
from mets_ray.serve.settings import ServeConfig

logger = logging.getLogger("ray.serve")

_ONGOING = 16
_REFRESH_S = 60.0
_THREADS_PER_CPU = 2  # some wait for a store


@serve.deployment
class Archive:
    """`ArchiveReplica` on threads: those that go through the whole archive are not those that searches wait for."""

    def __init__(self, config: ServeConfig, bundle_digest: str) -> None:
        self._replica = ArchiveReplica(config, bundle_digest)
        self._most_bytes = config.archive_memory_bytes
        self._refreshed_at = time.monotonic()
        self._threads = ThreadPoolExecutor(max(2, round(_THREADS_PER_CPU * config.archive_cpus)), "search")
        self._cohorts = ThreadPoolExecutor(1, "cohort")

    async def call(self, method: str, *arguments: Any) -> Any:
        """What a method of `ArchiveReplica` returns, or the RequestError that it raises.

        As a value: Serve writes what a replica raises to its log, and the fact may name a patient.
        """
        threads = self._cohorts if method in ("count", "cohort_page", "write_cohort") else self._threads
        asked = getattr(self._replica, method)
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, asked, *arguments)
        except RequestError as error:
            return error
        except Exception as error:
            # Its message is never logged: it could quote what was asked.
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the archive's `%s` failed: %s\n%s", method, type(error).__name__, trace)
            return RequestError(500, "internal_error", "the server failed; see its log")

    async def check_health(self) -> None:
        """Called by Serve; a replica that raises three times in a row is replaced."""
        if time.monotonic() - self._refreshed_at > _REFRESH_S:
            self._refreshed_at = time.monotonic()
            self._threads.submit(self._refresh)  # not waited for: a store may be silent
        held = resident_bytes()
        if held > self._most_bytes:
            raise RuntimeError(f"the replica holds {held} bytes; `archive_memory_bytes` is {self._most_bytes}")

    def _refresh(self) -> None:
        try:
            if self._replica.refresh():
                logger.info("the archive has %d records now", self._replica.facts().records)
        except MetsError as error:
            logger.error("the archive stays as it was opened: %s", error)


class ArchiveHandle:
    """`ArchiveCalls` through Ray Serve."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def facts(self) -> ArchiveFacts:
        facts: ArchiveFacts = await self._call("facts")
        return facts

    async def search(self, question: Question, k: int, where: str | None, cursor: str | None, one: bool) -> SearchPage:
        page: SearchPage = await self._call("search", question, k, where, cursor, one)
        return page

    async def nearest_reports(self, question: Question, k: int, where: str | None) -> tuple[NearReport, ...]:
        reports: tuple[NearReport, ...] = await self._call("nearest_reports", question, k, where)
        return reports

    async def count(self, question: Question, above: float, where: str | None) -> CohortCount:
        counted: CohortCount = await self._call("count", question, above, where)
        return counted

    async def cohort_page(
        self, question: Question, above: float, where: str | None, k: int, cursor: str | None
    ) -> CohortPage:
        page: CohortPage = await self._call("cohort_page", question, above, where, k, cursor)
        return page

    async def write_cohort(self, question: Question, above: float, where: str | None) -> str:
        uri: str = await self._call("write_cohort", question, above, where)
        return uri

    async def ecg(self, record_id: str, source: str | None) -> StoredEcg:
        found: StoredEcg = await self._call("ecg", record_id, source)
        return found

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            found = await self._handle.call.remote(method, *arguments)
        except (BackPressureError, RayServeException, RayError) as error:
            logger.warning("the archive did not respond: %s", type(error).__name__)
            raise RequestError(503, "no_archive", "the archive did not respond", hint="try again") from error
        if isinstance(found, RequestError):
            raise found
        return found


def bind_archive(config: ServeConfig, bundle_digest: str) -> Application:
    """The deployment of the configured archive. Raises as `OpenedArchive`: before anything is deployed."""
    OpenedArchive(config, bundle_digest)
    return Archive.options(  # type: ignore[attr-defined, no-any-return]
        **scale(config.archive_min_replicas, config.archive_max_replicas, target=_ONGOING / 4),
        ray_actor_options={"num_cpus": config.archive_cpus, "memory": config.archive_memory_bytes},
        max_ongoing_requests=_ONGOING,
        max_queued_requests=config.max_queued_requests,
        max_surge_percent=100,
        graceful_shutdown_timeout_s=config.archive_cohort_deadline_s + 5,
    ).bind(config, bundle_digest)


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
