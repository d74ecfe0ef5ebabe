"""What a replica computes, without Ray and HTTP: windows of an ECG, embeddings in batches, class vectors, scores."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal  # noqa: F401  for `preprocess`, which else loads it in the first request: a second
import torch
import torch.nn.functional as F
from cachetools import LRUCache
from jaxtyping import Float, Float16, Float32, Int16
from torch import Tensor

from mets_ray.ecg.ecg import FRANK_LEADS, Ecg, check_sampling_rate
from mets_ray.ecg.preprocess import preprocess
from mets_ray.errors import RecordError
from mets_ray.model.bundle import Bundle
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.model.zero_shot import class_embeddings, scores, similarities
from mets_ray.text.reports import text_id

# A recording a little longer than the model's window is one window; its last 5% are not looked at.
_TOLERATED_SHARE = 0.05

_LOW_AMPLITUDE_MV = 0.1

_CLASS_LISTS = 512


@dataclass(frozen=True)
class Windows:
    """An ECG cut to the model's length: `signal_uv` int16 [window, lead, sample]; warnings are (reason, message)."""

    signal_uv: Int16[np.ndarray, "window lead sample"]
    warnings: tuple[tuple[str, str], ...]


class Engine:
    """A loaded bundle on its device.

    device: a torch device. `embed_windows` may be called from several threads, all the rest from one.
    text_cache_texts: how many features of texts beside the bundle's own are kept.
    """

    def __init__(self, bundle: Bundle, *, device: str, text_cache_texts: int) -> None:
        self.facts = bundle.facts
        self.config = bundle.config
        self.model_version = f"{bundle.facts.run}#{bundle.facts.files['model.safetensors'][:8]}"
        self.device = torch.device(device)
        self._signal = bundle.facts.signal
        self._model = bundle.model.to(self.device).eval().requires_grad_(False)
        self._stored = dict(zip(bundle.prompts.ids.tolist(), bundle.prompts.vectors, strict=True))
        self._features = LRUCache[int, np.ndarray](text_cache_texts)
        self._class_vectors = LRUCache[tuple[tuple[str, ...], ...], Tensor](_CLASS_LISTS)

    def warm_up(self, batch_size: int) -> float:
        """One forward pass of the largest batch, so that the first request does not pay for it; answers its seconds."""
        shape = (batch_size, len(self._signal.leads), self._signal.num_samples)
        began = time.perf_counter()
        self.embed_windows(np.zeros(shape, dtype=np.int16))
        return time.perf_counter() - began

    def windows(self, ecg: Ecg) -> Windows:
        """The windows whose embeddings stand for `ecg`, evenly spread from its beginning to its end.

        Each window is preprocessed as an ECG of its own, so a window has what training saw. A window that cannot be
        used is left out with a warning as long as another one can. Raises RecordError with a reason of `ecg.REASONS`.
        """
        rate = ecg.sampling_rate_hz
        check_sampling_rate(rate)
        warnings = self._remarks(ecg)
        length_s = ecg.signal_mv.shape[1] / rate
        excess_s = length_s - self._signal.duration_s
        count = 1 + max(0, math.ceil(excess_s / self._signal.duration_s - _TOLERATED_SHARE))
        usable, refused = [], []
        for number, start_s in enumerate(np.linspace(0.0, excess_s, count) if count > 1 else (0.0,)):
            start = round(float(start_s) * rate) if count > 1 else 0
            try:
                usable.append(preprocess(Ecg(ecg.signal_mv[:, start:], ecg.leads, rate), self._signal))
            except RecordError as error:
                if count == 1:
                    raise
                error.where = f"window {number + 1} of {count}, from {start_s:.1f} s"
                refused.append(error)
        if not usable:
            if len({error.reason for error in refused}) == 1:
                refused[0].where = ""  # it is the recording's fault, not that window's
            raise refused[0]
        signal_uv = np.stack(usable)
        largest_mv = float((signal_uv.max(axis=2).astype(np.float64) - signal_uv.min(axis=2)).max()) / 1000
        if largest_mv < _LOW_AMPLITUDE_MV:
            words = f"no lead spans more than {largest_mv:.3g} mV from peak to peak: check the unit"
            warnings.append(("low_amplitude", words))
        warnings += [("window_left_out", f"{error.where}: {error.fact}") for error in refused]
        if len(usable) > 1:
            warnings.append(("windows_averaged", f"{length_s:.1f} s were seen as {len(usable)} windows"))
        return Windows(signal_uv, tuple(warnings))

    def _remarks(self, ecg: Ecg) -> list[tuple[str, str]]:
        remarks = []
        if ecg.sampling_rate_hz != self._signal.sampling_rate_hz:
            remarks.append(
                ("resampled", f"{ecg.sampling_rate_hz:g} Hz was resampled to {self._signal.sampling_rate_hz} Hz")
            )
        known = {lead.upper() for lead in self._signal.leads}
        unused = [lead for lead in ecg.leads if lead.strip().upper() not in known]
        if unused:
            kind = "Frank leads" if {lead.upper() for lead in unused} <= set(FRANK_LEADS) else "leads"
            remarks.append(("leads_unused", f"{kind} that the model does not use: {', '.join(unused)}"))
        return remarks

    @torch.inference_mode()
    def embed_windows(
        self, signal_uv: Int16[np.ndarray, "window lead sample"]
    ) -> Float32[np.ndarray, "window dimension"]:
        """Unit vectors of windows, in one forward pass."""
        embedding: np.ndarray = (
            self._model.embed_ecg(microvolts_to_millivolts(signal_uv, self._model)).float().cpu().numpy()
        )
        return embedding

    def missing_texts(self, texts: Sequence[str]) -> list[str]:
        """Distinct texts whose LM features are neither in the bundle nor kept here."""
        return [
            text
            for text in dict.fromkeys(texts)
            if text_id(text) not in self._stored and text_id(text) not in self._features
        ]

    def keep_features(self, texts: Sequence[str], features: Float16[np.ndarray, "text feature"]) -> None:
        """Keep what the LM said, so that it is not asked again; the longest unused go first."""
        for text, vector in zip(texts, features, strict=True):
            self._features[text_id(text)] = vector

    def features(self, texts: Sequence[str]) -> Float16[np.ndarray, "text feature"]:
        """Kept or stored LM features. Raises KeyError for a text of `missing_texts`."""
        return np.stack([self._feature(text) for text in texts])

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dimension"]:
        """Unit vectors of texts whose features are known. Raises KeyError for a text of `missing_texts`."""
        return self._embed_features(texts).float().cpu().numpy()

    def class_vectors(self, classes: Mapping[str, tuple[str, ...]]) -> Float[Tensor, "class dimension"] | None:
        """One unit vector per class from its wordings, or None where the LM must be asked first."""
        key = tuple(classes.values())
        kept = self._class_vectors.get(key)
        if kept is None:
            if self.missing_texts([text for wordings in key for text in wordings]):
                return None
            with torch.inference_mode():
                wordings = self._embed_features([text for of_class in key for text in of_class])
                kept = class_embeddings(list(wordings.split([len(of_class) for of_class in key]))).float().cpu()
            self._class_vectors[key] = kept
        return kept

    @torch.inference_mode()
    def score(
        self,
        embedding: Float32[np.ndarray, "window dimension"],
        class_vectors: Float[Tensor, "class dimension"],
        *,
        multi_label: bool,
    ) -> tuple[list[float], list[float]]:
        """(scores, cosine similarities) per class, of the mean of an ECG's window embeddings.

        Softmax of the logits over the classes, or with `multi_label` the sigmoid of each logit. Not calibrated.
        """
        similarity = similarities(mean_embedding(embedding)[None], class_vectors)
        logit_scale = float(self._model.logit_scale)
        score = (
            (logit_scale * similarity + float(self._model.logit_bias)).sigmoid()
            if multi_label
            else scores(similarity, logit_scale)
        )
        return score[0].tolist(), similarity[0].tolist()

    def _embed_features(self, texts: Sequence[str]) -> Float[Tensor, "text dimension"]:
        return self._model.embed_prompt(torch.from_numpy(self.features(texts)).to(self.device))

    def _feature(self, text: str) -> np.ndarray:
        stored = self._stored.get(text_id(text))
        return stored if stored is not None else self._features[text_id(text)]


def mean_embedding(embedding: Float32[np.ndarray, "window dimension"]) -> Float32[Tensor, " dimension"]:
    """The unit vector in the direction of the mean of an ECG's windows."""
    return F.normalize(torch.from_numpy(embedding).mean(dim=0), dim=0)
