"""An opened archive: search by words, vectors, records and reports. It needs neither torch nor Ray until words are read."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from mets_ray.archive.facts import ArchiveFacts
from mets_ray.archive.query import Direction, Query
from mets_ray.archive.results import CohortCount, CohortPage, Hit, NearReport, SearchPage

MOST_HITS = 1000
"""Hits of one page."""


def open_archive(uri: str, *, bundle_uri: str | None = None) -> "Archive":
    """Open the index that `mets-ray index` wrote.

    uri: its folder, on any storage. bundle_uri: the bundle that turns words into vectors; default: the one that the
    index names. It is loaded when words are first searched for.

    Raises DatasetError if there is no index, it is half-written, damaged or of another schema; ConfigError if the extra
    `archive` is not installed.
    """
    raise NotImplementedError


class Archive:
    """See `open_archive`. `facts`: what it holds, of which bundle, and its columns. Methods may be called from threads.

    All searches take `where`, a filter on columns (`archive.filters`): `age > 60 and sex = 'female'`. All raise
    ConfigError for a `k` outside 1 to 1,000, a filter that cannot be read and a cursor of another search, and
    DatasetError for an index that changed or whose files are gone.
    """

    facts: ArchiveFacts

    def require_bundle(self, digest: str) -> None:
        """Raise CheckpointError if the index is not of the bundle with this digest (`Bundle.digest`)."""
        raise NotImplementedError

    def search(
        self,
        query: str | Query,
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
    ) -> SearchPage:
        """Records that fit words. query: as `Query.parse`. Loads the bundle on first use; raises as `load_predictor`.

        one_per_patient: only the best record of each patient.
        """
        raise NotImplementedError

    def search_directions(
        self,
        directions: Sequence[Direction],
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
    ) -> SearchPage:
        """`search` for vectors that are known: `archive.words.read_query` makes them, or `Direction(embedding)`."""
        raise NotImplementedError

    def like(
        self,
        record: str | Float32[np.ndarray, " dimension"],
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
    ) -> SearchPage:
        """Records like one of the archive, by its id and without records of its own patient, or like an embedding."""
        raise NotImplementedError

    def embedding(self, record_id: str) -> Float32[np.ndarray, " dimension"]:
        """The unit vector of a record. Raises ConfigError for an id that the archive does not hold."""
        raise NotImplementedError

    def record(self, record_id: str) -> Hit:
        """The columns of a record (similarity and percentile are nan). Raises as `embedding`."""
        raise NotImplementedError

    def nearest_reports(
        self, record: str | Float32[np.ndarray, " dimension"], *, k: int = 5, where: str | None = None
    ) -> tuple[NearReport, ...]:
        """Reports of the most similar ECGs, each once: retrieval, never a diagnosis.

        Raises ConfigError if the index was made without reports (`index.reports=false`).
        """
        raise NotImplementedError

    def cohort(
        self, query: str | Query | Sequence[Direction], *, above: float, where: str | None = None
    ) -> Iterator[Hit]:
        """Every record with at least this similarity, in the archive's order. Exact: all vectors are compared.

        Memory holds a few thousand records. Calibrated probabilities and percentiles as in `search`.
        """
        raise NotImplementedError

    def cohort_page(
        self,
        query: str | Query | Sequence[Direction],
        *,
        above: float,
        k: int = 1000,
        where: str | None = None,
        cursor: str | None = None,
    ) -> CohortPage:
        """`cohort` a page at a time."""
        raise NotImplementedError

    def count(self, query: str | Query | Sequence[Direction], *, above: float, where: str | None = None) -> CohortCount:
        """How many records `cohort` finds."""
        raise NotImplementedError
