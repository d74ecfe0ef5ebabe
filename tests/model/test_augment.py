"""Augmented views: what they take away, and that they follow from seed, epoch and record alone."""

import numpy as np
import pytest
import torch

from mets_ray.config.load import load_config
from mets_ray.config.settings import AugmentConfig
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import LEAD_SETS, lead_mask
from mets_ray.model.augment import GAIN_LIMITS, SHORTEST_STRETCH, BatchPlace, augmented, draw_views

ROWS = 400
DEFAULT = AugmentConfig(usual_leads=0.0)
OFF = AugmentConfig(lead_dropout=0.0, cropping=0.0, gain=0.0, retimed=0.0)


def draw(settings=DEFAULT, rows=range(ROWS), *, seed=0, epoch=0, step=0):
    return draw_views(settings, BatchPlace(seed, epoch, step, ROWS), rows, leads=LEADS, samples=1000)


def same(left, right):
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("gain", "start", "stop"))


def test_a_row_of_the_global_batch_has_one_view_whichever_worker_has_it():
    whole = draw()
    for rows in (range(7), range(7, 8), range(8, ROWS)):
        part = draw(rows=rows)
        np.testing.assert_array_equal(part.gain, whole.gain[rows.start : rows.stop])
        np.testing.assert_array_equal(part.start, whole.start[rows.start : rows.stop])
        np.testing.assert_array_equal(part.stop, whole.stop[rows.start : rows.stop])
    assert same(draw(), whole)
    assert not same(draw(seed=1), whole)
    assert not same(draw(epoch=1), whole)
    assert not same(draw(step=1), whole)
    assert len({tuple(row) for row in whole.gain}) > 0.98 * ROWS  # the highest gains are cut to the same limit


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


def test_of_those_that_lose_leads_some_keep_the_usual_sets_and_the_others_stay_as_they_were():
    whole, views = draw(), draw(DEFAULT.model_copy(update={"usual_leads": 0.5}))
    np.testing.assert_array_equal(views.start, whole.start)
    kept, before = views.gain > 0, whole.gain > 0
    changed = (kept != before).any(axis=1)
    usual = {name: lead_mask(members, LEADS) for name, members in LEAD_SETS.items() if members != LEADS}
    counts = {name: int((kept == mask).all(axis=1).sum()) for name, mask in usual.items()}
    assert 0.15 * ROWS < sum(counts.values()) < 0.35 * ROWS  # half of the half that loses leads
    assert min(counts.values()) > 0.03 * ROWS
    for row in np.flatnonzero(changed):
        assert any((kept[row] == mask).all() for mask in usual.values())
    every = draw(DEFAULT.model_copy(update={"usual_leads": 1.0, "lead_dropout": 1.0})).gain > 0
    assert {tuple(row) for row in every} == {tuple(mask) for mask in usual.values()}
    part = draw(DEFAULT.model_copy(update={"usual_leads": 0.5}), rows=range(7, 31))
    np.testing.assert_array_equal(part.gain, views.gain[7:31])


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
    views = draw(rows=range(16))
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
