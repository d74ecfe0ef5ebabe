"""The rows of an index, shard by shard: what `score` wrote of a record, and what its data set says of it."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.dataset.card import Shard
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.quality.measures import read_measures
from mets_ray.dataset.quality.shard import measure_array
from mets_ray.dataset.recording_windows import window_name
from mets_ray.dataset.shard_reader import open_shard
from mets_ray.errors import DatasetError
from mets_ray.pipelines.score import MANIFEST_NAME, METADATA_KEY, score_uri
from mets_ray.text.reports import text_id

_SCORED = ("record_id", "patient_id", "fold", "leads_missing", "embedding")
_WORST_OF_LEADS = ("flat_s", "clipped_s")
_SCORE_AGAIN = "run mets-ray score again with the same settings: it writes what is missing"


@dataclass(frozen=True)
class Scores:
    """A folder that `score` finished, and the data set that it is of. `key`: what the index names the data set by."""

    uri: str
    facts: dict[str, Any]
    dataset: PreparedDataset

    @classmethod
    def open(cls, uri: str, dataset: PreparedDataset) -> "Scores":
        """Raises DatasetError if the scores are unfinished, damaged, without embeddings, or of another data set."""
        place = storage.join(uri, MANIFEST_NAME)
        try:
            facts = dict(json.loads(storage.read_bytes(place)))
            finished, has_embeddings, of = facts["finished"], facts["embeddings"], facts["dataset_sha256"]
        except storage.MissingFileError as error:
            raise DatasetError(
                f"`{uri}` holds no {MANIFEST_NAME}, so it is not a folder of scores",
                hint="give the output_uri that mets-ray score printed",
            ) from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DatasetError(f"`{place}` is damaged: {error}", hint=_SCORE_AGAIN) from error
        if not finished:
            raise DatasetError(f"the scores in `{uri}` are unfinished", hint=_SCORE_AGAIN)
        if not has_embeddings:
            raise DatasetError(
                f"the scores in `{uri}` were written without embeddings, which an index is made of",
                hint="score again with score.embeddings=true",
            )
        if of != dataset.card.content_sha256:
            raise DatasetError(
                f"the scores in `{uri}` are of another data set than `{dataset.uri}`, or of an earlier state of it",
                hint="give the dataset_uri that was scored, or score this one",
            )
        return cls(uri, facts, dataset)

    @property
    def key(self) -> str:
        sha256 = self.dataset.card.content_sha256[:16]
        return f"{sha256}-recordings" if self.facts.get("rows") == "recording" else sha256

    def rows(self, shard: Shard, schema: pa.Schema) -> pa.Table:
        """The index's rows of a shard. Raises DatasetError for a file that is gone or of another bundle or shard."""
        scored = self._scored(shard)
        columns = ["record_id", "age", "sex", "statements", *(["report"] if "report" in schema.names else [])]
        records = open_shard(self.dataset.uri, shard).read(columns=columns)
        places = _places(scored["record_id"].to_pylist(), records["record_id"].to_pylist(), shard.path)
        of_scored = records.take(pa.array(places))
        found = {name: scored[name] for name in _SCORED} | {"age": of_scored["age"], "sex": of_scored["sex"]}
        found |= self._measured(shard, places)
        ids = [[text_id(one) for one in dict.fromkeys(parts)] for parts in of_scored["statements"].to_pylist()]
        rows = len(places)
        found |= {
            "source": pa.array([self.dataset.card.source] * rows),
            "statement_ids": pa.array(ids, pa.list_(pa.int64())),
            "dataset": pa.array([self.key] * rows),
            "shard": pa.array([shard.path] * rows),
            "shard_row": pa.array(places, pa.int32()),
        }
        if "report" in schema.names:
            found["report"] = _or_null(of_scored["report"])
        nothing = pa.nulls(rows)
        return pa.table({field.name: found.get(field.name, nothing) for field in schema}).cast(schema)

    @property
    def dimension(self) -> int:
        """Of the embeddings. Raises as `rows`."""
        return int(self._scored(self.dataset.card.shards[0])["embedding"].type.list_size)

    def _scored(self, shard: Shard) -> pa.Table:
        uri = score_uri(self.uri, shard.path)
        try:
            table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
            metadata = json.loads((table.schema.metadata or {})[METADATA_KEY])
            is_same = metadata["bundle_digest"] == self.facts["bundle_digest"]
            is_same &= metadata["shard_sha256"] == shard.sha256
            scored = table.select(list(_SCORED))
        except storage.MissingFileError as error:
            raise DatasetError(f"the scores of `{shard.path}` are gone", where=uri, hint=_SCORE_AGAIN) from error
        except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise DatasetError(f"`{uri}` holds no scores of this version: {error}", hint=_SCORE_AGAIN) from error
        if not is_same:
            raise DatasetError(
                f"`{uri}` holds scores of another bundle, or of another state of `{shard.path}`",
                hint="score into a folder of its own: the default one is named after bundle and data set",
            )
        return scored

    def _measured(self, shard: Shard, places: list[int]) -> dict[str, pa.Array]:
        """Device, site, time and quality of rows; nothing where an older `prepare` measured none."""
        measures = read_measures(self.dataset.uri, shard)
        if measures is None or measures.num_rows != sum(shard.row_group_rows):
            return {}
        measures = measures.take(pa.array(places))
        found = {name: _or_null(measures[name]) for name in ("device", "site", "recorded_at")}
        found["suspect"] = measures["suspect"]
        with np.errstate(all="ignore"):
            worst = {name: _highest(measure_array(measures, name)) for name in _WORST_OF_LEADS}
            hum = np.stack([measure_array(measures, f"hum_{rate}hz_ratio") for rate in (50, 60)], axis=1)
            worst |= {"hum_ratio": _highest(hum), "wander_share": measure_array(measures, "wander_share")}
        return found | {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in worst.items()}


def _places(scored: list[str], records: list[str], shard_path: str) -> list[int]:
    """Where each scored row stands in its shard: a recording at its first window."""
    if scored == records:
        return list(range(len(records)))
    place: dict[str, int] = {}
    for row, name in reversed(list(enumerate(records))):
        place[name] = row
        if window := window_name(name):
            place[window.record_id] = row
    try:
        return [place[name] for name in scored]
    except KeyError as error:
        raise DatasetError(
            f"the scores of `{shard_path}` have a record {error} that the shard does not have", hint=_SCORE_AGAIN
        ) from error


def _or_null(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([one or None for one in texts.to_pylist()], pa.string())


def _highest(values: np.ndarray) -> np.ndarray:
    """Of each row, nan where all of it is nan."""
    found: np.ndarray = np.fmax.reduce(values, axis=1)
    return found
