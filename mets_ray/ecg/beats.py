"""Where the beats of ECGs are, well enough to count and to move them; not for a patient."""

import numpy as np
import scipy
from jaxtyping import Bool, Float, Float32

_LAG_S = 0.02  # a difference over 40 ms has no 50 Hz in it, and follows the slope of a QRS complex
_SMOOTH_S = 0.1
_REFRACTORY_S = 0.25
_SEGMENT_S = 2.0  # each holds a beat from 30 per minute on
_PEAK_SHARE = 0.4  # of a typical beat's slope: above a T wave's, below that of a smaller beat


def beat_mask(
    signal_mv: Float32[np.ndarray, "window lead sample"], sampling_rate_hz: int
) -> Bool[np.ndarray, "window sample"]:
    """True at each beat of each window: in the middle of its QRS complex, give or take 20 ms.

    Beats are where the slope of all leads together has a peak of at least 0.4 of a typical one, 0.25 s apart or more:
    a plain form of Pan & Tompkins 1985 (doi:10.1109/TBME.1985.325532).
    """
    lag = max(1, round(_LAG_S * sampling_rate_hz))
    slope = signal_mv[:, :, 2 * lag :] - signal_mv[:, :, : -2 * lag]
    energy = np.einsum("wls,wls->ws", slope, slope)
    width = max(1, round(_SMOOTH_S * sampling_rate_hz))
    envelope = np.sqrt(scipy.ndimage.uniform_filter1d(energy, width, axis=1, mode="nearest").clip(min=0.0))
    parts = max(1, int(envelope.shape[1] / (_SEGMENT_S * sampling_rate_hz)))
    typical = np.median([part.max(axis=1) for part in np.array_split(envelope, parts, axis=1)], axis=0)
    around = scipy.ndimage.maximum_filter1d(
        envelope, 2 * round(_REFRACTORY_S * sampling_rate_hz) + 1, axis=1, mode="nearest"
    )
    beats = (envelope == around) & (envelope > np.maximum(_PEAK_SHARE * typical, 1e-6)[:, None])
    beats[:, 1:] &= ~beats[:, :-1]  # of a level top its beginning
    return np.pad(beats, ((0, 0), (lag, lag)))


def beat_times_s(signal_mv: Float32[np.ndarray, "lead sample"], sampling_rate_hz: int) -> Float[np.ndarray, " beat"]:
    """When the beats of one ECG are, ascending, in seconds from its first sample."""
    times: np.ndarray = np.flatnonzero(beat_mask(signal_mv[None], sampling_rate_hz)[0]) / sampling_rate_hz
    return times
