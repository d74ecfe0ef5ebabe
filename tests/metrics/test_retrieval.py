"""Recall at k against a sorted ranking."""

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.metrics.retrieval import recall_at_k, retrieval_recall


def recall_by_hand(queries, candidates, query_ids, candidate_ids, k) -> float:
    hits = 0
    for query, own in zip(queries, query_ids, strict=True):
        ranking = sorted(
            (-float(query @ candidate), bool(candidate_id == own))  # at equal similarity False, the wrong one, is first
            for candidate, candidate_id in zip(candidates, candidate_ids, strict=True)
        )
        for wrong, (_, right) in enumerate(ranking):
            if right:
                hits += wrong < k
                break
    return hits / len(queries)


def test_recall_equals_a_sorted_ranking(monkeypatch):
    monkeypatch.setattr("mets_ray.metrics.retrieval._ROWS_AT_ONCE", 7)
    generator = np.random.default_rng(8)
    # Whole numbers: many ties, and the dot products are exact whatever the order of summation.
    queries, candidates = (
        generator.integers(-2, 3, (40, 4)).astype(float),
        generator.integers(-2, 3, (30, 4)).astype(float),
    )
    query_ids, candidate_ids = generator.integers(0, 12, 40), generator.integers(0, 10, 30)  # ids 10, 11 have no answer
    found = recall_at_k(queries, candidates, query_ids, candidate_ids, ks=(1, 5, 100))
    assert found == {k: recall_by_hand(queries, candidates, query_ids, candidate_ids, k) for k in (1, 5, 100)}
    assert 0.0 < found[1] < found[5] < found[100] < 1.0


def test_equal_reports_are_one_answer():
    generator = np.random.default_rng(9)
    texts = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    ids = np.array([0] * 12 + list(range(1, 8)), dtype=np.int64)
    ecgs = texts[ids]
    assert retrieval_recall(ecgs, texts[ids], ids, ks=(1,)) == {"ecg_to_text": {1: 1.0}, "text_to_ecg": {1: 1.0}}
    # The ECG of report 7 looks like report 0, which 12 records share, then like its own: they are one rival, not 12.
    ecgs[-1] = 0.8 * texts[0] + 0.6 * texts[7]
    found = retrieval_recall(ecgs, texts[ids], ids, ks=(1, 2))
    assert found["ecg_to_text"] == {1: pytest.approx(18 / 19), 2: 1.0}
    assert found["text_to_ecg"] == {1: 1.0, 2: 1.0}


def test_collapsed_encoder_recalls_nothing():
    ids = np.arange(50)
    same = np.ones((50, 3), dtype=np.float32)
    assert recall_at_k(same, same, ids, ids, ks=(1, 10)) == {1: 0.0, 10: 0.0}


def test_recall_faults_are_named():
    ids, vectors = np.arange(3), np.eye(3)
    with pytest.raises(MetsError, match="0 queries"):
        recall_at_k(vectors[:0], vectors, ids[:0], ids)
    with pytest.raises(MetsError, match="at least 1"):
        recall_at_k(vectors, vectors, ids, ids, ks=(0,))
    with pytest.raises(MetsError, match="of `candidates` are not finite"):
        recall_at_k(vectors, np.full((3, 3), np.inf), ids, ids)
