"""Views of an ECG that its report still fits: fewer leads, a stretch of it, another gain.

What an ECG loses follows from (seed, epoch, step, its row in the global batch): no number of workers, no part of a
batch and no resumed run changes it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mets_ray.config.settings import AugmentConfig

# Of ECGs that lose a stretch or are scaled: what is left holds some beats at any rate of rhythm, and a gain must not
# make a low voltage of a high one.
SHORTEST_STRETCH = 0.25
GAIN_LIMITS = (0.7, 1.3)


@dataclass(frozen=True)
class BatchPlace:
    """A global batch of a run: the step that it is of, and its rows over all workers."""

    seed: int
    epoch: int
    step: int
    rows: int


@dataclass(frozen=True)
class Views:
    """What each row of a batch is multiplied with: `gain`, 0 for a lead that is taken away, between start and stop."""

    gain: Float32[np.ndarray, "row lead"]
    start: Int64[np.ndarray, "row"]
    stop: Int64[np.ndarray, "row"]


def draw_views(settings: AugmentConfig, batch: BatchPlace, rows: range, *, leads: int, samples: int) -> Views | None:
    """One view of each of some consecutive `rows` of a global batch; None where nothing is to change."""
    if not (settings.lead_dropout or settings.cropping or settings.gain):
        return None
    random = np.random.default_rng([batch.seed, batch.epoch, batch.step])
    # All numbers are drawn, whatever the settings and the rows, so that each part can be left out without changing the
    # others, and each worker sees its rows of one and the same draw.
    own = slice(rows.start, rows.stop)
    loses_leads, is_cropped, of_count, of_length, of_start = random.random((5, batch.rows))[:, own]
    order = random.random((batch.rows, leads))[own].argsort(axis=1)
    normal = random.standard_normal(batch.rows)[own]

    kept = order <= (of_count * leads).astype(np.int64)[:, None]  # of each row's permutation of 0 .. leads - 1
    kept |= (loses_leads >= settings.lead_dropout)[:, None]
    scale = np.clip(1.0 + settings.gain * normal, *GAIN_LIMITS)
    length = (samples * (SHORTEST_STRETCH + (1.0 - SHORTEST_STRETCH) * of_length)).astype(np.int64)
    length[is_cropped >= settings.cropping] = samples
    start = (of_start * (samples - length + 1)).astype(np.int64)
    return Views((scale[:, None] * kept).astype(np.float32), start, start + length)


def augmented(signal_mv: Float[Tensor, "row lead sample"], views: Views | None) -> Float[Tensor, "row lead sample"]:
    """The views: what was taken away is zero, as it is for leads that a device never had."""
    if views is None:
        return signal_mv
    device = signal_mv.device
    gain, start, stop = (torch.from_numpy(part).to(device) for part in (views.gain, views.start, views.stop))
    sample = torch.arange(signal_mv.shape[-1], device=device)
    inside = (sample >= start[:, None]) & (sample < stop[:, None])
    return (signal_mv * gain.to(signal_mv.dtype)[:, :, None]).mul_(inside[:, None])
