"""Metrics of a replica, exported to Prometheus through Ray: `http://<node>:<metrics port>/metrics`, prefix `ray_`."""

from ray.serve import metrics

_LATENCY_MS: list[float] = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]
_BATCH: list[float] = [1, 2, 4, 8, 16, 32, 64, 128]


class RequestTelemetry:
    """Metrics of a ZeroShot replica. Ray adds deployment and replica as tags. They contain no ECG, text or token."""

    def __init__(self) -> None:
        self._requests = metrics.Counter(
            "mets_ray_requests",
            description="answered requests",
            tag_keys=("route", "status"),  # type: ignore[arg-type]
        )
        self._latency_ms = metrics.Histogram(
            "mets_ray_request_latency_ms",
            description="time in the replica",
            boundaries=_LATENCY_MS,
            tag_keys=("route",),
        )
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
        self._count = 0

    def began(self) -> None:
        self._count += 1

    def ended(self, route: str, status: int, latency_ms: float) -> None:
        self._count -= 1
        if self._count == 0:
            self._ongoing.set(0)
        self._requests.inc(tags={"route": route, "status": str(status)})
        self._latency_ms.observe(latency_ms, tags={"route": route})

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


def lm_texts_counter() -> metrics.Counter:
    """Texts that actually went through the frozen LM, counted where it runs."""
    return metrics.Counter("mets_ray_lm_texts", description="texts embedded by the frozen LM")
