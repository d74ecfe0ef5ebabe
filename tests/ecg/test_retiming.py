"""Moved beats: what is early, long or unchanged, measured in ECGs whose waves are known."""

from unittest import mock

import numpy as np
import pytest

from mets_ray.ecg import retiming
from mets_ray.ecg.beats import beat_times_s
from mets_ray.ecg.retiming import FINDINGS, _sampled, retimed

RR_S, P_S, T_S = 0.9, -0.16, 0.30  # where P and T have their peaks, from the R peak
RATES = (100, 500)


def ecg(sampling_rate_hz, *, rr_s=RR_S, variation=0.0, duration_s=10.0):
    """Twelve leads of P, QRS and T, each a bell curve; every lead with sizes of its own."""
    random = np.random.default_rng(1)
    times = np.arange(round(duration_s * sampling_rate_hz)) / sampling_rate_hz
    beats = np.cumsum(rr_s * (1 + variation * random.standard_normal(60))) - rr_s
    waves = {P_S: (0.15, 0.020), -0.02: (-0.1, 0.008), 0.0: (1.2, 0.012), T_S: (0.3, 0.045)}
    curve = sum(
        size * np.exp(-0.5 * ((times[:, None] - beats - at_s) / width_s) ** 2).sum(axis=1)
        for at_s, (size, width_s) in waves.items()
    )
    return (random.uniform(0.5, 1.5, 12)[:, None] * curve).astype(np.float32)


def peak_s(signal_mv, sampling_rate_hz, beat_s, first_s, last_s):
    """Where the highest sample lies between two times around a beat, from the beat."""
    first, last = (round((beat_s + at_s) * sampling_rate_hz) for at_s in (first_s, last_s))
    return (first + int(signal_mv[0, first:last].argmax())) / sampling_rate_hz - beat_s


def r_peaks(signal_mv, sampling_rate_hz):
    """Of the beats that lie within the signal as a whole."""
    duration_s = signal_mv.shape[1] / sampling_rate_hz
    near = [at_s for at_s in beat_times_s(signal_mv, sampling_rate_hz) if 0.5 < at_s < duration_s - 0.6]
    return np.asarray([at_s + peak_s(signal_mv, sampling_rate_hz, at_s, -0.05, 0.06) for at_s in near])


def test_beats_are_found_where_they_are():
    for rate in RATES:
        found = beat_times_s(ecg(rate), rate)
        np.testing.assert_allclose(found[-11:], np.arange(1, 12) * RR_S, atol=0.021)
        assert len(found) <= 12  # the one at 0 s has no rise
    assert len(beat_times_s(np.zeros((12, 1000), np.float32), 100)) == 0


@pytest.mark.parametrize("rate", RATES)
def test_premature_beats_come_early_and_keep_their_waves(rate):
    signal_mv = ecg(rate)
    before = r_peaks(signal_mv, rate)
    for seed in range(20):
        found = retimed(signal_mv, rate, "premature_atrial", np.random.default_rng(seed))
        assert (found.dtype, found.shape) == (np.float32, signal_mv.shape)
        beats = r_peaks(found, rate)
        early = np.diff(beats) < 0.88 * RR_S
        assert early.any()
        assert np.diff(beats).min() > 0.40 * RR_S
        assert not (early[1:] & early[:-1]).any()
        # Every beat is another one's copy; between two samples a narrow QRS loses some of its height.
        of_old, of_new = (
            np.stack([np.ptp(one[:, round(at_s * rate) - rate // 20 :][:, : rate // 10], axis=1) for at_s in times])
            for one, times in ((signal_mv, before), (found, beats))
        )
        expected = np.broadcast_to(of_old.mean(axis=0), of_new.shape)
        np.testing.assert_allclose(of_new, expected, rtol=0.15 if rate == 100 else 0.01)


@pytest.mark.parametrize("rr_s", [0.7, 1.1, 1.4, 1.6])
def test_the_early_beat_lies_in_the_ecg_at_every_rate(rr_s):
    signal_mv = ecg(100, rr_s=rr_s)
    for seed in range(60):
        found = retimed(signal_mv, 100, "premature_atrial", np.random.default_rng(seed))
        assert np.diff(beat_times_s(found, 100)).min() < 0.92 * rr_s, seed


@pytest.mark.parametrize("finding", FINDINGS)
def test_time_never_runs_backwards_and_t_keeps_half_of_its_length(finding):
    made = 0
    for rr_s in (0.58, 0.6, 0.65, 0.8):
        for seed in range(20):
            random = np.random.default_rng(seed)
            with mock.patch.object(retiming, "_time_map", wraps=retiming._time_map) as mapped:
                found = retimed(ecg(100, rr_s=rr_s, variation=0.03), 100, finding, random)
            if found is None:
                continue
            made += 1
            of_beat = mapped.call_args.args[2]
            new, old = retiming._time_map(*mapped.call_args.args)
            assert np.diff(old).min() >= 0
            assert np.diff(new).min() > 0
            of_t = new.reshape(-1, 5)[:, -1] - new.reshape(-1, 5)[:, -2]
            assert of_t.min() > 0.4 * (of_beat[-1] - of_beat[-2])  # half, but for RR that varies
    assert made > 20


def test_a_long_pr_moves_p_and_nothing_else():
    signal_mv = ecg(500)
    for seed in range(10):
        found = retimed(signal_mv, 500, "long_pr", np.random.default_rng(seed))
        beats = r_peaks(found, 500)
        np.testing.assert_allclose(np.diff(beats), RR_S, rtol=0.06)
        p_s = [peak_s(found, 500, at_s, -0.36, -0.10) for at_s in beats]
        assert -0.32 < min(p_s) <= max(p_s) < -0.24  # the P of a normal ECG lies at -0.16 s
        assert max(p_s) - min(p_s) < 0.01
        # P and T keep their form, and the stretch before QRS is flat.
        for first_s, last_s in ((p_s[0] - 0.05, p_s[0] + 0.05), (T_S - 0.1, T_S + 0.1)):
            at = P_S if last_s < 0 else T_S
            of_old, of_new = (
                np.ptp(one[:, round((beat + peak - 0.05) * 500) : round((beat + peak + 0.05) * 500)], axis=1)
                for one, beat, peak in ((signal_mv, 2 * RR_S, at), (found, beats[0], (first_s + last_s) / 2))
            )
            np.testing.assert_allclose(of_new, of_old, rtol=0.03)


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_is_not_a_regular_rhythm_with_room_is_left_alone(finding):
    def none(signal_mv):
        return retimed(signal_mv, 100, finding, np.random.default_rng(0)) is None

    assert not none(ecg(100))
    assert none(ecg(100, variation=0.15))
    assert none(ecg(100, rr_s=0.5))
    assert none(ecg(100, duration_s=4.0))
    assert none(np.zeros((12, 1000), np.float32))
    assert none(np.random.default_rng(0).normal(size=(12, 1000)).astype(np.float32))


def test_in_a_longer_ecg_beats_are_early_all_the_way():
    def made(rr_s, seed):
        signal_mv = ecg(100, rr_s=rr_s, duration_s=30.0)
        return retimed(signal_mv, 100, "premature_atrial", np.random.default_rng(seed))

    assert all(made(rr_s, seed) is not None for rr_s in (0.6, 2.0, 4.5) for seed in range(5))
    early = [int(np.diff(beat_times_s(made(RR_S, seed), 100)).argmin()) for seed in range(30)]
    assert min(early) < 8
    assert max(early) > 20


def test_the_same_random_numbers_give_the_same_ecg():
    first, second, other = (
        retimed(ecg(100), 100, "premature_atrial", np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0.1


def test_between_samples_the_signal_is_a_cubic():
    times = np.arange(1000) / 100
    signal_mv = np.stack([np.sin(2 * np.pi * hz * times) for hz in (1, 5, 10)]).astype(np.float32)
    np.testing.assert_array_equal(_sampled(signal_mv, np.arange(1.0, 990.0)), signal_mv[:, 1:990])
    position = np.linspace(20, 900, 3333)
    expected = np.stack([np.sin(2 * np.pi * hz * position / 100) for hz in (1, 5, 10)])
    assert np.abs(_sampled(signal_mv, position) - expected).max(axis=1) == pytest.approx([0, 0, 0], abs=0.02)
