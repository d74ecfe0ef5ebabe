"""Views of an ECG that its report still fits: fewer leads, a stretch of it, another gain, fewer features.

What an ECG loses in an epoch follows from (seed, epoch, record id) alone, so neither workers, batches nor a resumed run
change it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mets_ray.config import AugmentConfig
from mets_ray.report import text_id

# Of ECGs that lose a stretch or are scaled: what is left holds some beats at any rate of rhythm, and a gain must not
# make a low voltage of a high one.
SHORTEST_STRETCH = 0.25
GAIN_LIMITS = (0.7, 1.3)


@dataclass(frozen=True)
class Views:
    """What each row of a batch is multiplied with: its signal with `gain`, 0 for a lead that is taken away, between
    start and stop; its features with `feature_gain`, 0 for one that is dropped and 1 / share kept for others, or None.
    """

    gain: Float32[np.ndarray, "row lead"]
    start: Int64[np.ndarray, "row"]
    stop: Int64[np.ndarray, "row"]
    feature_gain: Float32[np.ndarray, "row feature"] | None


def draw_views(
    settings: AugmentConfig, record_ids: np.ndarray, *, leads: int, samples: int, features: int, seed: int, epoch: int
) -> Views | None:
    """One view of each record in this epoch; None where nothing is to be changed."""
    if not (settings.lead_dropout or settings.cropping or settings.gain or settings.feature_dropout):
        return None
    kept_share = 1.0 - settings.feature_dropout
    feature_gain = np.zeros((len(record_ids), features), dtype=np.float32) if settings.feature_dropout else None
    gain = np.ones((len(record_ids), leads), dtype=np.float32)
    start, stop = np.zeros(len(record_ids), dtype=np.int64), np.full(len(record_ids), samples, dtype=np.int64)
    lowest, highest = GAIN_LIMITS
    for row, record_id in enumerate(record_ids):
        random = np.random.default_rng([seed, epoch, text_id(str(record_id)) % 2**63])
        # All numbers are drawn, whatever the settings, so that each part can be left out without changing the others.
        scale = min(max(1.0 + settings.gain * random.standard_normal(), lowest), highest)  # np.clip: 5 us of 40
        loses_leads, is_cropped = random.random(2) < (settings.lead_dropout, settings.cropping)
        kept = random.permutation(leads)[: random.integers(1, leads + 1)]
        length = int(samples * random.uniform(SHORTEST_STRETCH, 1.0))
        first = int(random.integers(0, samples - length + 1))
        if loses_leads:
            gain[row] = 0.0
            gain[row, kept] = 1.0
        gain[row] *= scale
        if is_cropped:
            start[row], stop[row] = first, first + length
        if feature_gain is not None:
            # Not torch's dropout: its masks depend on how rows are dealt to workers and parts.
            feature_gain[row, random.random(features) < kept_share] = 1.0 / kept_share
    return Views(gain, start, stop, feature_gain)


def augmented(signal_mv: Float[Tensor, "row lead sample"], views: Views | None) -> Float[Tensor, "row lead sample"]:
    """The views: what was taken away is zero, as it is for leads that a device never had."""
    if views is None:
        return signal_mv
    device = signal_mv.device
    gain, start, stop = (torch.from_numpy(part).to(device) for part in (views.gain, views.start, views.stop))
    sample = torch.arange(signal_mv.shape[-1], device=device)
    inside = (sample >= start[:, None]) & (sample < stop[:, None])
    return signal_mv * gain.to(signal_mv.dtype)[:, :, None] * inside[:, None]


def feature_gain(views: Views | None, device: torch.device) -> Float[Tensor, "row feature"] | None:
    """`Views.feature_gain` on the device of the features."""
    return torch.from_numpy(views.feature_gain).to(device) if views and views.feature_gain is not None else None
