"""Made-up ECGs, measured the way a reader measures an ECG: nothing here looks at how `render` draws them."""

import dataclasses
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.signal import find_peaks, resample_poly

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.synthetic_patients import (
    CLASSES,
    RHYTHMS,
    ST_ELEVATION_LEADS,
    WORDINGS,
    SyntheticRecord,
    describe,
)
from mets_ray.ecg.synthetic_waveforms import ectopic_beats_s, render
from mets_ray.errors import ConfigError

SEED = 3
RATE_HZ = 500


@cache
def records() -> tuple[SyntheticRecord, ...]:
    return tuple(describe(index, seed=SEED) for index in range(2000))


def with_labels(*labels: str, limit: int = 12) -> list[SyntheticRecord]:
    found = [record for record in records() if record.labels == labels][:limit]
    assert len(found) >= 5, f"only {len(found)} records are {labels}"
    return found


@cache
def ecg(record: SyntheticRecord) -> Ecg:
    return render(record, sampling_rate_hz=RATE_HZ)


def lead(signal: np.ndarray, name: str) -> np.ndarray:
    return signal[LEADS.index(name)]


def smooth(signal: np.ndarray, seconds: float) -> np.ndarray:
    width = round(seconds * RATE_HZ)
    return np.apply_along_axis(lambda row: np.convolve(row, np.ones(width) / width, mode="same"), -1, signal)


def slope_mv_per_s(signal: np.ndarray) -> np.ndarray:
    """Size over all leads of the steepness, with muscle noise smoothed away: large in QRS only."""
    return np.linalg.norm(np.gradient(smooth(signal, 0.014), 1 / RATE_HZ, axis=1), axis=0)


def beats(signal: np.ndarray, threshold: float = 0.42) -> np.ndarray:
    """Sample of each QRS: the steepest places, `threshold` times as steep as the usual QRS or more."""
    strength = smooth(slope_mv_per_s(signal), 0.08)
    # The median over stretches of 1.6 s, so that one ectopic beat hides none of the others.
    level = np.median([strength[start : start + 800].max() for start in range(0, strength.size - 799, 400)])
    return find_peaks(strength, height=threshold * level, distance=round(0.28 * RATE_HZ))[0]


def rr_s(record: SyntheticRecord) -> np.ndarray:
    return np.diff(beats(ecg(record).signal_mv)) / RATE_HZ


def median_beat(record: SyntheticRecord) -> tuple[np.ndarray, int]:
    """All whole beats of a record laid over each other, 0 mV being the level just before QRS; and QRS's sample."""
    signal = ecg(record).signal_mv
    before, after = round(0.45 * RATE_HZ), round(0.40 * RATE_HZ)
    cut = [signal[:, at - before : at + after] for at in beats(signal) if at > before and at + after < signal.shape[1]]
    beat = np.median(cut, axis=0)
    onset, _ = qrs_bounds(beat, before)
    return beat - beat[:, onset - 6 : onset].mean(axis=1, keepdims=True), before


def qrs_ms(record: SyntheticRecord) -> float:
    beat, centre = median_beat(record)
    onset, end = qrs_bounds(beat, centre)
    return (end - onset) / RATE_HZ * 1000


def qrs_bounds(beat: np.ndarray, centre: int) -> tuple[int, int]:
    """First and last steep sample around `centre`: outwards until 14 ms pass below an eighth of the greatest."""
    slope, quiet = slope_mv_per_s(beat), round(0.014 * RATE_HZ)
    steep = slope > slope[centre - 50 : centre + 50].max() / 8
    centre += int(np.argmax(slope[centre - 25 : centre + 25])) - 25
    end = next(at for at in range(centre, steep.size) if not steep[at + 1 : at + 1 + quiet].any())
    onset = next(at for at in range(centre, 0, -1) if not steep[at - quiet : at].any())
    return onset, end


def pr_ms(record: SyntheticRecord) -> float:
    """From the rise of P in lead II and its neighbours (aVR turned over) to QRS."""
    beat, centre = median_beat(record)
    onset, _ = qrs_bounds(beat, centre)
    p = smooth((lead(beat, "II") - lead(beat, "aVR") + lead(beat, "V5")) / 3, 0.02)[: onset - 5]
    p = p - np.quantile(p, 0.25)
    peak = int(find_peaks(p, height=0.6 * p[-round(0.30 * RATE_HZ) :].max())[0][-1])
    start = peak
    while start > 0 and p[start] > 0.2 * p[peak]:
        start -= 1
    return (onset - start) / RATE_HZ * 1000


def st_mv(record: SyntheticRecord) -> dict[str, float]:
    """Level 60 ms after QRS's end (J + 60 ms)."""
    beat, centre = median_beat(record)
    _, end = qrs_bounds(beat, centre)
    at = end + round(0.06 * RATE_HZ)
    return dict(zip(LEADS, beat[:, at - 5 : at + 6].mean(axis=1), strict=True))


def qrs_of(record: SyntheticRecord) -> np.ndarray:
    beat, centre = median_beat(record)
    onset, end = qrs_bounds(beat, centre)
    return beat[:, onset : end + 1]


# What every ECG must be


@pytest.mark.parametrize("index", range(0, 60, 5))
def test_leads_obey_einthoven_and_goldberger_in_every_sample(index: int) -> None:
    signal = render(records()[index]).signal_mv
    one, two, three, avr, avl, avf = signal[:6]
    assert signal.shape == (12, 1000)
    assert np.abs(signal).max() > 0.1
    for derived, expected in ((three, two - one), (avr, -(one + two) / 2), (avl, one - two / 2), (avf, two - one / 2)):
        np.testing.assert_allclose(derived, expected, rtol=0, atol=1e-12)


def test_amplitudes_are_those_of_an_ecg() -> None:
    for record in records()[:300]:
        signal = render(record).signal_mv
        assert np.isfinite(signal).all()
        assert 0.15 < np.abs(signal).max() < 5, record
        assert np.abs(signal.mean(axis=1)).max() < 0.4, record
        assert signal.std(axis=1).min() > 0.005, "no lead is flat"


def test_same_index_gives_the_same_bytes_in_any_order() -> None:
    later, earlier = describe(17, seed=SEED), describe(5, seed=SEED)
    assert (earlier, later) == (describe(5, seed=SEED), describe(17, seed=SEED))
    first = render(later)
    render(earlier)
    assert render(describe(17, seed=SEED)).signal_mv.tobytes() == first.signal_mv.tobytes()
    assert first.leads == LEADS
    assert first.sampling_rate_hz == 100.0


def test_seeds_and_indices_give_different_ecgs() -> None:
    signals = [render(describe(index, seed=seed)).signal_mv for index in range(6) for seed in (0, 1)]
    for number, signal in enumerate(signals):
        for other in signals[:number]:
            assert np.abs(signal - other).max() > 0.1


def test_each_record_has_noise_of_its_own() -> None:
    def above_70_hz(record: SyntheticRecord) -> np.ndarray:
        spectrum = np.fft.rfft(lead(ecg(record).signal_mv, "II"))
        spectrum[: 70 * 10] = 0  # a beat has nothing up there
        return np.fft.irfft(spectrum)

    noise = [above_70_hz(record) for record in records()[:8]]
    assert 0.001 < min(part.std() for part in noise) < max(part.std() for part in noise) < 0.1
    assert np.abs(np.corrcoef(noise) - np.eye(8)).max() < 0.1


@pytest.mark.parametrize("label", CLASSES)
def test_sampling_rate_only_chooses_where_the_same_curve_is_read(label: str) -> None:
    record = next(record for record in records() if label in record.labels)
    dense, sparse = ecg(record).signal_mv, render(record).signal_mv
    decimated = resample_poly(dense, 1, 5, axis=1)[:, 20:-20]
    for name, expected, got in zip(LEADS, decimated, sparse[:, 20:-20], strict=True):
        assert np.sqrt(np.mean((expected - got) ** 2)) < 0.02, name
        assert np.corrcoef(expected, got)[0, 1] > 0.95, name


def test_duration_and_rate_set_the_shape() -> None:
    assert render(records()[0], sampling_rate_hz=360, duration_s=2.5).signal_mv.shape == (12, 900)
    assert render(records()[0], sampling_rate_hz=250, duration_s=30).signal_mv.shape == (12, 7500)


@pytest.mark.parametrize(
    "settings", [{"sampling_rate_hz": 0.0}, {"duration_s": -1.0}, {"duration_s": 0.001}, {"sampling_rate_hz": np.inf}]
)
def test_impossible_rate_or_duration_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="sampling_rate_hz"):
        render(records()[0], **settings)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_negative_index_or_seed_is_refused(index: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="`index` is"):
        describe(index, seed=seed)


# Rhythm


@pytest.mark.parametrize(("label", "slowest", "fastest"), [("SR", 60, 100), ("SBRAD", 30, 60), ("STACH", 100, 160)])
def test_heart_rate_is_within_the_bounds_of_its_class(label: str, slowest: float, fastest: float) -> None:
    for record in [record for record in records() if record.labels[0] == label and "PVC" not in record.labels][:80]:
        rate_per_min = 60 / rr_s(record).mean()
        assert slowest < rate_per_min < fastest, record
        assert rate_per_min == pytest.approx(record.heart_rate_per_min, rel=0.04), record


def test_atrial_fibrillation_is_irregular_and_sinus_rhythm_is_not() -> None:
    def variation(record: SyntheticRecord) -> float:
        intervals = rr_s(record)
        return float(intervals.std() / intervals.mean())

    fibrillating = [record for record in records() if "AFIB" in record.labels][:60]
    regular = [variation(record) for record in with_labels("SR", limit=60)]
    assert max(regular) < 0.07
    assert min(regular) > 0.002, "a sinus node is no clock"
    assert min(variation(record) for record in fibrillating) > 0.08
    assert np.median([variation(record) for record in fibrillating]) > 0.17


def test_atrial_fibrillation_has_f_waves_and_no_p() -> None:
    def before_qrs(record: SyntheticRecord) -> tuple[float, float]:
        """Height of P in the median beat (II), and unrest of V1 between beats against that median, in mV."""
        beat, centre = median_beat(record)
        ii = smooth(lead(beat, "II"), 0.02)[centre - round(0.26 * RATE_HZ) : centre - round(0.06 * RATE_HZ)]
        v1 = smooth(lead(ecg(record).signal_mv, "V1"), 0.03)
        unrest = []
        for at in beats(ecg(record).signal_mv)[1:]:
            stretch = v1[at - round(0.13 * RATE_HZ) : at - round(0.06 * RATE_HZ)]
            unrest.append(np.ptp(stretch))
        return float(np.ptp(ii)), float(np.std(unrest))

    sinus = np.array([before_qrs(record) for record in with_labels("SR")])
    fibrillating = np.array([before_qrs(record) for record in with_labels("AFIB")])
    assert np.median(sinus[:, 0]) > 1.5 * np.median(fibrillating[:, 0])
    assert np.median(fibrillating[:, 1]) > 2 * np.median(sinus[:, 1])


def test_ectopic_beat_is_early_wide_large_and_followed_by_a_full_pause() -> None:
    for record in with_labels("SR", "PVC"):
        signal = ecg(record).signal_mv
        at, usual_s = beats(signal, threshold=0.3), 60 / record.heart_rate_per_min  # wide, so not steep
        intervals = np.diff(at) / RATE_HZ
        early = [k for k in range(len(intervals) - 1) if intervals[k] < 0.82 * usual_s]
        assert early, f"no early beat in {record}"
        k = early[0]
        assert intervals[k] + intervals[k + 1] == pytest.approx(2 * usual_s, rel=0.08), record

        def area(centre: int, signal: np.ndarray = signal) -> float:
            """Half width of the vector's magnitude times its height: width and size together."""
            near = np.linalg.norm(signal[:, centre - 60 : centre + 60], axis=0)
            return float((near > near.max() / 2).sum() * near.max())

        usual = [area(at[j]) for j in range(1, len(at) - 1) if j - 1 not in early]
        assert area(at[k + 1]) > 1.8 * max(usual), record
        named_s = ectopic_beats_s(record)
        assert min(abs(at_s - at[k + 1] / RATE_HZ) for at_s in named_s) < 0.1, record
        assert all(0 <= at_s < 10 for at_s in named_s)
    assert ectopic_beats_s(with_labels("SR")[0]) == []


# Conduction


def test_bundle_branch_blocks_widen_qrs() -> None:
    normal = [qrs_ms(record) for record in with_labels("SR")]
    left = [qrs_ms(record) for record in with_labels("SR", "CLBBB")]
    right = [qrs_ms(record) for record in with_labels("SR", "CRBBB")]
    assert min(normal) > 60
    assert max(normal) < 120
    assert min(left) >= 120
    assert min(right) >= 120
    assert max(np.median(left), np.median(right)) < 190


def test_left_bundle_branch_block_has_its_shape() -> None:
    for record in with_labels("SR", "CLBBB"):
        qrs, beat_and_centre = qrs_of(record), median_beat(record)
        t = beat_and_centre[0][:, beat_and_centre[1] + round(0.2 * RATE_HZ) :]
        assert lead(qrs, "V1").min() < -0.6, record
        assert lead(qrs, "V1").max() < 0.35 * -lead(qrs, "V1").min(), record
        for name in ("I", "V6"):
            assert lead(qrs, name).max() > 0.3, record
            assert lead(qrs, name)[: lead(qrs, name).argmax()].min() > -0.05, f"no q in {name}: {record}"
            assert lead(t, name).min() < -0.08, f"T against QRS in {name}: {record}"
        assert lead(t, "V1").max() > 0.1, record


def test_right_bundle_branch_block_has_its_shape() -> None:
    for record in with_labels("SR", "CRBBB"):
        qrs = qrs_of(record)
        v1 = lead(qrs, "V1")
        valley = int(v1.argmin())
        assert v1[:valley].max() > 0.02, f"r: {record}"
        assert v1[valley:].max() > 0.4, f"R': {record}"
        assert v1[valley:].max() > v1[:valley].max(), record
        for name in ("I", "V6"):
            after_r = lead(qrs, name)[int(lead(qrs, name).argmax()) :]
            assert after_r.min() < -0.12, f"S in {name}: {record}"
            assert (after_r < after_r.min() / 2).sum() / RATE_HZ > 0.030, f"broad S in {name}: {record}"


def test_pr_is_long_in_first_degree_block_only() -> None:
    # Above 85 a minute a late P sits on the T before it, where nobody can see its start.
    normal = [pr_ms(record) for record in with_labels("SR", limit=60) if record.heart_rate_per_min < 85]
    blocked = [pr_ms(record) for record in with_labels("SR", "1AVB", limit=60) if record.heart_rate_per_min < 85]
    assert min(len(normal), len(blocked)) >= 20
    assert min(blocked) > 200
    assert max(blocked) < 340
    assert min(normal) > 100
    assert max(normal) < 200


# Voltage and ST


def test_hypertrophy_and_low_voltage_meet_their_criteria_and_others_do_not() -> None:
    def sokolow_mv(record: SyntheticRecord) -> float:
        qrs = qrs_of(record)
        return float(lead(qrs, "V5").max() - lead(qrs, "V1").min())

    def limb_mv(record: SyntheticRecord) -> float:
        return float(np.ptp(qrs_of(record)[:6], axis=1).max())

    assert min(sokolow_mv(record) for record in with_labels("SR", "LVH")) > 3.5
    assert max(sokolow_mv(record) for record in with_labels("SR")) < 3.5
    assert max(limb_mv(record) for record in with_labels("SR", "LVOLT")) < 0.5
    assert min(limb_mv(record) for record in with_labels("SR")) > 0.5


def test_hypertrophy_has_lateral_strain() -> None:
    for record in with_labels("SR", "LVH"):
        beat, centre = median_beat(record)
        t = beat[:, centre + round(0.18 * RATE_HZ) :]
        for name in ("I", "V6"):
            assert lead(t, name).min() < -0.08, record
        assert st_mv(record)["V6"] < -0.01, record


def test_st_elevation_lies_where_its_name_says() -> None:
    for record in with_labels("SR", "STE_ANT"):
        st = st_mv(record)
        assert min(st["V2"], st["V3"]) > 0.2, record
        assert min(st[name] for name in ST_ELEVATION_LEADS["STE_ANT"]) > 0.08, record
        assert max(st["II"], st["III"], st["aVF"]) < 0.4 * st["V3"], record
    for record in with_labels("SR", "STE_INF"):
        st = st_mv(record)
        assert min(st[name] for name in ST_ELEVATION_LEADS["STE_INF"]) > 0.1, record
        assert st["aVL"] < -0.05, f"reciprocal: {record}"
        assert max(st["V1"], st["V2"], st["V3"]) < 0.15, record
    for record in with_labels("SR"):
        st = st_mv(record)
        assert max(abs(st[name]) for name in ("II", "III", "aVF", "V1")) < 0.1, record
        assert max(st["V2"], st["V3"], st["V4"]) < 0.2, record


# Records, labels, reports


def test_patients_stay_in_one_fold_and_folds_are_even() -> None:
    folds: dict[str, set[int]] = {}
    for record in records():
        folds.setdefault(record.patient_id, set()).add(record.fold)
    assert all(len(fold) == 1 for fold in folds.values())
    sizes = Counter(record.fold for record in records())
    assert sorted(sizes) == list(range(1, 11))
    assert max(sizes.values()) - min(sizes.values()) <= 3
    assert set(Counter(record.patient_id for record in records()).values()) == {1, 2}


def test_second_record_of_a_patient_keeps_the_heart() -> None:
    """Same QRS directions: leads correlate more within patients than between them."""
    normal = [record for record in records() if record.labels == ("SR",)]
    shapes = {record.index: np.ptp(qrs_of(record), axis=1) for record in normal[:120]}
    patient = {record.index: record.patient_id for record in normal}
    within, between = [], []
    for index, shape in shapes.items():
        for other, other_shape in shapes.items():
            if other < index:
                distance = float(np.linalg.norm(shape - other_shape))
                (within if patient[index] == patient[other] else between).append(distance)
    assert len(within) >= 5
    assert np.median(within) < 0.4 * np.median(between)
    for record in records()[:200]:
        twin = [other for other in records()[:200] if other.patient_id == record.patient_id]
        assert {other.sex for other in twin} == {record.sex}
        assert all(abs(other.age - record.age) <= 3 for other in twin)


def test_labels_are_one_rhythm_and_up_to_two_compatible_findings() -> None:
    for record in records():
        assert record.labels[0] in RHYTHMS
        assert set(record.labels) <= set(CLASSES)
        assert not set(record.labels[1:]) & set(RHYTHMS)
        assert 1 <= len(record.labels) == len(set(record.labels)) <= 3
        labels = set(record.labels)
        for impossible in ({"AFIB", "1AVB"}, {"AFIB", "PVC"}, {"CLBBB", "CRBBB"}, {"LVH", "LVOLT"}, {"PVC", "LVOLT"}):
            assert not impossible <= labels
    assert sum(len(record.labels) == 3 for record in records()) > 100


def test_every_class_has_at_least_one_in_twenty() -> None:
    counts = Counter(label for record in records() for label in record.labels)
    assert set(counts) == set(CLASSES)
    assert min(counts.values()) >= 100, counts
    assert " ".join(CLASSES) == "SR SBRAD STACH AFIB PVC CLBBB CRBBB 1AVB LVH STE_ANT STE_INF LVOLT"


def test_reports_say_the_labels_in_several_wordings() -> None:
    used: dict[str, set[str]] = {code: set() for code in CLASSES}
    for record in records():
        assert record.report == ". ".join(record.statements) + "."
        assert len(record.statements) - len(record.labels) in (0, 1), "a conclusion may follow"
        for code, statement in zip(record.labels, record.statements, strict=False):
            assert statement in WORDINGS[code]
            used[code].add(statement)
    assert min(len(wordings) for wordings in used.values()) >= 4, used
    owner = Counter(wording for wordings in WORDINGS.values() for wording in wordings)
    assert set(owner.values()) == {1}, "a wording names one class"


def test_conclusions_fit_and_normal_reports_repeat() -> None:
    normal = [record.report for record in records() if record.labels == ("SR",)]
    assert len(set(normal)) <= 16 < 250 < len(normal)
    assert not any(
        "abnormal" in report or "patholog" in report.replace("no definite pathology", "") for report in normal
    )
    infarct = [record.report for record in records() if {"STE_ANT", "STE_INF"} & set(record.labels)]
    assert not any("normal ecg" in report.replace("abnormal ecg", "") for report in infarct)
    assert 200 < len({record.report for record in records()}) < 800


def test_render_reads_the_record_not_the_index_alone() -> None:
    record = with_labels("SR")[0]
    widened = dataclasses.replace(record, labels=("SR", "CLBBB"))
    assert qrs_ms(widened) > qrs_ms(record) + 25
