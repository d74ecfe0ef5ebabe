"""One ECG as a value: leads by name, millivolts, a sampling rate."""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Float

from mets_ray.errors import RecordError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# Recorded beside the 12 leads in some sources (PTB's 15-lead ECGs). They are dropped: no task needs them.
FRANK_LEADS = ("VX", "VY", "VZ")

# Exact spellings. The lower-case v is common in WFDB headers (CinC 2020 writes `mv`) and has one meaning only;
# `MV` would be a megavolt, so case is otherwise kept. U+00B5 is the micro sign, U+03BC the Greek letter.
UNITS = {
    "V": 1e3,
    "mV": 1.0,
    "mv": 1.0,
    "uV": 1e-3,
    "uv": 1e-3,
    "\u00b5V": 1e-3,
    "\u03bcV": 1e-3,
    "nV": 1e-6,
}

SAMPLING_RATES_HZ = (50.0, 10_000.0)
_RATE_TOLERANCE = 5e-5  # a recorder's quartz: 49.9999 Hz is 50 Hz


@dataclass(frozen=True)
class EcgMeta:
    """What a file says beside its signal, as it says it; None or () for what it does not say.

    format: name of the file format, as in `ecg.formats`. statements: the findings that the device or the reader wrote,
    one each; language: of the statements, as BCP 47 (`en`, `fr`), where the file names it. age in years; sex: male or
    female. device: maker and model. recorded_at: ISO 8601, in the file's own time zone. highpass_hz, lowpass_hz,
    notch_hz: filters that the stored signal has gone through.
    """

    format: str = ""
    statements: tuple[str, ...] = ()
    language: str | None = None
    record_id: str | None = None
    patient_id: str | None = None
    age: float | None = None
    sex: str | None = None
    device: str | None = None
    recorded_at: str | None = None
    highpass_hz: float | None = None
    lowpass_hz: float | None = None
    notch_hz: float | None = None


@dataclass(frozen=True)
class Ecg:
    """An ECG as its source has it: any leads in any order, any rate, any length; millivolts.

    `absent_leads` are leads that the source says it never recorded (a two-lead Holter): `preprocess` writes them as
    zeros. A wanted lead that is neither in `leads` nor here is missing, and the record is rejected.
    `other_signals` names what the record holds beside its ECG (blood pressure, respiration): it is not in `signal_mv`.
    `derived_leads` are leads of `leads` that the source did not store: exact sums of I and II.
    """

    signal_mv: Float[np.ndarray, "lead sample"]
    leads: tuple[str, ...]
    sampling_rate_hz: float
    absent_leads: tuple[str, ...] = ()
    other_signals: tuple[str, ...] = ()
    derived_leads: tuple[str, ...] = ()
    meta: EcgMeta = EcgMeta()


def to_millivolts(signal: Float[np.ndarray, "*shape"], unit: str | None) -> Float[np.ndarray, "*shape"]:
    """`signal` in millivolts. `unit` is exactly one of `UNITS`: V, mV, mv, uV, uv, µV (either micro sign), nV.

    Raises RecordError `missing_unit` (None or blank) and `unknown_unit`.
    """
    if unit is None or not unit.strip():
        raise RecordError("missing_unit", "the signal has no unit", hint=f"give one of {', '.join(UNITS)}")
    factor = UNITS.get(unit.strip())
    if factor is None:
        raise RecordError("unknown_unit", f"the unit is `{unit}`", hint=f"give one of {', '.join(UNITS)}")
    # Division makes exactly 1 mV of 1000 µV; multiplication by 0.001 is off by a rounding step.
    return signal * factor if factor >= 1 else signal / round(1 / factor)


def check_sampling_rate(rate: float) -> None:
    """Raise RecordError `implausible_sampling_rate` for a rate that is no number or not in SAMPLING_RATES_HZ."""
    low, high = SAMPLING_RATES_HZ
    if not isinstance(rate, Real):
        raise RecordError("implausible_sampling_rate", f"the sampling rate is {rate!r}", hint="give a number in Hz")
    if not (math.isfinite(rate) and low * (1 - _RATE_TOLERANCE) <= rate <= high * (1 + _RATE_TOLERANCE)):
        raise RecordError(
            "implausible_sampling_rate",
            f"the sampling rate is {rate:.10g} Hz, outside {low:g} to {high:g}",
            hint="give samples per second",
        )
