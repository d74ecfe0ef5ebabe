"""Cuts a recording of any length into windows of the model's length, and averages the windows' embeddings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int16

from mets_ray.ecg.derived_leads import derivation
from mets_ray.ecg.ecg import FRANK_LEADS, Ecg, check_sampling_rate
from mets_ray.ecg.lead_sets import missing_leads, with_absent_leads
from mets_ray.ecg.leads import standard_lead
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.errors import RecordError
from mets_ray.model.lead_quality import LeadSetQuality, remark

# A recording up to 5% longer than the model's window is one window; its end is ignored.
_TOLERATED_SHARE = 0.05
_LOW_AMPLITUDE_MV = 0.1


@dataclass(frozen=True)
class Windows:
    """An ECG cut to the model's length: `signal_uv` int16 µV [window, lead, sample].

    `start_s`: where in the recording the first of them begins; above 0 if those before cannot be used. `of`: how many
    windows the recording has, usable or not. `warnings` are (reason, message) pairs that a reader of the scores should
    know about.
    """

    signal_uv: Int16[np.ndarray, "window lead sample"]
    warnings: tuple[tuple[str, str], ...]
    start_s: float = 0.0
    of: int = 1

    @property
    def lack_leads(self) -> bool:
        """Whether the ECG lacks leads, which are zeros here."""
        return any(reason == "leads_missing" for reason, _ in self.warnings)


def cut_windows(ecg: Ecg, signal: SignalConfig, lead_sets: Mapping[str, LeadSetQuality] | None = None) -> Windows:
    """The windows that represent `ecg`, evenly spaced from start to end.

    Each window is preprocessed as a separate ECG, as in training. An unusable window is skipped with a warning if
    another one is usable. lead_sets: see `with_any_leads`. Raises RecordError with a reason of `preprocess.REASONS`.
    """
    rate = ecg.sampling_rate_hz
    check_sampling_rate(rate)
    ecg, about_leads = with_any_leads(ecg, signal, lead_sets)
    warnings = [*remarks(ecg, signal), *about_leads]
    length_s = ecg.signal_mv.shape[1] / rate
    excess_s = length_s - signal.duration_s
    count = 1 + max(0, math.ceil(excess_s / signal.duration_s - _TOLERATED_SHARE))
    usable, starts_s, refused = [], [], []
    for number, start_s in enumerate(np.linspace(0.0, excess_s, count) if count > 1 else (0.0,)):
        start = round(float(start_s) * rate) if count > 1 else 0
        try:
            usable.append(preprocess(replace(ecg, signal_mv=ecg.signal_mv[:, start:]), signal))
            starts_s.append(round(start / rate, 6))
        except RecordError as error:
            if count == 1:
                raise
            error.where = f"window {number + 1} of {count}, from {start_s:.1f} s"
            refused.append(error)
    if not usable:
        if len({error.reason for error in refused}) == 1:
            refused[0].where = ""  # the reason applies to the whole recording, not to one window
        raise refused[0]
    signal_uv = np.stack(usable)
    warnings += low_amplitude(largest_mv(signal_uv))
    warnings += [("window_left_out", f"{error.where}: {error.fact}") for error in refused]
    if len(usable) > 1:
        warnings.append(("windows_averaged", f"{length_s:.1f} s were scored as the average of {len(usable)} windows"))
    return Windows(signal_uv, tuple(warnings), starts_s[0], count)


def with_any_leads(
    ecg: Ecg, signal: SignalConfig, lead_sets: Mapping[str, LeadSetQuality] | None
) -> tuple[Ecg, list[tuple[str, str]]]:
    """`ecg` with its missing leads declared absent, and the warning that says what that costs.

    lead_sets: the measured quality by set of leads (`BundleFacts.lead_sets`) of a bundle that takes fewer leads; None
    for one that needs all: then no lead is absent, and `preprocess` refuses an ECG that lacks one.
    """
    if lead_sets is None:
        return replace(ecg, absent_leads=()), []
    missing = missing_leads(ecg, signal.leads)
    return with_absent_leads(ecg, signal.leads), [remark(missing, signal.leads, lead_sets)] if missing else []


def largest_mv(signal_uv: Int16[np.ndarray, "window lead sample"]) -> float:
    """The largest amplitude of a lead in a window, peak to peak."""
    return float((signal_uv.max(axis=2).astype(np.float64) - signal_uv.min(axis=2)).max()) / 1000


def low_amplitude(largest_mv: float) -> list[tuple[str, str]]:
    """The warning that a recording is too small to be an ECG in its unit; none for one that is not."""
    if largest_mv >= _LOW_AMPLITUDE_MV:
        return []
    return [("low_amplitude", f"no lead exceeds {largest_mv:.3g} mV peak to peak: check the unit")]


def remarks(ecg: Ecg, signal: SignalConfig) -> list[tuple[str, str]]:
    """Warnings about a recording as a whole, whatever its samples are."""
    remarks = []
    if ecg.sampling_rate_hz != signal.sampling_rate_hz:
        remarks.append(("resampled", f"{ecg.sampling_rate_hz:.10g} Hz was resampled to {signal.sampling_rate_hz} Hz"))
    unused = [lead for lead in ecg.leads if standard_lead(lead) not in signal.leads]
    if unused:
        kind = "Frank leads" if {lead.upper() for lead in unused} <= set(FRANK_LEADS) else "leads"
        remarks.append(("leads_unused", f"{kind} that the model does not use: {', '.join(unused)}"))
    if derived := derivation(ecg, signal.leads):
        remarks.append(("leads_derived", derived))
    if ecg.other_signals:
        remarks.append(("signals_unused", f"signals that are not ECG: {', '.join(ecg.other_signals)}"))
    return remarks


def mean_embedding(embeddings: Float32[np.ndarray, "window dimension"]) -> Float32[np.ndarray, " dimension"]:
    """The mean of a recording's window embeddings, scaled to unit length; a single window's embedding is unchanged."""
    mean: np.ndarray = embeddings.mean(axis=0, dtype=np.float64)
    if len(embeddings) > 1:
        mean /= np.linalg.norm(mean)
    return mean.astype(np.float32)
