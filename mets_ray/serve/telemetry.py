"""Metrics of a replica, exported to Prometheus through Ray: `http://<node>:<metrics port>/metrics`, prefix `ray_`.

Rules and dashboard in docs/deploy/ use these names; `tests/cluster/test_monitoring.py` holds that they exist.
"""

from collections.abc import Mapping

from ray.serve import metrics

_LATENCY_MS: list[float] = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]
_BATCH: list[float] = [1, 2, 4, 8, 16, 32, 64, 128]


class RequestTelemetry:
    """Metrics of a ZeroShot replica. Ray adds deployment and replica as tags. They contain no ECG, text or token.

    model_version: a tag of requests and latencies, so that two bundles can be compared during an update.
    """

    def __init__(self, model_version: str) -> None:
        self._requests = metrics.Counter(
            "mets_ray_requests",
            description="answered requests",
            tag_keys=("route", "status", "model_version"),  # type: ignore[arg-type]
        )
        self._latency_ms = metrics.Histogram(
            "mets_ray_request_latency_ms",
            description="time in the replica",
            boundaries=_LATENCY_MS,
            tag_keys=("route", "model_version"),  # type: ignore[arg-type]
        )
        for metric in (self._requests, self._latency_ms):
            metric.set_default_tags({"model_version": model_version})
        self._rejections = metrics.Counter("mets_ray_rejections", description="error responses", tag_keys=("reason",))
        self._batch_size = metrics.Histogram(
            "mets_ray_batch_size", description="windows in a forward pass", boundaries=_BATCH
        )
        # Ray computes a histogram's sum from bucket midpoints: the exact mean batch size is windows / forward passes.
        self._windows = metrics.Counter("mets_ray_windows", description="windows embedded")
        self._passes = metrics.Counter("mets_ray_forward_passes", description="forward passes of the ECG encoder")
        self._ongoing = metrics.Gauge("mets_ray_ongoing_requests", description="requests in this replica now")
        self._text_cache = metrics.Counter(
            "mets_ray_text_cache", description="texts known (hit) or sent to the LM (miss)", tag_keys=("result",)
        )
        self._prompt_sets = metrics.Counter(
            "mets_ray_prompt_set_requests",
            description="requests scored against a named prompt set",
            tag_keys=("prompt_set", "version"),  # type: ignore[arg-type]
        )
        self._held = metrics.Gauge("mets_ray_cache_bytes", description="bytes held by a cache", tag_keys=("cache",))
        self._store = metrics.Gauge("mets_ray_store_answers", description="whether the store of prompt sets answers")
        self._input_drift = metrics.Gauge(
            "mets_ray_input_drift",
            description="how far recent ECGs are from those the bundle was made with; above 1 is a drift",
            tag_keys=("feature",),
        )
        self._inputs = metrics.Gauge("mets_ray_inputs_compared", description="recent ECGs that are compared")
        self._count = 0

    def began(self) -> None:
        self._count += 1

    def ended(self, route: str, status: int, latency_ms: float) -> None:
        self._count -= 1
        if self._count == 0:
            self._ongoing.set(0)
        self._requests.inc(tags={"route": route, "status": str(status)})
        self._latency_ms.observe(latency_ms, tags={"route": route})

    def refresh(self, cache_bytes: Mapping[str, int], *, store_answers: bool | None) -> None:
        """Set the gauges again: Ray shows a gauge for two of its export intervals (20 s) and then drops it.

        cache_bytes: what each cache of the replica holds now. store_answers: None for a replica without a store.
        """
        self._ongoing.set(self._count)
        for cache, size in cache_bytes.items():
            self._held.set(size, tags={"cache": cache})
        if store_answers is not None:
            self._store.set(int(store_answers))

    def inputs(self, compared: int, ratios: Mapping[str, float]) -> None:
        """The recent ECGs beside those that the bundle was made with: `RecentDrift`. Set again as in `refresh`."""
        self._inputs.set(compared)
        for feature, ratio in ratios.items():
            self._input_drift.set(ratio, tags={"feature": feature})

    def rejected(self, reason: str) -> None:
        self._rejections.inc(tags={"reason": reason})

    def batch(self, windows: int) -> None:
        # Here and not for each request: recording takes 40 µs, and gauges are exported only every few seconds.
        self._ongoing.set(self._count)
        self._batch_size.observe(windows)
        self._windows.inc(windows)
        self._passes.inc()

    def text_cache(self, hits: int, misses: int) -> None:
        for result, count in (("hit", hits), ("miss", misses)):
            if count:
                self._text_cache.inc(count, tags={"result": result})

    def prompt_set(self, name: str, version: int) -> None:
        self._prompt_sets.inc(tags={"prompt_set": name, "version": str(version)})


def lm_texts_counter() -> metrics.Counter:
    """Texts that actually went through the frozen LM, counted where it runs."""
    return metrics.Counter("mets_ray_lm_texts", description="texts embedded by the frozen LM")
