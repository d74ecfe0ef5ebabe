"""Sets of leads: what an ECG has, what it lacks, and which measured set says most about it."""

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.lead_sets import LEAD_SETS, fewer_leads, lead_mask, nearest_set, recorded, with_absent_leads
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.errors import RecordError

SIGNAL = SignalConfig(100, 10.0)


def some_ecg(*leads, **facts):
    random = np.random.default_rng(0)
    return Ecg(random.standard_normal((len(leads), 1000)), leads, 100.0, **facts)


@pytest.mark.parametrize("leads", [("II",), ("II", "i"), ("V5", "V1", "ECG II"), ("I", "VX"), LEADS])
def test_what_is_missing_is_declared_absent_and_becomes_zeros(leads):
    ecg = with_absent_leads(some_ecg(*leads), LEADS)
    signal_uv = preprocess(ecg, SIGNAL)
    there = {{"i": "I", "ECG II": "II"}.get(name, name) for name in leads}
    if {"I", "II"} <= there:
        there |= set(LEADS[:6])  # the others are derived
    expected = [lead in there for lead in LEADS]
    assert recorded(signal_uv[None])[0].tolist() == expected
    assert [lead for lead in LEADS if lead not in ecg.absent_leads] == [
        lead for lead, is_there in zip(LEADS, expected, strict=True) if is_there
    ]


def test_what_a_source_declared_stays_and_is_not_declared_twice():
    ecg = some_ecg("II", "V5", absent_leads=("I", "V1"))
    assert set(with_absent_leads(ecg, LEADS).absent_leads) == set(LEADS) - {"II", "V5"}
    assert len(with_absent_leads(ecg, LEADS).absent_leads) == 10
    whole = some_ecg(*LEADS)
    assert with_absent_leads(whole, LEADS) is whole


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        ((*LEADS[:11], "V7"), "unknown_lead"),  # V7 may be V6 under another name
        (("II", "ECG1"), "unknown_lead"),
        (("VX", "VY", "VZ"), "missing_leads"),  # none of the wanted leads
        (("II", "II"), "duplicate_lead"),
    ],
)
def test_an_ecg_that_may_have_the_lead_under_another_name_is_still_refused(leads, reason):
    with pytest.raises(RecordError) as caught:
        preprocess(with_absent_leads(some_ecg(*leads), LEADS), SIGNAL)
    assert caught.value.reason == reason


def test_a_flat_lead_is_not_taken_for_one_that_was_not_recorded():
    ecg = some_ecg("I", "II")
    ecg.signal_mv[0] = 0.0
    with pytest.raises(RecordError, match="all samples are equal in I"):
        preprocess(with_absent_leads(ecg, LEADS), SIGNAL)


@pytest.mark.parametrize("highpass_hz", [None, 0.5])
def test_a_lead_of_which_no_microvolt_is_left_is_not_taken_for_one_that_was_not_recorded(highpass_hz):
    ecg = some_ecg("I", "V2")
    ecg.signal_mv[1] *= 1e-4 / np.abs(ecg.signal_mv[1]).max()
    with pytest.raises(RecordError, match="nothing reaches a microvolt in V2") as caught:
        preprocess(with_absent_leads(ecg, LEADS), SignalConfig(100, 10.0, highpass_hz=highpass_hz))
    assert caught.value.reason == "flat_lead"


@pytest.mark.parametrize(
    ("present", "nearest"),
    [
        (LEADS, "12 leads"),
        (LEADS[:8], "limb leads"),
        (("I", "II", "III"), "I, II"),
        (("II", "V2"), "II"),
        (("I", "II", "V1", "V5"), "V1, II, V5"),  # three leads of its own, where `I, II` are two
        (("I",), "II"),  # one lead, as near as was measured
        (("I", "III"), "I, II"),
        (("V1", "V2", "V3"), "V1, II, V5"),
        (LEADS[6:], "limb leads"),
    ],
)
def test_the_nearest_set_is_the_largest_inside_or_of_the_same_size(present, nearest):
    assert nearest_set(present, LEAD_SETS) == nearest


def test_the_sets_are_leads_in_their_names():
    assert [len(members) for members in LEAD_SETS.values()] == [12, 6, 2, 1, 3]
    assert all(set(members) <= set(LEADS) for members in LEAD_SETS.values())
    assert list(fewer_leads(LEADS)) == list(LEAD_SETS)[1:]
    assert list(fewer_leads(("I", "II"))) == ["II"]
    assert lead_mask(("V1", "II"), ("I", "II", "V1")).tolist() == [False, True, True]
