"""Augmented views of an ECG that its report still describes: fewer leads, a stretch of it, another gain.

The view of an ECG depends only on (seed, epoch, step, row in the global batch). It does not depend on the number of
workers or the split of the batch, and a resumed run reproduces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from mets_ray.config.settings import AugmentConfig
from mets_ray.ecg.lead_sets import fewer_leads, lead_mask

# The shortest crop still has some beats at any heart rate, and the gain must not turn a high voltage into a low one.
SHORTEST_STRETCH = 0.25
GAIN_LIMITS = (0.7, 1.3)


@dataclass(frozen=True)
class BatchPlace:
    """A global batch of a run: its epoch and step, and its number of rows over all workers."""

    seed: int
    epoch: int
    step: int
    rows: int


@dataclass(frozen=True)
class Views:
    """Multipliers for each row of a batch: `gain` (0 for a dropped lead) from sample `start` to `stop`, 0 outside."""

    gain: Float32[np.ndarray, "row lead"]
    start: Int64[np.ndarray, "row"]
    stop: Int64[np.ndarray, "row"]

    @property
    def kept(self) -> Bool[np.ndarray, "row lead"]:
        """Which leads a row has left."""
        return self.gain > 0


def draw_views(
    settings: AugmentConfig, batch: BatchPlace, rows: range, *, leads: Sequence[str], samples: int
) -> Views | None:
    """One random view for each of the consecutive `rows` of a global batch; None if augmentation is off.

    leads: the name of each lead of a row.
    """
    if not (settings.lead_dropout or settings.cropping or settings.gain):
        return None
    random = np.random.default_rng([batch.seed, batch.epoch, batch.step])
    # All random numbers are generated regardless of settings and rows, so that turning off one augmentation does not
    # change the others, and all workers take their rows from the same random numbers.
    own = slice(rows.start, rows.stop)
    loses_leads, is_cropped, of_count, of_length, of_start = random.random((5, batch.rows))[:, own]
    order = random.random((batch.rows, len(leads)))[own].argsort(axis=1)
    normal = random.standard_normal(batch.rows)[own]
    is_usual, of_set = random.random((2, batch.rows))[:, own]  # last: they came later, and the others stay as they were

    kept = order <= (of_count * len(leads)).astype(np.int64)[:, None]  # `order`: a permutation of the leads per row
    if sets := [lead_mask(members, leads) for members in fewer_leads(leads).values()]:
        usual = np.stack(sets)[(of_set * len(sets)).astype(np.int64)]
        kept = np.where((is_usual < settings.usual_leads)[:, None], usual, kept)
    kept |= (loses_leads >= settings.lead_dropout)[:, None]
    scale = np.clip(1.0 + settings.gain * normal, *GAIN_LIMITS)
    length = (samples * (SHORTEST_STRETCH + (1.0 - SHORTEST_STRETCH) * of_length)).astype(np.int64)
    length[is_cropped >= settings.cropping] = samples
    start = (of_start * (samples - length + 1)).astype(np.int64)
    return Views((scale[:, None] * kept).astype(np.float32), start, start + length)


def augmented(signal_mv: Float[Tensor, "row lead sample"], views: Views | None) -> Float[Tensor, "row lead sample"]:
    """Apply the views. Removed parts are zero, as are leads that a device did not record."""
    if views is None:
        return signal_mv
    device = signal_mv.device
    gain, start, stop = (torch.from_numpy(part).to(device) for part in (views.gain, views.start, views.stop))
    sample = torch.arange(signal_mv.shape[-1], device=device)
    inside = (sample >= start[:, None]) & (sample < stop[:, None])
    return (signal_mv * gain.to(signal_mv.dtype)[:, :, None]).mul_(inside[:, None])
