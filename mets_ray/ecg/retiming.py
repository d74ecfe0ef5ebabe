"""The same waves at other times: a recorded ECG with a beat that comes early, or with a long PR interval.

What "premature" means is learnt from ECGs with premature beats, and few have them. A recorded ECG in regular sinus
rhythm becomes one when a beat is moved: it keeps its waves, its noise and its electronics, so nothing but the timing
tells it from the ECG that it was. For training; what is evaluated is as it was recorded.

A beat moves as a whole, from the onset of P to the end of T; only flat stretches between its waves become shorter or
longer. Intervals are those of adults at rest: P begins within 0.24 s before the R peak, and QT follows Bazett.
"""

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from mets_ray.ecg.beats import beat_times_s

Finding = Literal["premature_atrial", "long_pr"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)

_LEAST_BEATS = 6
_SHORTEST_RR_S = 0.55  # faster, P hides in T
_MOST_VARIATION = 0.07  # standard deviation of RR over its median: more is no regular rhythm
_P_ONSET_S, _QRS_END_S = -0.24, 0.08  # from the R peak
_PR_SEGMENT_S = (-0.12, -0.04)  # where P has ended and QRS not begun, somewhere in this
_FLAT_S = 0.02  # of it, the flattest stretch
_QT_END_S, _SPARE_S = 0.46, 0.03  # at an RR of 1 s; what stays flat before the next P
_JITTER = 0.012  # of RR, from beat to beat
_COUPLING = (0.50, 0.80)  # of RR: how early an atrial beat is
_LONGER_PR_S = (0.09, 0.15)  # more than a normal PR of at least 0.12 s lacks to 0.2 s
_SQUEEZED_S = 0.02  # what is left flat before an early P
_MOST_OF_T = 0.5  # that an early P may take
_SEAM_S = 0.08


def retimed(
    signal_mv: Float32[np.ndarray, "lead sample"],
    sampling_rate_hz: int,
    finding: Finding,
    random: np.random.Generator,
) -> Float32[np.ndarray, "lead sample"] | None:
    """The ECG with a finding that it did not have, of the same length; who calls it knows that it is in sinus rhythm.

    None where beats are too few (6), too fast (RR below 0.55 s) or not regular (RR varies by 7%), and where there is no
    room between T and P: the moved P may take half of the T before it.
    """
    beats_s = beat_times_s(signal_mv, sampling_rate_hz)
    if len(beats_s) < _LEAST_BEATS:
        return None
    intervals_s = np.diff(beats_s)
    rr_s = float(np.median(intervals_s))
    if rr_s < _SHORTEST_RR_S or intervals_s.std() > _MOST_VARIATION * rr_s:
        return None
    of_beat = np.array([_P_ONSET_S, *_flattest(signal_mv, beats_s, sampling_rate_hz), _QRS_END_S, _t_end_s(rr_s)])
    first_p_s = of_beat[-1] + _SQUEEZED_S - _MOST_OF_T * (of_beat[-1] - _QRS_END_S)  # its onset, from the R peak before
    earliest = (first_p_s - _P_ONSET_S) / rr_s
    if finding == "premature_atrial" and earliest > _COUPLING[1]:
        return None
    endless, old_s = _repeated(signal_mv, beats_s, rr_s, sampling_rate_hz)
    times = np.arange(signal_mv.shape[1]) / sampling_rate_hz
    intervals_s, pr_longer_s = rr_s * (1 + random.normal(0, _JITTER, len(old_s))), 0.0
    if finding == "premature_atrial":
        # Of as many beats as the ECG has seconds: where they are faster, its last ones are never early; where they are
        # slower, it has fewer.
        early = _draw_early(min(round(times[-1]), int(times[-1] / rr_s), len(old_s) - 2), random)
        _make_early(intervals_s, early, earliest, random)
    else:
        pr_longer_s = random.uniform(*_LONGER_PR_S)
        if rr_s + _P_ONSET_S - pr_longer_s < first_p_s:
            return None
    new_s = np.cumsum(intervals_s) - (1 + random.random()) * rr_s
    new, old = _time_map(old_s, new_s, of_beat, pr_longer_s)
    if new[0] > times[0] or new[-1] < times[-1]:
        return None
    return _sampled(endless, np.interp(times, new, old) * sampling_rate_hz)


def _draw_early(last: int, random: np.random.Generator) -> list[int]:
    """Which beats are early: one to three up to this one, never two in a row. More would be a rhythm with a name."""
    early: list[int] = []
    for beat in random.integers(3, last + 1, size=random.integers(1, 4)).tolist():
        if all(abs(beat - other) > 2 for other in early):
            early.append(beat)
    return sorted(early)


def _make_early(
    intervals_s: Float[np.ndarray, " beat"], early: list[int], earliest: float, random: np.random.Generator
) -> None:
    """Shorten the interval before each early beat, in place, and lengthen the next: the sinus node starts anew, so the
    pause makes up for a part."""
    coupling, made_up = random.uniform(max(_COUPLING[0], earliest), _COUPLING[1]), random.uniform(0.0, 0.9)
    usual_s = float(np.median(intervals_s))
    for beat in early:
        share = min(max(coupling + random.normal(0, 0.03), earliest), 0.85)
        intervals_s[beat] = share * usual_s
        if beat + 1 < len(intervals_s):
            intervals_s[beat + 1] *= 1 + made_up * (1 - share) + random.uniform(0.0, 0.1)


def _t_end_s(rr_s: float) -> float:
    """Where T ends, from the R peak: QT goes with the root of RR (Bazett), and ends before the next P."""
    return min(_QT_END_S * math.sqrt(rr_s), rr_s + _P_ONSET_S - _SPARE_S)


def _flattest(
    signal_mv: Float32[np.ndarray, "lead sample"], beats_s: Float[np.ndarray, " beat"], sampling_rate_hz: int
) -> tuple[float, float]:
    """Where P has ended and QRS not begun, from the R peak: the flattest stretch of all beats and leads together."""
    first, last = (round(at_s * sampling_rate_hz) for at_s in _PR_SEGMENT_S)
    offsets = np.arange(first, last + 1)
    at = np.round(beats_s * sampling_rate_hz).astype(int)[:, None] + offsets
    at = at[(at[:, 0] >= 0) & (at[:, -1] < signal_mv.shape[1])]
    half = max(1, round(_FLAT_S * sampling_rate_hz / 2))
    slope = np.square(np.diff(signal_mv[:, at], axis=2)).sum(axis=(0, 1))
    of_stretch = np.convolve(slope, np.ones(2 * half), mode="valid")
    start = float(offsets[int(of_stretch.argmin())])
    return start / sampling_rate_hz, (start + 2 * half) / sampling_rate_hz


def _time_map(
    old_s: Float[np.ndarray, " beat"],
    new_s: Float[np.ndarray, " beat"],
    of_beat: Float[np.ndarray, "wave=5"],
    pr_longer_s: float,
) -> tuple[Float[np.ndarray, " knot"], Float[np.ndarray, " knot"]]:
    """Knots of new time and old time, both ascending; between them time runs evenly.

    of_beat: the onset of P, the ends of the flat stretch before QRS, the ends of QRS and of T, from the R peak.
    """
    old, new = old_s[:, None] + of_beat, new_s[:, None] + of_beat
    new[:, :2] -= pr_longer_s
    # Where an early P falls into the T before it, T is shortened: the form of P has a meaning of its own.
    overlap = np.maximum(new[:-1, -1] + _SQUEEZED_S - new[1:, 0], 0.0)
    new[:-1, -1] -= np.minimum(overlap, new[:-1, -1] - new[:-1, -2] - _SQUEEZED_S)
    # After an RR that is shorter than the others, their T would end behind the next P.
    old[:-1, -1] = np.minimum(old[:-1, -1], old[1:, 0])
    return new.ravel(), old.ravel()


def _repeated(
    signal_mv: Float32[np.ndarray, "lead sample"],
    beats_s: Float[np.ndarray, " beat"],
    rr_s: float,
    sampling_rate_hz: int,
) -> tuple[Float32[np.ndarray, "lead repeated"], Float[np.ndarray, " of_repeated"]]:
    """The ECG three times in a row, and its beats: cut where it is flat before the first and the last whole beat, and
    with the steps at the cuts spread over some samples."""
    cuts = np.round((beats_s - 0.35 * rr_s) * sampling_rate_hz).astype(int)
    cuts = cuts[(cuts >= 0) & (cuts <= signal_mv.shape[1])]
    first, last = int(cuts[0]), int(cuts[-1])
    part, length = signal_mv[:, first:last], last - first
    within = beats_s * sampling_rate_hz
    own_s = (within[(within >= first) & (within < last)] - first) / sampling_rate_hz
    repeated = np.tile(part, 3)
    half = max(1, round(_SEAM_S * sampling_rate_hz))
    step = (part[:, :1] - part[:, -1:]) / 2
    for seam in (length, 2 * length):
        repeated[:, seam - half : seam] += step * np.linspace(0, 1, half, dtype=np.float32)
        repeated[:, seam : seam + half] -= step * np.linspace(1, 0, half, dtype=np.float32)
    starts_s = np.arange(3)[:, None] * (length / sampling_rate_hz)
    return repeated, (own_s + starts_s).ravel()


def _sampled(
    signal_mv: Float32[np.ndarray, "lead sample"], position: Float[np.ndarray, " new"]
) -> Float32[np.ndarray, "lead new"]:
    """The signal between its samples, by cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711; a = -1/2)."""
    position = position.clip(1, signal_mv.shape[1] - 3)
    before = np.floor(position).astype(np.int64)
    at = (position - before).astype(np.float32)
    weights = (
        ((2 - at) * at - 1) * at / 2,
        ((3 * at - 5) * at * at + 2) / 2,
        ((4 - 3 * at) * at + 1) * at / 2,
        (at - 1) * at * at / 2,
    )
    found: np.ndarray = sum(
        signal_mv[:, before + offset] * weight for offset, weight in zip(range(-1, 3), weights, strict=True)
    )
    return found
