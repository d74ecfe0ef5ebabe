"""The deployments and how they are connected; an archive's is in `archive/`. What they do is in modules without Ray.

No `from __future__ import annotations` here: with it, Serve would pass the builder an unvalidated dictionary.
"""

import asyncio
import logging
import time
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from mets_ray import bundles, storage
from mets_ray.errors import RequestError
from mets_ray.model.bundle import BundleFacts, load_bundle, newest_bundle, with_calibrations, with_reference
from mets_ray.model.predictor import Predictor, load_text_encoder
from mets_ray.serve.app import create_app
from mets_ray.serve.batching import Batches, torch_pool
from mets_ray.serve.class_lists import check_default
from mets_ray.serve.heads import Compute, Heads
from mets_ray.serve.health import Canary
from mets_ray.serve.service import Service
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.telemetry import RequestTelemetry, lm_texts_counter
from mets_ray.text.reports import text_id

logger = logging.getLogger("ray.serve")


@serve.deployment
class TextEncoder:
    """The frozen LM on its own replicas, with a cache of its features. Raises CheckpointError for a different LM."""

    def __init__(self, facts: BundleFacts, config: ServeConfig) -> None:
        self._encoder = load_text_encoder(facts, model=config.text_model, device=_device(config.text_gpus))
        self._kept = LRUCache[int, np.ndarray](config.text_cache_texts)
        self._thread = torch_pool(1, torch_threads=_threads(config.text_cpus))
        self._lm_texts = lm_texts_counter()

    async def embed(self, texts: list[str]) -> np.ndarray:
        """Features float16 [text, feature]."""
        known = {text: kept for text in texts if (kept := self._kept.get(text_id(text))) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            features = await asyncio.get_running_loop().run_in_executor(self._thread, self._encoder.embed, new)
            self._lm_texts.inc(len(new))
            known |= dict(zip(new, features, strict=True))
            for text, vector in zip(new, features, strict=True):
                self._kept[text_id(text)] = vector.copy()  # a row alone would keep all of `features` in memory
        return np.stack([known[text] for text in texts])


@serve.deployment
@serve.ingress()
class ZeroShot:
    """HTTP ingress and batched ECG encoder in one replica: a hop between them would halve the requests per second."""

    def __init__(
        self,
        config: ServeConfig,
        bundle_uri: str,
        text_encoder: DeploymentHandle[Any] | None,
        archive: DeploymentHandle[Any] | None = None,
    ) -> None:
        device = _device(config.encoder_gpus)
        bundle = with_reference(
            with_calibrations(load_bundle(bundle_uri), config.calibration_uri), config.reference_uri
        )
        self._predictor = Predictor(
            bundle,
            device=device,
            text_cache_texts=config.text_cache_texts,
            encoder_runtime=config.encoder_runtime,
        )
        self._telemetry = RequestTelemetry(self._predictor.model_version)
        self._text_encoder = text_encoder
        self._archive = archive
        threads = 1 if device == "cuda" else config.encoder_threads or _threads(config.encoder_cpus)

        def batches(compute: Compute) -> Batches:
            return Batches(
                compute,
                batch_size=config.batch_size,
                wait_s=config.batch_wait_s,
                threads=threads,
                counted=self._telemetry.batch,
            )

        def of_heads(compute: Compute, encoder: Predictor) -> Batches:
            queue = batches(compute)
            queue.on_every_thread(encoder.warm_up)
            return queue

        self._batches = batches(self._predictor.embed_windows)
        self._service = Service(
            self._predictor,
            config,
            bundle_uri=bundle_uri,
            encode=self._batches,
            ask_lm=None if text_encoder is None else self._ask_lm,
            telemetry=self._telemetry,
            heads=Heads(self._predictor, of_heads),
        )
        for _, fact in bundle.calibrations.left_out.values():
            logger.warning("%s", fact)
        began = time.perf_counter()
        self._batches.on_every_thread(self._predictor.warm_up)
        self._canary = self._batches.on_a_thread(lambda: Canary(self._predictor))
        logger.info(
            "serving %s on %s with %s, %d threads, ready for batches of %d in %.2f s",
            self._predictor.model_version,
            device,
            self._predictor.encoder_runtime,
            threads,
            config.batch_size,
            time.perf_counter() - began,
        )

    async def check_health(self) -> None:
        """Called by Serve every `health_check_period_s`; a replica that raises three times in a row is replaced."""
        self._telemetry.refresh(self._service.cache_bytes(), store_answers=self._service.store_answers)
        if self._service.recent_inputs is not None:
            drift = await asyncio.get_running_loop().run_in_executor(None, self._service.recent_inputs.measure)
            self._telemetry.inputs(drift.compared, drift.ratios)
        if self._service.health.model_fails:
            raise RuntimeError(f"{self._batches.failed_in_a_row} forward passes failed in a row")
        self._canary.check(await self._batches.probe(self._canary.window))

    def __serve_build_asgi_app__(self) -> FastAPI:
        archive = None
        if self._archive is not None:
            from mets_ray.serve.archive.deployment import ArchiveHandle  # here, as in `build`

            archive = ArchiveHandle(self._archive)
        return create_app(self._service, self._telemetry, archive=archive, names_requests=False)

    async def _ask_lm(self, texts: list[str]) -> np.ndarray:
        assert self._text_encoder is not None
        try:
            features: np.ndarray = await self._text_encoder.embed.remote(texts)
        except (BackPressureError, RayServeException, RayError) as error:
            logger.warning("the language model did not respond: %s", type(error).__name__)
            raise RequestError(
                503, "no_language_model", "the language model did not respond", hint="try again, or use stored classes"
            ) from error
        return features


def build(config: ServeConfig) -> Application:
    """The application, for `serve run mets_ray.serve:build bundle_uri=…` and for the YAML files of serve_configs/.

    Raises CheckpointError if there is no bundle, or if it or a named calibration or reference cannot be loaded, and if
    the archive is of another bundle; DatasetError if the archive cannot be opened; ConfigError for a `prompt_set` that
    cannot be used. What is served before goes on then.
    """
    bundle_uri = newest_bundle(bundles.absolute(config.bundle_uri))
    named = {
        key: None if uri is None else storage.absolute(uri)
        for key, uri in (
            ("state_uri", config.state_uri),
            ("calibration_uri", config.calibration_uri),
            ("reference_uri", config.reference_uri),
            ("archive_uri", config.archive_uri),
            ("archive_dataset_uri", config.archive_dataset_uri),
            ("archive_cohort_uri", config.archive_cohort_uri),
        )
    }
    bundle = with_reference(
        with_calibrations(load_bundle(bundle_uri), named["calibration_uri"]), named["reference_uri"]
    )
    facts = bundle.facts
    if config.prompt_set is not None:
        check_default(config.prompt_set, facts, has_store=config.state_uri is not None)
    config = config.model_copy(update={"bundle_uri": bundle_uri, **named})
    text_encoder = None
    if config.text_max_replicas:
        text_encoder = TextEncoder.options(  # type: ignore[attr-defined]
            **scale(config.text_min_replicas, config.text_max_replicas, target=2),
            ray_actor_options={"num_cpus": config.text_cpus, "num_gpus": config.text_gpus},
            max_ongoing_requests=8,
            max_queued_requests=config.max_queued_requests,
            max_surge_percent=100,
        ).bind(facts, config)
    archive = None
    if config.archive_uri is not None:
        # Here, because it needs what a server without an archive does without: the extra `archive`, and data sets.
        from mets_ray.serve.archive.deployment import bind_archive

        archive = bind_archive(config, bundle.digest)
    return ZeroShot.options(  # type: ignore[attr-defined, no-any-return]
        **scale(config.encoder_min_replicas, config.encoder_max_replicas, target=config.max_ongoing_requests / 2),
        ray_actor_options={"num_cpus": config.encoder_cpus, "num_gpus": config.encoder_gpus},
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": config.retry_after_s},
        # A new replica takes requests before an old one stops, so updates lose none (Ray 2.60's default lost 9).
        max_surge_percent=100,
        graceful_shutdown_timeout_s=max(config.deadline_s, config.timeline_deadline_s, config.archive_cohort_deadline_s)
        + 5,
    ).bind(config, bundle_uri, text_encoder, archive)


def scale(low: int, high: int, *, target: float) -> dict[str, Any]:
    """Options of a deployment with `low` to `high` replicas."""
    if low == high:
        return {"num_replicas": low}
    return {"autoscaling_config": {"min_replicas": low, "max_replicas": high, "target_ongoing_requests": target}}


def _device(gpus: float) -> str:
    return "cuda" if gpus and torch.cuda.is_available() else "cpu"


def _threads(cpus: float) -> int:
    return max(1, round(cpus))
