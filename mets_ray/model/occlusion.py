"""Which leads and which seconds of an ECG carry a class: parts are taken away, and its similarity falls, or does not.

Occlusion (Zeiler & Fergus, ECCV 2014, doi:10.1007/978-3-319-10590-1_53) needs nothing but forward passes, so whatever
computes the encoder computes it. A lead is taken away as one that was not recorded, zero in all samples. Of a part of a
lead, the lead's median takes the place, which is about its base line: a beat goes, and no step comes.

Leads repeat each other: without aVF, II and III still say all that it said, and nothing falls. So each lead is also
taken away together with those that look at the same wall of the heart, and the mean of both falls counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16

from mets_ray.ecg.lead_sets import TERRITORIES

STEP_S = 0.5
"""Length of a segment, the time resolution of an explanation: about a beat."""

MOST_SEGMENTS = 20
"""Longer windows than 10 s have longer segments, so that the number of forward passes is bounded."""

_FADE_S = 0.06  # from the signal to the base line: within it, an occluded part and the next one share the signal


class Drops(NamedTuple):
    """How far each class's cosine similarity falls without a part; below 0 it rises.

    `similarity`: of the whole window. `leads`: without a whole lead, and without its territory: the mean of both.
    `segments`: without all leads for a segment. `cells`: as `leads`, for a segment.
    """

    similarity: Float32[np.ndarray, " class"]
    leads: Float32[np.ndarray, "class lead"]
    segments: Float32[np.ndarray, "class segment"]
    cells: Float32[np.ndarray, "class lead segment"]


@dataclass(frozen=True)
class Parts:
    """What is taken away from a window, one after the other.

    `rows`: of the leads that were recorded. `groups`: rows that are taken away together: each lead alone, in the order
    of `rows`, and then the territories of which at least two leads were recorded.
    """

    rows: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    segments: int
    step_s: float
    sampling_rate_hz: int

    @classmethod
    def of(cls, window_uv: Int16[np.ndarray, "lead sample"], leads: Sequence[str], sampling_rate_hz: int) -> "Parts":
        """The parts of one window as the encoder takes it. leads: its names. One of zeros was not recorded: no part."""
        rows = tuple(np.flatnonzero(window_uv.any(axis=1)).tolist())
        territories = (tuple(row for row in rows if leads[row] in members) for members in TERRITORIES.values())
        groups = (*((row,) for row in rows), *(group for group in territories if len(group) > 1))
        duration_s = window_uv.shape[1] / sampling_rate_hz
        segments = min(MOST_SEGMENTS, max(1, round(duration_s / STEP_S)))
        return cls(rows, groups, segments, duration_s / segments, sampling_rate_hz)

    @property
    def windows(self) -> int:
        """How many windows are encoded: the whole one, and without each group, each segment, and each of both."""
        return 1 + len(self.groups) + self.segments + len(self.groups) * self.segments

    def without(self, window_uv: Int16[np.ndarray, "lead sample"]) -> Int16[np.ndarray, "window lead sample"]:
        """The whole window, then without each group, without each segment, and without each group in each segment."""
        groups = len(self.groups)
        found = np.repeat(window_uv[None], self.windows, axis=0)
        for place, group in enumerate(self.groups):
            found[1 + place, list(group)] = 0
        base_uv = np.median(window_uv, axis=1, keepdims=True)
        cells = found[1 + groups + self.segments :].reshape(groups, self.segments, *window_uv.shape)
        for segment, weight in enumerate(self._weights(window_uv.shape[1])):
            blank = np.rint(window_uv + weight * (base_uv - window_uv)).astype(np.int16)
            found[1 + groups + segment] = blank
            for place, group in enumerate(self.groups):
                cells[place, segment, list(group)] = blank[list(group)]
        return found

    def drops(
        self, embeddings: Float32[np.ndarray, "window dimension"], vectors: Float32[np.ndarray, "class dimension"]
    ) -> Drops:
        """embeddings: unit vectors of `without`'s windows, in its order. vectors: of the classes, unit vectors too."""
        groups = len(self.groups)
        similarity = (embeddings @ vectors.T).astype(np.float32)
        fallen = (similarity[0] - similarity[1:]).T
        of_groups, of_segments, of_cells = np.split(fallen, [groups, groups + self.segments], axis=1)
        return Drops(
            similarity[0],
            self._by_lead(of_groups),
            of_segments,
            self._by_lead(of_cells.reshape(len(vectors), groups, self.segments)),
        )

    def _by_lead(
        self, of_groups: Float32[np.ndarray, "class group *segment"]
    ) -> Float32[np.ndarray, "class lead *segment"]:
        """The mean of the groups that each lead is in: itself, and its territory if that is one."""
        means = [of_groups[:, [row in group for group in self.groups]].mean(axis=1) for row in self.rows]
        return np.stack(means, axis=1)

    def _weights(self, samples: int) -> Float32[np.ndarray, "segment sample"]:
        """How much of each sample is taken away with each segment; over all segments the weights of a sample are 1."""
        at_s = (np.arange(samples) + 0.5) / self.sampling_rate_hz
        bounds_s = self.step_s * np.arange(1, self.segments)[:, None]
        before = np.clip((at_s - bounds_s) / _FADE_S + 0.5, 0.0, 1.0)  # from 0 to 1 around each inner bound
        begun = np.vstack([np.ones((1, samples)), before, np.zeros((1, samples))])
        return (begun[:-1] - begun[1:]).astype(np.float32)
