"""What an ECG's usual beat and its intervals say by the limits of guidelines, as an interpretation program words it.

Reports name what matters to a clinician. That T waves are flat or R waves high is often left out, and then a model
hardly learns these words. The limits are those of recommendations, and were fitted to no data set's labels; where
a recommendation has only one limit, "borderline", "slight" and "upper limit" are ours.

Rautaharju et al. 2009, AHA/ACCF/HRS part IV (ST, T), doi:10.1161/CIRCULATIONAHA.108.191096; Hancock et al. 2009, part V
(voltages, P), doi:10.1161/CIRCULATIONAHA.108.191097; Surawicz et al. 2009, part III (duration of QRS),
doi:10.1161/CIRCULATIONAHA.108.191095; Thygesen et al. 2018, universal definition of myocardial infarction (ST, Q),
doi:10.1161/CIR.0000000000000617.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import TERRITORIES
from mets_ray.ecg.median_beat import MedianBeat

_WALLS = {f"{wall} leads": TERRITORIES[wall] for wall in ("inferior", "lateral", "anterior")}  # in the order of saying
_LIMB, _CHEST = LEADS[:6], LEADS[6:]

MEASURED = frozenset(
    [f"{slight}ST depression in {wall}" for slight in ("", "Slight ") for wall in _WALLS]
    + [f"{shape} T waves in {wall}" for shape in ("Flat", "Low") for wall in _WALLS]
    + [f"{finding} in {wall}" for finding in ("Q waves", "ST elevation", "T wave inversion") for wall in _WALLS]
    + [f"{rate} heart rate" for rate in ("Slow", "Fast")]
    + [f"{how} RR intervals" for how in ("Regular", "Irregular")]
    + ["Low voltage QRS in limb leads", "Borderline low voltage QRS in limb leads", "Low voltage QRS in chest leads"]
    + ["High QRS voltage in limb leads (Cornell)", "High QRS voltage in chest leads (Sokolow-Lyon)"]
    + ["QRS voltage in chest leads at upper limit (Sokolow-Lyon)", "Wide QRS complexes"]
    + ["Slightly widened QRS complexes", "Poor R wave progression in chest leads", "Tall R wave in V1"]
    + ["Premature beats", "Tall P waves", "Deep negative P wave in V1"]
)
"""All that can be measured."""

_SLOW_RR_S, _FAST_RR_S = 1.0, 0.6  # 60 and 100 beats a minute
_REGULAR_RR_S = 0.12  # the longest interval less the shortest: more is a sinus arrhythmia
_EARLY_SHARE = 0.8  # of the median interval
_MOST_VARIATION = 0.1  # of the intervals without the early ones: more is no rhythm that a beat could be early in

_LOW_LIMB_MV, _BORDERLINE_LIMB_MV, _LOW_CHEST_MV = 0.5, 0.75, 1.0  # R less S
_SOKOLOW_LYON_MV, _UPPER_LIMIT_MV = 3.5, 3.0
_CORNELL_MV, _HIGH_AVL_MV = 2.8, 1.1  # the limit for men: that for women, 2.0, would need the sex of each

_WIDE_QRS_S, _SLIGHTLY_WIDE_QRS_S = 0.12, 0.11
_Q_MV, _Q_S, _NO_R_MV = -0.1, 0.03, 0.05
_LOW_R_V3_MV = 0.3

# 60 ms after QRS, where the upslope to T adds to what the recommendations take at its end.
_ST_DEPRESSED_MV, _ST_SLIGHTLY_DEPRESSED_MV = -0.05, -0.025
_ST_ELEVATED_MV, _ST_ELEVATED_V2_V3_MV = 0.1, 0.2
_T_INVERTED_MV, _T_FLAT_MV, _T_LOW_SHARE = -0.1, 0.1, 0.1  # the last of R
_R_FOR_T_MV = 0.3  # T is small where R is

_TALL_P_MV, _DEEP_P_MV = 0.25, -0.1


class _Leads:
    """Values by the name of their lead; a lead that is not there has NaN, which is above and below no limit."""

    def __init__(self, leads: Sequence[str], values: Float[np.ndarray, " lead"]) -> None:
        self._of = dict(zip(leads, values.tolist(), strict=True))

    def __call__(self, *names: str) -> Float[np.ndarray, " name"]:
        return np.array([self._of.get(name, np.nan) for name in names])


def measured_statements(beat: MedianBeat, leads: Sequence[str]) -> tuple[str, ...]:
    """The statements that hold, in a fixed order. leads: which of `ecg.LEADS` the measurements are of."""
    r, s, q, q_s, st, t, p, p_end = (
        _Leads(leads, values)
        for values in (beat.r_mv, beat.s_mv, beat.q_mv, beat.q_s, beat.st_mv, beat.t_mv, beat.p_mv, beat.p_end_mv)
    )
    return (
        *_intervals(beat.rr_s),
        *_voltages(r, s),
        *_qrs(beat.qrs_s, r, s, q, q_s),
        *_repolarisation(r, st, t),
        *_atria(p, p_end),
    )


def _intervals(rr_s: Float[np.ndarray, " interval"]) -> Iterator[str]:
    if rr_s.mean() > _SLOW_RR_S:
        yield "Slow heart rate"
    elif rr_s.mean() < _FAST_RR_S:
        yield "Fast heart rate"
    yield "Regular RR intervals" if np.ptp(rr_s) <= _REGULAR_RR_S else "Irregular RR intervals"
    if _has_premature(rr_s):
        yield "Premature beats"


def _has_premature(rr_s: Float[np.ndarray, " interval"]) -> bool:
    """Whether some beats are early in a rhythm that is regular without them: in atrial fibrillation none is."""
    early = rr_s < _EARLY_SHARE * np.median(rr_s)
    if not early.any():
        return False
    behind = np.append(False, early[:-1])  # the pause
    others = rr_s[~(early | behind)]
    # In bigeminy there are no others, and all early beats come after the same time.
    regular = others if len(others) > 1 else rr_s[early]
    return bool(regular.std() < _MOST_VARIATION * regular.mean())


def _voltages(r: _Leads, s: _Leads) -> Iterator[str]:
    limb = r(*_LIMB) - s(*_LIMB)
    if (limb < _LOW_LIMB_MV).all():
        yield "Low voltage QRS in limb leads"
    elif (limb < _BORDERLINE_LIMB_MV).all():
        yield "Borderline low voltage QRS in limb leads"
    if (r(*_CHEST) - s(*_CHEST) < _LOW_CHEST_MV).all():
        yield "Low voltage QRS in chest leads"
    sokolow_lyon = r("V5", "V6").max() - s("V1")[0]
    if sokolow_lyon >= _SOKOLOW_LYON_MV:
        yield "High QRS voltage in chest leads (Sokolow-Lyon)"
    elif sokolow_lyon >= _UPPER_LIMIT_MV:
        yield "QRS voltage in chest leads at upper limit (Sokolow-Lyon)"
    if r("aVL")[0] - s("V3")[0] >= _CORNELL_MV or r("aVL")[0] >= _HIGH_AVL_MV:
        yield "High QRS voltage in limb leads (Cornell)"


def _qrs(qrs_s: float, r: _Leads, s: _Leads, q: _Leads, q_s: _Leads) -> Iterator[str]:
    if qrs_s >= _WIDE_QRS_S:
        yield "Wide QRS complexes"
    elif qrs_s >= _SLIGHTLY_WIDE_QRS_S:
        yield "Slightly widened QRS complexes"
    for wall, names in _WALLS.items():
        # A complex without R is one long Q.
        deep = (q(*names) <= _Q_MV) & (q_s(*names) >= _Q_S) | (r(*names) < _NO_R_MV) & (s(*names) <= _Q_MV)
        if _in_two(deep):
            yield f"Q waves in {wall}"
    if r("V3")[0] <= _LOW_R_V3_MV:
        yield "Poor R wave progression in chest leads"
    if r("V1")[0] >= -s("V1")[0]:
        yield "Tall R wave in V1"


def _repolarisation(r: _Leads, st: _Leads, t: _Leads) -> Iterator[str]:
    for wall, names in _WALLS.items():
        if _in_two(st(*names) <= _ST_DEPRESSED_MV):
            yield f"ST depression in {wall}"
        elif _in_two(st(*names) <= _ST_SLIGHTLY_DEPRESSED_MV):
            yield f"Slight ST depression in {wall}"
        limits_mv = [_ST_ELEVATED_V2_V3_MV if name in ("V2", "V3") else _ST_ELEVATED_MV for name in names]
        if _in_two(st(*names) >= limits_mv):
            yield f"ST elevation in {wall}"
        upright = [name for name in names if name != "V1"]  # where T may be negative
        if _in_two(t(*upright) <= _T_INVERTED_MV):
            yield f"T wave inversion in {wall}"
        seen = r(*upright) >= _R_FOR_T_MV
        flat = seen & (np.abs(t(*upright)) < _T_FLAT_MV)
        low = seen & (t(*upright) > 0) & (t(*upright) < _T_LOW_SHARE * r(*upright))
        if _in_two(flat):
            yield f"Flat T waves in {wall}"
        elif _in_two(flat | low):
            yield f"Low T waves in {wall}"


def _atria(p: _Leads, p_end: _Leads) -> Iterator[str]:
    if p("II")[0] >= _TALL_P_MV:
        yield "Tall P waves"
    if p_end("V1")[0] <= _DEEP_P_MV:
        yield "Deep negative P wave in V1"


def _in_two(found: Bool[np.ndarray, " name"]) -> bool:
    """Two leads of a wall: one alone is often noise or a variant."""
    return int(found.sum()) >= 2
