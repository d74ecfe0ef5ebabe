"""The heads of a served bundle: which there are, and their logits of the windows of a request."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from mets_ray.errors import RequestError
from mets_ray.model.heads import HeadFacts
from mets_ray.model.predictor import Predictor
from mets_ray.model.windows import Windows
from mets_ray.serve import messages

Compute = Callable[[np.ndarray], np.ndarray]
"""Windows, int16 [window, lead, sample], to float32 [window, value]; called from several threads."""

Queue = Callable[[np.ndarray, int], Awaitable[np.ndarray]]
"""A window and its number in the request to its values; concurrent calls share a forward pass."""


@dataclass(frozen=True)
class _Place:
    """Where the logits of a head are found: in some columns of what its queue gives."""

    queue: Queue
    columns: slice


class Heads:
    """Logits by head. Those that use the bundle's encoder share a queue, a fine-tuned one has its own.

    queue: makes one from what it computes and the predictor whose encoder that is; default: a thread for each window.
    """

    def __init__(self, predictor: Predictor, queue: Callable[[Compute, Predictor], Queue] | None = None) -> None:
        self.facts = predictor.heads
        groups: dict[int, list[str]] = {}
        for name in self.facts:
            groups.setdefault(id(predictor.encoder_of(name)), []).append(name)
        self._places: dict[str, _Place] = {}
        for names in groups.values():
            compute = _logits_of(predictor, names)
            shared = queue(compute, predictor.encoder_of(names[0])) if queue else _in_a_thread(compute)
            ends = list(itertools.accumulate(len(self.facts[name].classes) for name in names))
            for name, start, end in zip(names, [0, *ends], ends, strict=False):
                self._places[name] = _Place(shared, slice(start, end))

    def require(self, name: str | None) -> HeadFacts:
        """The facts of a head. Raises RequestError 422 without a name, 404 if the bundle has none of this name."""
        known = ", ".join(self.facts)
        hint = f"heads of this bundle: {known}" if known else "this bundle has none; `mets-ray adapt` makes one"
        if name is None:
            raise RequestError(422, "no_head", "`head` is not given", hint=hint)
        if name not in self.facts:
            raise RequestError(404, "unknown_head", f"there is no head {name[:80]!r}", hint=hint)
        return self.facts[name]

    async def logits(self, name: str, windows: Windows) -> Float32[np.ndarray, " class"]:
        """Logits of an ECG, the mean over its windows. The head must exist."""
        place = self._places[name]
        rows = await asyncio.gather(*map(place.queue, windows.signal_uv, itertools.count()))
        mean: np.ndarray = np.stack(rows)[:, place.columns].mean(axis=0, dtype=np.float64)
        return mean.astype(np.float32)

    def listed(self) -> list[messages.HeadFacts]:
        """For `/v1/model`."""
        fields = messages.HeadFacts.model_fields
        return [
            messages.HeadFacts.model_validate({name: getattr(facts, name) for name in fields})
            for facts in self.facts.values()
        ]


def _logits_of(predictor: Predictor, names: list[str]) -> Compute:
    def compute(signal_uv: np.ndarray) -> np.ndarray:
        return np.concatenate(list(predictor.head_logits(names, signal_uv).values()), axis=1)

    return compute


def _in_a_thread(compute: Compute) -> Queue:
    async def one(window: np.ndarray, place: int) -> np.ndarray:
        row: np.ndarray = (await asyncio.to_thread(compute, window[None]))[0]
        return row

    return one
