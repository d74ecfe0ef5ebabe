"""The map of embeddings: what it keeps together, and what stands in the pixels."""

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.pictures.embedding_map import MOST_MAP_RECORDS, draw_embedding_map, embedding_map, map_rows
from tests.support.pixels import places

ODD_NAMES = ("_AVB", r"a $\frac{$ b", "LAO/LAE", "<script>", "", "W" * 40)


def test_embedding_map_keeps_neighbours_and_repeats_itself():
    generator = np.random.default_rng(0)
    centres, group = generator.normal(size=(3, 16)), np.arange(90) % 3
    embeddings = (centres[group] + 0.05 * generator.normal(size=(90, 16))).astype(np.float32)
    points = embedding_map(embeddings, 0)
    assert points.shape == (90, 2)
    np.testing.assert_array_equal(points, embedding_map(embeddings, 0))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(90, np.inf))
    assert (group[distance.argmin(axis=1)] == group).all()


@pytest.mark.parametrize(("records", "dimension"), [(1, 8), (2, 8), (9, 8), (10, 8), (30, 1)])
def test_embedding_map_of_few_records_or_dimensions(records, dimension):
    points = embedding_map(np.random.default_rng(0).normal(size=(records, dimension)), 0)
    assert points.shape == (records, 2)
    assert np.isfinite(points).all()


def test_embedding_map_below_ten_records_keeps_distances():
    embeddings = np.random.default_rng(0).normal(size=(9, 2))
    points = embedding_map(embeddings, 0)
    for first, second in ((0, 1), (3, 8)):
        expected = np.linalg.norm(embeddings[first] - embeddings[second])
        assert np.linalg.norm(points[first] - points[second]) == pytest.approx(expected)


def test_embedding_map_of_a_collapsed_encoder():
    points = embedding_map(np.full((40, 8), 0.3), 0)
    assert not points.any()
    assert not embedding_map(0.3 + 1e-14 * np.random.default_rng(0).normal(size=(40, 8)), 0).any()
    draw_embedding_map(points, ["A"] * 40, "collapsed")


def test_map_faults_and_rows():
    for records in (0, MOST_MAP_RECORDS + 1):
        with pytest.raises(MetsError, match=f"a map of {records} records"):
            embedding_map(np.zeros((records, 4)), 0)
    with pytest.raises(MetsError, match="not finite"):
        embedding_map(np.full((20, 4), np.nan), 0)
    assert map_rows(5, 0).tolist() == [0, 1, 2, 3, 4]
    rows = map_rows(5000, 0)
    assert len(np.unique(rows)) == MOST_MAP_RECORDS
    assert (np.diff(rows) > 0).all()
    assert (rows == map_rows(5000, 0)).all()
    assert (rows != map_rows(5000, 1)).any()


def test_embedding_map_draws_twelve_groups_and_greys_the_others():
    points = np.random.default_rng(0).normal(size=(800, 2))
    few = draw_embedding_map(points, [ODD_NAMES[row % 6] for row in range(800)], r"$\frac{$")
    many = draw_embedding_map(points, [f"_class {row % 38}" for row in range(800)], "38")
    assert len(places(few, "#bbbbbb")[0]) < 50  # edges of letters
    assert len(places(many, "#bbbbbb")[0]) > 2000
    with pytest.raises(MetsError, match="800 points for 1 groups"):
        draw_embedding_map(points, ["A"], "")
