"""ecg.py: units, checks and resampling, on arrays whose answer is known and on PTB-XL's own 100 and 500 Hz files."""

import csv
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from mets_ray.ecg.ecg import LEADS, Ecg, to_millivolts
from mets_ray.ecg.preprocess import REASONS, SignalConfig, _highpassed, preprocess
from mets_ray.errors import ConfigError, RecordError

TEN_SECONDS = SignalConfig(100, 10.0)


def some_ecg(rate: float = 100.0, duration_s: float = 10.0, leads: tuple[str, ...] = LEADS) -> Ecg:
    """Each lead a sine of another frequency below 13 Hz, in whole microvolts."""
    time_s = np.arange(round(rate * duration_s)) / rate
    rows = [np.sin(2 * np.pi * (1 + LEADS.index(lead)) * time_s + 0.3) for lead in leads]
    return Ecg(np.round(np.stack(rows), 3), leads, rate)


def rejected(ecg: Ecg, config: SignalConfig = TEN_SECONDS) -> RecordError:
    with pytest.raises(RecordError) as caught:
        preprocess(ecg, config)
    assert caught.value.reason in REASONS
    return caught.value


def changed(lead: str, where: slice | int, value: float) -> Ecg:
    ecg = some_ecg()
    ecg.signal_mv[LEADS.index(lead), where] = value
    return ecg


# --- units


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mV", 1), ("mv", 1), ("uV", 1e-3), ("uv", 1e-3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), ("V", 1e3), (" mV ", 1)],
)
def test_units(unit, factor):
    np.testing.assert_allclose(to_millivolts(np.array([[1.0, -2500.0]]), unit), [[factor, -2500 * factor]], rtol=1e-15)


def test_whole_microvolts_stay_whole():
    microvolts = np.arange(-20000.0, 20001.0)
    assert np.array_equal(to_millivolts(microvolts, "uV"), microvolts / 1000)


@pytest.mark.parametrize(
    ("unit", "reason"),
    [(None, "missing_unit"), ("", "missing_unit"), ("  ", "missing_unit"), ("MV", "unknown_unit"),
     ("v", "unknown_unit"), ("mmHg", "unknown_unit"), ("UV", "unknown_unit")],
)  # fmt: skip
def test_units_are_never_guessed(unit, reason):
    with pytest.raises(RecordError) as caught:
        to_millivolts(np.ones(3), unit)
    assert caught.value.reason == reason


# --- SignalConfig


def test_num_samples():
    assert SignalConfig(100, 10.0).num_samples == 1000
    assert SignalConfig(500, 2.502).num_samples == 1251  # 2.502 * 500 is 1250.9999999999998


@pytest.mark.parametrize(
    "arguments",
    [(0, 10.0), (100, 0.0), (100, float("nan")), (100, float("inf")), (100, 0.333), (100, 10.0, ("I", "I")),
     (100, 10.0, ()), (100, 10.0, ("MLII",)), (100, 10.0, ("AVR",)), (100, 10.0, LEADS, 0.0),
     (100, 10.0, LEADS, 50.0), (100, 10.0, LEADS, float("nan"))],
)  # fmt: skip
def test_signal_config_refuses(arguments):
    with pytest.raises(ConfigError):
        SignalConfig(*arguments)


# --- what passes


def test_microvolts_are_exact():
    ecg = some_ecg()
    result = preprocess(ecg, TEN_SECONDS)
    assert result.dtype == np.int16
    assert result.shape == (12, 1000)
    assert np.array_equal(result, np.round(ecg.signal_mv * 1000).astype(int))


def test_rounding_is_to_the_nearest():
    ecg = changed("V1", 5, 0.0016)
    ecg.signal_mv[6, 6] = -0.0016
    assert preprocess(ecg, TEN_SECONDS)[6, 5:7].tolist() == [2, -2]


def test_order_and_case_of_leads_do_not_matter():
    expected = preprocess(some_ecg(), TEN_SECONDS)
    order = np.random.default_rng(0).permutation(12)
    shuffled = some_ecg(leads=tuple(LEADS[n] for n in order))
    assert not np.array_equal(shuffled.signal_mv, some_ecg().signal_mv)
    assert np.array_equal(preprocess(shuffled, TEN_SECONDS), expected)
    named = replace(
        shuffled, leads=tuple(lead.upper() if n % 2 else lead.lower() for n, lead in enumerate(shuffled.leads))
    )
    assert np.array_equal(preprocess(named, TEN_SECONDS), expected)


def test_wanted_leads_only_in_the_wanted_order():
    result = preprocess(some_ecg(), SignalConfig(100, 10.0, ("V1", "aVL")))
    assert np.array_equal(result, preprocess(some_ecg(), TEN_SECONDS)[[6, 4]])


def test_frank_leads_are_left_out():
    ecg = some_ecg()
    fifteen = Ecg(np.concatenate([np.full((3, 1000), np.nan), ecg.signal_mv]), ("vx", "vy", "vz", *LEADS), 100.0)
    assert np.array_equal(preprocess(fifteen, TEN_SECONDS), preprocess(ecg, TEN_SECONDS))


def test_the_first_seconds_are_taken():
    long = some_ecg(duration_s=13.0)
    long.signal_mv[:, 1000:] = np.nan  # a fault after the stretch that is used
    assert np.array_equal(preprocess(long, TEN_SECONDS), preprocess(some_ecg(), TEN_SECONDS))


# --- high-pass filter

NO_WANDER = replace(TEN_SECONDS, highpass_hz=0.5)


@pytest.mark.parametrize("frequency_hz", [0.1, 0.25, 0.5, 1.0, 2.0, 10.0, 40.0])
def test_the_filter_has_butterworths_gain_squared_and_shifts_nothing(frequency_hz):
    time_s = np.arange(4000) / 100
    wave = np.sin(2 * np.pi * frequency_hz * time_s)
    ecg = Ecg(np.tile(wave, (12, 1)), LEADS, 100.0)
    config = replace(NO_WANDER, duration_s=40.0)
    # |H|^2 of order 2 after the bilinear transform, once forwards and once backwards.
    gain = 1 / (1 + (np.tan(np.pi * 0.5 / 100) / np.tan(np.pi * frequency_hz / 100)) ** 4)
    middle = slice(1000, 3000)
    assert np.allclose(preprocess(ecg, config)[:, middle], 1000 * gain * wave[middle], atol=2)


def test_wander_goes_to_the_very_ends_and_beats_stay():
    beats = np.zeros((12, 1000))
    beats[:, 40::80] = 1.0
    time_s = np.arange(1000) / 100
    wandering = beats + 0.7 + 0.3 * np.sin(2 * np.pi * 0.1 * time_s + 1.0)
    plain, filtered = (preprocess(Ecg(signal, LEADS, 100.0), NO_WANDER) for signal in (beats, wandering))
    assert np.abs(filtered.astype(int) - plain).max() < 60  # of 1000 µV of offset and wander
    assert np.array_equal(filtered.argmax(axis=1) % 80, np.full(12, 40))
    assert abs(int(plain.max()) - 1000) < 60


def test_the_filter_sees_only_the_stretch_and_leaves_absent_leads_alone():
    long = some_ecg(duration_s=13.0)
    long.signal_mv[:, 1000:] += 5.0
    assert np.array_equal(preprocess(long, NO_WANDER), preprocess(some_ecg(), NO_WANDER))
    two = some_ecg(leads=("II", "V1"))
    holter = replace(two, absent_leads=tuple(lead for lead in LEADS if lead not in two.leads))
    result = preprocess(holter, NO_WANDER)
    assert [lead for lead, row in zip(LEADS, result, strict=True) if row.any()] == ["II", "V1"]


def test_a_second_is_filtered_too():
    assert preprocess(some_ecg(), replace(NO_WANDER, duration_s=1.0)).shape == (12, 100)


def test_a_spike_that_is_too_large_above_its_baseline_is_refused():
    signal = np.full((12, 1000), -19.0)
    signal[:, 500:505] = 19.0
    ecg = Ecg(signal, LEADS, 100.0)
    assert preprocess(ecg, TEN_SECONDS).max() == 19_000
    with pytest.raises(RecordError) as caught:
        preprocess(ecg, NO_WANDER)
    assert caught.value.reason == "amplitude_too_large"


# --- resampling


@pytest.mark.parametrize("rate", [50.0, 128.0, 250.0, 257.0, 360.0, 500.0, 1000.0, 256.41])
def test_resampling_gives_the_same_curve(rate):
    """Sines of 1 to 12 Hz read at another rate; the ends, where the filter must extrapolate, are left out."""
    result = preprocess(some_ecg(rate, 11.0), TEN_SECONDS)
    assert result.shape == (12, 1000)
    difference = result[:, 40:] - some_ecg().signal_mv[:, 40:] * 1000
    assert np.abs(difference).max() < 6.0  # µV, of sines of 1000


def test_leads_do_not_mix_when_resampled():
    """wfdb 4.3.1's resample_sig interleaves leads; one lead alone must give the same as beside eleven others."""
    ecg = some_ecg(360.0)
    together = preprocess(ecg, TEN_SECONDS)
    for row, lead in enumerate(LEADS):
        alone = preprocess(Ecg(ecg.signal_mv[row : row + 1], (lead,), 360.0), SignalConfig(100, 10.0, (lead,)))
        assert np.array_equal(alone[0], together[row])


def test_no_aliasing():
    """90 Hz cannot be told from 10 Hz at 100 samples per second; it must vanish, not turn into 10 Hz."""
    ecg = some_ecg(500.0)
    ecg.signal_mv[3] = np.sin(2 * np.pi * 90 * np.arange(5000) / 500)
    assert np.abs(preprocess(ecg, TEN_SECONDS)[3, 20:-20]).max() < 3


@pytest.mark.parametrize("rate", [250.0, 360.0, 500.0, 50.0])
def test_a_long_record_is_resampled_as_a_whole_would_be(rate):
    """Only the stretch that is needed is resampled, each lead without its level; that must not show."""
    from scipy.signal import resample_poly

    ecg = some_ecg(rate, 60.0)
    ecg = replace(ecg, signal_mv=ecg.signal_mv + np.random.default_rng(1).normal(0, 0.3, ecg.signal_mv.shape))
    up, down = {250.0: (2, 5), 360.0: (5, 18), 500.0: (1, 5), 50.0: (2, 1)}[rate]
    whole = resample_poly(ecg.signal_mv, up, down, axis=1, padtype="symmetric")[:, :1000]
    assert np.abs(preprocess(ecg, TEN_SECONDS) - whole * 1000).max() <= 0.52


# --- what is refused


@pytest.mark.parametrize("rate", [0.0, -100.0, 49.9, 10_001.0, float("nan"), float("inf")])
def test_implausible_sampling_rate(rate):
    assert rejected(replace(some_ecg(), sampling_rate_hz=rate)).reason == "implausible_sampling_rate"


@pytest.mark.parametrize("name", ["-aVR", "aVR-", "ECG -aVR", "VR", "ECG", "Lead 4", "MV1", "V7", ""])
def test_unknown_lead(name):
    error = rejected(replace(some_ecg(), leads=(*LEADS[:9], name, *LEADS[10:])))
    assert error.reason == "unknown_lead"
    assert f"`{name}`" in error.fact


@pytest.mark.parametrize(
    "leads",
    [
        ("I", "II", "III", "AVR", "avr", *LEADS[5:]),
        ("I", "II", "MLII", *LEADS[3:]),
        ("C1", "V1", *LEADS[2:6], *LEADS[6:]),
    ],
)
def test_duplicate_lead(leads):
    error = rejected(replace(some_ecg(), leads=leads))
    assert error.reason == "duplicate_lead"
    assert "more than one signal is lead" in error.fact
    assert leads[4 if "avr" in leads else 2 if "MLII" in leads else 0] in error.fact


def test_names_as_devices_write_them():
    names = ("ECG I", "MLII", "D3", "avr", "Lead AVL", "MDC_ECG_LEAD_AVF", "C1", "C2", "C3", "C4", "C5", "C6")
    expected = preprocess(some_ecg(), TEN_SECONDS)
    assert np.array_equal(preprocess(replace(some_ecg(), leads=names), TEN_SECONDS), expected)
    more = replace(some_ecg(), leads=(*names, "V7", "V4R"), signal_mv=np.pad(some_ecg().signal_mv, ((0, 2), (0, 0))))
    assert np.array_equal(preprocess(more, TEN_SECONDS), expected)


def test_missing_leads_are_named():
    kept = tuple(lead for lead in LEADS if lead not in ("V1", "V3"))
    error = rejected(some_ecg(leads=kept))
    assert (error.reason, error.fact) == ("missing_leads", "2 of 12 leads missing: V1, V3")


def test_too_short():
    assert preprocess(some_ecg(), TEN_SECONDS).shape == (12, 1000)
    error = rejected(Ecg(some_ecg().signal_mv[:, :999], LEADS, 100.0))
    assert error.reason == "too_short"
    assert "999 samples" in error.fact
    assert rejected(Ecg(some_ecg(360.0).signal_mv[:, :3599], LEADS, 360.0)).reason == "too_short"


@pytest.mark.parametrize("parts_per_million", [-90, -50, -0.2, -1e-6, 1e-6, 0.2, 50, 90])
@pytest.mark.parametrize("rate", [50, 100, 250, 360, 500, 1000])
@pytest.mark.parametrize("config", [TEN_SECONDS, SignalConfig(500, 10.0), SignalConfig(100, 9.99)])
def test_a_rate_that_is_not_quite_round(rate, parts_per_million, config):
    """As many samples as at the round rate are as long, although less than one sample is missing by calculation."""
    if rate == 50 and abs(parts_per_million) > 1:
        return  # outside SAMPLING_RATES_HZ, or more than 20 times as much when resampled to 500 Hz
    even = some_ecg(float(rate), config.duration_s)
    odd = replace(even, sampling_rate_hz=rate * (1 + parts_per_million / 1e6))
    signal_uv = preprocess(odd, config).astype(int)
    assert signal_uv.shape == (12, config.num_samples)
    # 90 parts per million of 10 s are 0.9 ms, in which a sine of 12 Hz changes by 68 µV.
    assert np.abs(signal_uv - preprocess(even, config))[:, :-10].max() <= 80
    assert rejected(replace(odd, signal_mv=odd.signal_mv[:, :-2]), config).reason == "too_short"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite(value):
    error = rejected(changed("V6", slice(10, 13), value))
    assert (error.reason, error.fact) == ("non_finite", "samples that are NaN or infinite: V6 (3)")


def test_non_finite_before_resampling():
    ecg = some_ecg(500.0)
    ecg.signal_mv[0, 2500] = np.nan
    assert rejected(ecg).reason == "non_finite"


@pytest.mark.parametrize("value", [0.0, 1.25])
def test_flat_lead(value):
    error = rejected(changed("aVL", slice(None), value))
    assert (error.reason, error.fact) == ("flat_lead", "all samples are equal in aVL")


def test_a_lead_with_one_other_sample_is_not_flat():
    ecg = changed("aVL", slice(None), 0.0)
    ecg.signal_mv[4, 500] = 0.001
    assert preprocess(ecg, TEN_SECONDS)[4].sum() == 1


@pytest.mark.parametrize("value", [20.001, -20.001, 700.0])
def test_amplitude_too_large(value):
    error = rejected(changed("V2", 77, value))
    assert error.reason == "amplitude_too_large"
    assert f"lead V2 reaches {abs(value):.4g} mV" in error.fact


@pytest.mark.parametrize("offset_mv", [-300.0, -21.0, 25.0, 300.0])
@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_an_offset_is_no_amplitude_if_a_filter_removes_it(offset_mv, rate):
    ecg = some_ecg(rate)
    raised = replace(ecg, signal_mv=ecg.signal_mv + offset_mv)
    filtered = preprocess(raised, NO_WANDER).astype(int)
    assert np.abs(filtered - preprocess(ecg, NO_WANDER)).max() <= 1  # µV
    error = rejected(raised)  # without a filter the offset would be in the data
    assert error.reason == "amplitude_too_large"


@pytest.mark.parametrize("value", [1e6, -1e300, 1.7e308])
def test_a_spike_beside_an_offset_is_refused(value):
    ecg = some_ecg(500.0)
    ecg.signal_mv[:] += 25.0
    ecg.signal_mv[3, 2500] = value
    assert rejected(ecg, NO_WANDER).reason == "amplitude_too_large"
    ecg.signal_mv[3, 2000:] = value
    assert rejected(ecg, NO_WANDER).reason == "amplitude_too_large"


def test_largest_amplitude_passes():
    assert preprocess(changed("V2", 77, -20.0), TEN_SECONDS)[7, 77] == -20000


def test_overshoot_of_the_filter_does_not_wrap_round():
    """A square wave of ±19.9 mV rings above 20 mV after resampling. int16 ends at 32.767 mV."""
    ecg = some_ecg(500.0)
    ecg.signal_mv[1] = np.where(np.arange(5000) // 250 % 2, 19.9, -19.9)
    assert rejected(ecg).reason == "amplitude_too_large"


def test_lead_names_must_match_the_rows():
    with pytest.raises(ValueError, match="11 lead names for 12 signals"):
        preprocess(replace(some_ecg(), leads=LEADS[:11]), TEN_SECONDS)


# --- against PhysioNet's own files


def test_500_to_100_hz_agrees_with_physionet():
    """PTB-XL's ids up to 300 have both. PhysioNet's 100 Hz files lead by 0.6 samples of 500 Hz, which no resampling of
    ours should imitate: so two bounds, one as the files are, one with our signal moved by that."""
    if "METS_TEST_DATA" not in os.environ:
        pytest.skip("METS_TEST_DATA is not set")
    from mets_ray.ecg.wfdb import read_wfdb

    folder = Path(os.environ["METS_TEST_DATA"]) / "ptb-xl"
    with (folder / "ptbxl_database.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["ecg_id"]) <= 300]
    rows = [row for row in rows if (folder / f"{row['filename_hr']}.hea").exists()]
    assert len(rows) == 279
    as_is, moved, correlation = [], [], []
    for row in rows[::9]:
        theirs = preprocess(read_wfdb(str(folder / row["filename_lr"])), TEN_SECONDS).astype(float)
        fine = read_wfdb(str(folder / row["filename_hr"]))
        ours = preprocess(fine, TEN_SECONDS).astype(float)
        as_is += list(np.sqrt(((ours - theirs) ** 2).mean(axis=1)))
        correlation += [np.corrcoef(ours[lead], theirs[lead])[0, 1] for lead in range(12)]
        spectrum = np.fft.rfft(fine.signal_mv, axis=1) * np.exp(2j * np.pi * np.fft.rfftfreq(5000) * 0.6)
        earlier = preprocess(replace(fine, signal_mv=np.fft.irfft(spectrum, 5000, axis=1)), TEN_SECONDS)
        moved += list(np.sqrt(((earlier - theirs)[:, 50:-50] ** 2).mean(axis=1)))
    print(f"RMS difference {np.median(as_is):.2f} µV (worst {max(as_is):.0f}), moved {np.median(moved):.2f}")
    print(f"correlation {np.median(correlation):.4f} (worst {min(correlation):.3f})")
    assert np.median(as_is) < 18.5
    assert np.median(moved) < 4.5
    assert np.median(correlation) > 0.993


@pytest.mark.parametrize("leads", [1, 2, 7, 12])
@pytest.mark.parametrize(("rate", "samples"), [(100, 1000), (100, 1), (100, 2), (50, 120), (500, 1700)])
def test_the_filter_is_scipys_to_the_bit(leads, rate, samples):
    """Two leads go through it as one complex signal."""
    signal_mv = np.random.default_rng(samples).normal(0.0, 2.0, (leads, samples)).cumsum(axis=1)
    sections = scipy.signal.butter(2, 0.5, "highpass", fs=rate, output="sos")
    margin = min(3 * rate, samples - 1)
    expected = scipy.signal.sosfiltfilt(sections, signal_mv, axis=1, padtype="odd", padlen=margin)
    assert np.array_equal(_highpassed(signal_mv, rate, 0.5), expected)


@pytest.mark.parametrize(
    ("source_hz", "rate", "digest"),
    [(100, 100, "4d603d18c860ee2a"), (500, 500, "07cd280449e18493"), (500, 100, "20bc6bc6eb3c18b2")],
)
def test_the_bytes_of_a_shard_are_those_of_earlier_versions(source_hz, rate, digest):
    """Digests of commit f1a0807; where they change, CONVERSION_VERSION must."""
    signal_mv = np.random.default_rng(0).integers(-3000, 3000, (12, 10 * source_hz)) / 1000
    signal_uv = preprocess(Ecg(signal_mv, LEADS, float(source_hz)), SignalConfig(rate, 10.0, highpass_hz=0.5))
    assert hashlib.sha256(signal_uv.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("rate", [128.0, 250.0, 257.0, 360.0, 512.0])
@pytest.mark.parametrize("wanted_hz", [100, 500])
def test_an_offset_makes_no_ripple_when_resampled(rate, wanted_hz):
    config = SignalConfig(wanted_hz, 10, highpass_hz=0.5)
    ecg = some_ecg(rate, 12.0)
    offset_mv = np.linspace(-300, 300, 12)[:, None]
    plain = preprocess(ecg, config).astype(int)
    shifted = preprocess(replace(ecg, signal_mv=ecg.signal_mv + offset_mv), config).astype(int)
    assert abs(plain - shifted).max() <= 1


@pytest.mark.parametrize("value", [np.nan, 50.0, np.inf])
def test_a_fault_behind_the_stretch_does_not_matter(value):
    whole = some_ecg(500.0, 10.0)
    longer = some_ecg(500.0, 11.0)
    faulty = longer.signal_mv.copy()
    faulty[3, 5010:] = value
    found = preprocess(replace(longer, signal_mv=faulty), TEN_SECONDS)
    # As of a record that ends there: the last samples are filtered without what would follow.
    np.testing.assert_array_equal(found, preprocess(replace(longer, signal_mv=longer.signal_mv[:, :5010]), TEN_SECONDS))
    assert abs(found[:, :-10].astype(int) - preprocess(whole, TEN_SECONDS)[:, :-10]).max() <= 1


def test_a_lead_that_comes_back_behind_the_stretch_is_flat_in_it():
    ecg = some_ecg(500.0, 11.0)
    signal_mv = ecg.signal_mv.copy()
    signal_mv[7, :5004] = 0.123
    assert rejected(replace(ecg, signal_mv=signal_mv)).reason == "flat_lead"
