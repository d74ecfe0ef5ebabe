"""Whether the ECGs of recent requests look like those that the bundle was made with, without keeping any of them.

A replica keeps the features of `signal_features` and the embedding of each ECG, for the last `RECENT` of them. Signals
wait here for the next measurement, a few seconds, and no more than `_WAITING` of them: what arrives faster is a sample.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16

from mets_ray.ecg.signal_features import feature_names, signal_features
from mets_ray.errors import MetsError
from mets_ray.metrics.input_drift import InputCounts, find_drift
from mets_ray.metrics.input_reference import InputReference
from mets_ray.model.predictor import Predictor

RECENT = 1000
"""ECGs that are compared: the first window of each recording."""

_WAITING = 64


@dataclass(frozen=True)
class RecentDrift:
    """`compared` ECGs, and of each feature, and of the embeddings, the distance over its threshold: above 1 they have
    drifted. Empty while there are too few ECGs."""

    compared: int
    ratios: Mapping[str, float]


class RecentInputs:
    """`observe` is called on the event loop, once for each ECG; `measure` by one thread at a time."""

    def __init__(self, predictor: Predictor, reference: InputReference) -> None:
        self._reference, self._signal = reference, predictor.signal
        self._names = feature_names(self._signal.leads)
        self._waiting: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_WAITING)
        self._features: deque[np.ndarray] = deque(maxlen=RECENT)
        self._embeddings: deque[np.ndarray] = deque(maxlen=RECENT)

    @classmethod
    def of(cls, predictor: Predictor) -> "RecentInputs | None":
        """For the reference of the predictor's bundle; None without one."""
        file = predictor.bundle.reference
        return None if file is None else cls(predictor, file.reference)

    def observe(
        self, signal_uv: Int16[np.ndarray, "lead sample"], embedding: Float32[np.ndarray, " dimension"]
    ) -> None:
        """Remember an ECG until the next measurement."""
        self._waiting.append((signal_uv.copy(), embedding.copy()))  # both are views of a whole recording's

    def measure(self) -> RecentDrift:
        """Measure what has arrived, forget its signals, and compare the recent ECGs."""
        arrived = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if arrived:
            signals_uv = np.stack([signal_uv for signal_uv, _ in arrived])
            self._features.extend(signal_features(signals_uv, self._signal.leads, self._signal.sampling_rate_hz))
            self._embeddings.extend(embedding for _, embedding in arrived)
        compared = len(self._features)
        if not compared:
            return RecentDrift(0, {})
        # Who the patients are is not known here: each request counts as one.
        counts = InputCounts.of(
            self._reference, self._names, np.stack(self._features), np.stack(self._embeddings), np.arange(compared)
        )
        try:
            drift = find_drift(self._reference, counts)
        except MetsError:  # too few
            return RecentDrift(compared, {})
        return RecentDrift(compared, {one.name: one.ratio for one in drift.distances})
