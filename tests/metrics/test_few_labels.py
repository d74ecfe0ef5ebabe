"""Draws of a few labels per class: enough of each, the same in any order, and fewer within more."""

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.metrics.few_labels import draw_labels

NAMES = [f"record-{number}" for number in range(400)]


@pytest.fixture(scope="module")
def truth():
    generator = np.random.default_rng(5)
    return generator.random((400, 4)) < [0.4, 0.2, 0.02, 0.1]


def test_each_class_has_so_many_or_all_that_there_are(truth):
    for per_class in (1, 8, 32, 1000):
        rows = draw_labels(truth, NAMES, per_class, 0)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert (truth[rows].sum(axis=0) >= np.minimum(per_class, truth.sum(axis=0))).all()
        assert truth[rows].any(axis=1).all()
    assert draw_labels(truth, NAMES, None, 0).tolist() == np.flatnonzero(truth.any(axis=1)).tolist()
    assert draw_labels(truth, NAMES, 0, 0).tolist() == []
    # A class alone has exactly so many.
    alone = np.eye(4, dtype=bool)[np.arange(400) % 4]
    assert alone[draw_labels(alone, NAMES, 8, 3)].sum(axis=0).tolist() == [8, 8, 8, 8]


def test_fewer_labels_are_among_more_and_seeds_differ(truth):
    drawn = [set(draw_labels(truth, NAMES, number, 7).tolist()) for number in (2, 8, 32)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert set(draw_labels(truth, NAMES, 8, 8).tolist()) != drawn[1]


def test_the_order_of_records_does_not_matter(truth):
    order = np.random.default_rng(0).permutation(400)
    rows = draw_labels(truth[order], [NAMES[row] for row in order], 8, 7)
    assert sorted(order[rows].tolist()) == draw_labels(truth, NAMES, 8, 7).tolist()


def test_less_than_none_is_refused(truth):
    with pytest.raises(MetsError, match="`per_class` is -1"):
        draw_labels(truth, NAMES, -1, 0)
