"""Ray Data sets of plain items, without bars of Ray's, and with errors as our functions raised them."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import Dataset

from mets_ray.errors import MetsError


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


def item_dataset(items: Sequence[Any]) -> Dataset:
    """A data set of one block for each item, so that one task reads each and the first is there early."""
    rows = [{"item": pickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def unpack_item(batch: dict[str, Any]) -> Any:
    (packed,) = batch["item"]
    return pickle.loads(packed)  # made by `item_dataset` in this very job
