"""Filling an index: rows are appended shard by shard, and readers see them once `finish` has named the new version.

A row says which shard it comes from, and the rows of a shard are appended in one commit. So the table itself knows what
it holds: a job that was killed leaves a shard whole or not at all, and the next one skips what is there.
"""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from mets_ray import storage
from mets_ray.archive.facts import ArchiveFacts, IndexedDataset, read_facts, write_facts
from mets_ray.archive.filters import quoted
from mets_ray.archive.lance_table import lance, open_table, storage_options, table_faults, table_uri
from mets_ray.archive.sample import SAMPLE_NAME, SAMPLE_RECORDS, Sample
from mets_ray.archive.schema import PATIENT, table_schema
from mets_ray.errors import ConfigError

VECTOR_INDEX = "embedding_idx"
INDEXED_FROM = 50_000
"""Records from which there is a vector index; below, comparing all of them takes a few milliseconds."""

_GROWN = 1.5  # the index is trained anew when it should have so many times its partitions
_COLUMN_INDICES = {"record_id": "BTREE", "patient_id": "BTREE", "age": "BTREE", "sex": "BITMAP", "device": "BITMAP"}
_ROWS_PER_FRAGMENT = 1 << 20
_IDS_AT_ONCE = 5000
_COUNTED_EXACTLY = 10_000_000
_VERSIONS_KEPT_FOR = timedelta(days=1)  # a server that opened one goes on with it


class IndexWriter:
    """An index that this process fills; hold its folder meanwhile (`storage.hold`)."""

    def __init__(self, uri: str, facts: ArchiveFacts, table: Any) -> None:
        self.uri = uri
        self.facts = facts
        self._table = table

    @classmethod
    def claim(cls, uri: str, wanted: ArchiveFacts, key: str, dataset: IndexedDataset) -> "IndexWriter":
        """Open the index to add a data set, or make an empty one. key: what its rows name it by.

        Raises CheckpointError if the index is of another bundle, ConfigError if it has reports and `wanted` has none or
        the other way round, DatasetError if it is damaged or its table is gone.
        """
        found = read_facts(uri)
        facts = found or wanted
        facts.require_bundle(wanted.bundle_digest, uri)
        if facts.has_reports != wanted.has_reports:
            raise ConfigError(
                f"`{uri}` was made with index.reports={str(facts.has_reports).lower()}, and it cannot be changed",
                hint="set it as it was, or choose another index.output_uri",
            )
        known = facts.datasets.get(key)
        added = dataset if known is None else known.model_copy(update={"uri": dataset.uri})
        facts = facts.model_copy(update={"datasets": facts.datasets | {key: added}})
        if facts != found:
            write_facts(uri, facts)
        return cls(uri, facts, open_table(uri) if facts.table_version else _open_or_create(uri, facts))

    @property
    def is_published(self) -> bool:
        """Whether readers see all that the table holds."""
        sample_uri = storage.join(self.uri, SAMPLE_NAME)
        is_newest = self.facts.table_version == self._table.version
        return is_newest and storage.is_whole(sample_uri, self.facts.sample_sha256)

    def shards(self) -> set[tuple[str, str]]:
        """(data set, shard) of all rows."""
        found: set[tuple[str, str]] = set()
        with table_faults(self.uri):
            for batch in self._table.scanner(columns=["dataset", "shard"]).to_batches():
                pairs = pa.Table.from_batches([batch]).group_by(["dataset", "shard"]).aggregate([])
                found.update(zip(pairs["dataset"].to_pylist(), pairs["shard"].to_pylist(), strict=True))
        return found

    def append(self, fragments: Sequence[str]) -> None:
        """Commit what `write_fragments` returned: all of it, or nothing."""
        library = lance()
        with table_faults(self.uri):
            parsed = [library.fragment.FragmentMetadata.from_json(one) for one in fragments]
            self._table = library.LanceDataset.commit(
                table_uri(self.uri),
                library.LanceOperation.Append(parsed),
                read_version=self._table.version,
                storage_options=storage_options(self.uri),
            )

    def finish(self, key: str) -> ArchiveFacts:
        """Publish the table: every record once, indices up to date, a new sample, and the facts last.

        key: of the data set that was added. Records that an earlier data set of its source holds too are taken from it.
        Raises ConfigError, and takes the new rows out again, where an equal record id is of another patient: then it is
        no later state of the same records.
        """
        with table_faults(self.uri):
            self._drop_older(key)
            self._table.optimize.compact_files(target_rows_per_fragment=_ROWS_PER_FRAGMENT)
            records = self._table.count_rows()
            partitions = self._index_vectors(records)
            self._index_columns()
            embeddings = self._sampled(records)
            patients = self._count_patients(records)
            shards = self._count_shards()
        had_readers = self.facts.table_version > 0
        datasets = {
            name: one.model_copy(update={"shards": shards.get(name, 0)}) for name, one in self.facts.datasets.items()
        }
        self.facts = self.facts.model_copy(
            update={
                "records": records,
                "patients": patients,
                "datasets": datasets,
                "table_version": self._table.version,
                "partitions": partitions,
                "sample": len(embeddings),
                "sample_sha256": Sample(embeddings).write(self.uri),
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        write_facts(self.uri, self.facts)
        with table_faults(self.uri):
            self._table.cleanup_old_versions(older_than=_VERSIONS_KEPT_FOR if had_readers else timedelta(0))
        return self.facts

    def _drop_older(self, key: str) -> None:
        source = self.facts.datasets[key].source
        if not any(one.source == source for name, one in self.facts.datasets.items() if name != key):
            return
        of_source = f"source = {quoted(source)} AND dataset <> {quoted(key)}"
        new = self._table.scanner(
            columns=["record_id", "patient_id"], filter=f"dataset = {quoted(key)}", batch_size=_IDS_AT_ONCE
        ).to_batches()
        replaced = []
        for batch in new:
            patients = dict(zip(batch["record_id"].to_pylist(), batch["patient_id"].to_pylist(), strict=True))
            condition = f"{of_source} AND record_id IN ({', '.join(map(quoted, patients))})"
            older = self._table.to_table(columns=["record_id", "patient_id"], filter=condition).to_pydict()
            if any(patients[record] != patient for record, patient in zip(*older.values(), strict=True)):
                self._table.delete(f"dataset = {quoted(key)}")
                raise ConfigError(
                    f"a record of `{key}` has the id of another patient's record in `{self.uri}`, and both come from "
                    f"the source `{source}`",
                    hint="index it into a folder of its own, or give records ids that differ, such as A-17 and B-17",
                )
            if older["record_id"]:
                replaced.append(condition)
        for condition in replaced:
            self._table.delete(condition)

    def _index_vectors(self, records: int) -> int:
        """Make the vector index, or add what is new. Returns its partitions; 0 for too few records."""
        if records < INDEXED_FROM:
            return 0
        wanted = int(records**0.5) // 2
        if self.facts.partitions * _GROWN >= wanted and VECTOR_INDEX in self._index_names():
            self._table.optimize.optimize_indices(index_names=[VECTOR_INDEX])
            return self.facts.partitions
        self._table.create_index(
            "embedding", "IVF_RQ", VECTOR_INDEX, metric="cosine", num_partitions=wanted, replace=True
        )
        return wanted

    def _index_columns(self) -> None:
        there = self._index_names()
        for column, kind in _COLUMN_INDICES.items():
            if f"{column}_idx" not in there:
                self._table.create_scalar_index(column, kind)
        if old := [f"{column}_idx" for column in _COLUMN_INDICES if f"{column}_idx" in there]:
            self._table.optimize.optimize_indices(index_names=old)

    def _index_names(self) -> set[str]:
        return {one.name for one in self._table.describe_indices()}

    def _sampled(self, records: int) -> np.ndarray:
        rows = sorted(random.Random(records).sample(range(records), min(SAMPLE_RECORDS, records)))
        flat = self._table.take(rows, columns=["embedding"])["embedding"].combine_chunks().flatten().to_numpy()
        found: np.ndarray = flat.reshape(len(rows), -1)
        return found

    def _count_patients(self, records: int) -> int:
        patient = f"concat({', chr(1), '.join(PATIENT)})"
        count = f"count(distinct {patient})" if records <= _COUNTED_EXACTLY else f"approx_distinct({patient})"
        (batch,) = self._table.sql(f"select {count} from dataset").build().to_batch_records()
        return int(batch.column(0)[0].as_py())

    def _count_shards(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for dataset, _ in self.shards():
            counts[dataset] = counts.get(dataset, 0) + 1
        return counts


def write_fragments(uri: str, rows: pa.Table) -> list[str]:
    """Write rows beside an archive's table, where no reader sees them until `IndexWriter.append` commits them."""
    library = lance()
    with table_faults(uri):
        written = library.fragment.write_fragments(rows, table_uri(uri), storage_options=storage_options(uri))
    return [json.dumps(one.to_json()) for one in written]


def _open_or_create(uri: str, facts: ArchiveFacts) -> Any:
    """The table of an index that was never finished: what a killed job left, or a new one."""
    schema = table_schema(facts.dimension, reports=facts.has_reports)
    library = lance()
    with table_faults(uri):
        try:
            return library.dataset(table_uri(uri), storage_options=storage_options(uri))
        except (ValueError, FileNotFoundError):
            return library.write_dataset(
                schema.empty_table(), table_uri(uri), schema=schema, storage_options=storage_options(uri)
            )
