"""A bare array becomes an ECG: its unit, sampling rate and leads are stated."""

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import Ecg, EcgMeta, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats.stated import Stated
from mets_ray.errors import RecordError


def ecg_of(samples: np.ndarray, stated: Stated, file_format: str) -> Ecg:
    """The ECG of an array [lead, sample] or [sample, lead]; the number of stated leads tells which it is.

    One lead may be an array [sample]. Where both lengths equal the number of leads, leads are rows.

    Raises RecordError `missing_sampling_rate`, `missing_unit`, `missing_lead_names`, `unknown_unit`,
    `implausible_sampling_rate`, `leads_mismatch`, `several_records`, and `malformed_file` for what is not numbers.
    """
    leads, rate, unit = stated.required_leads(), stated.required_rate_hz(), stated.required_unit()
    check_sampling_rate(rate)
    signal_mv = in_millivolts(_lead_rows(real_numbers(samples), len(leads)), unit)
    return Ecg(signal_mv, leads, rate, meta=EcgMeta(format=file_format))


def in_millivolts(rows: np.ndarray, unit: str | None) -> Float[np.ndarray, "*shape"]:
    """`ecg.to_millivolts` of numbers of any type; what overflows is infinite, and `preprocess` rejects it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return to_millivolts(rows.astype(np.float64, copy=False), unit)


def real_numbers(samples: np.ndarray) -> np.ndarray:
    """`samples`. Raises RecordError `malformed_file` for what is neither integers nor floats of up to 64 bits."""
    kind, size = samples.dtype.kind, samples.dtype.itemsize
    if kind not in "iuf" or size > 8:
        raise malformed(f"the array holds {kind}{size}, not integers or floats of up to 64 bits")
    return samples


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether an array can be the leads of an ECG: two axes, none of them empty, and not a single number."""
    return len(shape) == 2 and min(shape) > 0 and max(shape) > 1


def malformed(fact: str, hint: str = "") -> RecordError:
    """The error for bytes that are no file of their format."""
    return RecordError("malformed_file", fact, hint=hint)


def _lead_rows(samples: np.ndarray, count: int) -> np.ndarray:
    if samples.ndim == 3 and len(samples) == 1:
        samples = samples[0]
    if samples.ndim == 3:
        raise RecordError(
            "several_records", f"the array holds {len(samples)} ECGs", hint="write each ECG to a file of its own"
        )
    if samples.ndim == 1 and count == 1:
        return samples[None]
    if samples.ndim == 2 and count in samples.shape:
        return samples if len(samples) == count else samples.T
    raise RecordError(
        "leads_mismatch",
        f"{count} leads are stated for an array of {' × '.join(map(str, samples.shape)) or 'no axes'}",
        hint="name one lead for each row, or for each column, of the array",
    )
