"""What `prepare` measured of single records: the device, the site, and which faults their signals have."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mets_ray.dataset.card import Shard
from mets_ray.dataset.quality.counts import BOUNDS
from mets_ray.dataset.quality.measures import read_measures
from mets_ray.dataset.quality.shard import in_any_lead, measure_array

_FILES_IN_FLIGHT = 32


@dataclass(frozen=True)
class RecordQuality:
    """`device` and `site` are "" where they are not known. `faults`: names of `BOUNDS` that a lead is beyond, and
    `leads` where the leads contradict each other."""

    device: str
    site: str
    faults: tuple[str, ...]


def record_qualities(dataset_uri: str, shards: Iterable[Shard]) -> dict[str, RecordQuality]:
    """By the id of the row. Empty for shards of an older version, which were not measured."""
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        parts = pool.map(lambda shard: _of_shard(dataset_uri, shard), shards)
        return {name: quality for part in parts for name, quality in part.items()}


def _of_shard(dataset_uri: str, shard: Shard) -> dict[str, RecordQuality]:
    measures = read_measures(dataset_uri, shard)
    if measures is None:
        return {}
    beyond = {
        name: in_any_lead(bound.is_beyond(_measured(measure_array(measures, bound.column), bound.column)))
        for name, bound in BOUNDS.items()
    }
    beyond["leads"] = np.asarray([bool(suspect) for suspect in measures["suspect"].to_pylist()], dtype=np.bool_)
    names = measures["record_id"].to_pylist()
    told = zip(names, measures["device"].to_pylist(), measures["site"].to_pylist(), strict=True)
    return {
        str(name): RecordQuality(device, site, tuple(fault for fault, rows in beyond.items() if rows[row]))
        for row, (name, device, site) in enumerate(told)
    }


def _measured(values: np.ndarray, column: str) -> np.ndarray:
    return np.abs(values) if column == "offset_mv" else values
