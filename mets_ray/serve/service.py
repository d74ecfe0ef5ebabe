"""How a replica handles a request, without Ray: check, encode in a shared batch, find the classes, score."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mets_ray import __version__
from mets_ray.errors import RecordError, RequestError
from mets_ray.model.calibrated_classes import Judged
from mets_ray.model.calibrations import Calibrations
from mets_ray.model.predictor import Predictor, sigmoid
from mets_ray.model.windows import Windows, mean_embedding
from mets_ray.serve import messages
from mets_ray.serve.bodies import BodyLimits
from mets_ray.serve.class_lists import ClassList, check_texts, class_list, labels_as_classes
from mets_ray.serve.explanations import Explanations, refuse_explain
from mets_ray.serve.heads import Heads
from mets_ray.serve.health import Health
from mets_ray.serve.input_drift import RecentInputs
from mets_ray.serve.prompt_sets import Found, PromptSets
from mets_ray.serve.settings import WORDINGS_PER_CLASS, ServeConfig
from mets_ray.tasks.class_warnings import softmax_warnings

# New texts go to the language model in slices, and of the requests with more than one slice only a few at a time: a
# request with a few new classes waits for a few slices, not for all texts of those before it.
_SLICE_TEXTS = 32
_LONG_LISTS = 2

_LIMITS = (
    "max_body_bytes",
    "max_ecgs",
    "max_duration_s",
    "max_classes",
    "max_label_chars",
    "max_timeline_bytes",
    "max_timeline_duration_s",
    "max_timeline_windows",
    "timeline_deadline_s",
)
_MODEL_PROMPT_SETS = 256  # registered ones in /v1/model; all of them are in the pages of /v1/prompt-sets

_INTENDED_USE = (
    "Research on zero-shot recognition of findings in 12-lead ECGs. Not a medical device: not for diagnosis, "
    "triage or any decision about a patient."
)
_NO_PROBABILITIES = "Scores are not calibrated probabilities."
_SOME_PROBABILITIES = (
    "Scores are not calibrated probabilities. `probability` is calibrated, for the words in `calibrations` alone, and "
    "holds where classes are as frequent as in the records that it was fitted on."
)


class Telemetry(Protocol):
    """Counters of the text cache and of the prompt sets that requests name."""

    def text_cache(self, hits: int, misses: int) -> None: ...

    def prompt_set(self, name: str, version: int) -> None: ...


class Encoder(Protocol):
    """One window, int16 [lead, sample], to its unit vector. place: its number in the request.

    failed_in_a_row: forward passes that failed since the last good one.
    """

    @property
    def failed_in_a_row(self) -> int: ...

    def __call__(self, window: np.ndarray, place: int) -> Awaitable[np.ndarray]: ...


@dataclass
class Timings:
    """Milliseconds by stage."""

    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    def stop(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + round(1000 * (now - since), 3)
        return now

    def total(self) -> dict[str, float]:
        return self.stages | {"total": round(1000 * (time.perf_counter() - self.began), 3)}


class Service:
    """What the routes call.

    encode: concurrent calls share a forward pass.
    ask_lm: texts to the frozen LM's features, float16 [text, feature]; None if no LM is deployed.
    heads: of the bundle, with their queues; default: each window by itself.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: ServeConfig,
        *,
        bundle_uri: str,
        encode: Encoder,
        ask_lm: Callable[[list[str]], Awaitable[np.ndarray]] | None,
        telemetry: Telemetry,
        heads: Heads | None = None,
    ) -> None:
        self.predictor = predictor
        self.config = config
        self.bundle_uri = bundle_uri
        self.limits = BodyLimits(
            config.max_body_bytes, config.max_ecgs, config.max_duration_s, WORDINGS_PER_CLASS * config.max_classes
        )
        self.prompt_sets = PromptSets(predictor, config)
        self.encode = encode
        self._explanations = Explanations(predictor, encode)
        self.recent_inputs = RecentInputs.of(predictor)
        self.heads = heads or Heads(predictor)
        self._ask_lm = ask_lm
        self._telemetry = telemetry
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._long_lists = asyncio.Semaphore(_LONG_LISTS)
        # A language model without a permanent replica is not woken to see whether it answers.
        self.health = Health(
            lambda: encode.failed_in_a_row, ask_lm if config.text_min_replicas else None, config.state_uri
        )

    async def readiness(self) -> messages.Readiness:
        """Which parts answer."""
        return await self.health.readiness()

    def cache_bytes(self) -> dict[str, int]:
        """What each cache of this replica holds now, in bytes."""
        store = self.prompt_sets.store
        return self.predictor.cache_bytes() | ({} if store is None else {"prompt_sets": store.cached_bytes})

    @property
    def store_answers(self) -> bool | None:
        """Whether the store of prompt sets answered when it was asked last; None without a store."""
        return None if self.prompt_sets.store is None else self.prompt_sets.store.is_answering

    @property
    def is_calibrated(self) -> bool:
        """Whether some words have probabilities."""
        return bool(self.predictor.bundle.calibrations.files)

    async def zero_shot(self, windows: Windows, options: messages.Options, timings: Timings) -> messages.ZeroShotAnswer:
        """Scores of one ECG. Raises RequestError."""
        since = time.perf_counter()
        (chosen, warnings), vectors = await self.classes(options)
        to_explain = self._explanations.classes_of(options, chosen, windows)
        since = timings.stop("classes", since)
        embedding = await self.embeddings(windows)
        since = timings.stop("encode", since)
        scored = self._scored(windows, embedding, chosen, vectors, options.multi_label)
        scored.warnings += warned(warnings)
        explanation = None
        if to_explain:
            explanation = await self._explanations.explain(windows, embedding, to_explain, chosen, vectors)
            timings.stop("explain", since)
        facts = self._facts(chosen, options, timings, is_calibrated=scored.calibrated)
        return messages.ZeroShotAnswer.model_construct(**vars(scored), **facts, explanation=explanation)

    async def predict(
        self, windows: Windows, options: messages.HeadOptions, timings: Timings
    ) -> messages.PredictAnswer:
        """Scores of one ECG by a head of the bundle. Raises RequestError as `Heads.require`."""
        since = time.perf_counter()
        facts = self.heads.require(options.head)
        logits = await self.heads.logits(facts.name, windows)
        timings.stop("encode", since)
        ranks = (-logits).argsort(kind="stable").argsort(kind="stable") + 1
        rows = zip(facts.classes, sigmoid(logits).tolist(), logits.tolist(), ranks.tolist(), strict=True)
        fields = ("class_name", "score", "logit", "rank")
        return messages.PredictAnswer(
            head=facts.name,
            task=facts.task,
            classes=[messages.HeadScore.model_construct(**dict(zip(fields, row, strict=True))) for row in rows],
            windows=len(windows.signal_uv),
            warnings=warned(windows.warnings),
            model_version=self.predictor.model_version,
            timings_ms=timings.total(),
        )

    async def batch(
        self, ecgs: Sequence[Windows | RecordError | RequestError], options: messages.Options, timings: Timings
    ) -> messages.BatchAnswer:
        """Scores of several ECGs. An unusable ECG gets its error instead; the others are scored."""
        refuse_explain(options, "/v1/zero-shot/batch")
        since = time.perf_counter()
        (chosen, warnings), vectors = await self.classes(options)
        since = timings.stop("classes", since)

        async def embedded(ecg: Windows | RecordError | RequestError, place: int) -> np.ndarray | None:
            return await self.embeddings(ecg, place) if isinstance(ecg, Windows) else None

        sizes = [len(ecg.signal_uv) if isinstance(ecg, Windows) else 0 for ecg in ecgs]
        places = itertools.accumulate(sizes[:-1], initial=0)
        embeddings = await asyncio.gather(*map(embedded, ecgs, places))
        results: list[messages.Scored | messages.ErrorAnswer] = []
        for ecg, embedding in zip(ecgs, embeddings, strict=True):
            if not isinstance(ecg, Windows):
                results.append(messages.ErrorAnswer(error=error_facts(ecg)))
            else:
                assert embedding is not None
                scored = self._scored(ecg, embedding, chosen, vectors, options.multi_label)
                scored.warnings += warned(warnings)
                results.append(scored)
                await asyncio.sleep(0)  # 64 ECGs with 256 classes take 50 ms: other requests come in between
        timings.stop("encode", since)
        is_calibrated = any(isinstance(result, messages.Scored) and result.calibrated for result in results)
        facts = self._facts(chosen, options, timings, is_calibrated=is_calibrated)
        return messages.BatchAnswer.model_construct(results=results, **facts)

    async def embed_ecg(self, windows: Windows) -> messages.EmbedAnswer:
        vector = mean_embedding(await self.embeddings(windows)).tolist()
        return messages.EmbedAnswer(
            embeddings=[vector],
            dimension=len(vector),
            model_version=self.predictor.model_version,
            windows=len(windows.signal_uv),
            warnings=warned(windows.warnings),
        )

    async def embed_texts(self, texts: list[str]) -> messages.EmbedAnswer:
        """Embeddings of texts as given. Raises RequestError 422 beyond the limits for classes."""
        check_texts(texts, self.config)
        await self.learn(texts)
        vectors = self.predictor.embed_texts(texts)
        await asyncio.sleep(0)  # two thousand texts take 40 ms to embed and to write down
        return messages.EmbedAnswer.model_construct(
            embeddings=vectors.tolist(), dimension=vectors.shape[1], model_version=self.predictor.model_version
        )

    def preview(self, windows: Windows) -> messages.EcgAnswer:
        facts = self.predictor.facts
        return messages.EcgAnswer.model_construct(
            leads=list(facts.leads),
            sampling_rate_hz=facts.sampling_rate_hz,
            duration_s=facts.duration_s,
            start_s=windows.start_s,
            highpass_hz=facts.highpass_hz,
            signal_uv=windows.signal_uv[0].tolist(),
            windows=len(windows.signal_uv),
            warnings=warned(windows.warnings),
        )

    async def register(self, name: str, request: messages.PromptSetRequest) -> tuple[messages.PromptSetAnswer, bool]:
        """Register a class list under a name. Returns (answer, whether a new version was made)."""
        classes = request.classes if request.classes is not None else labels_as_classes(request.candidate_labels or [])
        given = class_list(
            classes,
            request.hypothesis_template,
            self.config,
            default_template=self.predictor.template,
        )
        await self.learn(given.texts)
        stored, is_new = await self.prompt_sets.register(name, given)
        answer = messages.PromptSetAnswer(
            name=name,
            version=stored.version,
            prompt_set=f"{name}@{stored.version}",
            classes=list(stored.classes),
            hypothesis_template=stored.template,
        )
        return answer, is_new

    async def retire(self, name: str) -> messages.RetiredAnswer:
        """Make no version of a registered list resolve any more. Raises as `PromptSets.retire`."""
        return messages.RetiredAnswer(name=name, retired_through_version=await self.prompt_sets.retire(name))

    async def listed(self, *, after: str, limit: int) -> messages.PromptSetsAnswer:
        """A page of the registered lists; the first page begins with those of the bundle."""
        page = await self.prompt_sets.page(after=after, limit=limit)
        of_bundle = [] if after else [_known(one, "bundle") for one in self.prompt_sets.bundle_lists]
        return messages.PromptSetsAnswer(
            prompt_sets=of_bundle + [_known(one, "registered") for one in page.lists],
            next_after=page.following,
            warnings=warned(page.warnings),
        )

    async def model(self) -> messages.ModelAnswer:
        facts, config = self.predictor.facts, self.config
        sets = await self.listed(after="", limit=_MODEL_PROMPT_SETS)
        return messages.ModelAnswer(
            model_version=self.predictor.model_version,
            package_version=__version__,
            bundle_uri=self.bundle_uri,
            signal=messages.SignalFacts(
                sampling_rate_hz=facts.sampling_rate_hz,
                duration_s=facts.duration_s,
                leads=list(facts.leads),
                highpass_hz=facts.highpass_hz,
                takes_fewer_leads=self.predictor.bundle.takes_fewer_leads,
            ),
            text_model=messages.TextModelFacts(
                name=facts.text_model,
                pooling=facts.text_pooling,
                max_length=facts.text_max_length,
                fingerprint=facts.text_fingerprint,
            ),
            hypothesis_template=self.predictor.template,
            prompt_sets=sets.prompt_sets,
            next_after=sets.next_after,
            warnings=[*sets.warnings, *warned(list(self.predictor.bundle.calibrations.left_out.values()))],
            default_prompt_set=config.prompt_set,
            training_data=messages.TrainingFacts(
                source=facts.dataset_source,
                dataset_sha256=facts.dataset_sha256,
                synthetic=facts.synthetic,
                train_folds=list(facts.train_folds),
                metrics=facts.metrics,
            ),
            lead_sets=[
                messages.LeadSetFacts(name=name, **quality.model_dump()) for name, quality in facts.lead_sets.items()
            ],
            calibrations=_calibration_facts(self.predictor.bundle.calibrations),
            heads=self.heads.listed(),
            intended_use=f"{_INTENDED_USE} {_SOME_PROBABILITIES if self.is_calibrated else _NO_PROBABILITIES}",
            device=str(self.predictor.device),
            auth=config.auth,
            limits={name: getattr(config, name) for name in _LIMITS},
            archive=config.archive_uri is not None,
        )

    async def learn(self, texts: list[str]) -> None:
        """Make sure that the features of `texts` are known. Only unknown texts go to the LM, and only once.

        Raises RequestError 422 for unknown texts if no LM is deployed.
        """
        missing = self.predictor.missing_texts(texts)
        distinct = len(set(texts))
        self._telemetry.text_cache(distinct - len(missing), len(missing))
        if not missing:
            return
        if self._ask_lm is None:
            raise RequestError(
                422,
                "unknown_text",
                f"{len(missing)} of the texts are not stored in the bundle, and this server runs no language model",
                hint="use a prompt set listed by /v1/model, or deploy with text_max_replicas of at least 1",
            )
        slices = [missing[start : start + _SLICE_TEXTS] for start in range(0, len(missing), _SLICE_TEXTS)]
        async with self._long_lists if len(slices) > 1 else contextlib.nullcontext():
            for texts in slices:
                await self._ask(texts)

    async def _ask(self, texts: list[str]) -> None:
        """Wait for the features of a few texts. Concurrent requests with the same new text wait for one call."""
        missing = self.predictor.missing_texts(texts)
        calls = {future for text in missing if (future := self._asked.get(text)) is not None}
        mine = [text for text in missing if text not in self._asked]
        if mine:
            call: asyncio.Future[None] = asyncio.ensure_future(self._ask_and_keep(mine))
            self._asked |= dict.fromkeys(mine, call)
            call.add_done_callback(lambda _: [self._asked.pop(text, None) for text in mine])
            calls.add(call)
        for call in calls:
            # Shielded: a client that disconnects must not fail the others that wait for the same texts.
            await asyncio.shield(call)

    async def _ask_and_keep(self, texts: list[str]) -> None:
        assert self._ask_lm is not None
        try:
            async with asyncio.timeout(self.config.deadline_s):  # nobody waits for it any longer
                features = await self._ask_lm(texts)
        except TimeoutError as error:
            raise RequestError(
                503, "no_language_model", "the language model did not respond", hint="try again, or use stored classes"
            ) from error
        self.predictor.keep_features(texts, features)

    async def classes(self, options: messages.Options) -> tuple[Found, Tensor]:
        """The classes of a request, and their vectors [class, dimension]. Raises RequestError."""
        if options.candidate_labels is not None and options.prompt_set is not None:
            raise RequestError(
                422, "two_class_lists", "`candidate_labels` and `prompt_set` are both given", hint="give one of them"
            )
        if options.candidate_labels is not None:
            found = Found(
                class_list(
                    labels_as_classes(options.candidate_labels),
                    options.hypothesis_template,
                    self.config,
                    default_template=self.predictor.template,
                )
            )
        else:
            reference = options.prompt_set or self.config.prompt_set
            if reference is None:
                raise RequestError(
                    422,
                    "no_classes",
                    "neither `candidate_labels` nor `prompt_set` is given, and this server has no default",
                    hint='add for example candidate_labels: ["atrial fibrillation", "sinus rhythm"]',
                )
            if options.hypothesis_template is not None:
                raise RequestError(
                    422,
                    "template_without_labels",
                    "`hypothesis_template` is given, but the wordings of a prompt set are complete",
                    hint="omit it, or give candidate_labels",
                )
            found = await self.prompt_sets.find(reference)
            assert found.chosen.name is not None
            self._telemetry.prompt_set(found.chosen.name, found.chosen.version)
        vectors = self.predictor.class_vectors(found.chosen.classes)
        if vectors is None:
            await self._learn_or_recall(found.chosen)
            vectors = self.predictor.class_vectors(found.chosen.classes)
            assert vectors is not None, "the features that were just kept are gone"
        else:
            self._telemetry.text_cache(len(found.chosen.classes), 0)
        return found, vectors

    async def _learn_or_recall(self, chosen: ClassList) -> None:
        """Make sure that the features of a list are known: from the store, if it is registered, else from the LM.

        Raises as `learn`, and RequestError 500 or DatasetError if the store's features are damaged or out of reach and
        there is no LM.
        """
        fault = await self.prompt_sets.recall(chosen) if self.predictor.missing_texts(chosen.texts) else None
        if fault is not None and self._ask_lm is None:
            raise fault
        await self.learn(chosen.texts)
        if isinstance(fault, RequestError):
            self.prompt_sets.repair(chosen)

    async def embeddings(self, windows: Windows, place: int = 0) -> np.ndarray:
        """Unit vectors [window, dimension]. place: how many windows of the same request come before."""
        if len(windows.signal_uv) == 1:
            vectors = (await self.encode(windows.signal_uv[0], place))[None]
        else:
            vectors = np.stack(await asyncio.gather(*map(self.encode, windows.signal_uv, itertools.count(place))))
        if self.recent_inputs is not None:
            self.recent_inputs.observe(windows.signal_uv[0], vectors[0])
        return vectors

    def _scored(
        self, windows: Windows, embedding: np.ndarray, chosen: ClassList, vectors: Tensor, multi_label: bool
    ) -> messages.Scored:
        score, similarity = self.predictor.scores(mean_embedding(embedding)[None], vectors, multi_label=multi_label)
        ranks = np.empty(len(chosen.classes), dtype=np.int64)
        ranks[np.argsort(-similarity[0], kind="stable")] = np.arange(1, len(ranks) + 1)
        calibrated = self.predictor.calibrated(chosen.classes, chosen.name, chosen.version, windows)
        rows = zip(
            chosen.classes,
            score[0].tolist(),
            similarity[0].tolist(),
            ranks.tolist(),
            calibrated.judge(similarity[0]),
            self.predictor.z_scores(vectors, similarity[0], windows),
            strict=True,
        )
        classes = [_class_score(*row) for row in rows]
        if calibrated.fault is None:
            for row, fault in zip(classes, calibrated.faults, strict=True):
                row.not_calibrated = warned([fault])[0] if fault else None
        return messages.Scored.model_construct(
            classes=classes,
            calibrated=calibrated.fault is None,
            not_calibrated=warned([calibrated.fault])[0] if calibrated.fault else None,
            windows=len(windows.signal_uv),
            warnings=[*warned(windows.warnings), *class_warnings(chosen, multi_label)],
        )

    def _facts(
        self, chosen: ClassList, options: messages.Options, timings: Timings, *, is_calibrated: bool
    ) -> dict[str, Any]:
        return {
            "multi_label": options.multi_label,
            "hypothesis_template": chosen.template,
            "prompt_set": chosen.label,
            "model_version": self.predictor.model_version,
            "timings_ms": timings.total(),
            "notice": messages.NOTICE_CALIBRATED if is_calibrated else messages.NOTICE_UNCALIBRATED,
        }


def error_facts(error: RecordError | RequestError) -> messages.ErrorFacts:
    """An error as the client gets it: what, where, and the simplest remedy."""
    message = f"{error.fact} ({error.where})" if error.where else error.fact
    return messages.ErrorFacts(reason=error.reason, message=message, hint=error.hint or None)


def class_warnings(chosen: ClassList, multi_label: bool) -> list[messages.Warned]:
    """What a client should know about the scores of these classes."""
    return warned([*chosen.warnings, *softmax_warnings(len(chosen.classes), multi_label=multi_label)])


def warned(warnings: Sequence[tuple[str, str]]) -> list[messages.Warned]:
    """(reason, message) pairs as an answer holds them."""
    return [messages.Warned(reason=reason, message=message) for reason, message in warnings]


def _class_score(
    name: str, score: float, similarity: float, rank: int, judged: Judged | None, z_score: float | None
) -> messages.ClassScore:
    # Every field is given: pydantic looks up each default anew, which takes longer than the rest.
    return messages.ClassScore.model_construct(
        class_name=name,
        score=score,
        similarity=similarity,
        rank=rank,
        z_score=z_score,
        probability=None if judged is None else judged.probability,
        probability_interval=None if judged is None else judged.interval,
        present=None if judged is None else judged.present,
        threshold=None if judged is None else judged.threshold,
        not_calibrated=None,
    )


def _calibration_facts(calibrations: Calibrations) -> list[messages.CalibrationFacts]:
    return [
        messages.CalibrationFacts(
            prompt_set=f"{file.prompts.name}:{task}@{file.prompts.version}",
            source=of.source,
            dataset_sha256=of.dataset_sha256,
            synthetic=of.synthetic,
            folds=of.folds,
            records=of.calibration.records,
            records_in_folds=of.records_in_folds,
            patients=of.calibration.patients,
            threshold_rule=str(of.calibration.rule),
            classes=[row.name for row in of.calibration.classes if row.fault is None],
            not_calibrated={row.name: row.fault[1] for row in of.calibration.classes if row.fault is not None},
        )
        for file in calibrations.files
        for task, of in file.tasks.items()
    ]


def _known(one: ClassList, origin: str) -> messages.KnownPromptSet:
    return messages.KnownPromptSet(name=one.name or "", version=one.version, classes=list(one.classes), origin=origin)
