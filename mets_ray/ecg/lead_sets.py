"""ECGs with fewer leads than the model has: the usual sets, which leads an ECG has, and which set is nearest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int16

from mets_ray.ecg.derived_leads import derivable_leads
from mets_ray.ecg.ecg import FRANK_LEADS, LEADS, Ecg
from mets_ray.ecg.leads import standard_lead

LEAD_SETS: dict[str, tuple[str, ...]] = {
    "12 leads": LEADS,
    "limb leads": LEADS[:6],  # also what I and II alone become: the other four are derived from them
    "I, II": ("I", "II"),  # as they are, without the derived ones: modified limb leads of a Holter
    "II": ("II",),  # a rhythm strip, a monitor
    "V1, II, V5": ("V1", "II", "V5"),  # the three strips below a printed 12-lead ECG; telemetry
}
"""Sets of leads that devices record, by name; quality is measured on each."""


TERRITORIES: dict[str, tuple[str, ...]] = {
    "inferior": ("II", "III", "aVF"),
    "anterior": ("V1", "V2", "V3", "V4"),
    "lateral": ("I", "aVL", "V5", "V6"),
}
"""Leads that look at the same wall of the left ventricle, and so repeat each other; aVR looks at none."""


def fewer_leads(leads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Those of `LEAD_SETS` that some of `leads` make up, but not all."""
    return {name: members for name, members in LEAD_SETS.items() if set(members) < set(leads)}


def lead_mask(members: Iterable[str], leads: Sequence[str]) -> Bool[np.ndarray, " lead"]:
    """Which of `leads` are `members`."""
    wanted = set(members)
    return np.asarray([lead in wanted for lead in leads])


def recorded(signal_uv: Int16[np.ndarray, "ecg lead sample"]) -> Bool[np.ndarray, "ecg lead"]:
    """Which leads were recorded: `preprocess` refuses a flat lead, so one that is zero throughout was not."""
    return np.asarray(signal_uv.any(axis=2))


def missing_leads(ecg: Ecg, leads: Sequence[str]) -> tuple[str, ...]:
    """Those of `leads` that `ecg` has no signal for, and that `derive_leads` cannot make of others."""
    there = {*map(standard_lead, ecg.leads), *derivable_leads(ecg, leads)}
    return tuple(lead for lead in leads if lead not in there)


def with_absent_leads(ecg: Ecg, leads: Sequence[str]) -> Ecg:
    """`ecg`, with its `missing_leads` declared absent, so that `preprocess` writes zeros for them.

    Unchanged where it has none of `leads`, or a signal beside them that may be one of them under another name (V7 where
    V6 is missing): `preprocess` refuses it.
    """
    names = [standard_lead(lead) for lead in ecg.leads]
    declared = {standard_lead(lead) for lead in ecg.absent_leads}
    absent = tuple(lead for lead in missing_leads(ecg, leads) if lead not in declared)
    unsure = [lead for lead, name in zip(ecg.leads, names, strict=True) if name is None]
    if not absent or not set(names) & set(leads) or any(lead.upper() not in FRANK_LEADS for lead in unsure):
        return ecg
    return replace(ecg, absent_leads=(*ecg.absent_leads, *absent))


def nearest_set(present: Iterable[str], measured: Mapping[str, Sequence[str]]) -> str:
    """The one of the `measured` sets whose quality says most about an ECG with the leads `present`.

    It is the largest that the ECG contains, for it has all that was measured there; without one, that with the nearest
    number of leads. measured: at least one set by name, as `LEAD_SETS`.
    """
    has = set(present)

    def distance(name: str) -> tuple[bool, int]:
        members = set(measured[name])
        inside = members <= has
        return (not inside, -len(members) if inside else abs(len(members) - len(has)))

    return min(measured, key=distance)
