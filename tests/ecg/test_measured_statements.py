"""Each statement at its limit: just above it is said, just below it is not."""

from dataclasses import replace

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.measured_statements import MEASURED, measured_statements
from mets_ray.ecg.median_beat import MedianBeat

NORMAL = MedianBeat(
    rr_s=np.full(9, 0.8),
    qrs_s=0.09,
    r_mv=np.array([0.7, 0.9, 0.4, 0.1, 0.4, 0.6, 0.2, 0.5, 0.8, 1.2, 1.2, 1.0]),
    s_mv=np.array([-0.2, -0.2, -0.1, -0.8, -0.2, -0.2, -0.8, -1.0, -0.9, -0.5, -0.3, -0.1]),
    q_mv=np.full(12, -0.02),
    q_s=np.full(12, 0.0),
    st_mv=np.full(12, 0.02),
    t_mv=np.array([0.25, 0.3, 0.15, -0.3, 0.15, 0.2, 0.1, 0.4, 0.4, 0.4, 0.35, 0.3]),
    p_mv=np.full(12, 0.1),
    p_end_mv=np.full(12, -0.03),
)


def changed(name, value, *leads):
    """The normal beat, other in some leads."""
    values = getattr(NORMAL, name).copy()
    values[[LEADS.index(lead) for lead in leads]] = value
    return replace(NORMAL, **{name: values})


def test_of_a_normal_beat_only_the_interval_is_said():
    assert measured_statements(NORMAL, LEADS) == ("Regular RR intervals",)


@pytest.mark.parametrize(
    ("beat", "said"),
    [
        (replace(NORMAL, rr_s=np.full(9, 1.01)), "Slow heart rate"),
        (replace(NORMAL, rr_s=np.full(9, 0.59)), "Fast heart rate"),
        (replace(NORMAL, rr_s=np.array([0.75, 0.8, 0.88])), "Irregular RR intervals"),
        (replace(NORMAL, rr_s=np.array([0.8, 0.8, 0.63, 0.95])), "Premature beats"),
        (replace(NORMAL, qrs_s=0.12), "Wide QRS complexes"),
        (replace(NORMAL, qrs_s=0.115), "Slightly widened QRS complexes"),
        (replace(NORMAL, r_mv=NORMAL.r_mv * 0.3, s_mv=NORMAL.s_mv * 0.3), "Low voltage QRS in limb leads"),
        (replace(NORMAL, r_mv=NORMAL.r_mv * 0.3, s_mv=NORMAL.s_mv * 0.3), "Low voltage QRS in chest leads"),
        (replace(NORMAL, r_mv=NORMAL.r_mv * 0.6, s_mv=NORMAL.s_mv * 0.6), "Borderline low voltage QRS in limb leads"),
        (changed("s_mv", -2.4, "V1"), "High QRS voltage in chest leads (Sokolow-Lyon)"),
        (changed("s_mv", -2.0, "V1"), "QRS voltage in chest leads at upper limit (Sokolow-Lyon)"),
        (changed("r_mv", 1.15, "aVL"), "High QRS voltage in limb leads (Cornell)"),
        (changed("s_mv", -2.5, "V3"), "High QRS voltage in limb leads (Cornell)"),
        (changed("r_mv", 0.3, "V3"), "Poor R wave progression in chest leads"),
        (changed("r_mv", 0.9, "V1"), "Tall R wave in V1"),
        (changed("st_mv", -0.05, "II", "aVF"), "ST depression in inferior leads"),
        (changed("st_mv", -0.03, "V5", "V6"), "Slight ST depression in lateral leads"),
        (changed("st_mv", 0.2, "V2", "V3"), "ST elevation in anterior leads"),
        (changed("st_mv", 0.1, "II", "III"), "ST elevation in inferior leads"),
        (changed("t_mv", -0.1, "I", "V6"), "T wave inversion in lateral leads"),
        (changed("t_mv", 0.05, "V5", "V6"), "Flat T waves in lateral leads"),
        (changed("t_mv", -0.05, "V5", "V6"), "Flat T waves in lateral leads"),
        (changed("t_mv", 0.11, "V4", "V5"), None),  # one lead of each wall
        (changed("t_mv", 0.105, "V3", "V4"), None),  # V3: more than a tenth of R
        (changed("p_mv", 0.25, "II"), "Tall P waves"),
        (changed("p_end_mv", -0.1, "V1"), "Deep negative P wave in V1"),
    ],
)
def test_what_is_said_of_a_beat_that_is_other_in_one_thing(beat, said):
    found = measured_statements(beat, LEADS)
    if said is None:
        assert found == ("Regular RR intervals",)
    else:
        assert said in found
        assert len(found) <= 4


@pytest.mark.parametrize(
    "beat",
    [
        replace(NORMAL, rr_s=np.full(9, 0.99)),
        replace(NORMAL, rr_s=np.array([0.75, 0.8, 0.86])),
        replace(NORMAL, qrs_s=0.108),
        changed("st_mv", -0.06, "II"),  # of one lead
        changed("st_mv", -0.02, "II", "aVF"),
        changed("st_mv", 0.19, "V2", "V3"),
        changed("t_mv", -0.3, "V1", "III"),  # where T may be negative, and one lead of a wall
        changed("q_mv", -0.2, "II", "aVF"),  # deep, but short
        changed("q_s", 0.04, "II", "aVF"),  # long, but flat
    ],
)
def test_below_a_limit_nothing_is_said(beat):
    assert measured_statements(beat, LEADS) == ("Regular RR intervals",)


def test_q_waves_are_deep_and_long_or_all_there_is():
    q = replace(changed("q_mv", -0.1, "III", "aVF"), q_s=changed("q_s", 0.03, "III", "aVF").q_s)
    assert "Q waves in inferior leads" in measured_statements(q, LEADS)
    qs = changed("r_mv", 0.0, "V1", "V2")
    assert "Q waves in anterior leads" in measured_statements(qs, LEADS)


def test_low_t_waves_are_a_share_of_r():
    beat = replace(changed("t_mv", 0.15, "V5", "V6"), r_mv=changed("r_mv", 1.6, "V5", "V6").r_mv)
    assert "Low T waves in lateral leads" in measured_statements(beat, LEADS)
    small = replace(changed("t_mv", 0.02, "V5", "V6"), r_mv=changed("r_mv", 0.2, "V5", "V6").r_mv)
    assert "Flat T waves in lateral leads" not in measured_statements(small, LEADS)  # where R is small too


def test_nothing_is_said_of_leads_that_are_not_there():
    two = MedianBeat(**{
        name: value[[1, 6]] if np.shape(value) == (12,) else value for name, value in vars(NORMAL).items()
    })  # fmt: skip
    assert measured_statements(two, ("II", "V1")) == ("Regular RR intervals",)
    low = replace(two, r_mv=two.r_mv * 0.1, s_mv=two.s_mv * 0.1, t_mv=two.t_mv * 0)
    assert measured_statements(low, ("II", "V1")) == ("Regular RR intervals",)


def test_all_that_can_be_measured_is_listed():
    random = np.random.default_rng(0)

    def drawn(low, high):  # around 0 for some beats, so that each limit is passed in both directions
        return random.uniform(low, high, 12) * random.uniform(0.0, 1.0, (12 if random.random() < 0.5 else 1))

    said: set[str] = set()
    for _ in range(3000):
        beat = MedianBeat(
            rr_s=random.uniform(0.4, 1.3) * (1 + random.uniform(0, 0.3) * random.random(9)),
            qrs_s=random.uniform(0.08, 0.14),
            r_mv=drawn(0, 3),
            s_mv=drawn(-3, 0),
            q_mv=drawn(-0.3, 0),
            q_s=drawn(0, 0.06),
            st_mv=drawn(-0.2, 0.4),
            t_mv=drawn(-0.4, 0.6),
            p_mv=drawn(0, 0.4),
            p_end_mv=drawn(-0.2, 0),
        )
        said.update(measured_statements(beat, LEADS))
    assert said == MEASURED


@pytest.mark.parametrize(
    ("rr_s", "is_said"),
    [
        ([0.8, 0.8, 0.5, 1.1, 0.8, 0.8], True),
        ([0.8, 0.5, 1.1, 0.8, 0.55, 1.05, 0.8], True),
        ([0.5, 1.1, 0.5, 1.1, 0.5, 1.1], True),  # bigeminy
        ([0.8, 0.82, 0.78, 0.8], False),
        ([0.62, 0.9, 0.45, 0.8, 1.1, 0.7, 0.5, 0.95, 0.85], False),  # atrial fibrillation: each beat comes as it likes
        ([0.5, 0.95, 0.7, 1.2, 0.6, 0.4, 0.9], False),
    ],
)
def test_beats_are_premature_in_a_rhythm_only(rr_s, is_said):
    found = measured_statements(replace(NORMAL, rr_s=np.array(rr_s)), LEADS)
    assert ("Premature beats" in found) is is_said
