"""Whether the parts of a replica answer, found out without making anybody wait for a silent one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int16

from mets_ray import storage
from mets_ray.model.predictor import Predictor
from mets_ray.serve.messages import PartState, Readiness

FAILED_PASSES = 3
"""So many forward passes that fail in a row are the replica's fault, not one request's."""

_LARGEST_CHANGE = 1e-3  # of a unit vector's entries; other threads and kernels round to a millionth
_PATIENCE_S = 2.0
_PERIOD_S = 5.0
_PROBE_TEXT = "sinus rhythm"  # the language model's replicas keep its features, so that asking again costs nothing


class Probe:
    """The state of something that may be silent. It is asked at most every few seconds, by one call at a time."""

    def __init__(self, ask: Callable[[], Awaitable[object]] | None) -> None:
        self._ask = ask
        self._call: asyncio.Future[object] | None = None
        self._asked_at = 0.0

    async def state(self) -> PartState:
        """`failing` for an error and for no answer within two seconds; `none` where there is nothing to ask."""
        if self._ask is None:
            return "none"
        if self._call is None or (self._call.done() and time.monotonic() - self._asked_at > _PERIOD_S):
            self._call, self._asked_at = asyncio.ensure_future(self._ask()), time.monotonic()
        if not self._call.done():
            await asyncio.wait({self._call}, timeout=_PATIENCE_S)
        if not self._call.done() or self._call.cancelled() or self._call.exception() is not None:
            return "failing"
        return "ok"


class Health:
    """failed_passes: forward passes that failed since the last good one. ask_lm: as of `Service`; None for no LM."""

    def __init__(
        self,
        failed_passes: Callable[[], int],
        ask_lm: Callable[[list[str]], Awaitable[Any]] | None,
        state_uri: str | None,
    ) -> None:
        self._failed_passes = failed_passes
        self._language_model = Probe(None if ask_lm is None else lambda: ask_lm([_PROBE_TEXT]))
        self._store = Probe(None if state_uri is None else lambda: self._ask_store(state_uri))
        self._thread = ThreadPoolExecutor(1, "store-probe")  # a silent store takes only this one

    @property
    def model_fails(self) -> bool:
        return self._failed_passes() >= FAILED_PASSES

    async def readiness(self) -> Readiness:
        language_model, store = await asyncio.gather(self._language_model.state(), self._store.state())
        model: PartState = "failing" if self.model_fails else "ok"
        others = "degraded" if "failing" in (language_model, store) else "ok"
        return Readiness(
            status="failing" if model == "failing" else others, model=model, language_model=language_model, store=store
        )

    async def _ask_store(self, state_uri: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, _read_nothing, storage.join(state_uri, "probe"))


class Canary:
    """A window whose vector is known from the start: what computes another one now is broken, whatever it raises."""

    def __init__(self, predictor: Predictor) -> None:
        shape = (len(predictor.signal.leads), predictor.signal.num_samples)
        self.window: Int16[np.ndarray, "lead sample"] = np.random.default_rng(0).integers(-999, 999, shape, np.int16)
        (self._expected,) = predictor.embed_windows(self.window[None])

    def check(self, vector: Float32[np.ndarray, " dimension"]) -> None:
        """Raise RuntimeError for a vector that is not the known one, up to rounding."""
        change = float(np.abs(vector - self._expected).max())
        if not change <= _LARGEST_CHANGE:  # NaN as well
            raise RuntimeError(f"the encoder's vector of a known window has changed by {change:.3g}")


def _read_nothing(uri: str) -> None:
    try:
        storage.read_bytes(uri)
    except storage.MissingFileError:
        return  # the store said so: it answers
