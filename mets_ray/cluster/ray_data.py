"""Ray Data sets of plain items, without Ray's progress bars, and with errors as our functions raised them."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.data import Dataset

from mets_ray.errors import MetsError


def own_error(error: BaseException) -> BaseException:
    """The MetsError that a task, an actor or a training worker raised on purpose, or `error` if there is none."""
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
    """Turn off Ray's progress bars and raise our functions' errors unchanged, for this data set only."""
    dataset.context.enable_progress_bars = False
    dataset.context.raise_original_map_exception = True
    return dataset


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise the error that was raised on purpose, without Ray's task report around it."""
    try:
        yield
    except Exception as error:
        raise own_error(error) from None


def item_dataset(items: Sequence[Any]) -> Dataset:
    """A data set with one block per item, so that one task reads each item and the first results arrive early."""
    rows = [{"item": pickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def unpack_item(batch: dict[str, Any]) -> Any:
    (packed,) = batch["item"]
    return pickle.loads(packed)  # made by `item_dataset` in this same job
