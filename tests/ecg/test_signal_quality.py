"""signal_quality.py and lead_order.py: known faults are measured, and mixed-up leads of real ECGs are named."""

import csv
import itertools
import math

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.leads import standard_lead
from mets_ray.ecg.signal_quality import _stays, signal_quality
from mets_ray.ecg.wfdb import read_wfdb

RATE = 500.0
TIME_S = np.arange(5000) / RATE
_HEART = np.zeros((12, 5000))
_HEART[:] = 0.3 * np.sin(2 * np.pi * 7.3 * TIME_S)


def quality(signal_mv, leads=LEADS, rate=RATE, **changes):
    return signal_quality(Ecg(signal_mv, leads, rate, **changes), 10.0)


@pytest.mark.parametrize("mains_hz", [50, 60])
def test_hum_is_the_ratio_of_the_powers_of_the_worst_lead(mains_hz):
    signal = _HEART.copy()
    signal[4] += 0.03 * np.sin(2 * np.pi * mains_hz * TIME_S)
    found = quality(signal)
    other = 110 - mains_hz
    assert getattr(found, f"hum_{mains_hz}hz_ratio") == pytest.approx(0.01, rel=0.01)
    assert getattr(found, f"hum_{other}hz_ratio") < 1e-6


def test_hum_is_not_told_where_the_rate_is_too_low():
    found = quality(_HEART[:, ::5], rate=100.0)
    assert math.isnan(found.hum_50hz_ratio)
    assert math.isnan(found.hum_60hz_ratio)


def test_noise_of_all_frequencies_is_no_hum():
    noise = np.random.default_rng(0).normal(0.0, 0.1, (12, 5000))
    assert quality(_HEART + noise).hum_50hz_ratio < 0.005


def test_wander_is_the_share_of_power_below_half_a_hertz():
    signal = _HEART + 0.3 * np.sin(2 * np.pi * 0.3 * TIME_S)
    assert quality(signal).wander_share == pytest.approx(0.5, abs=0.01)
    assert quality(_HEART).wander_share < 0.001
    assert math.isnan(quality(signal[:, :1000]).wander_share)  # 2 s


def test_amplitude_offset_flat_stretches_and_clipping_are_of_each_lead():
    signal = _HEART.copy()
    signal[1] += 0.7
    signal[2, 1000:2001] = 0.1
    signal[3] = np.clip(4 * signal[3], -1.1, None)
    found = quality(signal)
    assert found.amplitude_mv[0] == pytest.approx(0.6, abs=0.001)
    assert found.offset_mv[1] == pytest.approx(0.7, abs=0.001)
    assert found.flat_s[2] == pytest.approx(2.0, abs=0.005)
    assert found.flat_s[0] < 0.01
    assert found.clipped_s[3] == pytest.approx(0.018, abs=0.002)  # of a half wave of 68 ms, arccos(1.1 / 1.2) / π
    assert found.clipped_s[0] == 0.0  # its highest sample is no millivolt away


def test_leads_that_were_not_recorded_are_nan():
    found = quality(_HEART[:2], leads=("MLII", "V5"))
    assert np.flatnonzero(np.isfinite(found.amplitude_mv)).tolist() == [LEADS.index("II"), LEADS.index("V5")]
    assert math.isnan(found.order.limb_residual)
    assert found.order.suspect == ""


@pytest.fixture(scope="module")
def real(data_folder):
    """72 ECGs of PTB-XL with 12 leads in the standard order, in mV at 100 Hz."""
    with (data_folder / "ptb-xl" / "ptbxl_database.csv").open(encoding="utf-8") as file:
        names = [row["filename_lr"] for row in csv.DictReader(file)][::28][:72]
    found = []
    for name in names:
        ecg = read_wfdb(str(data_folder / "ptb-xl" / name))
        order = [[standard_lead(lead) for lead in ecg.leads].index(lead) for lead in LEADS]
        found.append(ecg.signal_mv[order])
    return found


def suspects(real, mistake):
    return [quality(mistake(signal), rate=100.0).order.suspect for signal in real]


def rows(*order):
    return lambda signal: np.concatenate(
        [np.stack([np.sign(one + 0.5) * signal[abs(one)] for one in order]), signal[6:]]
    )


def electrodes(kind):
    """What the limb leads are with two electrodes exchanged (right arm with left arm, or with left leg)."""

    def mistake(signal):
        one, two, three, right, left, foot = signal[:6]
        limb = (-one, three, two, left, right, foot) if kind == "RA/LA" else (-three, -two, -one, foot, left, right)
        return np.concatenate([np.stack(limb), signal[6:]])

    return mistake


def test_real_ecgs_fit_together(real):
    found = [quality(signal, rate=100.0).order for signal in real]
    assert max(order.limb_residual for order in found) < 0.01
    assert max(order.einthoven_uv for order in found) < 1.0  # of samples of 1 µV
    assert sum(order.suspect != "" for order in found) <= 1


@pytest.mark.parametrize(
    ("name", "order"), [("aVL/aVF", (0, 1, 2, 3, 5, 4)), ("I/II", (1, 0, 2, 3, 4, 5)), ("III/aVR", (0, 1, 3, 2, 4, 5))]
)
def test_two_leads_with_each_others_name_are_found_in_every_real_ecg(real, name, order):
    assert set(suspects(real, rows(*order))) == {name}


def test_an_inverted_lead_is_found_in_every_real_ecg(real):
    def mistake(signal):
        return np.concatenate([signal[:2], -signal[2:3], signal[3:]])

    assert set(suspects(real, mistake)) == {"-III"}


@pytest.mark.parametrize("kind", ["RA/LA", "RA/LL"])
def test_exchanged_electrodes_are_found_in_nine_of_ten_real_ecgs(real, kind):
    found = [quality(electrodes(kind)(signal), rate=100.0).order for signal in real]
    assert max(order.limb_residual for order in found) < 0.01  # the limb leads do not tell
    assert sum(order.suspect == kind for order in found) >= 0.9 * len(real)


def test_leads_that_were_computed_tell_nothing_of_their_order(real):
    found = quality(real[0], rate=100.0, derived_leads=("III", "aVR", "aVL", "aVF")).order
    assert math.isnan(found.limb_residual)


@pytest.mark.parametrize("samples", [1, 2, 30, 400])
def test_runs_are_counted_as_by_hand(samples):
    """Signals of a few values, so that runs of all lengths lie at the ends, at the extremes and beside each other."""
    for seed in range(40):
        signal_mv = np.random.default_rng(seed).integers(-seed % 3 - 1, 2, (5, samples)).astype(np.float32)
        offset = signal_mv.mean(axis=1, dtype=np.float64)
        found = _stays(signal_mv, offset, signal_mv.max(axis=1), signal_mv.min(axis=1))
        for lead, row in enumerate(signal_mv.tolist()):
            runs = [(value, len(list(group)) - 1) for value, group in itertools.groupby(row)]
            far = [n for value, n in runs if value in (max(row), min(row)) and abs(value - offset[lead]) >= 1]
            assert (found[0][lead], found[1][lead]) == (max(n for _, n in runs), max(far, default=0))
