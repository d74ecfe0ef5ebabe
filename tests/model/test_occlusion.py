"""Occlusion: what is taken away, and that what carries a class is found where it is."""

import numpy as np
import pytest

from mets_ray.model.occlusion import MOST_SEGMENTS, Parts
from tests.support.serving import synthetic_ecg

RATE_HZ = 100


@pytest.fixture(scope="module")
def window_uv():
    return np.rint(synthetic_ecg().signal_mv * 1000).astype(np.int16)


def test_each_window_lacks_one_part_and_nothing_else(window_uv):
    parts = Parts.of(window_uv, RATE_HZ)
    assert (len(parts.rows), parts.segments, parts.step_s, parts.windows) == (12, 20, 0.5, 273)
    without = parts.without(window_uv)
    assert without.shape == (273, 12, 1000)
    assert without.dtype == np.int16
    np.testing.assert_array_equal(without[0], window_uv)
    base_uv = np.median(window_uv, axis=1)
    for lead in range(12):
        assert not without[1 + lead, lead].any()
        assert (np.delete(without[1 + lead], lead, axis=0) == np.delete(window_uv, lead, axis=0)).all()
    for segment in range(20):
        inside = slice(50 * segment + 3, 50 * segment + 47)  # beside the bounds it fades over 60 ms
        outside = np.r_[0 : max(0, 50 * segment - 3), 50 * segment + 53 : 1000]
        blank = without[13 + segment]
        assert np.abs(blank[:, inside] - base_uv[:, None]).max() <= 0.5
        np.testing.assert_array_equal(blank[:, outside], window_uv[:, outside])
        for lead in range(12):
            cell = without[33 + 20 * lead + segment]
            np.testing.assert_array_equal(cell[lead], blank[lead])
            np.testing.assert_array_equal(np.delete(cell, lead, axis=0), np.delete(window_uv, lead, axis=0))


def test_a_lead_that_was_not_recorded_is_no_part_and_a_long_window_has_no_more_segments(window_uv):
    limb = window_uv.copy()
    limb[6:] = 0
    parts = Parts.of(limb, RATE_HZ)
    assert (parts.rows, parts.windows) == (tuple(range(6)), 1 + 6 + 20 + 120)
    assert not parts.without(limb)[:, 6:].any()
    long = Parts.of(np.ones((1, 60 * RATE_HZ), dtype=np.int16), RATE_HZ)
    assert (long.segments, long.step_s) == (MOST_SEGMENTS, 3.0)
    short = Parts.of(np.ones((1, 20), dtype=np.int16), RATE_HZ)
    assert (short.segments, short.step_s, short.windows) == (1, 0.2, 4)


def test_what_carries_a_class_is_found_where_it_is():
    """An encoder that is known by heart: how large a spike is in each lead, and one direction that all ECGs share."""
    window_uv = np.zeros((3, 1000), dtype=np.int16)
    window_uv[:, ::100] = 100  # beats
    window_uv[1, 720] = 2000

    def embed(windows_uv):
        highest = windows_uv.max(axis=2).astype(np.float32)
        vectors = np.concatenate([highest, np.full((len(highest), 1), 500, dtype=np.float32)], axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    parts = Parts.of(window_uv, RATE_HZ)
    vectors = np.eye(4, dtype=np.float32)[[1, 3]]
    drops = parts.drops(embed(parts.without(window_uv)), vectors)
    np.testing.assert_allclose(drops.similarity, (embed(window_uv[None]) @ vectors.T)[0], rtol=1e-6)
    assert drops.cells.shape == (2, 3, 20)
    assert (drops.leads[0].argmax(), drops.segments[0].argmax()) == (1, 14)
    assert np.unravel_index(drops.cells[0].argmax(), (3, 20)) == (1, 14)
    assert drops.leads[0, 1] == pytest.approx(drops.similarity[0])  # nothing is left of it
    assert drops.cells[1, 1, 14] < 0  # and what it hid is seen better
