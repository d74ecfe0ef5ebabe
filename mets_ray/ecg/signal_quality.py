"""How good the signal of a record is, measured as its source has it: filtering and resampling hide what is asked
here."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Float32

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
    samples = math.ceil(round(duration_s * rate, 6))
    signal_mv = ecg.signal_mv[[rows[lead] for lead in recorded], :samples].astype(np.float32)  # twice as fast
    offset = signal_mv.mean(axis=1, dtype=np.float64)
    highest, lowest = signal_mv.max(axis=1), signal_mv.min(axis=1)
    flat, clipped = _stays(signal_mv, offset, highest, lowest)
    spectrum, frequency_hz = _spectrum(signal_mv - offset[:, None].astype(np.float32), rate)
    power = np.abs(spectrum) ** 2
    in_band = (frequency_hz >= ECG_BAND_HZ[0]) & (frequency_hz <= ECG_BAND_HZ[1])
    of_ecg = power[:, in_band].sum(axis=1)
    return SignalQuality(
        amplitude_mv=_by_lead(highest - lowest, recorded),
        offset_mv=_by_lead(offset, recorded),
        flat_s=_by_lead(flat / rate, recorded),
        clipped_s=_by_lead(clipped / rate, recorded),
        wander_share=_wander(power, frequency_hz, of_ecg) if signal_mv.shape[1] >= _LEAST_WANDER_S * rate else math.nan,
        hum_50hz_ratio=_hum(power, frequency_hz, of_ecg, 50.0),
        hum_60hz_ratio=_hum(power, frequency_hz, of_ecg, 60.0),
        order=_order(spectrum[:, in_band], recorded, {standard_lead(lead) for lead in ecg.derived_leads}),
    )


def _by_lead(values: Float[np.ndarray, "recorded"], recorded: list[str]) -> Float32[np.ndarray, "lead"]:
    """In the order of `LEADS`; rounded, since a fourth digit says nothing and takes storage."""
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
    same = np.zeros(signal_mv.shape, dtype=bool)  # as the sample before it; the first column begins each row
    np.equal(signal_mv[:, 1:], signal_mv[:, :-1], out=same[:, 1:])
    position = np.flatnonzero(same)
    is_last = np.diff(position, append=-1) != 1
    last = position[is_last]
    steps = np.diff(np.flatnonzero(is_last), prepend=-1)
    lead, value = last // signal_mv.shape[1], signal_mv.reshape(-1)[last]
    is_far = ((value == highest[lead]) | (value == lowest[lead])) & (np.abs(value - offset[lead]) >= _CLIPPED_MV)
    flat, clipped = np.zeros(len(signal_mv)), np.zeros(len(signal_mv))
    np.maximum.at(flat, lead, steps)
    np.maximum.at(clipped, lead[is_far], steps[is_far])
    return flat, clipped


def _spectrum(
    signal_mv: Float32[np.ndarray, "lead sample"], rate: float
) -> tuple[np.ndarray, Float[np.ndarray, "frequency"]]:
    """One-sided amplitudes up to `_HIGHEST_HZ`; the sum of all squared magnitudes is the mean power in mV²."""
    samples = signal_mv.shape[1]
    frequency_hz = np.fft.rfftfreq(samples, 1.0 / rate)
    asked = int(np.searchsorted(frequency_hz, _HIGHEST_HZ, side="right"))
    return scipy.fft.rfft(signal_mv * _window(samples), axis=1)[:, :asked], frequency_hz[:asked]


@functools.lru_cache(maxsize=8)  # the records of a source have few lengths
def _window(samples: int) -> Float32[np.ndarray, "sample"]:
    window: np.ndarray = scipy.signal.windows.hann(samples, sym=False)
    return (window * math.sqrt(2.0 / samples / float((window**2).sum()))).astype(np.float32)


def _wander(power: np.ndarray, frequency_hz: np.ndarray, of_ecg: np.ndarray) -> float:
    low = power[:, (frequency_hz > 0) & (frequency_hz < ECG_BAND_HZ[0])].sum(axis=1)
    whole = low + of_ecg
    return float((low[whole > 0] / whole[whole > 0]).max(initial=0.0))


def _hum(power: np.ndarray, frequency_hz: np.ndarray, of_ecg: np.ndarray, mains_hz: float) -> float:
    distance = np.abs(frequency_hz - mains_hz)
    near = distance <= _HUM_HALF_WIDTH_HZ
    beside = (distance > _HUM_HALF_WIDTH_HZ) & (distance <= _HUM_MARGIN_HZ)
    if frequency_hz[-1] < mains_hz + _HUM_MARGIN_HZ or not near.any() or not beside.any():
        return math.nan
    hum = np.maximum(0.0, power[:, near].sum(axis=1) - near.sum() * power[:, beside].mean(axis=1))
    return float((hum[of_ecg > 0] / of_ecg[of_ecg > 0]).max(initial=0.0))


def _order(spectrum: np.ndarray, recorded: list[str], derived: set[str | None]) -> LeadOrder:
    whole = np.zeros((len(LEADS), spectrum.shape[1]), dtype=spectrum.dtype)
    whole[[LEADS.index(lead) for lead in recorded]] = spectrum
    own = set(recorded) - derived
    return lead_order(
        (whole @ whole.conj().T).real, has_limb_leads=own >= set(LEADS[:6]), has_chest_leads=own >= set(LEADS[6:])
    )
