"""Occlusion: what is taken away, and that what carries a class is found where it is."""

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.model.occlusion import MOST_SEGMENTS, Parts
from tests.support.serving import synthetic_ecg

RATE_HZ = 100


@pytest.fixture(scope="module")
def window_uv():
    return np.rint(synthetic_ecg().signal_mv * 1000).astype(np.int16)


def test_each_window_lacks_one_part_and_nothing_else(window_uv):
    parts = Parts.of(window_uv, LEADS, RATE_HZ)
    territories = [(1, 2, 5), (6, 7, 8, 9), (0, 4, 10, 11)]
    assert parts.groups == (*((row,) for row in range(12)), *territories)
    assert (parts.rows, parts.segments, parts.step_s, parts.windows) == (tuple(range(12)), 20, 0.5, 336)
    without = parts.without(window_uv)
    assert without.shape == (336, 12, 1000)
    assert without.dtype == np.int16
    np.testing.assert_array_equal(without[0], window_uv)
    base_uv = np.median(window_uv, axis=1)
    for place, group in enumerate(parts.groups):
        others = [row for row in range(12) if row not in group]
        assert not without[1 + place, list(group)].any()
        np.testing.assert_array_equal(without[1 + place, others], window_uv[others])
    for segment in range(20):
        inside = slice(50 * segment + 3, 50 * segment + 47)  # beside the bounds it fades over 60 ms
        outside = np.r_[0 : max(0, 50 * segment - 3), 50 * segment + 53 : 1000]
        blank = without[16 + segment]
        assert np.abs(blank[:, inside] - base_uv[:, None]).max() <= 0.5
        np.testing.assert_array_equal(blank[:, outside], window_uv[:, outside])
        for place, group in enumerate(parts.groups):
            cell = without[36 + 20 * place + segment]
            others = [row for row in range(12) if row not in group]
            np.testing.assert_array_equal(cell[list(group)], blank[list(group)])
            np.testing.assert_array_equal(cell[others], window_uv[others])


def test_a_lead_that_was_not_recorded_is_no_part_and_a_long_window_has_no_more_segments(window_uv):
    some = window_uv.copy()
    some[[0, 1, 2, *range(4, 9), 10, 11]] = 0
    parts = Parts.of(some, LEADS, RATE_HZ)
    assert (parts.rows, parts.groups) == ((3, 9), ((3,), (9,)))  # aVR and V4: no territory has two of them
    assert parts.windows == 1 + 2 + 20 + 40
    assert not np.delete(parts.without(some), [3, 9], axis=1).any()
    long = Parts.of(np.ones((1, 60 * RATE_HZ), dtype=np.int16), ("II",), RATE_HZ)
    assert (long.segments, long.step_s) == (MOST_SEGMENTS, 3.0)
    short = Parts.of(np.ones((1, 20), dtype=np.int16), ("II",), RATE_HZ)
    assert (short.segments, short.step_s, short.windows) == (1, 0.2, 4)


def embed_by_heart(windows_uv):
    """An encoder that is known by heart: how large a spike is in each lead, and one direction that all ECGs share."""
    highest = windows_uv.max(axis=2).astype(np.float32)
    vectors = np.concatenate([highest, np.full((len(highest), 1), 500, dtype=np.float32)], axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_what_carries_a_class_is_found_where_it_is():
    window_uv = np.zeros((3, 1000), dtype=np.int16)
    window_uv[:, ::100] = 100  # beats
    window_uv[1, 720] = 2000
    parts = Parts.of(window_uv, ("aVR", "V1", "I"), RATE_HZ)
    vectors = np.eye(4, dtype=np.float32)[[1, 3]]
    drops = parts.drops(embed_by_heart(parts.without(window_uv)), vectors)
    np.testing.assert_allclose(drops.similarity, (embed_by_heart(window_uv[None]) @ vectors.T)[0], rtol=1e-6)
    assert drops.cells.shape == (2, 3, 20)
    assert (drops.leads[0].argmax(), drops.segments[0].argmax()) == (1, 14)
    assert np.unravel_index(drops.cells[0].argmax(), (3, 20)) == (1, 14)
    assert drops.leads[0, 1] == pytest.approx(drops.similarity[0])  # nothing is left of it
    assert drops.cells[1, 1, 14] < 0  # and what it hid is seen better


def test_leads_that_repeat_each_other_are_found_together():
    """The largest of all leads counts, and three of them have it: without one of them nothing changes."""
    window_uv = np.zeros((4, 1000), dtype=np.int16)
    window_uv[:, ::100] = 100
    window_uv[1:, 720] = 2000

    def embed(windows_uv):
        return embed_by_heart(windows_uv.max(axis=1, keepdims=True))

    parts = Parts.of(window_uv, ("V1", "II", "III", "aVF"), RATE_HZ)
    assert parts.groups == ((0,), (1,), (2,), (3,), (1, 2, 3))
    embeddings = embed(parts.without(window_uv))
    drops = parts.drops(embeddings, np.eye(2, dtype=np.float32)[:1])
    assert np.ptp(embeddings[:5, 0]) == 0
    whole, alone = embeddings[0, 0], embed(window_uv[None, :1])[0, 0]
    np.testing.assert_allclose(drops.leads[0], np.array([0, 1, 1, 1]) * (whole - alone) / 2, atol=1e-6)
    np.testing.assert_array_equal(drops.cells[0].argmax(axis=1)[1:], 14)
