"""The usual beat: waves of known size are measured as they are, at any rate, under noise and between odd beats."""

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.measured_statements import measured_statements
from mets_ray.ecg.median_beat import measure_median_beat
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.wfdb import read_wfdb

RATES = (100, 250, 500)
RR_S = 0.9
SIZES = np.random.default_rng(1).uniform(0.5, 1.5, 12)[:, None]  # of each lead
WAVES_MV = {"p": 0.15, "q": -0.15, "r": 1.2, "s": -0.4, "st": -0.08, "t": 0.3}


def ecg(rate_hz, odd=(), noise_mv=0.0, rr_s=RR_S, **waves_mv):
    """Twelve leads of bell curves, and a level between S and T; `odd`: numbers of beats that are wide and downwards."""
    sizes = WAVES_MV | waves_mv
    times = np.arange(round(10 * rate_hz)) / rate_hz
    curve = np.zeros(len(times))
    for number in range(-1, 14):
        since = times - 0.4 - number * rr_s
        if number in odd:
            width_s = np.where(since < 0, 0.04, 0.07)
            curve += -1.5 * np.exp(-0.5 * (since / width_s) ** 2)
            continue
        for name, at_s, width_s in (("p", -0.16, 0.02), ("q", -0.03, 0.006), ("r", 0, 0.01), ("s", 0.03, 0.006)):
            curve += sizes[name] * np.exp(-0.5 * ((since - at_s) / width_s) ** 2)
        curve += sizes["t"] * np.exp(-0.5 * ((since - 0.3) / 0.04) ** 2)
        curve += sizes["st"] * expit((since - 0.06) / 0.004) * expit((0.2 - since) / 0.01)
    noise = np.random.default_rng(2).normal(0, noise_mv, (12, len(times)))
    return (SIZES * curve + noise).astype(np.float32)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize(("odd", "noise_mv"), [((), 0.0), ((4, 8), 0.0), ((), 0.01), ((5,), 0.02)])
def test_waves_are_measured_as_they_are(rate_hz, odd, noise_mv):
    beat = measure_median_beat(ecg(rate_hz, odd, noise_mv), rate_hz)
    sizes, close = SIZES[:, 0], 0.04 + noise_mv  # at 100 Hz a wave of 6 ms is seen in part
    np.testing.assert_allclose(beat.p_mv, WAVES_MV["p"] * sizes, atol=close)
    np.testing.assert_allclose(beat.r_mv, WAVES_MV["r"] * sizes, rtol=0.12)
    np.testing.assert_allclose(beat.st_mv, WAVES_MV["st"] * sizes, atol=close)
    np.testing.assert_allclose(beat.t_mv, WAVES_MV["t"] * sizes, atol=close)
    if rate_hz == 500:
        np.testing.assert_allclose(beat.q_mv, WAVES_MV["q"] * sizes, atol=close)
        np.testing.assert_allclose(beat.s_mv, WAVES_MV["s"] * sizes, atol=close)
    assert 0.06 < beat.qrs_s < 0.12  # the step to ST is a part of it
    assert len(beat.rr_s) >= 9
    np.testing.assert_allclose(np.median(beat.rr_s), RR_S, atol=0.011)


@pytest.mark.parametrize("rate_hz", RATES)
def test_inverted_waves_have_their_sign(rate_hz):
    beat = measure_median_beat(ecg(rate_hz, t=-0.25, st=0.2, q=-0.5), rate_hz)
    assert (beat.t_mv < -0.1).all()
    assert (beat.st_mv > 0.08).all()
    assert (beat.q_mv < -0.1).all()
    assert (beat.q_s > 0).all()


def test_ecgs_get_the_statements_of_earlier_versions():
    """Digest of conversion 6; where it changes, CONVERSION_VERSION must: a data set's fingerprint holds no more."""
    drawn = np.random.default_rng(5)
    ecgs = [
        ecg(100, noise_mv=0.01, rr_s=drawn.uniform(0.55, 1.1),
            **{name: mv * drawn.uniform(0.2 if name == "r" else -1, 2) for name, mv in WAVES_MV.items()})
        for _ in range(60)
    ]  # fmt: skip
    said = [measured_statements(measure_median_beat(signal_mv, 100), LEADS) for signal_mv in ecgs]
    assert len({one for statements in said for one in statements}) > 25
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16] == "86528c676e15c5f9"


def test_without_three_beats_of_one_form_there_is_none():
    assert measure_median_beat(np.zeros((12, 1000), np.float32), 100) is None
    assert measure_median_beat(ecg(100)[:, :250], 100) is None
    assert measure_median_beat(ecg(100)[:2], 100) is not None  # two leads are enough


def test_the_slow_way_gives_the_same_median():
    """Beat by beat and lead by lead, without shifts: these beats lie exactly on samples."""
    signal_mv = ecg(100)
    beat = measure_median_beat(signal_mv, 100)
    places = [40 + 90 * number for number in range(1, 10)]
    for lead in range(12):
        median = [np.median([signal_mv[lead, place + offset] for place in places]) for offset in range(-10, 50)]
        assert abs(max(median) - (beat.r_mv[lead] + np.mean(median[2:4]))) < 0.06


@pytest.fixture(scope="module")
def of_real_ecgs():
    """Codes and measured statements of PTB-XL's ECGs with bundle branch block, of AFIB, and of 150 that are normal."""
    if "METS_TEST_DATA" not in os.environ:
        pytest.skip("METS_TEST_DATA is not set")
    folder = Path(os.environ["METS_TEST_DATA"]) / "ptb-xl"
    signal, found, normal = SignalConfig(100, 10.0, highpass_hz=0.5), [], 0
    with (folder / "ptbxl_database.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            codes = row["scp_codes"]
            normal += "'NORM'" in codes
            if any(f"'{code}'" in codes for code in ("CRBBB", "CLBBB", "AFIB")) or ("'NORM'" in codes and normal < 150):
                signal_uv = preprocess(read_wfdb(str(folder / row["filename_lr"])), signal)
                beat = measure_median_beat(signal_uv.astype(np.float32) / np.float32(1000), 100)
                found.append((codes, () if beat is None else measured_statements(beat, LEADS)))
    return found


@pytest.mark.parametrize(
    ("code", "statements", "of_those", "of_normal"),
    [
        (("CRBBB", "CLBBB"), ("Wide QRS complexes", "Slightly widened QRS complexes"), 0.95, 0.05),
        (("AFIB",), ("Irregular RR intervals",), 0.95, 0.45),
        (("CRBBB", "CLBBB"), ("Flat T waves in lateral leads", "T wave inversion in lateral leads"), 0.3, 0.08),
    ],
)
def test_real_ecgs_are_measured_as_cardiologists_read_them(of_real_ecgs, code, statements, of_those, of_normal):
    with_code = [one for codes, one in of_real_ecgs if any(f"'{name}'" in codes for name in code)]
    normal = [one for codes, one in of_real_ecgs if "'NORM'" in codes]
    assert len(with_code) > 50
    assert np.mean([any(word in one for word in statements) for one in with_code]) > of_those
    assert np.mean([any(word in one for word in statements) for one in normal]) < of_normal


def test_the_last_beats_t_wave_is_no_p():
    """At 150 beats a minute T is where P would be sought, and hides it; at 75 it is not."""
    slow, fast = (measure_median_beat(ecg(100, rr_s=rr_s), 100) for rr_s in (0.8, 0.4))
    assert slow is not None
    assert fast is not None
    np.testing.assert_allclose(slow.p_mv, measure_median_beat(ecg(500), 500).p_mv, atol=0.02)
    assert not (fast.p_mv > slow.p_mv + 0.03).any()
