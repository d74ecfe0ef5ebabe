"""The only way from a source's signal to the microvolts that shards hold.

Everything that reads an ECG, from `prepare` to a scoring server, calls `preprocess`, so training and serving cannot
disagree about units, leads, rate or length. An ECG that cannot be right is rejected with a reason, never
repaired or guessed at.
"""

import functools
import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import scipy  # scipy.signal is imported at first use: it takes a second that processes that only read shards save
from jaxtyping import Float, Int16

from mets_ray.ecg.derived_leads import check_source_leads, derivable_leads, derive_leads
from mets_ray.ecg.ecg import FRANK_LEADS, LEADS, Ecg, check_sampling_rate
from mets_ray.ecg.leads import is_other_lead, standard_lead
from mets_ray.errors import ConfigError, RecordError

# The reasons of every RecordError that `to_millivolts` and `preprocess` raise.
REASONS = (
    "missing_unit",  # no unit is given
    "unknown_unit",  # the unit is none of UNITS
    "implausible_sampling_rate",  # not a number, or outside SAMPLING_RATES_HZ
    "unknown_lead",  # no known name, so it may be a wanted lead
    "duplicate_lead",  # two signals under one lead name
    "missing_leads",  # wanted leads that the record does not have
    "too_short",  # shorter than `duration_s` by a sample or more
    "non_finite",  # NaN or infinity
    "flat_lead",  # all samples of a lead are equal, as when an electrode is off, or all are 0 in whole microvolts
    "amplitude_too_large",  # above MAX_AMPLITUDE_MV: a wrong unit or gain, a saturated amplifier, an unfiltered offset
)

MAX_AMPLITUDE_MV = 20.0

# Against PhysioNet's own 100 Hz files of PTB-XL, from the 500 Hz files of the same 279 ECGs, `symmetric` has the lowest
# median difference of scipy's padtypes (18.29 µV; line 18.31, constant 18.62, wrap 18.74). The rest does
# not come from the edges: PhysioNet's 100 Hz files lead by a constant 1.2 ms; with that corrected 3.8 µV remain.
PADTYPE = "symmetric"

# Second order, run forwards and backwards in time, so that no wave is shifted. The signal is extended by its mirror
# image about its first and its last sample, so that the filter's transients lie outside it.
_HIGHPASS_ORDER = 2
HIGHPASS_MARGIN_S = 3.0

_MAX_RATIO = 2000  # of resampling: limits the filter's length; the oddest rate drifts by less than 5 ms in 10 s


@dataclass(frozen=True)
class SignalConfig:
    """Rate, length, leads and filter that every ECG of a data set is brought to.

    highpass_hz: cut-off of a zero-phase high-pass filter against baseline wander, or None. Without phase distortion
    0.67 Hz and less spare the ST segment (Kligfield et al. 2007, AHA/ACC/HRS, doi:10.1161/CIRCULATIONAHA.106.180200).

    Raises ConfigError when the length is not a whole number of samples, the cut-off is not below half the rate, or a
    lead is not one of `LEADS` or is named twice.
    """

    sampling_rate_hz: int
    duration_s: float
    leads: tuple[str, ...] = LEADS
    highpass_hz: float | None = None

    def __post_init__(self) -> None:
        if self.sampling_rate_hz <= 0 or not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ConfigError(
                f"`sampling_rate_hz` is {self.sampling_rate_hz} and `duration_s` is {self.duration_s}",
                hint="use numbers above 0, for example 100 and 10",
            )
        samples = self.duration_s * self.sampling_rate_hz
        if round(samples) < 1 or abs(samples - round(samples)) > 1e-6:
            raise ConfigError(
                f"`duration_s` {self.duration_s} at {self.sampling_rate_hz} Hz is {samples:g} samples",
                hint="use a duration that is a whole number of samples, for example 10",
            )
        if self.highpass_hz is not None and not 0 < self.highpass_hz < self.sampling_rate_hz / 2:
            raise ConfigError(
                f"`highpass_hz` is {self.highpass_hz:g} at {self.sampling_rate_hz} Hz",
                hint="use a cut-off above 0, for example 0.5, or null for no filter",
            )
        unknown = [lead for lead in self.leads if lead not in LEADS]
        if unknown or not self.leads or len(set(self.leads)) < len(self.leads):
            raise ConfigError(
                f"`leads` is {', '.join(self.leads) or 'empty'}",
                hint=f"use each at most once of {', '.join(LEADS)}",
            )

    @property
    def num_samples(self) -> int:
        return round(self.duration_s * self.sampling_rate_hz)

    def __str__(self) -> str:
        shape = f"{self.sampling_rate_hz} Hz × {self.duration_s:g} s × {len(self.leads)} leads"
        return shape if self.highpass_hz is None else f"{shape}, high-pass {self.highpass_hz:g} Hz"


def preprocess(ecg: Ecg, config: SignalConfig) -> Int16[np.ndarray, "lead sample"]:
    """The first `config.duration_s` of `ecg` as int16 microvolts, [config.leads, config.num_samples].

    Leads are picked by name as `standard_lead` reads it, whatever their order; other leads (Frank's, V7, V4R) are
    dropped. Another rate is reached with `scipy.signal.resample_poly`, lead by lead, from the same stretch of time
    (plus the filter's reach, if the record goes on, up to the first fault in it). Only that stretch is checked: a fault
    later in a long record does not matter. It is then filtered as `config.highpass_hz` says, on its own: no sample
    beyond it enters the filter. A record that is less than one of its samples too short is long enough.
    Limb leads that the record lacks are derived from two of I, II and III (`derive_leads`).
    Leads that `ecg.absent_leads` names are zeros; at least one wanted lead must be there.

    Raises RecordError with one of `REASONS`; checks run in the order of that list. A lead of which nothing is left in
    whole microvolts is a `flat_lead` as well, because zeros mean that a lead was not recorded.
    """
    rate = ecg.sampling_rate_hz
    check_sampling_rate(rate)
    ratio, end = _ratio(config, rate), samples_used(config, rate)
    samples_present = ecg.signal_mv.shape[1]
    if derivable_leads(ecg, config.leads):
        ecg = derive_leads(replace(ecg, signal_mv=ecg.signal_mv[:, :end]), config.leads)
    present, rows = _lead_rows(ecg, config)

    if samples_present < samples_in(config.duration_s, rate):
        raise RecordError(
            "too_short",
            f"the record has {samples_present} samples at {rate:.10g} Hz ({samples_present / rate:.3f} s) "
            f"of the {config.duration_s:g} s that are needed",
            hint="check the sampling rate; a shorter recording is never filled up",
        )
    is_in_order = rows == list(range(len(ecg.signal_mv)))
    signal_mv = (ecg.signal_mv if is_in_order else ecg.signal_mv[rows])[:, :end].astype(np.float64, copy=False)
    stretch = math.ceil(round(config.duration_s * rate, 6))  # without the filter's reach
    _check_values(signal_mv[:, :stretch], present)
    if ecg.derived_leads:
        check_source_leads(replace(ecg, signal_mv=ecg.signal_mv[:, :stretch]))
    _check_amplitude(signal_mv[:, :stretch], present, has_offset=config.highpass_hz is not None)

    if ratio != 1:
        signal_mv = _resampled(signal_mv, stretch, ratio)
    signal_mv = signal_mv[:, : config.num_samples]
    if lacking := config.num_samples - signal_mv.shape[1]:  # where the record lacked a part of a sample, or drifts
        signal_mv = np.pad(signal_mv, ((0, 0), (0, lacking)), mode="edge")
    if config.highpass_hz is not None:
        signal_mv = _highpassed(signal_mv, config.sampling_rate_hz, config.highpass_hz)
    _check_amplitude(signal_mv, present)  # filters overshoot at steps, and int16 would wrap around silently
    whole_uv = signal_mv * 1000.0
    signal_uv = np.rint(whole_uv, out=whole_uv).astype(np.int16)
    _check_nothing_vanished(signal_uv, present)
    if present == config.leads:
        return signal_uv
    whole = np.zeros((len(config.leads), config.num_samples), dtype=np.int16)
    whole[[config.leads.index(lead) for lead in present]] = signal_uv
    return whole


def samples_in(duration_s: float, sampling_rate_hz: float) -> int:
    """Samples that a recording of `duration_s` must have. What is less than one sample is not asked for: at 500.0001 Hz
    5,000 samples are 10 s, although the last one ends 2 µs before."""
    return math.floor(round(duration_s * sampling_rate_hz, 6))


def check_leads(ecg: Ecg, config: SignalConfig) -> None:
    """Raise RecordError `unknown_lead`, `duplicate_lead` or `missing_leads` as `preprocess` does; no sample is read."""
    _lead_rows(derive_leads(ecg, config.leads), config)


def samples_used(config: SignalConfig, sampling_rate_hz: float) -> int:
    """Samples of a record that `preprocess` looks at: the stretch that it writes, and the resampling filter's reach."""
    ratio = _ratio(config, sampling_rate_hz)
    # Half the length of resample_poly's filter, in samples of the record.
    reach = 0 if ratio == 1 else 10 * math.ceil(max(1.0, float(1 / ratio))) + 1
    return math.ceil(round(config.duration_s * sampling_rate_hz, 6)) + reach


def _ratio(config: SignalConfig, sampling_rate_hz: float) -> Fraction:
    return _ratio_of_rates(config.sampling_rate_hz, sampling_rate_hz)


@functools.lru_cache(maxsize=64)  # the records of a source have few rates
def _ratio_of_rates(wanted_hz: int, sampling_rate_hz: float) -> Fraction:
    return (Fraction(wanted_hz) / Fraction(sampling_rate_hz)).limit_denominator(_MAX_RATIO)


@functools.cache  # designed once for all ECGs of a data set or a server
def _highpass_filter(
    sampling_rate_hz: int, highpass_hz: float
) -> tuple[Float[np.ndarray, "section six"], Float[np.ndarray, "section 1 two"]]:
    """The filter's sections, and their state after a signal that has always been 1."""
    sections = scipy.signal.butter(_HIGHPASS_ORDER, highpass_hz, "highpass", fs=sampling_rate_hz, output="sos")
    return sections, scipy.signal.sosfilt_zi(sections)[:, None]


def _highpassed(
    signal_mv: Float[np.ndarray, "lead sample"], sampling_rate_hz: int, highpass_hz: float
) -> Float[np.ndarray, "lead sample"]:
    """`scipy.signal.sosfiltfilt` with `padtype="odd"`, to the bit, in two thirds of its time.

    A recursive filter waits at each sample for the last one's result. Two leads as the parts of one complex signal, on
    which real coefficients act separately, wait together.
    """
    sections, settled = _highpass_filter(sampling_rate_hz, highpass_hz)
    leads, samples = signal_mv.shape
    margin = min(round(HIGHPASS_MARGIN_S * sampling_rate_hz), samples - 1)
    half = (leads + 1) // 2
    extended = np.zeros((half, samples + 2 * margin), dtype=np.complex128)
    pairs = extended[:, margin : margin + samples]
    pairs.real, pairs.imag[: leads - half] = signal_mv[:half], signal_mv[half:]
    extended[:, :margin] = 2 * pairs[:, :1] - pairs[:, margin:0:-1]
    extended[:, margin + samples :] = 2 * pairs[:, -1:] - pairs[:, -2 : -2 - margin : -1]
    forwards, _ = scipy.signal.sosfilt(sections, extended, axis=1, zi=settled * extended[:, :1])
    backwards, _ = scipy.signal.sosfilt(sections, forwards[:, ::-1], axis=1, zi=settled * forwards[:, -1:])
    whole = backwards[:, ::-1][:, margin : margin + samples]
    return np.concatenate([whole.real, whole.imag[: leads - half]])


def _resampled(
    signal_mv: Float[np.ndarray, "lead sample"], stretch: int, ratio: Fraction
) -> Float[np.ndarray, "lead resampled"]:
    """At `ratio` times the rate. What lies behind the first `stretch` samples is used up to its first fault.

    Each lead's level is taken away meanwhile: the parts of the polyphase filter differ a little in what they make of a
    constant, so an electrode's offset of 300 mV would become a ripple of up to 0.3 mV.
    """
    level = signal_mv[:, :stretch].mean(axis=1, keepdims=True)
    centred = signal_mv - level
    faulty = ~(np.abs(centred[:, stretch:]) <= MAX_AMPLITUDE_MV).all(axis=0)  # NaN as well
    if faulty.any():
        centred = centred[:, : stretch + int(faulty.argmax())]
    found: np.ndarray = scipy.signal.resample_poly(centred, ratio.numerator, ratio.denominator, axis=1, padtype=PADTYPE)
    found += level
    return found


def _lead_rows(ecg: Ecg, config: SignalConfig) -> tuple[tuple[str, ...], list[int]]:
    """The wanted leads that the ECG has, and the row of each in `ecg.signal_mv`."""
    if len(ecg.leads) != ecg.signal_mv.shape[0]:
        raise ValueError(f"{len(ecg.leads)} lead names for {ecg.signal_mv.shape[0]} signals")
    names = [standard_lead(lead) for lead in ecg.leads]
    absent = [standard_lead(lead) for lead in ecg.absent_leads]
    if None in absent or set(absent) & set(names):
        raise ValueError(f"`absent_leads` {ecg.absent_leads} are recorded, or are no leads; there are {ecg.leads}")
    missing = [lead for lead in config.leads if lead not in names and lead not in absent]
    left_over = [lead for lead, name in zip(ecg.leads, names, strict=True) if name is None]
    # V7 beside all wanted leads is one more; where V6 is missing it is more likely a mistake, so it is named.
    unknown = [lead for lead in left_over if not is_other_lead(lead) or (missing and lead.upper() not in FRANK_LEADS)]
    if unknown:
        are = "is not a lead" if len(unknown) == 1 else "are not leads"
        raise RecordError(
            "unknown_lead",
            f"{', '.join(f'`{lead}`' for lead in unknown)} {are} of a 12-lead ECG",
            hint=f"the names are {', '.join(LEADS)}",
        )
    for name in LEADS:
        if names.count(name) > 1:
            given = ", ".join(f"`{lead}`" for lead, known in zip(ecg.leads, names, strict=True) if known == name)
            raise RecordError(
                "duplicate_lead",
                f"more than one signal is lead {name}: {given}",
                hint="name each lead once, and leave out copies",
            )
    present = tuple(lead for lead in config.leads if lead in names)
    if missing or not present:
        missing = missing or list(config.leads)
        raise RecordError("missing_leads", f"{len(missing)} of {len(config.leads)} leads missing: {', '.join(missing)}")
    return present, [names.index(lead) for lead in present]


def _check_values(signal_mv: Float[np.ndarray, "lead sample"], names: tuple[str, ...]) -> None:
    lowest, highest = signal_mv.min(axis=1), signal_mv.max(axis=1)  # NaN where any sample of the lead is NaN
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        bad = (~np.isfinite(signal_mv)).sum(axis=1)
        counts = ", ".join(f"{lead} ({count})" for lead, count in zip(names, bad, strict=True) if count)
        raise RecordError(
            "non_finite",
            f"samples that are NaN or infinite: {counts}",
            hint="cut out a stretch without gaps; a file may mark samples as not recorded",
        )
    flat = lowest == highest
    if flat.any():
        leads = ", ".join(lead for lead, is_flat in zip(names, flat, strict=True) if is_flat)
        raise RecordError(
            "flat_lead", f"all samples are equal in {leads}", hint="leave out a lead that was not recorded"
        )


def _check_amplitude(
    signal_mv: Float[np.ndarray, "lead sample"], names: tuple[str, ...], *, has_offset: bool = False
) -> None:
    """`has_offset`: the filter will remove it, so it is no amplitude. Electrodes give up to 300 mV (IEC 60601-2-25)."""
    largest = np.maximum(signal_mv.max(axis=1), -signal_mv.min(axis=1))
    if has_offset and not largest.max() <= MAX_AMPLITUDE_MV:
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the largest that there are
            largest = np.abs(signal_mv - np.median(signal_mv, axis=1, keepdims=True)).max(axis=1)
    if not largest.max() <= MAX_AMPLITUDE_MV:  # so NaN is refused as well
        row = int(largest.argmax())
        beside = " from its median" if has_offset else ""
        raise RecordError(
            "amplitude_too_large",
            f"lead {names[row]} reaches {largest[row]:.4g} mV{beside}, above {MAX_AMPLITUDE_MV:g} mV",
            hint="check the unit and the gain in the header",
        )


def _check_nothing_vanished(signal_uv: Int16[np.ndarray, "lead sample"], names: tuple[str, ...]) -> None:
    """Raise RecordError `flat_lead` for a recorded lead of zeros: whoever reads it would take it for an absent one."""
    gone = np.flatnonzero(~signal_uv.any(axis=1)).tolist()
    if gone:
        leads = ", ".join(names[row] for row in gone)
        raise RecordError(
            "flat_lead",
            f"nothing reaches a microvolt in {leads}",
            hint="check the unit and the gain; leave out a lead that was not recorded",
        )
