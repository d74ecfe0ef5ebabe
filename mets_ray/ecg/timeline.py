"""Windows over a recording of any length: where they begin, and the part of the recording that each one needs."""

from dataclasses import replace

from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig, samples_in, samples_used
from mets_ray.errors import RecordError

_TOLERANCE = 0.01  # of a sample: starts are rounded to microseconds


def window_count(num_samples: int, sampling_rate_hz: float, signal: SignalConfig, stride_s: float) -> int:
    """How many windows of `signal.duration_s` begin every `stride_s` and lie in the recording; rounding may make it one
    more or less than `window_starts` has.

    sampling_rate_hz must be plausible (`check_sampling_rate`), stride_s above 0. Raises RecordError `too_short` for a
    recording without one whole window.
    """
    spare = num_samples - samples_in(signal.duration_s, sampling_rate_hz)
    if spare < 0:
        raise RecordError(
            "too_short",
            f"the record has {num_samples} samples at {sampling_rate_hz:.10g} Hz ({num_samples / sampling_rate_hz:.3f} "
            f"s) of the {signal.duration_s:g} s that are needed",
            hint="check the sampling rate; a shorter recording is never filled up",
        )
    return int(spare / (stride_s * sampling_rate_hz)) + 1


def window_starts(num_samples: int, sampling_rate_hz: float, signal: SignalConfig, stride_s: float) -> list[float]:
    """When these windows begin, in seconds. What is left at the end is shorter than a window, or than a stride and a
    window. Raises RecordError as `window_count`."""
    count = window_count(num_samples, sampling_rate_hz, signal, stride_s)
    latest = num_samples - samples_in(signal.duration_s, sampling_rate_hz)
    starts = (round(number * stride_s, 6) for number in range(count + 1))
    return [start_s for start_s in starts if start_s * sampling_rate_hz <= latest + _TOLERANCE]


def first_sample(start_s: float, sampling_rate_hz: float) -> int:
    """The sample that is nearest to a time in seconds."""
    return round(start_s * sampling_rate_hz)


def part_from(ecg: Ecg, start_s: float, signal: SignalConfig) -> Ecg:
    """What `preprocess` needs of `ecg` for the window from `start_s`, as a view: no sample is copied."""
    first = first_sample(start_s, ecg.sampling_rate_hz)
    return replace(ecg, signal_mv=ecg.signal_mv[:, first : first + samples_used(signal, ecg.sampling_rate_hz)])
