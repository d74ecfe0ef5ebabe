"""What `score` wrote becomes an archive's index: a task per shard, commits by the driver, restarts that go on."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
from mets_ray.pipelines.index_rows import Scores

_COMMIT_EVERY_S = 10.0  # each commit writes a list of all fragments, so shards share one


@dataclass(frozen=True)
class Indexed:
    """The result of an indexing job: `records` and `shards` that it added, what the archive holds now, its check."""

    archive_uri: str
    records: int
    shards: int
    skipped: int
    facts: ArchiveFacts
    check: SelfCheck


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
            uri=dataset.uri,
            source=card.source,
            content_sha256=card.content_sha256,
            synthetic=card.synthetic,
            windows=card.window_stride_s is not None,
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
        "added": f"{result.records:,} records of {result.shards} shards; {result.skipped} were already there",
        "contains": f"{facts.records:,} records of {facts.patients:,} patients: {sources}",
        "bundle": f"{facts.bundle_run}#{facts.bundle_digest[:8]}, {facts.dimension} dimensions",
        "vector index": how,
        "reports": "kept" if facts.has_reports else "not kept (index.reports=false)",
        "check": f"{check.found_themselves} of {check.queries} records find themselves; "
        f"recall@50 beside comparing all {check.recall:.3f}; {check.median_ms:.0f} ms per search",
        "ask it": f'mets-ray search {result.archive_uri} "left bundle branch block"',
    }
    return "\n".join(f"{name:<12}  {value}" for name, value in rows.items())


def _facts(scores: Scores, *, reports: bool) -> ArchiveFacts:
    return ArchiveFacts(
        bundle_uri=scores.facts["bundle_uri"],
        bundle_run=scores.facts["run"],
        bundle_digest=scores.facts["bundle_digest"],
        dimension=scores.dimension,
        has_reports=reports,
    )


def _archive_uri(config: Config, scores: Scores) -> str:
    if config.index.output_uri:
        return storage.absolute(config.index.output_uri)
    name = f"archive-{scores.facts['run']}-{scores.facts['bundle_digest'][:8]}"
    return storage.join(storage.absolute(config.run_uri), name)
