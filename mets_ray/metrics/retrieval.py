"""Recall at k of a record's own report among all reports, and the reverse."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mets_ray.errors import MetsError
from mets_ray.metrics.intervals import require_finite

_ROWS_AT_ONCE = 512


def recall_at_k(
    queries: Float[np.ndarray, "query dimension"],
    candidates: Float[np.ndarray, "candidate dimension"],
    query_ids: Int[np.ndarray, "query"],
    candidate_ids: Int[np.ndarray, "candidate"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """Share of queries with a candidate of their own id among the k most similar; similarity is the dot product.

    Several candidates may have a query's id: the best one counts, and the others do not push it down. Ties are
    pessimistic: a wrong candidate that is as similar as the right one ranks above it, so a collapsed encoder that gives
    every ECG the same vector scores 0, not 1. A query without a right candidate is a miss. Similarities are computed
    a few rows at a time, never 20,000 x 20,000 at once.

    Raises MetsError for embeddings that are not finite, no queries, or a k below 1.
    """
    if len(queries) == 0:
        raise MetsError("recall is undefined for 0 queries")
    if any(k < 1 for k in ks):
        raise MetsError(f"`ks` is {tuple(ks)}; each k must be at least 1")
    require_finite("queries", queries)
    require_finite("candidates", candidates)
    wrong_before = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        similarity = queries[rows] @ candidates.T
        right = query_ids[rows, None] == candidate_ids[None, :]
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
        wrong_before[rows] = ((similarity >= best) & ~right).sum(axis=1)
        wrong_before[rows][~right.any(axis=1)] = np.iinfo(np.int64).max
    return {k: float((wrong_before < k).mean()) for k in ks}


def retrieval_recall(
    ecg_embeddings: Float[np.ndarray, "record dimension"],
    text_embeddings: Float[np.ndarray, "record dimension"],
    text_ids: Int[np.ndarray, "record"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[int, float]]:
    """Recall at k in both directions between ECGs and distinct reports: {"ecg_to_text": {k: .}, "text_to_ecg": {k: .}}.

    Row i of both arrays is one pair, and `text_ids[i]` its report's `text.reports.text_id`. Identical reports count as
    one candidate and one query: of 1,992 PTB-XL records, 178 share one report, which would otherwise fill whole top
    tens. The values depend on the number of records, so report it with them. Errors as in `recall_at_k`.
    """
    distinct, first = np.unique(text_ids, return_index=True)
    texts = text_embeddings[first]
    return {
        "ecg_to_text": recall_at_k(ecg_embeddings, texts, text_ids, distinct, ks),
        "text_to_ecg": recall_at_k(texts, ecg_embeddings, distinct, text_ids, ks),
    }
