"""Between a run and its driver: texts, reports of the workers, the request to stop. No torch here: it is an actor."""

import asyncio
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Stop = Literal["save", "leave"]
"""How workers end that are told to stop: with a checkpoint, or as they are."""

_LOOK_EVERY_S = 0.5


class Messages:
    """An actor that holds the messages for the driver until it asks, and the workers' questions until they have an
    answer."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self._how: Stop = "save"
        self._texts: list[Any] = []
        self._texts_or_stop = asyncio.Event()

    async def tell(self, what: dict[str, Any]) -> None:
        await self._told.put(what)

    async def next(self) -> dict[str, Any] | None:
        """The oldest message, or None if none comes for a while."""
        try:
            return await asyncio.wait_for(self._told.get(), _LOOK_EVERY_S)
        except TimeoutError:
            return None

    async def stop(self, how: Stop) -> None:
        self._how = how
        self._stopping.set()
        self._texts_or_stop.set()

    async def stopped(self) -> Stop:
        """Returns once the run is to stop."""
        await self._stopping.wait()
        return self._how

    async def give_texts(self, reference: list[Any]) -> None:
        """reference: to the run's `Texts`, in a list, so that it stays a reference."""
        self._texts = reference
        self._texts_or_stop.set()

    async def texts(self) -> list[Any]:
        """What `give_texts` was called with; empty if the run is to stop before that."""
        await self._texts_or_stop.wait()
        return self._texts


def start_messages() -> Any:
    """The actor of a run, pinned to the driver's node: on another one it would be lost with that node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Messages).options(num_cpus=0, scheduling_strategy=here).remote()
