"""What an encoder's input looks like, window by window: sizes and signs of its leads, its heart rate, its spectrum.

For comparing ECGs with those that a model was trained on. All of it is measured in the stored signal, which is what the
encoder sees: a wrong gain, rate or order of leads is in it. What the source's own signal is worth as a recording is
`signal_quality`.
"""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Bool, Float32, Int16

from mets_ray.ecg.beats import beat_mask
from mets_ray.ecg.lead_order import LIMB_BOUND

HEART_RATE = "heart_rate_per_min"
LEADS_RECORDED = "leads_recorded"

FIXED_EDGES = {
    "limb_leads_disagree": (0.5,),
    "flat_leads": (0.5,),
    LEADS_RECORDED: (1.5, 2.5, 6.5, 11.5),
}
"""Bins of what is counted; all else is cut where its own distribution says."""

_BAND_HZ = (0.5, 40.0)
_FAST_HZ = 20.0
_FLAT_S = 1.0


def feature_names(leads: Sequence[str]) -> tuple[str, ...]:
    """The columns of `signal_features`."""
    by_lead = (f"{name}:{lead}" for name in ("amplitude_mv", "polarity") for lead in leads)
    return (*by_lead, HEART_RATE, "centroid_hz", "fast_share", *FIXED_EDGES)


def signal_features(
    signal_uv: Int16[np.ndarray, "window lead sample"], leads: Sequence[str], sampling_rate_hz: int
) -> Float32[np.ndarray, "window feature"]:
    """Features of each window, nan where one could not be measured. A lead of zeros was not recorded.

    - amplitude_mv, polarity: of each lead, highest minus lowest sample, and their sum (from the median) over that: 1
      for a lead that only rises, −1 for one that only falls
    - heart_rate_per_min: see `heart_rate`
    - centroid_hz, fast_share: of the power from 0.5 to 40 Hz of all leads, its mean frequency, and the share from 20 Hz
    - limb_leads_disagree: 1 where I + III is not II, 0 where it is
    - flat_leads: how many of the recorded leads stay unchanged for a second
    - leads_recorded
    """
    recorded = np.asarray(signal_uv.any(axis=2))
    signal_mv = signal_uv.astype(np.float32) / np.float32(1000.0)
    signal_mv -= np.median(signal_mv, axis=2, keepdims=True)
    highest, lowest = signal_mv.max(axis=2), signal_mv.min(axis=2)
    amplitude = np.where(recorded, highest - lowest, np.nan)
    columns = [
        amplitude,
        _share(highest + lowest, amplitude),
        heart_rate(signal_mv, sampling_rate_hz)[:, None],
        *_spectrum(signal_mv, sampling_rate_hz),
        _limb_leads_disagree(signal_mv, recorded, leads)[:, None],
        _flat_leads(signal_uv, recorded, sampling_rate_hz)[:, None],
        recorded.sum(axis=1)[:, None],
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def heart_rate(
    signal_mv: Float32[np.ndarray, "window lead sample"], sampling_rate_hz: int
) -> Float32[np.ndarray, " window"]:
    """Mean rate of each window's beats (`beat_mask`) in 1/min; nan with fewer than two."""
    beats = beat_mask(signal_mv, sampling_rate_hz)
    samples = beats.shape[1]
    first, last = beats.argmax(axis=1), samples - 1 - beats[:, ::-1].argmax(axis=1)
    times = (last - first) / sampling_rate_hz
    several = (beats.sum(axis=1) > 1) & (times > 0)
    found: Float32[np.ndarray, " window"] = np.full(len(signal_mv), np.nan, dtype=np.float32)
    found[several] = 60.0 * (beats.sum(axis=1)[several] - 1) / times[several]
    return found


def _spectrum(signal_mv: np.ndarray, sampling_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    samples = signal_mv.shape[2]
    frequency_hz = np.fft.rfftfreq(samples, 1.0 / sampling_rate_hz)
    inside = (frequency_hz >= _BAND_HZ[0]) & (frequency_hz <= _BAND_HZ[1])
    window = scipy.signal.windows.hann(samples, sym=False).astype(np.float32)
    values = scipy.fft.rfft(signal_mv * window, axis=2)[:, :, inside]
    power = np.einsum("wlf,wlf->wf", values, values.conj()).real
    total = power.sum(axis=1)
    centroid = _share(power @ frequency_hz[inside], total)
    return centroid[:, None], _share(power[:, frequency_hz[inside] >= _FAST_HZ].sum(axis=1), total)[:, None]


def _limb_leads_disagree(
    signal_mv: np.ndarray, recorded: Bool[np.ndarray, "window lead"], leads: Sequence[str]
) -> np.ndarray:
    if not {"I", "II", "III"} <= set(leads):
        return np.full(len(signal_mv), np.nan)
    rows = [leads.index(lead) for lead in ("I", "II", "III")]
    one, two, three = (signal_mv[:, row] for row in rows)
    left_over = (one + three - two).var(axis=1)  # the medians do not add up as the leads do
    size = one.var(axis=1) + two.var(axis=1) + three.var(axis=1)
    told = recorded[:, rows].all(axis=1)
    return np.where(told, np.sqrt(_share(left_over, size)) > LIMB_BOUND, np.nan)


def _flat_leads(
    signal_uv: Int16[np.ndarray, "window lead sample"], recorded: Bool[np.ndarray, "window lead"], sampling_rate_hz: int
) -> np.ndarray:
    changes = np.cumsum(signal_uv[:, :, 1:] != signal_uv[:, :, :-1], axis=2, dtype=np.int32)
    width = min(round(_FLAT_S * sampling_rate_hz), changes.shape[2] - 1)
    flat: np.ndarray = ((changes[:, :, width:] == changes[:, :, :-width]).any(axis=2) & recorded).sum(axis=1)
    return flat


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    share = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
