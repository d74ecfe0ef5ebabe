"""examples.py: which records are the best and the worst, worked by hand and counted pair by pair."""

import numpy as np
import pytest

from mets_ray.metrics.extremes import choose_examples
from mets_ray.metrics.similarities import TaskSimilarities


def scores_of(similarity, truth, classes=("A", "B")):
    similarity, truth = np.asarray(similarity, dtype=np.float64), np.asarray(truth, dtype=bool)
    names = tuple(f"r{row}" for row in range(len(truth)))
    return TaskSimilarities("task", classes, names, np.array([f"p{name}" for name in names]), similarity, truth)


def test_by_hand():
    similarity = [[0.9, 0.1], [0.2, 0.3], [0.5, 0.8], [0.5, 0.7], [0.1, 0.9]]
    truth = [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]
    best, other, worst, last = choose_examples(scores_of(similarity, truth), each=2)
    # r0 outranks all three without A; of B both r2 and r3 outrank r0 and r1 and not r4, and r2 is the more similar.
    assert (best.kind, best.record_id, best.class_name, best.outranked) == ("best", "r0", "A", 1.0)
    assert (other.kind, other.record_id, other.class_name) == ("best", "r2", "B")
    assert other.outranked == pytest.approx(2 / 3)
    # r1 outranks r4 alone, of r2, r3 and r4.
    assert (worst.kind, worst.record_id, worst.outranked) == ("worst", "r1", pytest.approx(1 / 3))
    assert (last.kind, last.record_id) == ("worst", "r3")
    assert (best.patient, best.similarity, best.classes) == ("pr0", 0.9, ("A",))


def test_ties_count_half_and_the_share_is_a_count_of_pairs():
    generator = np.random.default_rng(0)
    similarity = generator.integers(0, 6, size=(80, 3)) / 6
    truth = generator.random((80, 3)) < 0.3
    scores = scores_of(similarity, truth, ("A", "B", "C"))
    chosen = choose_examples(scores, each=3)
    assert [example.kind for example in chosen] == ["best"] * 3 + ["worst"] * 3
    assert len({example.record_id for example in chosen}) == 6
    for example in chosen:
        column, row = "ABC".index(example.class_name), int(example.record_id[1:])
        others = similarity[~truth[:, column], column]
        own = similarity[row, column]
        assert truth[row, column]
        assert example.outranked == pytest.approx(((others < own) + 0.5 * (others == own)).mean())


def test_classes_that_cannot_be_scored_have_no_examples():
    assert choose_examples(scores_of([[0.1, 0.2], [0.3, 0.4]], [[1, 0], [1, 0]])) == ()
