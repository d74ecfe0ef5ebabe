"""The waves of an ECG's usual beat, measured as interpretation programs measure them; for words, not for a patient.

The beats of one form are laid over each other and their median is taken, so noise and an odd beat count little. The QRS
complex is where all leads together change fast. Amplitudes are from the level just before it. NeuroKit2 and wfdb
delineate one lead at a time; here an ECG of 12 leads takes a millisecond.
"""

import functools
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.interpolate is imported at first use
from jaxtyping import Float, Float32, Int64

from mets_ray.ecg.beats import beat_times_s

_BEFORE_S, _AFTER_S = 0.36, 0.56  # of each beat, from the middle of its QRS complex
_LEAST_BEATS = 3
_QRS_S = 0.08  # around the middle, by which beats are laid over each other
_MOST_SHIFT_S = 0.03
_SAME_FORM = 0.9  # correlation with the median of all beats
_FINE_HZ = 500  # at which the QRS complex is bounded
_QRS_SPEED = 0.06  # of the highest: where all leads together are slower for 16 ms, QRS has ended
_NOISE_SPEED = 2.0  # times what a fifth of the beat stays below
_QUIET_S, _LONGEST_HALF_QRS_S, _PEAK_S = 0.016, 0.12, 0.1
_LEVEL_S = 0.02  # before QRS
_ST_AT_S, _T_FROM_S = 0.06, 0.08  # from the end of QRS
_T_END_S, _LATEST_T_S = 0.62, 0.55  # from the middle of QRS, at an RR of 1 s (it goes with its root), and at most
_P_FROM_S, _P_TO_S = -0.25, -0.02  # from the beginning of QRS
_BEHIND_T_S = 0.42  # from the middle of the last QRS, at an RR of 1 s: P is not sought before
_LEAST_P_S = 0.02
_LEAST_Q_MV = 0.03  # what is lower is no wave


@dataclass(frozen=True)
class MedianBeat:
    """Measurements of one beat; those in mV, and `q_s`, are for each lead.

    rr_s: intervals between all beats in order, also those of another form. qrs_s: duration of QRS over all leads.
    r_mv, s_mv: its highest and its lowest point. q_mv: its lowest before the highest; q_s: how long it is below -0.03
    mV there. st_mv: 60 ms after QRS. t_mv: where T is farthest from the level, signed. p_mv, p_end_mv: the highest and
    the lowest point before QRS, NaN where the last beat's T leaves no room.
    """

    rr_s: Float[np.ndarray, " interval"]
    qrs_s: float
    r_mv: Float[np.ndarray, " lead"]
    s_mv: Float[np.ndarray, " lead"]
    q_mv: Float[np.ndarray, " lead"]
    q_s: Float[np.ndarray, " lead"]
    st_mv: Float[np.ndarray, " lead"]
    t_mv: Float[np.ndarray, " lead"]
    p_mv: Float[np.ndarray, " lead"]
    p_end_mv: Float[np.ndarray, " lead"]


def measure_median_beat(signal_mv: Float32[np.ndarray, "lead sample"], sampling_rate_hz: int) -> MedianBeat | None:
    """Measure the usual beat of an ECG; None where fewer than 3 beats have the same form."""
    beats_s = beat_times_s(signal_mv, sampling_rate_hz)
    if len(beats_s) < _LEAST_BEATS:
        return None
    beat = _median_of(signal_mv, np.round(beats_s * sampling_rate_hz).astype(np.int64), sampling_rate_hz)
    if beat is None:
        return None
    fine = beat @ _spline(beat.shape[1], sampling_rate_hz)
    middle = round(round(_BEFORE_S * sampling_rate_hz) / sampling_rate_hz * _FINE_HZ)
    begin, end = _qrs_bounds(fine, middle)
    return _measured(fine, np.diff(beats_s), middle, begin, end)


@functools.cache  # a spline is linear in what it goes through, and the beats of a data set have one length
def _spline(samples: int, sampling_rate_hz: int) -> Float[np.ndarray, "of_beat fine"]:
    """By which a beat is sampled at 500 Hz: at 100 Hz a QRS complex has ten samples."""
    times_s = np.arange(samples) / sampling_rate_hz
    fine_s = np.arange(round(times_s[-1] * _FINE_HZ) + 1) / _FINE_HZ
    weights: np.ndarray = scipy.interpolate.CubicSpline(times_s, np.eye(samples), axis=1)(fine_s)
    return weights


def _measured(
    fine: Float[np.ndarray, "lead fine"], rr_s: Float[np.ndarray, " interval"], middle: int, begin: int, end: int
) -> MedianBeat:
    """begin, end: of QRS; middle: where beats were laid over each other."""
    level = fine[:, max(0, begin - round(_LEVEL_S * _FINE_HZ)) : begin].mean(axis=1)
    fine = fine - level[:, None]
    qrs = fine[:, begin : end + 1]
    peak = qrs.argmax(axis=1)
    before_peak = np.where(np.arange(qrs.shape[1]) <= peak[:, None], qrs, np.inf)
    t_end = min(fine.shape[1], middle + round(_FINE_HZ * min(_LATEST_T_S, _T_END_S * float(rr_s.mean()) ** 0.5)))
    t_wave = fine[:, min(end + round(_T_FROM_S * _FINE_HZ), t_end - 1) : t_end]
    p_wave = _p_wave(fine, float(np.median(rr_s)), middle, begin)
    return MedianBeat(
        rr_s=rr_s,
        qrs_s=(end - begin) / _FINE_HZ,
        r_mv=qrs.max(axis=1),
        s_mv=qrs.min(axis=1),
        q_mv=before_peak.min(axis=1),
        q_s=(before_peak < -_LEAST_Q_MV).sum(axis=1) / _FINE_HZ,
        st_mv=fine[:, min(end + round(_ST_AT_S * _FINE_HZ), fine.shape[1] - 1)],
        t_mv=np.take_along_axis(t_wave, np.abs(t_wave).argmax(axis=1)[:, None], axis=1)[:, 0],
        p_mv=p_wave.max(axis=1),
        p_end_mv=p_wave.min(axis=1),
    )


def _p_wave(fine: Float[np.ndarray, "lead fine"], rr_s: float, middle: int, begin: int) -> Float[np.ndarray, "lead _"]:
    """Where P is: behind the last beat's T, which at fast rates comes close. NaN where no room is left."""
    first = max(0, begin + round(_P_FROM_S * _FINE_HZ), middle + round((_BEHIND_T_S * rr_s**0.5 - rr_s) * _FINE_HZ))
    found = fine[:, first : begin + round(_P_TO_S * _FINE_HZ)]
    return found if found.shape[1] >= _LEAST_P_S * _FINE_HZ else np.full((len(fine), 1), np.nan)


def _median_of(
    signal_mv: Float32[np.ndarray, "lead sample"], beats: Int64[np.ndarray, " beat"], sampling_rate_hz: int
) -> Float[np.ndarray, "lead of_beat"] | None:
    before, after = round(_BEFORE_S * sampling_rate_hz), round(_AFTER_S * sampling_rate_hz)
    most, half = round(_MOST_SHIFT_S * sampling_rate_hz), round(_QRS_S * sampling_rate_hz)
    beats = beats[(beats >= before + most) & (beats + after + most <= signal_mv.shape[1])]
    if len(beats) < _LEAST_BEATS:
        return None
    shifts, around = np.arange(-most, most + 1), np.arange(-half, half + 1)
    usual = np.median(_cut(signal_mv, beats[:, None] + around), axis=1)
    shifted = _cut(signal_mv, beats[:, None, None] + shifts[:, None] + around)  # [lead, beat, shift, of_complex]
    best = np.einsum("lbsw,lw->bs", shifted, usual).argmax(axis=1)
    beats, complexes = beats + shifts[best], shifted[:, np.arange(len(beats)), best]
    usual = np.median(complexes, axis=1)
    norms = np.sqrt(np.einsum("lbw,lbw->b", complexes, complexes) * np.einsum("lw,lw->", usual, usual))
    alike = np.einsum("lbw,lw->b", complexes, usual) >= _SAME_FORM * norms
    if alike.sum() < _LEAST_BEATS:
        return None
    median: np.ndarray = np.median(_cut(signal_mv, beats[alike, None] + np.arange(-before, after)), axis=1)
    return median.astype(np.float64)


def _cut(signal_mv: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[lead, *at]: the samples at these places."""
    return np.asarray(signal_mv[:, at])


def _qrs_bounds(fine: Float[np.ndarray, "lead fine"], middle: int) -> tuple[int, int]:
    """First and last sample of QRS."""
    speed = np.sqrt(np.square(np.gradient(fine, axis=1)).sum(axis=0))
    speed = np.convolve(speed, np.full(5, 0.2), mode="same")
    near = round(_PEAK_S * _FINE_HZ)
    peak = middle - near + int(speed[middle - near : middle + near].argmax())
    limit = max(_QRS_SPEED * speed[peak], _NOISE_SPEED * np.percentile(speed, 20))
    return _first_quiet(speed[: peak + 1][::-1], limit, peak, -1), _first_quiet(speed[peak:], limit, peak, 1)


def _first_quiet(speed: Float[np.ndarray, " away"], limit: float, peak: int, step: int) -> int:
    run, most = round(_QUIET_S * _FINE_HZ), round(_LONGEST_HALF_QRS_S * _FINE_HZ)
    quiet = np.convolve(speed[: most + run] < limit, np.ones(run), mode="valid") > run - 0.5
    found = int(quiet.argmax()) if quiet.any() else most
    return peak + step * min(found, most)
