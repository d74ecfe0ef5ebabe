"""Augmented views: what they take away, and that they follow from seed, epoch and record alone."""

import numpy as np
import pytest
import torch

from mets_ray.augment import GAIN_LIMITS, SHORTEST_STRETCH, augmented, draw_views
from mets_ray.config import AugmentConfig, load_config

IDS = np.asarray([f"record-{number}" for number in range(400)])
SHAPE = {"leads": 12, "samples": 1000, "features": 64}
DEFAULT = AugmentConfig(feature_dropout=0.5)
OFF = AugmentConfig(lead_dropout=0.0, cropping=0.0, gain=0.0, feature_dropout=0.0)


def draw(settings=DEFAULT, ids=IDS, *, seed=0, epoch=0):
    return draw_views(settings, ids, **SHAPE, seed=seed, epoch=epoch)


def same(left, right):
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in ("gain", "start", "stop", "feature_gain")
    )


def test_a_view_is_the_records_own_whatever_batch_it_stands_in():
    whole = draw()
    order = np.random.default_rng(0).permutation(len(IDS))
    for rows in (order[:7], order[7:8], order[8:]):
        part = draw(ids=IDS[rows])
        np.testing.assert_array_equal(part.gain, whole.gain[rows])
        np.testing.assert_array_equal(part.start, whole.start[rows])
        np.testing.assert_array_equal(part.stop, whole.stop[rows])
        np.testing.assert_array_equal(part.feature_gain, whole.feature_gain[rows])
    assert same(draw(), whole)
    assert not same(draw(epoch=1), whole)
    assert not same(draw(seed=1), whole)


def test_half_lose_leads_and_half_lose_a_stretch():
    views = draw()
    kept = (views.gain > 0).sum(axis=1)
    assert kept.min() >= 1
    assert 0.4 < (kept < 12).mean() < 0.6
    assert set(kept.tolist()) == set(range(1, 13))
    # Every lead is as likely to be kept as another.
    share = (views.gain > 0)[kept < 12].mean(axis=0)
    assert np.all(np.abs(share - share.mean()) < 0.15)
    length = views.stop - views.start
    assert 0.4 < (length < 1000).mean() < 0.6
    assert length.min() >= int(SHORTEST_STRETCH * 1000)
    assert views.start.min() >= 0
    assert views.stop.max() <= 1000
    gains = views.gain[views.gain > 0]
    assert gains.min() >= np.float32(GAIN_LIMITS[0])
    assert gains.max() <= np.float32(GAIN_LIMITS[1])
    assert 0.08 < gains.std() < 0.12
    assert set(np.unique(views.feature_gain).tolist()) == {0.0, 2.0}
    assert 0.45 < (views.feature_gain > 0).mean() < 0.55


def test_dropped_features_leave_the_mean_as_it_is():
    views = draw(AugmentConfig(feature_dropout=0.2))
    assert abs(views.feature_gain.mean() - 1.0) < 0.02
    assert draw(AugmentConfig(feature_dropout=0.0)).feature_gain is None


@pytest.mark.parametrize("part", ["lead_dropout", "cropping", "gain"])
def test_a_part_left_out_leaves_the_others_as_they_are(part):
    views, whole = draw(DEFAULT.model_copy(update={part: 0.0})), draw()
    if part == "cropping":
        assert np.all(views.start == 0)
        assert np.all(views.stop == 1000)
        np.testing.assert_array_equal(views.gain, whole.gain)
    else:
        np.testing.assert_array_equal(views.start, whole.start)
        np.testing.assert_array_equal(views.stop, whole.stop)
        np.testing.assert_array_equal(
            views.gain > 0, whole.gain > 0
        ) if part == "gain" else np.testing.assert_array_less(0.0, views.gain)


def test_the_signal_is_multiplied_between_start_and_stop_and_zero_elsewhere():
    views = draw(ids=IDS[:16])
    signal = torch.randn(16, 12, 1000, dtype=torch.float64)
    expected = np.zeros((16, 12, 1000))
    for row in range(16):
        for lead in range(12):
            for sample in range(views.start[row], views.stop[row]):
                expected[row, lead, sample] = signal[row, lead, sample].item() * float(views.gain[row, lead])
    np.testing.assert_array_equal(augmented(signal, views).numpy(), expected)


def test_off_is_untouched_as_published():
    assert draw(OFF) is None
    signal = torch.randn(2, 12, 1000)
    assert augmented(signal, None) is signal
    assert load_config("jobs/configs/mets_paper.yaml", []).augment == OFF
