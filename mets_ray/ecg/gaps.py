"""Stretches of a recording in which a lead has no samples: NaN, between segments or where a monitor lost a lead."""

from dataclasses import replace

import numpy as np

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.leads import standard_lead
from mets_ray.ecg.preprocess import SignalConfig, samples_in
from mets_ray.errors import RecordError


def behind_gaps(ecg: Ecg, config: SignalConfig) -> Ecg:
    """The first stretch of `ecg` in which no lead of the twelve has a gap and that lasts `config.duration_s`.

    `ecg` itself where its beginning is one, or where it is no longer than one. Raises RecordError `non_finite` where a
    longer recording has no such stretch.
    """
    needed = samples_in(config.duration_s, ecg.sampling_rate_hz)
    rows = [row for row, lead in enumerate(ecg.leads) if standard_lead(lead) in LEADS]
    if ecg.signal_mv.shape[1] <= needed or not rows or np.isfinite(ecg.signal_mv[rows, :needed]).all():
        return ecg
    is_whole = np.isfinite(ecg.signal_mv[rows]).all(axis=0)
    edges = np.flatnonzero(np.diff(is_whole, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    long_enough = np.flatnonzero(ends - starts >= needed)
    if not len(long_enough):
        raise RecordError("non_finite", f"there is no stretch of {config.duration_s:g} s without a gap in a lead")
    first = int(long_enough[0])
    return replace(ecg, signal_mv=ecg.signal_mv[:, starts[first] : ends[first]])
