"""How good the signal of a record is, measured as its source has it: filtering and resampling hide what is asked
here."""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Float32

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.lead_order import LeadOrder, lead_order
from mets_ray.ecg.leads import standard_lead

ECG_BAND_HZ = (0.5, 40.0)
_LEAST_WANDER_S = 4.0  # in a shorter record 0.5 Hz cannot be told from an offset
_HUM_HALF_WIDTH_HZ = 1.0
_HUM_MARGIN_HZ = 4.0  # what lies beside the hum, up to here, is what would be there without it
_CLIPPED_MV = 1.0
_HIGHEST_HZ = 65.0  # of what is asked for below


@dataclass(frozen=True)
class SignalQuality:
    """Of each lead of `LEADS`, nan where it was not recorded:

    - amplitude_mv: highest minus lowest sample
    - offset_mv: mean
    - flat_s: longest time without a change
    - clipped_s: longest time at the highest or lowest sample, where that lies 1 mV or more from the mean

    Of the worst lead, from the power spectrum (Hann window), nan where the record is too short or its rate too low:

    - wander_share: power below 0.5 Hz of that below 40 Hz. It is 1 − basSQI of Clifford et al. 2012
      (doi:10.1088/0967-3334/ 33/9/1419), with 0.5 Hz in place of 1 Hz, where slow hearts have their first harmonic.
    - hum_50hz_ratio, hum_60hz_ratio: power within 1 Hz of the mains, above what the next 3 Hz on both sides let expect,
      over the power from 0.5 to 40 Hz. At 0.01 the hum has a tenth of the ECG's amplitude.

    order: whether the leads fit together.
    """

    amplitude_mv: Float32[np.ndarray, "lead"]
    offset_mv: Float32[np.ndarray, "lead"]
    flat_s: Float32[np.ndarray, "lead"]
    clipped_s: Float32[np.ndarray, "lead"]
    wander_share: float
    hum_50hz_ratio: float
    hum_60hz_ratio: float
    order: LeadOrder


def signal_quality(ecg: Ecg, duration_s: float) -> SignalQuality:
    """Measures the first `duration_s` of a record that `preprocess` takes: finite, each lead once.

    Leads that were computed from others count as not recorded where the leads are compared.
    """
    rate = ecg.sampling_rate_hz
    rows = {name: row for row, lead in enumerate(ecg.leads) if (name := standard_lead(lead)) is not None}
    recorded = [lead for lead in LEADS if lead in rows]
    samples = min(math.ceil(round(duration_s * rate, 6)), ecg.signal_mv.shape[1])
    order = [rows[lead] for lead in recorded]
    is_in_order = order == list(range(len(ecg.signal_mv)))
    signal_mv = (ecg.signal_mv if is_in_order else ecg.signal_mv[order])[:, :samples].astype(
        np.float32
    )  # twice as fast
    offset = signal_mv.mean(axis=1, dtype=np.float64)
    highest, lowest = signal_mv.max(axis=1), signal_mv.min(axis=1)
    flat, clipped = _stays(signal_mv, offset, highest, lowest)
    bands = _bands(samples, rate)
    spectrum = scipy.fft.rfft((signal_mv - offset[:, None].astype(np.float32)) * bands.window, axis=1)
    spectrum = spectrum[:, : len(bands.frequency_hz)]
    power = np.abs(spectrum) ** 2
    of_ecg = power[:, bands.ecg].sum(axis=1)
    return SignalQuality(
        amplitude_mv=_by_lead(highest - lowest, recorded),
        offset_mv=_by_lead(offset, recorded),
        flat_s=_by_lead(flat / rate, recorded),
        clipped_s=_by_lead(clipped / rate, recorded),
        wander_share=_wander(power[:, bands.wander], of_ecg) if samples >= _LEAST_WANDER_S * rate else math.nan,
        hum_50hz_ratio=_hum(power, bands.hum_50hz, of_ecg),
        hum_60hz_ratio=_hum(power, bands.hum_60hz, of_ecg),
        order=_order(spectrum[:, bands.ecg], recorded, {standard_lead(lead) for lead in ecg.derived_leads}),
    )


def _by_lead(values: Float[np.ndarray, "recorded"], recorded: list[str]) -> Float32[np.ndarray, "lead"]:
    """In the order of `LEADS`; rounded, since a fourth digit says nothing and takes storage."""
    if len(recorded) == len(LEADS):
        return np.round(values, 3).astype(np.float32)
    whole = np.full(len(LEADS), np.nan, dtype=np.float32)
    whole[[LEADS.index(lead) for lead in recorded]] = np.round(values, 3)
    return whole


def _stays(
    signal_mv: Float32[np.ndarray, "lead sample"],
    offset: Float[np.ndarray, "lead"],
    highest: Float32[np.ndarray, "lead"],
    lowest: Float32[np.ndarray, "lead"],
) -> tuple[Float[np.ndarray, "lead"], Float[np.ndarray, "lead"]]:
    """For how many steps each lead stays the same at most: anywhere, and at its highest or lowest sample if far off."""
    leads, samples = signal_mv.shape
    changes = np.ones((leads, samples + 1), dtype=bool)  # from the sample before it; each row begins and ends with one
    np.not_equal(signal_mv[:, 1:], signal_mv[:, :-1], out=changes[:, 1:-1])
    position = np.flatnonzero(changes)
    starts = np.searchsorted(position, np.arange(leads) * (samples + 1))
    flat = np.maximum.reduceat(np.diff(position, append=0), starts) - 1.0

    repeated = (signal_mv == highest[:, None]) | (signal_mv == lowest[:, None])
    repeated &= ~changes[:, :-1]
    position = np.flatnonzero(repeated)
    is_last = np.diff(position, append=-1) != 1
    last = position[is_last]
    steps = np.diff(np.flatnonzero(is_last), prepend=-1)
    lead, value = last // samples, signal_mv.reshape(-1)[last]
    is_far = np.abs(value - offset[lead]) >= _CLIPPED_MV
    clipped = np.zeros(leads)
    np.maximum.at(clipped, lead[is_far], steps[is_far])
    return flat, clipped


class _Hum(NamedTuple):
    """Of the spectrum, what is at the mains' frequency and what lies beside it."""

    near: Bool[np.ndarray, "frequency"]
    beside: Bool[np.ndarray, "frequency"]


class _Bands(NamedTuple):
    """The window before the Fourier transform, for which the sum of all squared magnitudes is the mean power in mV²;
    the frequencies up to `_HIGHEST_HZ`, and which of them are asked for. No `_Hum` where it cannot be told."""

    window: Float32[np.ndarray, "sample"]
    frequency_hz: Float[np.ndarray, "frequency"]
    ecg: Bool[np.ndarray, "frequency"]
    wander: Bool[np.ndarray, "frequency"]
    hum_50hz: _Hum | None
    hum_60hz: _Hum | None


@functools.lru_cache(maxsize=8)  # the records of a source have few lengths and rates
def _bands(samples: int, rate: float) -> _Bands:
    window: np.ndarray = scipy.signal.windows.hann(samples, sym=False)
    window = (window * math.sqrt(2.0 / samples / float((window**2).sum()))).astype(np.float32)
    frequency_hz = np.fft.rfftfreq(samples, 1.0 / rate)
    frequency_hz = frequency_hz[: int(np.searchsorted(frequency_hz, _HIGHEST_HZ, side="right"))]
    ecg = (frequency_hz >= ECG_BAND_HZ[0]) & (frequency_hz <= ECG_BAND_HZ[1])
    wander = (frequency_hz > 0) & (frequency_hz < ECG_BAND_HZ[0])
    return _Bands(window, frequency_hz, ecg, wander, _hum_at(frequency_hz, 50.0), _hum_at(frequency_hz, 60.0))


def _hum_at(frequency_hz: Float[np.ndarray, "frequency"], mains_hz: float) -> _Hum | None:
    distance = np.abs(frequency_hz - mains_hz)
    near = distance <= _HUM_HALF_WIDTH_HZ
    beside = (distance > _HUM_HALF_WIDTH_HZ) & (distance <= _HUM_MARGIN_HZ)
    told = frequency_hz[-1] >= mains_hz + _HUM_MARGIN_HZ and near.any() and beside.any()
    return _Hum(near, beside) if told else None


def _wander(low_power: np.ndarray, of_ecg: np.ndarray) -> float:
    low = low_power.sum(axis=1)
    whole = low + of_ecg
    return float((low[whole > 0] / whole[whole > 0]).max(initial=0.0))


def _hum(power: np.ndarray, at: _Hum | None, of_ecg: np.ndarray) -> float:
    if at is None:
        return math.nan
    hum = np.maximum(0.0, power[:, at.near].sum(axis=1) - at.near.sum() * power[:, at.beside].mean(axis=1))
    return float((hum[of_ecg > 0] / of_ecg[of_ecg > 0]).max(initial=0.0))


def _order(spectrum: np.ndarray, recorded: list[str], derived: set[str | None]) -> LeadOrder:
    whole = spectrum
    if len(recorded) < len(LEADS):
        whole = np.zeros((len(LEADS), spectrum.shape[1]), dtype=spectrum.dtype)
        whole[[LEADS.index(lead) for lead in recorded]] = spectrum
    own = set(recorded) - derived
    return lead_order(
        (whole @ whole.conj().T).real, has_limb_leads=own >= set(LEADS[:6]), has_chest_leads=own >= set(LEADS[6:])
    )
