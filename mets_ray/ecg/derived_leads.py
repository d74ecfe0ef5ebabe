"""Limb leads that a record does not store: exact sums of two of I, II and III.

Three electrodes give two independent leads. I + III = II (Einthoven), and aVR, aVL, aVF are sums of I and II
(Goldberger); most recorders therefore store eight leads of twelve: Kligfield et al. 2007, AHA/ACC/HRS,
doi:10.1161/CIRCULATIONAHA.106.180200. Chest leads have electrodes of their own and are never derived.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.leads import is_modified_lead, standard_lead
from mets_ray.errors import RecordError

# What each lead is in terms of I and II, and what I and II are in terms of the two leads that are there.
_OF_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
_I_AND_II_OF: dict[tuple[str, ...], tuple[tuple[float, float], tuple[float, float]]] = {
    ("I", "II"): ((1.0, 0.0), (0.0, 1.0)),
    ("I", "III"): ((1.0, 0.0), (1.0, 1.0)),
    ("II", "III"): ((1.0, -1.0), (1.0, 0.0)),
}


def derive_leads(ecg: Ecg, wanted: Sequence[str]) -> Ecg:
    """`ecg` with those of the `wanted` limb leads that it lacks, from the same samples, where two of I, II and III are
    there; unchanged otherwise. `Ecg.derived_leads` names them.

    A lead that the record stores is kept, and one that it calls absent stays absent. Modified limb leads (MLII) have
    their electrodes on the chest, where these sums do not hold: nothing is derived from them, nor from a lead that is
    there twice. A sample that is NaN in one of the two is NaN in the derived lead.
    """
    names = derivable_leads(ecg, wanted)
    if not names:
        return ecg
    pair = source_leads(ecg)
    first, second = (ecg.signal_mv[_rows(ecg)[lead]] for lead in pair)
    (i_of_first, i_of_second), (ii_of_first, ii_of_second) = _I_AND_II_OF[pair]
    rows = []
    for name in names:
        of_i, of_ii = _OF_I_AND_II[name]
        of_first, of_second = of_i * i_of_first + of_ii * ii_of_first, of_i * i_of_second + of_ii * ii_of_second
        rows.append(of_first * first + of_second * second)
    return replace(
        ecg,
        signal_mv=np.concatenate([ecg.signal_mv, np.stack(rows)]),
        leads=(*ecg.leads, *names),
        derived_leads=(*ecg.derived_leads, *names),
    )


def derivable_leads(ecg: Ecg, wanted: Sequence[str]) -> tuple[str, ...]:
    """The leads that `derive_leads` adds, without their samples."""
    if {lead.upper() for lead in wanted} <= {lead.upper() for lead in ecg.leads}:  # most records, in a microsecond
        return ()
    known = {standard_lead(lead) for lead in (*ecg.leads, *ecg.absent_leads)}
    lacking = tuple(lead for lead in wanted if lead in _OF_I_AND_II and lead not in known)
    return lacking if lacking and source_leads(ecg) else ()


def derivation(ecg: Ecg, wanted: Sequence[str]) -> str:
    """What was derived, in words, or will be: `III, aVR, aVL, aVF were derived from I and II`; "" for nothing."""
    names = (*ecg.derived_leads, *derivable_leads(ecg, wanted))
    if not names:
        return ""
    sources = " and ".join(source_leads(ecg)) or "other limb leads"
    return f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} derived from {sources}"


def source_leads(ecg: Ecg) -> tuple[str, ...]:
    """The two of I, II and III that missing limb leads are derived from; () where there are not two."""
    rows = _rows(ecg)
    return next((pair for pair in _I_AND_II_OF if set(pair) <= rows.keys()), ())


def check_source_leads(ecg: Ecg) -> None:
    """Raise RecordError `flat_lead` where a lead with an electrode that is off was summed: half of it is another lead.

    Only for an ECG whose derived leads are wanted and I and II are not: otherwise they are checked themselves.
    """
    pair = source_leads(ecg)
    flat = [lead for lead in pair if np.ptp(ecg.signal_mv[_rows(ecg)[lead]]) == 0]
    if flat:
        raise RecordError(
            "flat_lead", f"all samples are equal in {', '.join(flat)}, which other leads are derived from"
        )


def _rows(ecg: Ecg) -> dict[str, int]:
    """The rows of I, II and III in `signal_mv`, of those that are there once and are no modified lead."""
    names = [None if lead in ecg.derived_leads or is_modified_lead(lead) else standard_lead(lead) for lead in ecg.leads]
    return {lead: names.index(lead) for lead in ("I", "II", "III") if names.count(lead) == 1}
