"""One record by its id: what is read of the shard, what is kept, and what is said where it is not there."""

from collections import Counter

import numpy as np
import pytest

from mets_ray.dataset import shard_writer
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.dataset.single_records import SingleRecords
from mets_ray.errors import DatasetError
from mets_ray.storage import pieces
from tests.support.datasets import synthetic_rows, write_dataset

SHARD = "shards/part-00000-abc.parquet"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three row groups, of 20, 20 and 10 records."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shard_writer, "MAX_ROW_GROUP_ROWS", 20)
        return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("dataset"), synthetic_rows(50)))


@pytest.fixture
def rows(dataset):
    groups = dataset.row_groups(dataset.all_folds)
    return [dataset.read(group, dataset.all_folds) for group in groups]


def test_signal_and_report_are_those_of_the_record(dataset, rows):
    records = SingleRecords(dataset, cache_bytes=10**6)
    for table, row in ((rows[0], 3), (rows[2], 9), (rows[0], 19)):
        record_id = table["record_id"][row].as_py()
        found = records.read(SHARD, record_id)
        assert np.array_equal(found.signal_uv, signals(table)[row])
        assert not found.signal_uv.flags.writeable
        assert found.report == table["report"][row].as_py()


def test_only_the_row_group_of_the_record_is_read_and_then_kept(dataset, rows, monkeypatch):
    read = Counter()
    real = pieces._CheckedFile._read

    def counted(self, start, end):
        read["bytes"] += end - start
        return real(self, start, end)

    monkeypatch.setattr(pieces._CheckedFile, "_read", counted)
    records = SingleRecords(dataset, cache_bytes=10**6)
    in_last = rows[2]["record_id"][0].as_py()
    records.read(SHARD, in_last)
    assert 0 < read["bytes"] < 0.5 * sum(piece.size for piece in dataset.shards[SHARD].pieces)
    read.clear()
    records.read(SHARD, in_last)
    assert read["bytes"] == 0


def test_what_is_kept_is_bounded(dataset, rows):
    one = signals(rows[1])[0].nbytes
    limit = int(3.5 * one)
    records = SingleRecords(dataset, cache_bytes=limit)
    for row in range(10):
        records.read(SHARD, rows[1]["record_id"][row].as_py())
    assert 3 * one < records.cached_bytes <= limit
    nothing = SingleRecords(dataset, cache_bytes=one - 1)
    nothing.read(SHARD, rows[1]["record_id"][0].as_py())
    assert nothing.cached_bytes == 0


def test_what_is_not_there_is_named(dataset, tmp_path):
    records = SingleRecords(dataset, cache_bytes=10**6)
    with pytest.raises(DatasetError, match="a record of the index is not in"):
        records.read(SHARD, "absent")
    with pytest.raises(DatasetError, match=r"no shard `\.\./other`"):
        records.read("../other", "absent")
    gone = SingleRecords(PreparedDataset.open(write_dataset(tmp_path, synthetic_rows(2))), cache_bytes=10**6)
    (tmp_path / SHARD).unlink()
    with pytest.raises(DatasetError, match="listed in the card but missing"):
        gone.read(SHARD, "0")
