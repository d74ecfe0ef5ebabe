"""What `score` wrote becomes an archive's index: a task per shard, commits by the driver, restarts that go on."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.archive.archive import open_archive
from mets_ray.archive.facts import ArchiveFacts, IndexedDataset
from mets_ray.archive.lance_table import lance
from mets_ray.archive.schema import table_schema
from mets_ray.archive.self_check import SelfCheck, check_archive
from mets_ray.archive.writer import IndexWriter, write_fragments
from mets_ray.cluster.ray_data import item_dataset, own_errors, plain, unpack_item
from mets_ray.config.settings import Config
from mets_ray.console import progress_bar, say
from mets_ray.dataset.card import Shard
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.quality.measures import read_measures
from mets_ray.dataset.quality.shard import measure_array
from mets_ray.dataset.recording_windows import window_name
from mets_ray.dataset.shard_reader import open_shard
from mets_ray.errors import DatasetError
from mets_ray.pipelines.score import MANIFEST_NAME, METADATA_KEY, score_uri
from mets_ray.text.reports import text_id

_COMMIT_EVERY_S = 10.0  # each commit writes a list of all fragments, so shards share one
_SCORED = ("record_id", "patient_id", "fold", "leads_missing", "embedding")
_WORST_OF_LEADS = ("flat_s", "clipped_s")
_SCORE_AGAIN = "run mets-ray score again with the same settings: it writes what is missing"


@dataclass(frozen=True)
class Indexed:
    """The result of an indexing job: `records` and `shards` that it added, what the archive holds now, its check."""

    archive_uri: str
    records: int
    shards: int
    skipped: int
    facts: ArchiveFacts
    check: SelfCheck


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
                f"`{uri}` holds no {MANIFEST_NAME}, so it is no folder of scores",
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
        """Device, site and quality of rows; nothing where an older `prepare` measured none."""
        measures = read_measures(self.dataset.uri, shard)
        if measures is None or measures.num_rows != sum(shard.row_group_rows):
            return {}
        measures = measures.take(pa.array(places))
        found = {name: _or_null(measures[name]) for name in ("device", "site")}
        found["suspect"] = measures["suspect"]
        with np.errstate(all="ignore"):
            worst = {name: _highest(measure_array(measures, name)) for name in _WORST_OF_LEADS}
            hum = np.stack([measure_array(measures, f"hum_{rate}hz_ratio") for rate in (50, 60)], axis=1)
            worst |= {"hum_ratio": _highest(hum), "wander_share": measure_array(measures, "wander_share")}
        return found | {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in worst.items()}


def index(config: Config, dataset_uri: str) -> Indexed:
    """Add the records of a scored data set to an archive's index, which is made where there is none.

    A shard that is in the index is skipped, so the same command goes on where it was killed. Records of the same source
    that an earlier state of the data set put there are replaced. Readers see the result when the job has finished.

    Raises CheckpointError if the index is of another bundle, DatasetError as `Scores.open` and for damaged files,
    ConfigError for settings that the index was not made with, FolderInUseError if another job writes there.
    """
    lance()  # before anything is read: the extra may not be installed
    settings, dataset = config.index, PreparedDataset.open(dataset_uri)
    assert settings.scores_uri is not None
    scores = Scores.open(settings.scores_uri, dataset)
    card = dataset.card
    wanted = _facts(scores, reports=settings.reports and card.has_reports)
    uri = _archive_uri(config, scores)
    with storage.hold(uri, "index", timeout_s=config.lease_timeout_s):
        of = IndexedDataset(
            uri=dataset.uri, source=card.source, content_sha256=card.content_sha256, synthetic=card.synthetic
        )
        writer = IndexWriter.claim(uri, wanted, scores.key, of)
        known = {path for key, path in writer.shards() if key == scores.key}
        todo = [shard for shard in card.shards if shard.path not in known]
        records = _append_shards(writer, scores, todo) if todo else 0
        facts = writer.facts if writer.is_published else writer.finish(scores.key)
    result = Indexed(uri, records, len(todo), len(known), facts, check_archive(open_archive(uri)))
    say("\n" + table(result))
    return result


def _append_shards(writer: IndexWriter, scores: Scores, todo: list[Shard]) -> int:
    """Write the rows of shards in tasks and commit them as they arrive. Returns their number."""
    uri, schema = writer.uri, table_schema(writer.facts.dimension, reports=writer.facts.has_reports)

    def write(batch: dict[str, Any]) -> dict[str, Any]:
        rows = scores.rows(unpack_item(batch), schema)
        return {"records": [rows.num_rows], "fragments": [json.dumps(write_fragments(uri, rows))]}

    written = plain(item_dataset(todo).map_batches(write, batch_size=None))
    total, records = sum(sum(shard.row_group_rows) for shard in todo), 0
    with own_errors(), progress_bar(total=total, unit="ECG", description="index") as bar:
        for fragments, count in _in_commits(written):
            writer.append(fragments)
            records += count
            bar.update(count)
    return records


def _in_commits(written: Any) -> Iterator[tuple[list[str], int]]:
    """The fragments of several shards at a time, and how many records they hold."""
    fragments: list[str] = []
    records, since = 0, -math.inf  # the first at once: what the store refuses is known before all shards are written
    # No prefetching: the iterator would hold back each result until the next shard is finished.
    for batch in written.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for packed, count in zip(batch["fragments"].tolist(), batch["records"].tolist(), strict=True):
            fragments += json.loads(packed)
            records += int(count)
        if time.monotonic() - since >= _COMMIT_EVERY_S:
            yield fragments, records
            fragments, records, since = [], 0, time.monotonic()
    if fragments:
        yield fragments, records


def figures(result: Indexed) -> dict[str, Any]:
    """The machine-readable result of a job."""
    facts, check = result.facts, result.check
    return {
        "archive_uri": result.archive_uri,
        "records": result.records,
        "shards": result.shards,
        "skipped_shards": result.skipped,
        "records_in_archive": facts.records,
        "patients_in_archive": facts.patients,
        "partitions": facts.partitions,
        "recall_at_50": check.recall,
        "found_themselves": check.found_themselves,
        "checked": check.queries,
    }


def table(result: Indexed) -> str:
    """Did it work? Lines for people."""
    facts, check = result.facts, result.check
    sources = ", ".join(f"{one.source} ({one.shards} shards)" for one in facts.datasets.values() if one.shards)
    how = f"{facts.partitions:,} partitions" if facts.partitions else "none: so few records are all compared"
    rows = {
        "archive": result.archive_uri,
        "added": f"{result.records:,} records of {result.shards} shards; {result.skipped} were there",
        "holds": f"{facts.records:,} records of {facts.patients:,} patients: {sources}",
        "bundle": f"{facts.bundle_run}#{facts.bundle_digest[:8]}, {facts.dimension} dimensions",
        "vector index": how,
        "reports": "kept" if facts.has_reports else "not kept (index.reports=false)",
        "check": f"{check.found_themselves} of {check.queries} records find themselves; "
        f"recall@50 beside comparing all {check.recall:.3f}; {check.median_ms:.0f} ms a search",
        "ask it": f'mets-ray search {result.archive_uri} "left bundle branch block"',
    }
    return "\n".join(f"{name:<12}  {value}" for name, value in rows.items())


def _facts(scores: Scores, *, reports: bool) -> ArchiveFacts:
    first = scores.dataset.card.shards[0]
    dimension = scores._scored(first)["embedding"].type.list_size
    return ArchiveFacts(
        bundle_uri=scores.facts["bundle_uri"],
        bundle_run=scores.facts["run"],
        bundle_digest=scores.facts["bundle_digest"],
        dimension=dimension,
        has_reports=reports,
    )


def _archive_uri(config: Config, scores: Scores) -> str:
    if config.index.output_uri:
        return storage.absolute(config.index.output_uri)
    name = f"archive-{scores.facts['run']}-{scores.facts['bundle_digest'][:8]}"
    return storage.join(storage.absolute(config.run_uri), name)


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
            f"the scores of `{shard_path}` have a record {error} that it has not", hint=_SCORE_AGAIN
        ) from error


def _or_null(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([one or None for one in texts.to_pylist()], pa.string())


def _highest(values: np.ndarray) -> np.ndarray:
    """Of each row, nan where all of it is nan."""
    found: np.ndarray = np.fmax.reduce(values, axis=1)
    return found
