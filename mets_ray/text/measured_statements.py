"""What an ECG's usual beat says by the limits of the guidelines: statements as an interpretation program writes them.

Reports name what matters to a clinician. That T waves are low or that R waves are high is often left out, so a model
hardly learns these words. The limits below are those of recommendations and of no data set's labels.

Limits: Rautaharju et al. 2009, AHA/ACCF/HRS part IV (ST, T), doi:10.1161/CIRCULATIONAHA.108.191096; Hancock et al. 2009,
part V (voltages), doi:10.1161/CIRCULATIONAHA.108.191097; Surawicz et al. 2009, part III (QRS duration),
doi:10.1161/CIRCULATIONAHA.108.191095; Thygesen et al. 2018, fourth universal definition of myocardial infarction
(ST, Q), doi:10.1161/CIR.0000000000000617.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.median_beat import MedianBeat

_WALLS = {
    "inferior leads": ("II", "III", "aVF"),
    "lateral leads": ("I", "aVL", "V5", "V6"),
    "anterior leads": ("V1", "V2", "V3", "V4"),
}
_T_LEADS = ("I", "II", "aVL", "V2", "V3", "V4", "V5", "V6")  # where T is positive in adults
_LIMB, _CHEST = LEADS[:6], LEADS[6:]

_ST_DEPRESSED_MV, _ST_SLIGHTLY_DEPRESSED_MV, _ST_ELEVATED_MV, _ST_ELEVATED_V2_V3_MV = -0.05, -0.025, 0.1, 0.2
_T_INVERTED_MV, _T_FLAT_MV, _T_LOW_OF_R, _R_FOR_T_MV = -0.1, 0.1, 0.1, 0.3
_Q_MV, _Q_S, _QS_R_MV = -0.1, 0.03, 0.05
_LOW_LIMB_MV, _BORDERLINE_LIMB_MV, _LOW_CHEST_MV = 0.5, 0.75, 1.0
_SOKOLOW_LYON_MV, _SOKOLOW_LYON_LIMIT_MV, _CORNELL_MV, _HIGH_AVL_MV = 3.5, 3.0, 2.8, 1.1
_WIDE_QRS_S, _SLIGHTLY_WIDE_QRS_S = 0.12, 0.11
_HIGH_P_MV, _DEEP_P_MV, _LOW_R_V3_MV = 0.25, -0.1, 0.3


_SLOW_RR_S, _FAST_RR_S, _REGULAR_RR_S, _EARLY_SHARE = 1.0, 0.6, 0.12, 0.8

REGULAR, IRREGULAR, EARLY = "Regular RR intervals", "Irregular RR intervals", "Premature beats"


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
    return (*_rhythm(beat.rr_s), *_voltages(r, s), *_qrs(beat.qrs_s, r, s, q, q_s), *_repolarisation(r, st, t), *_atria(p, p_end))


def _rhythm(rr_s: Float[np.ndarray, " interval"]) -> Iterator[str]:
    if rr_s.mean() > _SLOW_RR_S:
        yield "Slow heart rate"
    elif rr_s.mean() < _FAST_RR_S:
        yield "Fast heart rate"
    yield REGULAR if np.ptp(rr_s) <= _REGULAR_RR_S else IRREGULAR
    if (rr_s < _EARLY_SHARE * np.median(rr_s)).any():
        yield EARLY


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
    elif sokolow_lyon >= _SOKOLOW_LYON_LIMIT_MV:
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
        deep = (q(*names) <= _Q_MV) & (q_s(*names) >= _Q_S) | (r(*names) < _QS_R_MV) & (s(*names) <= _Q_MV)
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
        highest = [_ST_ELEVATED_V2_V3_MV if name in ("V2", "V3") else _ST_ELEVATED_MV for name in names]
        if _in_two(st(*names) >= np.array(highest)):
            yield f"ST elevation in {wall}"
        upright = tuple(name for name in names if name in _T_LEADS or wall == "inferior leads")
        high_enough = r(*upright) >= _R_FOR_T_MV
        inverted = t(*upright) <= _T_INVERTED_MV
        flat = (np.abs(t(*upright)) < _T_FLAT_MV) & high_enough
        low = ~flat & (t(*upright) > 0) & (t(*upright) < _T_LOW_OF_R * r(*upright)) & high_enough
        if _in_two(inverted):
            yield f"T wave inversion in {wall}"
        if _in_two(flat):
            yield f"Flat T waves in {wall}"
        elif _in_two(flat | low):
            yield f"Low T waves in {wall}"


def _atria(p: _Leads, p_end: _Leads) -> Iterator[str]:
    if p("II")[0] >= _HIGH_P_MV:
        yield "Tall P waves"
    if p_end("V1")[0] <= _DEEP_P_MV:
        yield "Deep negative P wave in V1"


def _in_two(found: Bool[np.ndarray, " name"]) -> bool:
    """Two leads of a wall: one alone is often noise or a variant."""
    return int(found.sum()) >= 2
