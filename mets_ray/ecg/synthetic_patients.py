"""Made-up patients, findings and machine-style reports with a known answer; their ECGs are in `synthetic_waveforms`.

For tests, tutorials and the first run. It is balanced so that every class can be scored; a score on it says nothing
about patients.
"""

from dataclasses import dataclass

import numpy as np

from mets_ray.errors import ConfigError

CLASSES: dict[str, str] = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AFIB": "atrial fibrillation",
    "PVC": "premature ventricular complexes",
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "1AVB": "first degree atrioventricular block",
    "LVH": "left ventricular hypertrophy",
    "STE_ANT": "anterior ST elevation",
    "STE_INF": "inferior ST elevation",
    "LVOLT": "low QRS voltage",
}

ST_ELEVATION_LEADS: dict[str, tuple[str, ...]] = {
    "STE_ANT": ("V1", "V2", "V3", "V4"),
    "STE_INF": ("II", "III", "aVF"),
}
"""Leads that show the ST elevation of a class, as its reports say."""

# Share of records and range of mean ventricular rates per minute, kept clear of the limits of 60 and 100 so that
# heart rate variability cannot move a record over them.
RHYTHMS: dict[str, tuple[float, float, float]] = {
    "SR": (0.54, 62.0, 96.0),
    "SBRAD": (0.13, 42.0, 57.0),
    "STACH": (0.15, 105.0, 145.0),
    "AFIB": (0.18, 60.0, 135.0),
}

# The weights make up for PVC and 1AVB that AFIB and STACH rule out (see `_FINDING_NEEDS`).
_FINDINGS = {
    "PVC": 1.5,
    "CLBBB": 1.0,
    "CRBBB": 1.0,
    "1AVB": 1.4,
    "LVH": 1.1,
    "STE_ANT": 1.0,
    "STE_INF": 1.1,
    "LVOLT": 1.1,
}
_FINDING_COUNT = (0.34, 0.50, 0.16)  # patients with none, one, two
_PARTNERS = {
    "1AVB": ("PVC", "CLBBB", "CRBBB", "LVH", "STE_ANT", "STE_INF", "LVOLT"),
    "PVC": ("1AVB", "CLBBB", "CRBBB", "LVH", "STE_ANT", "STE_INF"),
    "CRBBB": ("1AVB", "PVC", "STE_ANT", "STE_INF"),
}
_COMPATIBLE = {frozenset((code, partner)) for code, partners in _PARTNERS.items() for partner in partners}

# Fibrillating atria conduct no P; at a fast rate a late P hides in T, and a compensatory pause is hard to see.
_FINDING_NEEDS = {"PVC": ("SR", "SBRAD"), "1AVB": ("SR", "SBRAD")}

# The commonest wording first, each 0.4 times as frequent as the one before (`_phrase`), so that reports repeat.
WORDINGS: dict[str, tuple[str, ...]] = {
    "SR": ("sinus rhythm", "normal sinus rhythm", "sinus rhythm, normal rate", "regular sinus rhythm"),
    "SBRAD": ("sinus bradycardia", "sinus rhythm with bradycardia", "marked sinus bradycardia", "slow sinus rhythm"),
    "STACH": ("sinus tachycardia", "sinus rhythm with tachycardia", "rapid sinus rhythm", "fast regular sinus rate"),
    "AFIB": (
        "atrial fibrillation",
        "atrial fibrillation with irregular ventricular response",
        "afib",
        "a-fib, no p waves",
        "irregularly irregular rhythm without p waves",
    ),
    "PVC": (
        "premature ventricular complexes",
        "ventricular premature beat(s)",
        "pvc(s)",
        "ventricular extrasystoles",
        "ventricular ectopics",
    ),
    "CLBBB": ("left bundle branch block", "complete left bundle branch block", "lbbb", "complete lbbb, wide qrs"),
    "CRBBB": (
        "right bundle branch block",
        "complete right bundle branch block",
        "rbbb",
        "rsr' in v1 with wide qrs, complete rbbb",
    ),
    "1AVB": (
        "first degree av block",
        "1st degree a-v block",
        "prolonged pr interval",
        "first degree atrioventricular block",
        "av block i",
    ),
    "LVH": (
        "left ventricular hypertrophy",
        "voltage criteria for left ventricular hypertrophy",
        "lvh with strain",
        "high voltages suggesting lvh, lateral repolarization abnormality",
    ),
    "STE_ANT": (
        "anterior st elevation",
        "st elevation in v1-v4",
        "acute anterior myocardial infarction, st elevation",
        "anteroseptal st segment elevation",
        "anterior stemi",
    ),
    "STE_INF": (
        "inferior st elevation",
        "st elevation in ii, iii, avf",
        "acute inferior myocardial infarction, st elevation",
        "inferior st segment elevation, reciprocal changes in avl",
        "inferior stemi",
    ),
    "LVOLT": ("low qrs voltage", "low voltage", "low voltage in limb leads", "peripheral low voltage"),
}
_NORMAL = ("normal ecg", "no definite pathology", "otherwise within normal limits", "ecg within normal limits")
_BORDERLINE = ("borderline ecg", "otherwise normal ecg", "borderline record")
_ABNORMAL = ("abnormal ecg", "", "pathological ecg", "abnormal record")
_BORDERLINE_CODES = {"SR", "SBRAD", "STACH", "1AVB", "LVOLT"}

# Each purpose has random numbers of its own, so that drawing more for one never changes another; `synthetic_waveforms`
# has the numbers from 2 on.
_PATIENT, _RECORD = 0, 1


@dataclass(frozen=True)
class SyntheticRecord:
    """What is known of a made-up ECG before its waveform is rendered.

    `heart_rate_per_min` is the mean ventricular rate of the underlying rhythm.
    """

    record_id: str
    patient_id: str
    fold: int
    age: float
    sex: str
    labels: tuple[str, ...]
    statements: tuple[str, ...]
    report: str
    heart_rate_per_min: float
    patient_number: int
    index: int
    seed: int


def describe(index: int, *, seed: int) -> SyntheticRecord:
    """Record `index` of the endless data set `seed`: patient, labels and report, without a waveform (0.25 ms).

    A pure function of (index, seed). Of each 30 records, 10 patients have two and 10 have one; a patient is in one fold
    only (patient number modulo 10), keeps the heart and the findings, and may change the rhythm.
    Raises ConfigError when `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise ConfigError(f"`index` is {index} and `seed` is {seed}", hint="count both from 0")
    block, place = divmod(index, 30)
    patient_number = block * 20 + (place // 2 if place < 20 else place - 10)

    rng = np.random.default_rng((seed, _PATIENT, patient_number))
    sex = "female" if rng.random() < 0.5 else "male"
    findings = _draw_findings(rng)
    age = float(np.clip(rng.normal(52 + 8 * len(findings), 15), 18, 93).round())

    rng = np.random.default_rng((seed, _RECORD, index))
    rhythm = str(rng.choice(list(RHYTHMS), p=[share for share, _, _ in RHYTHMS.values()]))
    _, slowest, fastest = RHYTHMS[rhythm]
    heart_rate_per_min = float(rng.uniform(slowest, fastest))
    labels = (rhythm, *(code for code in CLASSES if code in findings and rhythm in _FINDING_NEEDS.get(code, RHYTHMS)))
    statements = _draw_statements(labels, rng)
    return SyntheticRecord(
        record_id=f"syn-{index:06d}",
        patient_id=f"syn-patient-{patient_number:06d}",
        fold=patient_number % 10 + 1,
        age=age + (float(rng.integers(0, 4)) if place < 20 and place % 2 else 0.0),
        sex=sex,
        labels=labels,
        statements=statements,
        report=". ".join(statements) + ".",
        heart_rate_per_min=heart_rate_per_min,
        patient_number=patient_number,
        index=index,
        seed=seed,
    )


def _draw_findings(rng: np.random.Generator) -> set[str]:
    codes, weights = list(_FINDINGS), np.array(list(_FINDINGS.values()))
    count = int(rng.choice(3, p=_FINDING_COUNT))
    first, second = rng.choice(codes, size=2, p=weights / weights.sum())
    if count == 2 and frozenset((first, second)) not in _COMPATIBLE:
        partners = [code for code in codes if frozenset((first, code)) in _COMPATIBLE]
        second = rng.choice(partners) if partners else first
    return {str(code) for code in (first, second)[:count]}


def _phrase(wordings: tuple[str, ...], rng: np.random.Generator) -> str:
    weights = 0.4 ** np.arange(len(wordings))
    return wordings[int(rng.choice(len(wordings), p=weights / weights.sum()))]


def _draw_statements(labels: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    conclusions: tuple[str, ...] = _ABNORMAL
    if labels == ("SR",):
        conclusions = _NORMAL
    elif len(labels) < 3 and set(labels) <= _BORDERLINE_CODES:
        conclusions = _BORDERLINE
    parts = [_phrase(WORDINGS[code], rng) for code in labels] + [_phrase(conclusions, rng)]
    return tuple(part for part in parts if part)
