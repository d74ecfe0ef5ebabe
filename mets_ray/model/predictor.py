"""A loaded bundle that scores ECGs against classes described in words. Independent of Ray and HTTP."""

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from cachetools import LRUCache
from jaxtyping import Float, Float16, Float32, Int16
from torch import Tensor

from mets_ray.config.kinds import EncoderRuntime
from mets_ray.ecg.ecg import Ecg, check_sampling_rate
from mets_ray.ecg.preprocess import SignalConfig, check_leads, preprocess
from mets_ray.ecg.timeline import part_from, window_starts
from mets_ray.errors import ConfigError, RecordError
from mets_ray.metrics.levels import Levels
from mets_ray.model.bundle import Bundle, BundleFacts, check_text_model, load_bundle, untrained_model, with_calibrations
from mets_ray.model.calibrated_classes import (
    LEADS_MISSING,
    OVER_TIME,
    PLAIN_LABELS,
    SEVERAL_WINDOWS,
    CalibratedClasses,
    Judged,
    uncalibrated,
)
from mets_ray.model.calibrations import NO_CALIBRATIONS, Reason
from mets_ray.model.ecg_encoder import EcgEncoder
from mets_ray.model.ecg_runtime import ROWS_AT_ONCE, RuntimeEncoder, choose_runtime
from mets_ray.model.explain import Explanation, StatementSpace, choose_classes, explain, one_window
from mets_ray.model.heads import NO_HEADS, HeadFacts, require_head, with_own_model
from mets_ray.model.lead_quality import NEEDS_EVERY_LEAD, LeadSetQuality
from mets_ray.model.mets import Mets, microvolts_to_millivolts
from mets_ray.model.occlusion import Parts
from mets_ray.model.windows import Windows, cut_windows, mean_embedding, with_any_leads
from mets_ray.model.zero_shot import class_embeddings, scores, similarities, wording_vectors
from mets_ray.tasks.class_warnings import softmax_warnings, verbatim_warnings, wording_warnings
from mets_ray.tasks.prompt_files import is_prompt_file, read_prompt_set
from mets_ray.tasks.questions import label_classes, prompt_classes
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import text_id

_CLASS_VECTOR_BYTES = 64 * 2**20  # with the texts that they are kept by, which take more than the vectors
_WINDOWS_AT_ONCE = 64
_CALIBRATED_LISTS = 64
_OBJECT_BYTES = 1024  # of each kept list beside these


class ScoredClass(NamedTuple):
    """One class of an ECG's scores: `score` in [0, 1], not calibrated, and the cosine `similarity` behind it.

    Where the bundle has a calibration for the prompt set and its version: the `probability` with its 95 % interval, and
    whether the class is `present`, which is whether the probability reaches `threshold`. Elsewhere these are None, and
    `not_calibrated` says why.

    `z_score`: the similarity in standard deviations above its mean over the ECGs of the bundle's reference. It can be
    compared between classes, which cosines cannot. None where the bundle has no reference, for a recording of several
    windows, for an ECG that lacks leads, and over time.
    """

    class_name: str
    score: float
    similarity: float
    probability: float | None = None
    probability_interval: tuple[float, float] | None = None
    present: bool | None = None
    threshold: float | None = None
    not_calibrated: str | None = None
    z_score: float | None = None


class PredictedClass(NamedTuple):
    """One class of a head: `score` in [0, 1], the sigmoid of `logit`, for each class alone and not calibrated."""

    class_name: str
    score: float
    logit: float


class ScoredWindow(NamedTuple):
    """A window of a long recording: the classes in the order in which they were given, or why it was left out."""

    start_s: float
    end_s: float
    classes: tuple[ScoredClass, ...]
    left_out: RecordError | None = None


class Encoded(NamedTuple):
    """Encoded windows: `features` before the projection, `embeddings` (unit vectors) after it."""

    embeddings: Float32[np.ndarray, "window dimension"]
    features: Float32[np.ndarray, "window feature"]


class _Kept(NamedTuple):
    vectors: Tensor
    size_bytes: int


class _Chosen(NamedTuple):
    """Classes, and the prompt set that they are of: `set:task` and its version; None for labels of one's own."""

    classes: dict[str, tuple[str, ...]]
    name: str | None = None
    version: int = 0


def load_predictor(
    bundle_uri: str,
    *,
    device: str = "cpu",
    encoder_runtime: EncoderRuntime = "auto",
    calibration_uri: str | None = None,
) -> "Predictor":
    """Fetch a bundle from any storage and load it onto a torch device (`cpu`, `cuda`).

    bundle_uri: a path or URI, the name of a packaged bundle (`ptbxl-demo`), or `hf://user/name@COMMIT`.
    encoder_runtime: what computes the ECG encoder on a CPU: `torch`, `onnxruntime`, `openvino`, or `auto` for the
    fastest that is installed (`pip install 'mets-ray[fast]'`). Their values agree to 1e-5. `openvino_bf16` is several
    times faster on CPUs with bfloat16 (AMX); its similarities agree to 0.01.
    calibration_uri: a calibration that `evaluate` wrote, or a folder of them; default: those in the bundle's folder.

    Raises CheckpointError if `bundle_uri` holds no complete bundle of this schema or cannot be fetched, or
    `calibration_uri` no calibration of this bundle; ConfigError if the runtime is not installed.
    """
    bundle = with_calibrations(load_bundle(bundle_uri), calibration_uri)
    return Predictor(bundle, device=device, encoder_runtime=encoder_runtime)


def load_text_encoder(facts: BundleFacts, *, model: str | None = None, device: str = "cpu") -> FrozenTextEncoder:
    """The frozen LM that a bundle was trained with. model: a folder or hub id of its weights; default: as in training.

    Raises ConfigError if it is not found, CheckpointError if its fingerprint differs from the bundle's.
    """
    encoder = FrozenTextEncoder(
        model or facts.text_model,
        revision=facts.text_revision if model in (None, facts.text_model) else None,
        pooling=facts.text_pooling,  # type: ignore[arg-type]
        max_length=facts.text_max_length,
        device=device,
    )
    check_text_model(facts, encoder.fingerprint)
    return encoder


class Predictor:
    """A loaded bundle on its device.

    `zero_shot` and `embed` are for interactive use; serving, evaluation and scoring use the other methods on batches.
    `embed_windows` and `encode` may be called from several threads, all other methods from one only.

    device: a torch device. text_cache_texts: how many text features are cached in addition to the bundle's own.
    encoder_runtime: see `load_predictor`; on a GPU, and for weights that are not float32, torch computes whatever is
    given. Raises ConfigError if it is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        text_cache_texts: int = 100_000,
        encoder_runtime: EncoderRuntime = "auto",
    ) -> None:
        self.bundle = bundle
        self.device = torch.device(device)
        self._model = bundle.model.to(self.device).eval().requires_grad_(False)
        runtime = choose_runtime(encoder_runtime)
        self._ecg_encoder: EcgEncoder | RuntimeEncoder = self._model.ecg_encoder
        self.encoder_runtime: EncoderRuntime = "torch"
        if self.device.type == "cpu" and next(self._model.parameters()).dtype == torch.float32:
            self._ecg_encoder, self.encoder_runtime = RuntimeEncoder(self._model.ecg_encoder, runtime), runtime
        self.logit_scale, self.logit_bias = float(self._model.logit_scale), float(self._model.logit_bias)
        self._stored = dict(zip(bundle.prompts.ids.tolist(), bundle.prompts.vectors, strict=True))
        self._features = LRUCache[int, np.ndarray](text_cache_texts)
        self._class_vectors = LRUCache[tuple[tuple[str, ...], ...], _Kept](
            _CLASS_VECTOR_BYTES, getsizeof=lambda kept: kept.size_bytes
        )
        self._calibrated = LRUCache[tuple[object, ...], CalibratedClasses](_CALIBRATED_LISTS)
        self._text_encoder: FrozenTextEncoder | None = None
        self._of_own_encoder = {
            name: self._with(with_own_model(bundle.model, head))
            for name, head in bundle.heads.items()
            if head.own_model
        }

    @property
    def facts(self) -> BundleFacts:
        """What the weights are, where they come from, and what they can be used with."""
        return self.bundle.facts

    @property
    def signal(self) -> SignalConfig:
        """Sampling rate, duration, leads and filter of the encoder's input; `windows` converts any ECG to it."""
        return self.bundle.facts.signal

    @property
    def template(self) -> str:
        """How the training texts stood: `{}` for statements, which stand alone, or the sentence around a report.

        Words in a sentence that no training text had lose ten points of AUROC: see "Words of one's own" in
        docs/findings.md.
        """
        text = self.bundle.config.text
        return "{}" if text.unit == "statement" else text.template

    @property
    def model_version(self) -> str:
        """The run and the first 8 digits of the digest of its manifest: of all facts, prompts and files."""
        return f"{self.facts.run}#{self.bundle.digest[:8]}"

    def zero_shot(
        self,
        ecg: Ecg,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        prompt_set: str | None = None,
        task: str | None = None,
        template: str | None = None,
        multi_label: bool = False,
    ) -> list[ScoredClass]:
        """How well each class fits an ECG, best first.

        ecg: any rate and length, in millivolts; a long recording is cut into windows and their embeddings are averaged.
        If the bundle takes fewer leads, any of them. `windows(ecg).warnings` says what was resampled, ignored, averaged
        or missing.
        labels: class names, which are also the wordings, or a mapping from class name to wordings. Abbreviations with
        one meaning (AF, LBBB) are spelt out, because the LM hardly knows them.
        prompt_set: instead of labels, a set of the bundle, a packaged one (`mets`, `descriptive`), or the URI of a
        YAML, JSON or CSV file. task: one of its tasks; it may be omitted if the set has only one.
        template: a sentence with one `{}` for the wordings of `labels`; default: see the property `template`.
        multi_label: score each class alone (sigmoid), for findings that can occur together; otherwise the scores of all
        classes sum to 1 (softmax), for classes of which one must be true. Probabilities do not depend on it.

        Texts without stored features load the frozen LM, once. Raises RecordError for an unusable ECG, ConfigError for
        invalid classes, CheckpointError if the LM found here is not the bundle's. A UserWarning says that an ECG is
        too small for its unit, that `labels` are not in English, that a prompt file has abbreviations, whose texts are
        taken as they stand, or that a single class has the softmax score 1 whatever the ECG.
        """
        chosen = self._classes(labels, prompt_set, task, template)
        windows = self.windows(ecg)
        about_words = _about_words(labels, prompt_set, chosen.classes)
        _warn([*windows.warnings, *about_words, *softmax_warnings(len(chosen.classes), multi_label=multi_label)])
        embedding = mean_embedding(self.embed_windows(windows.signal_uv))[None]
        vectors = self._learnt_vectors(chosen.classes)
        score, similarity = self.scores(embedding, vectors, multi_label=multi_label)
        calibrated = self.calibrated(*chosen, windows)
        of_class = zip(
            chosen.classes,
            score[0].tolist(),
            similarity[0].tolist(),
            calibrated.judge(similarity[0]),
            calibrated.faults,
            self.z_scores(vectors, similarity[0], windows),
            strict=True,
        )
        rows = [_scored_class(*row) for row in of_class]
        return sorted(rows, key=lambda row: -row.similarity)

    @property
    def heads(self) -> dict[str, HeadFacts]:
        """The bundle's heads by name: their classes, and what they learnt from."""
        return {name: head.facts for name, head in self.bundle.heads.items()}

    def predict(self, ecg: Ecg, *, head: str) -> list[PredictedClass]:
        """The scores of a head that `adapt` learnt from labels, best first; of a long recording the mean of its
        windows' logits.

        ecg: as for `zero_shot`. Raises RecordError for an unusable ECG, ConfigError for a name that no head has.
        """
        classes = require_head(self.bundle.heads, head).facts.classes
        logits = self.head_logits([head], self.windows(ecg).signal_uv)[head].mean(axis=0, dtype=np.float64)
        rows = zip(classes, sigmoid(logits).tolist(), logits.tolist(), strict=True)
        return sorted((PredictedClass(*row) for row in rows), key=lambda row: -row.logit)

    def timeline(
        self,
        ecg: Ecg,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        stride_s: float | None = None,
        prompt_set: str | None = None,
        task: str | None = None,
        template: str | None = None,
        multi_label: bool = False,
    ) -> Iterator[ScoredWindow]:
        """How well each class fits each window of a long recording, from its start to its end.

        stride_s: from one window's start to the next; default: a window's length. All else as for `zero_shot`. Windows
        are cut and encoded a few at a time. One that cannot be used is left out with its RecordError: a gap, a lead
        that is off. Raises as `zero_shot`, and RecordError `too_short` for a recording without one window.
        """
        classes = self._classes(labels, prompt_set, task, template).classes
        vectors = self._learnt_vectors(classes)
        ecg, _ = self.completed(ecg)
        stride_s = self.signal.duration_s if stride_s is None else stride_s
        if not stride_s * ecg.sampling_rate_hz >= 1:
            raise ConfigError(f"`stride_s` is {stride_s}", hint="use seconds, at least one sample of the ECG")
        starts_s = window_starts(ecg.signal_mv.shape[1], ecg.sampling_rate_hz, self.signal, stride_s)
        return self._scored_windows(ecg, starts_s, classes, vectors, multi_label)

    def explain(
        self,
        ecg: Ecg,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        prompt_set: str | None = None,
        task: str | None = None,
        template: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> Explanation:
        """Why classes have their similarity to an ECG of one window: training statements, leads and seconds.

        classes: the names of those to explain, at most 16; default: all. All else as for `zero_shot`. It takes up to
        336 forward passes of one window, whatever the number of classes; `windows_encoded` says how many.

        Raises as `zero_shot`; RecordError `several_windows` for a recording of more than one window, and ConfigError
        for too many or unknown `classes`.
        """
        chosen = self._classes(labels, prompt_set, task, template).classes
        names = choose_classes(classes, list(chosen))
        windows = self.windows(ecg)
        window_uv = one_window(windows.signal_uv, self.signal.duration_s)
        vectors = dict(zip(chosen, self._learnt_vectors(chosen).numpy(), strict=True))
        found = self.explain_window(window_uv, {name: vectors[name] for name in names})
        return replace(found, start_s=windows.start_s)

    def explain_window(
        self,
        window_uv: Int16[np.ndarray, "lead sample"],
        vectors: Mapping[str, Float32[np.ndarray, " dimension"]],
        focus: float | None = None,
    ) -> Explanation:
        """`explain` for a window that is the encoder's input.

        vectors: unit vectors of the classes by name. focus: see `EcgEncoder.forward`.
        """
        parts = Parts.of(window_uv, self.signal.leads, self.signal.sampling_rate_hz)
        embeddings = self.embed_windows(parts.without(window_uv), focus)
        return explain(parts, embeddings, vectors, self.statement_space, self.signal.leads)

    @cached_property
    def statement_space(self) -> StatementSpace:
        """The training statements that the bundle names, as unit vectors."""
        return StatementSpace(self.bundle)

    def embed(self, ecg: Ecg) -> Float32[np.ndarray, " dimension"]:
        """The unit vector of an ECG in the space that it shares with texts. Raises RecordError as `zero_shot`."""
        return mean_embedding(self.embed_windows(self.windows(ecg).signal_uv))

    def learn(self, texts: Sequence[str]) -> None:
        """Compute the missing features of `texts` with the frozen LM, which is loaded when first needed.

        Raises ConfigError and CheckpointError as `load_text_encoder`.
        """
        if missing := self.missing_texts(texts):
            if self._text_encoder is None:
                self._text_encoder = load_text_encoder(self.facts, device=str(self.device))
            self.keep_features(missing, self._text_encoder.embed(missing))

    def cache_bytes(self) -> dict[str, int]:
        """What each cache holds now, in bytes: the LM's features of texts, and vectors and texts of class lists."""
        return {
            "text_features": len(self._features) * self.facts.text_features * np.dtype(np.float16).itemsize,
            "class_vectors": int(self._class_vectors.currsize),
        }

    def untrained(self, seed: int) -> "Predictor":
        """The same predictor with random weights, as a baseline without training. It shares the text features."""
        other = self._with(untrained_model(self.bundle, seed))
        other._features = self._features
        return other

    def _with(self, model: Mets) -> "Predictor":
        """A predictor of the same kind with other weights, which the bundle's calibrations and heads are not for."""
        bundle = replace(self.bundle, model=model, calibrations=NO_CALIBRATIONS, heads=NO_HEADS)
        return Predictor(bundle, device=str(self.device), encoder_runtime=self.encoder_runtime)

    def warm_up(self, batch_size: int) -> float:
        """Encode batches of every size that the runtime tells apart, so that no request waits for what it prepares.

        What is prepared belongs to the calling thread. Returns the time in seconds.
        """
        import scipy.signal  # noqa: F401  `preprocess` would load it in the first request: a second

        began = time.perf_counter()
        zeros = np.zeros((batch_size, len(self.signal.leads), self.signal.num_samples), dtype=np.int16)
        for windows in range(min(batch_size, ROWS_AT_ONCE), 0, -1):
            self.embed_windows(zeros[:windows])
        return time.perf_counter() - began

    def windows(self, ecg: Ecg) -> Windows:
        """`windows.cut_windows` for this bundle's signal: the encoder's input for `ecg`, with warnings.

        Leads that `ecg` lacks are zeros with a warning `leads_missing` if the bundle takes fewer leads, else the ECG is
        refused. Raises RecordError as `cut_windows`, and TypeError for what is no Ecg.
        """
        if not isinstance(ecg, Ecg):
            raise TypeError(
                f"`ecg` is a {type(ecg).__name__}, not an Ecg: read a file with mets_ray.read_ecg(path) first"
            )
        try:
            return cut_windows(ecg, self.signal, self._lead_sets)
        except RecordError as error:
            raise self._with_remedy(error) from None

    def completed(self, ecg: Ecg) -> tuple[Ecg, list[tuple[str, str]]]:
        """`windows.with_any_leads` for this bundle: `ecg`, its missing leads declared absent, and the warning.

        Raises RecordError for leads and rates that make every window unusable, whatever its samples are.
        """
        check_sampling_rate(ecg.sampling_rate_hz)
        ecg, warnings = with_any_leads(ecg, self.signal, self._lead_sets)
        try:
            check_leads(ecg, self.signal)
        except RecordError as error:
            raise self._with_remedy(error) from None
        return ecg, warnings

    def _with_remedy(self, error: RecordError) -> RecordError:
        if error.reason == "missing_leads" and self._lead_sets is None:
            error.hint = NEEDS_EVERY_LEAD
        return error

    @property
    def _lead_sets(self) -> Mapping[str, LeadSetQuality] | None:
        return self.facts.lead_sets if self.bundle.takes_fewer_leads else None

    @torch.inference_mode()
    def embed_windows(
        self, signal_uv: Int16[np.ndarray, "window lead sample"], focus: float | None = None
    ) -> Float32[np.ndarray, "window dimension"]:
        """Unit vectors of windows, in one forward pass. focus: see `EcgEncoder.forward`."""
        return _array(self._model.project_ecg(self._features_of(signal_uv, focus)))

    @torch.inference_mode()
    def encode(self, signal_uv: Int16[np.ndarray, "window lead sample"], focus: float | None = None) -> Encoded:
        """`embed_windows`, and the encoder's features before the projection."""
        features = self._features_of(signal_uv, focus)
        return Encoded(_array(self._model.project_ecg(features)), _array(features))

    def encoder_of(self, head: str) -> "Predictor":
        """The predictor whose encoder a head uses: this one, or that of a fine-tuned head."""
        return self._of_own_encoder.get(head, self)

    def head_logits(
        self,
        names: Iterable[str],
        signal_uv: Int16[np.ndarray, "window lead sample"],
        focus: float | None = None,
        *,
        encoded: Encoded | None = None,
    ) -> dict[str, Float32[np.ndarray, "window class"]]:
        """Logits of windows by head, in one forward pass for all heads that use the bundle's encoder.

        encoded: what `encode` gave for the same windows, if it is known. It may be called from several threads. Raises
        ConfigError as `predict`.
        """
        found = {}
        for name in names:
            head = require_head(self.bundle.heads, name)
            if (own := self.encoder_of(name)) is self:
                of_head = encoded = encoded or self.encode(signal_uv, focus)
            else:
                of_head = own.encode(signal_uv, focus)
            found[name] = head.logits(of_head.features, of_head.embeddings)
        return found

    def _features_of(self, signal_uv: np.ndarray, focus: float | None) -> Float[Tensor, "window feature"]:
        features: Tensor = self._ecg_encoder(microvolts_to_millivolts(signal_uv, self._model), focus)
        return features

    def missing_texts(self, texts: Sequence[str]) -> list[str]:
        """Distinct texts with LM features neither in the bundle nor in the cache."""
        ids = {text: text_id(text) for text in texts}
        return [text for text, number in ids.items() if number not in self._stored and number not in self._features]

    def keep_features(self, texts: Sequence[str], features: Float16[np.ndarray, "text feature"]) -> None:
        """Cache the LM features of `texts`; the least recently used are evicted first."""
        for text, vector in zip(texts, features, strict=True):
            self._features[text_id(text)] = vector.copy()  # a row alone would keep all of `features` in memory

    def features(self, texts: Sequence[str]) -> Float16[np.ndarray, "text feature"]:
        """Stored or cached LM features. Raises KeyError for a text of `missing_texts`."""
        return np.stack([self._feature(text) for text in texts])

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dimension"]:
        """Unit vectors of texts whose features are known (`learn`). Raises KeyError for a text of `missing_texts`."""
        (vectors,) = wording_vectors(self._model, self.features(texts), [texts])
        return _array(vectors)

    def class_vectors(self, classes: Mapping[str, tuple[str, ...]]) -> Float[Tensor, "class dimension"] | None:
        """One unit vector per class from its wordings, or None if features are missing (call `learn` first)."""
        key = tuple(classes.values())
        kept = self._class_vectors.get(key)
        if kept is None:
            texts = [text for wordings in key for text in wordings]
            if self.missing_texts(texts):
                return None
            vectors = class_embeddings(self.wording_vectors(classes)).float().cpu()
            kept = _Kept(vectors, _OBJECT_BYTES + vectors.nbytes + sum(map(sys.getsizeof, texts)))
            if kept.size_bytes <= _CLASS_VECTOR_BYTES:
                self._class_vectors[key] = kept
        return kept.vectors

    def z_scores(
        self,
        class_vectors: Float[Tensor, "class dimension"],
        similarity: Float[np.ndarray, " class"],
        windows: Windows,
    ) -> list[float | None]:
        """How unusual an ECG's similarity to each class is: standard deviations above the mean of other ECGs.

        The cosines of each class have a level of their own; these can be compared between classes. They need no labels,
        and any words have one. The other ECGs are those of the bundle's reference, which are whole and of one window:
        None for all else, and where the bundle has no reference.
        """
        levels = None if windows.of > 1 or windows.lack_leads else self.levels(class_vectors)
        if levels is None:
            return [None] * len(similarity)
        found: list[float | None] = levels.standardise(similarity).tolist()
        return found

    def levels(self, class_vectors: Float[Tensor, "class dimension"]) -> Levels | None:
        """How similar the ECGs of the bundle's reference are to classes; None where it has none."""
        file = self.bundle.reference
        placed = None if file is None else file.reference.embeddings
        return None if placed is None else placed.levels(class_vectors.numpy())

    @torch.inference_mode()
    def wording_vectors(self, classes: Mapping[str, tuple[str, ...]]) -> list[Float[Tensor, "_ dimension"]]:
        """For each class the unit vectors of its wordings, not averaged. Raises KeyError as `embed_texts`."""
        texts = [text for wordings in classes.values() for text in wordings]
        return wording_vectors(self._model, self.features(texts), list(classes.values()))

    @torch.inference_mode()
    def scores(
        self,
        embeddings: Float32[np.ndarray, "ecg dimension"],
        class_vectors: Float[Tensor, "class dimension"],
        *,
        multi_label: bool = False,
    ) -> tuple[Float32[np.ndarray, "ecg class"], Float32[np.ndarray, "ecg class"]]:
        """(scores, cosine similarities) of ECGs against classes.

        Scores are the softmax of an ECG's logits over the classes, or the sigmoid of each logit with `multi_label`.
        They are not calibrated.
        """
        similarity = similarities(torch.from_numpy(embeddings), class_vectors)
        score = self._independent(similarity) if multi_label else scores(similarity, self.logit_scale)
        return score.numpy(), similarity.numpy()

    def independent_scores(self, similarity: Float[np.ndarray, "ecg class"]) -> Float[np.ndarray, "ecg class"]:
        """The scores with `multi_label` of known cosine similarities."""
        found: np.ndarray = self._independent(torch.from_numpy(similarity)).numpy()
        return found

    def logits(self, similarity: Float[np.ndarray, "ecg class"]) -> Float[np.ndarray, "ecg class"]:
        """The logits of known cosine similarities, float64; `independent_scores` are their sigmoids."""
        found: np.ndarray = self.logit_scale * similarity.astype(np.float64) + self.logit_bias
        return found

    def _independent(self, similarity: Float[Tensor, "ecg class"]) -> Float[Tensor, "ecg class"]:
        return (self.logit_scale * similarity + self.logit_bias).sigmoid()

    def calibrated(
        self, classes: Mapping[str, tuple[str, ...]], name: str | None, version: int, windows: Windows | None = None
    ) -> CalibratedClasses:
        """The calibrations of `classes`. name: of a prompt set, or `set:task`; None for labels of one's own.

        windows: the ECG; one that lacks leads, or has several windows, is not calibrated.
        """
        if name is None:
            return uncalibrated(PLAIN_LABELS, len(classes))
        if windows is not None and windows.of > 1:  # however few of them can be used
            return uncalibrated(SEVERAL_WINDOWS, len(classes))
        if windows is not None and windows.lack_leads:
            return uncalibrated(LEADS_MISSING, len(classes))
        key = (name, version, tuple(classes.items()))
        found = self._calibrated.get(key)
        if found is None:
            found = self._calibrated[key] = CalibratedClasses.of(self.bundle.calibrations, name, version, classes)
        return found

    def _scored_windows(
        self,
        ecg: Ecg,
        starts_s: list[float],
        classes: Mapping[str, tuple[str, ...]],
        vectors: Tensor,
        multi_label: bool,
    ) -> Iterator[ScoredWindow]:
        for first in range(0, len(starts_s), _WINDOWS_AT_ONCE):
            some = starts_s[first : first + _WINDOWS_AT_ONCE]
            cut = [_cut_or_error(ecg, start_s, self.signal) for start_s in some]
            usable = [window for window in cut if isinstance(window, np.ndarray)]
            rows: Iterator[tuple[ScoredClass, ...]] = iter(())
            if usable:
                found = self.scores(self.embed_windows(np.stack(usable)), vectors, multi_label=multi_label)
                pairs = zip(*(values.tolist() for values in found), strict=True)
                rows = (
                    tuple(
                        ScoredClass(*of_class, not_calibrated=OVER_TIME[1])
                        for of_class in zip(classes, score, similarity, strict=True)
                    )
                    for score, similarity in pairs
                )
            for start_s, window in zip(some, cut, strict=True):
                error = window if isinstance(window, RecordError) else None
                yield ScoredWindow(start_s, start_s + self.signal.duration_s, () if error else next(rows), error)

    def _learnt_vectors(self, classes: Mapping[str, tuple[str, ...]]) -> Float[Tensor, "class dimension"]:
        vectors = self.class_vectors(classes)
        if vectors is None:
            self.learn([text for wordings in classes.values() for text in wordings])
            vectors = self.class_vectors(classes)
            assert vectors is not None, "the features that were just kept are gone"
        return vectors

    def _classes(
        self,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None,
        prompt_set: str | None,
        task: str | None,
        template: str | None,
    ) -> _Chosen:
        if (labels is None) == (prompt_set is None):
            given = "neither `labels` nor `prompt_set` is" if labels is None else "both `labels` and `prompt_set` are"
            raise ConfigError(f"{given} given", hint='give one of them, for example labels=["atrial fibrillation"]')
        if labels is not None:
            if task is not None:
                raise ConfigError(f"`task` is {task!r} beside `labels`", hint="`task` chooses from a prompt set")
            return _Chosen(label_classes(labels, self.template if template is None else template))
        assert prompt_set is not None
        if template is not None:
            raise ConfigError(
                "`template` is given with a prompt set, whose wordings are complete", hint="omit it, or give `labels`"
            )
        found = self.facts.prompt_sets.get(prompt_set) or read_prompt_set(prompt_set)
        classes = prompt_classes(found, task)
        return _Chosen(classes, f"{found.name}:{task or next(iter(found.tasks))}", found.version)

    def _feature(self, text: str) -> np.ndarray:
        stored = self._stored.get(text_id(text))
        return stored if stored is not None else self._features[text_id(text)]


def _about_words(
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None,
    prompt_set: str | None,
    classes: Mapping[str, Sequence[str]],
) -> tuple[tuple[str, str], ...]:
    if labels is not None:
        return wording_warnings(_wordings_of(labels))
    if prompt_set is not None and is_prompt_file(prompt_set):
        return verbatim_warnings(wording for wordings in classes.values() for wording in wordings)
    return ()


def _warn(found: Sequence[tuple[str, str]]) -> None:
    """What makes a score worthless, to the caller of `zero_shot`; answers over HTTP hold all warnings."""
    for reason, message in found:
        if reason in ("low_amplitude", "other_language", "one_class", "abbreviation_as_is"):
            warnings.warn(message, stacklevel=3)


def _wordings_of(labels: Sequence[str] | Mapping[str, Sequence[str]]) -> list[str]:
    return [text for texts in labels.values() for text in texts] if isinstance(labels, Mapping) else list(labels)


def _scored_class(
    name: str, score: float, similarity: float, judged: Judged | None, fault: Reason | None, z_score: float | None
) -> ScoredClass:
    not_calibrated = None if fault is None else fault[1]
    if judged is None:
        return ScoredClass(name, score, similarity, not_calibrated=not_calibrated, z_score=z_score)
    return ScoredClass(name, score, similarity, *judged, not_calibrated, z_score)


def _cut_or_error(ecg: Ecg, start_s: float, signal: SignalConfig) -> np.ndarray | RecordError:
    try:
        return preprocess(part_from(ecg, start_s, signal), signal)
    except RecordError as error:
        return error


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Of each logit, without overflow."""
    found: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return found


def _array(vectors: Tensor) -> np.ndarray:
    values: np.ndarray = vectors.float().cpu().numpy()
    return values
