"""What Ray knows that the jobs ask for: the nodes that are alive, and the error behind an error."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import Dataset

from mets_ray.errors import MetsError


def live_nodes() -> list[dict[str, float]]:
    """Resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def own_error(error: BaseException) -> BaseException:
    """The MetsError that a task, an actor or a training worker raised on purpose, or `error` where there is none."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if isinstance(link, MetsError):
            return link
        pending += [link.__cause__, link.__context__, getattr(link, "cause", None)]
        pending += list(getattr(link, "worker_failures", {}).values())
    return error


def plain(dataset: Dataset) -> Dataset:
    """No bars of Ray's beside ours, and errors of our functions as they were raised; on this data set alone."""
    dataset.context.enable_progress_bars = False
    dataset.context.raise_original_map_exception = True
    return dataset


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what was raised on purpose, without Ray's report of the task around it."""
    try:
        yield
    except Exception as error:
        raise own_error(error) from None
