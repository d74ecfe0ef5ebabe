"""Whether an index answers as it should: records find themselves, and what comparing all of them finds."""

import statistics
import time
from typing import NamedTuple

import numpy as np

from mets_ray.archive.archive import Archive
from mets_ray.archive.query import Direction

_QUERIES = 16
_QUERIES_OF_MANY, _MANY = 2, 5_000_000  # comparing all of so many records takes seconds a query
_DEPTH = 50


class SelfCheck(NamedTuple):
    """queries: records that were searched for. found_themselves: those whose own record is the first hit, or as similar
    as the first. recall: the share of the 50 nearest of all records that searches found. median_ms: of a search.
    """

    queries: int
    found_themselves: int
    recall: float
    median_ms: float


def check_archive(archive: Archive) -> SelfCheck:
    """Search for some records of the archive. Reads every vector of it for each."""
    rows = archive.spread_rows(_QUERIES if archive.facts.records < _MANY else _QUERIES_OF_MANY)
    found, recalls, times_ms = 0, [], []
    for vector in rows:
        began = time.perf_counter()
        hits = archive.search_directions([Direction(vector)], k=_DEPTH, one_per_patient=False).hits
        times_ms.append(1000.0 * (time.perf_counter() - began))
        found += bool(hits) and hits[0].similarity > 1.0 - 1e-4
        exact = archive.nearest_exactly(vector, _DEPTH)
        # By similarity and not by id: records that are as similar as the last one are as good.
        reached = np.asarray([hit.similarity for hit in hits]) >= exact[-1] - 1e-6
        recalls.append(float(reached.sum()) / len(exact))
    return SelfCheck(len(rows), found, statistics.mean(recalls), statistics.median(times_ms))
