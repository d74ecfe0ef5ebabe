"""Shards: byte-equal, resumable, refused while unfinished; rows come back as planned."""

import json
import pickle
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from mets_ray.dataset.card import CARD_NAME, SCHEMA_VERSION
from mets_ray.dataset.folds import Selection, patient_hash, selections
from mets_ray.dataset.plan import plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import DatasetError
from mets_ray.sources.manifest import ManifestRow
from mets_ray.text.reports import apply_template, text_id
from tests.support.datasets import SIGNAL, synthetic_rows, write_card, write_dataset, write_rows
from tests.support.wfdb_records import DIGITAL, write_record

TEMPLATE = "The report of the ECG is that {}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two shards of 300 and 40 synthetic records; the first has two row groups."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = synthetic_rows(340)
    summaries = [
        write_rows(folder, rows[:300], name="part-00000-abc"),
        write_rows(folder, rows[300:], name="part-00001-abc"),
    ]
    return PreparedDataset(str(folder), write_card(folder, summaries)), rows


def test_two_runs_write_the_same_bytes_whatever_the_concurrency(tmp_path):
    rows = synthetic_rows(40)
    first = write_rows(tmp_path / "a", rows, reads_in_flight=1)
    second = write_rows(tmp_path / "b", rows, reads_in_flight=16)
    assert first == second
    assert (tmp_path / "a" / first.shard.path).read_bytes() == (tmp_path / "b" / first.shard.path).read_bytes()


def test_a_finished_shard_is_not_read_again(tmp_path):
    rows = synthetic_rows(40)
    first = write_rows(tmp_path, rows)
    gone = [row.__class__(**vars(row) | {"record_uri": "/nowhere/at/all"}) for row in rows]
    again = write_rows(tmp_path, gone)
    assert again.reused
    assert again.shard == first.shard


def test_a_shard_with_files_that_may_have_been_mended_is_read_again(tmp_path):
    rows = list(synthetic_rows(4))
    absent = ManifestRow(**vars(rows[2]) | {"record_uri": str(tmp_path / "absent")})
    first = write_rows(tmp_path, [*rows[:2], absent, rows[3]])
    assert first.rejected == {"missing_file": 1}
    mended = write_rows(tmp_path, rows)
    assert mended.rejected == {}
    assert mended.shard != first.shard
    without_words = ManifestRow(**vars(rows[2]) | {"report": ""})
    write_rows(tmp_path, [without_words], name="part-00001-abc")
    assert write_rows(tmp_path, [rows[2]], name="part-00001-abc").reused  # no file to mend


def test_records_with_some_of_the_leads_are_rejected_or_kept_with_zeros(tmp_path):
    digital = DIGITAL[:, :2]
    row = synthetic_rows(1)[0]
    rows = [row, ManifestRow(**vars(row) | {"record_id": "two", "record_uri": write_record(tmp_path, "two", digital)})]
    refused = write_rows(tmp_path / "reject", rows)
    assert (refused.rejected, refused.absent_leads) == ({"missing_leads": 1}, {})
    kept = write_rows(tmp_path / "zero", rows, zero_leads=True)
    assert (kept.rejected, kept.absent_leads) == ({}, dict.fromkeys(LEADS[6:], 1))
    table = pq.read_table(tmp_path / "zero" / kept.shard.path)
    there = signals(table).any(axis=2)
    assert there[0].all()
    assert there[1].tolist() == [True] * 6 + [False] * 6
    write_card(tmp_path / "zero", [kept])


def test_what_is_measured_on_an_ecg_is_added_to_its_report(tmp_path):
    rows = [*synthetic_rows(20)]
    rows.append(
        ManifestRow(**vars(rows[0]) | {"record_id": "few", "record_uri": write_record(tmp_path, "few", DIGITAL[:, :2])})
    )
    plain = pq.read_table(tmp_path / "a" / write_rows(tmp_path / "a", rows, zero_leads=True).shard.path)
    summary = write_rows(tmp_path / "b", rows, zero_leads=True, measured=True)
    table = pq.read_table(tmp_path / "b" / summary.shard.path)
    added = []
    for before, row in zip(plain.to_pylist(), table.to_pylist(), strict=True):
        assert row["statements"][: len(before["statements"] or [before["report"]])] == (
            before["statements"] or [before["report"]]
        )
        added.append(row["statements"][len(before["statements"] or [before["report"]]) :])
        assert row["report"].startswith(before["report"].rstrip(". "))
        assert all(f"{one}." in row["report"] for one in added[-1])
        assert {**row, "report": "", "statements": []} == {**before, "report": "", "statements": []}
    assert summary.stated == {"statements measured on the ECG": {"added": sum(map(bool, added))}}
    assert {"Regular RR intervals", "Irregular RR intervals"} & {one for parts in added for one in parts}
    assert not any("chest" in one for one in added[-1])  # its chest leads are zeros, which are no low voltage


def test_an_unfinished_shard_is_made_again(tmp_path):
    rows = synthetic_rows(40)
    first = write_rows(tmp_path, rows)
    next((tmp_path / "progress").iterdir()).unlink()  # stopped after the shard, before its summary
    (tmp_path / first.shard.path).write_bytes(b"half a shard")
    again = write_rows(tmp_path, rows)
    assert not again.reused
    assert pq.read_metadata(tmp_path / first.shard.path).num_rows == len(rows)


def test_bad_records_are_counted_by_reason_and_kept_with_their_report(tmp_path):
    rows = list(synthetic_rows(6))
    rows[1] = ManifestRow(**vars(rows[1]) | {"report": "  "})
    rows[2] = ManifestRow(**vars(rows[2]) | {"report": "Trace only requested."})
    rows[3] = ManifestRow(**vars(rows[3]) | {"record_uri": str(tmp_path / "absent")})
    summary = write_rows(tmp_path, rows, duplicates=[4])
    expected = {"empty_report": 1, "no_findings": 1, "missing_file": 1, "duplicate_record_id": 1}
    assert summary.rejected == expected
    assert sum(summary.shard.row_group_rows) + sum(summary.rejected.values()) == summary.records_in == 6
    kept = pq.read_table(tmp_path / "rejected" / "part-00000-abc.parquet").to_pylist()
    assert [row["record_id"] for row in kept] == [row.record_id for row in rows[1:5]]
    assert kept[1]["report"] == "Trace only requested."


def test_a_shard_of_which_nothing_passes_writes_no_parquet(tmp_path):
    rows = [ManifestRow(**vars(row) | {"report": ""}) for row in synthetic_rows(3)]
    summary = write_rows(tmp_path, rows)
    assert summary.shard is None
    assert not (tmp_path / "shards").exists()


class SlowStore(LocalFileSystem):
    """The local disk behind a network that takes 50 ms for each request."""

    protocol = "slow"
    requests = 0
    most_at_once = 0
    _now = 0
    _lock = threading.Lock()

    def _wait(self):
        cls = SlowStore
        with cls._lock:
            cls.requests += 1
            cls._now += 1
            cls.most_at_once = max(cls.most_at_once, cls._now)
        time.sleep(0.05)
        with cls._lock:
            cls._now -= 1

    def cat_file(self, path, **options):
        self._wait()
        return super().cat_file(path, **options)

    def open(self, path, mode="rb", **options):
        if "r" in mode:
            self._wait()
        return super().open(path, mode, **options)


def test_reads_overlap_in_a_store_that_answers_slowly(tmp_path):
    import fsspec
    import wfdb

    fsspec.register_implementation("slow", SlowStore, clobber=True)
    wfdb.wrsamp(
        "r", 100, ["mV"] * 12, list(SIGNAL.leads), np.random.default_rng(0).normal(0, 0.3, (1000, 12)),
        fmt=["16"] * 12, adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path),
    )  # fmt: skip
    rows = [ManifestRow(**vars(row) | {"record_uri": f"slow://{tmp_path}/r"}) for row in synthetic_rows(64)]
    summary = write_rows(tmp_path / "out", rows, reads_in_flight=16)
    assert sum(summary.shard.row_group_rows) == 64
    assert SlowStore.requests >= 128  # header and samples of each record
    assert SlowStore.most_at_once >= 12


def test_a_folder_without_a_card_or_with_another_schema_is_no_data_set(tmp_path):
    write_rows(tmp_path, synthetic_rows(4))
    with pytest.raises(DatasetError, match=r"holds no card\.json"):
        PreparedDataset.open(str(tmp_path))
    write_card(tmp_path, [write_rows(tmp_path, synthetic_rows(4))], schema_version=99)
    with pytest.raises(DatasetError, match="schema version 99"):
        PreparedDataset.open(str(tmp_path))
    (tmp_path / CARD_NAME).write_text(json.dumps({"schema_version": SCHEMA_VERSION}))
    with pytest.raises(DatasetError, match="is not a card"):
        PreparedDataset.open(str(tmp_path))


def test_a_card_that_names_an_absent_shard_says_which(dataset, tmp_path):
    elsewhere = PreparedDataset(str(tmp_path), dataset[0].card)
    with pytest.raises(DatasetError, match=r"part-00000-abc\.parquet` is listed in the card"):
        elsewhere.row_groups(elsewhere.all_folds)


def test_row_groups_count_the_selected_records_only(dataset):
    data, rows = dataset
    groups = data.row_groups(Selection((1, 2)))
    assert sum(group.rows for group in groups) == sum(row.fold in (1, 2) for row in rows)
    assert data.patients_of(Selection((3,))) == {row.patient_id for row in rows if row.fold == 3}
    everything = data.row_groups(data.all_folds)
    assert [group.rows for group in everything] == [256, 44, 40]


def test_a_data_set_travels_without_its_index(dataset):
    data, _ = dataset
    light = len(pickle.dumps(PreparedDataset(data.uri, data.card)))
    assert sum(len(patients) for patients in data.index.patients) == 340
    assert len(pickle.dumps(data)) == light
    copy = pickle.loads(pickle.dumps(data))
    assert (copy.uri, copy.card) == (data.uri, data.card)
    assert copy.row_groups(Selection((1,))) == data.row_groups(Selection((1,)))


def test_hashed_validation_splits_the_train_folds_by_patient(dataset):
    data, rows = dataset
    train, validation, test = selections((1, 2, 3, 4), "hash:0.25", (10,))
    parts = [data.patients_of(part) for part in (train, validation, test)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {row.patient_id for row in rows if row.fold <= 4}
    assert parts[1] == {row.patient_id for row in rows if row.fold <= 4 and patient_hash(row.patient_id) < 0.25}
    assert 0.1 < len(parts[1]) / len(parts[0] | parts[1]) < 0.4


def test_a_selection_of_patients_has_their_records_alone(dataset):
    data, rows = dataset
    some = frozenset(row.patient_id for row in rows[::7])
    selection = Selection((1, 2, 3), patients=some)
    expected = {row.record_id for row in rows if row.fold <= 3 and row.patient_id in some}
    read = [data.read(group, selection)["record_id"].to_pylist() for group in data.row_groups(selection)]
    assert {name for of_group in read for name in of_group} == expected
    assert data.patients_of(selection) <= some
    hashed = Selection((1, 2, 3), high=0.5, patients=some)
    assert data.patients_of(hashed) == {one for one in data.patients_of(selection) if patient_hash(one) < 0.5}


def test_rows_are_read_without_their_reports(dataset):
    data, _ = dataset
    selection = Selection((1, 2))
    plan = plan_epoch(data.row_groups(selection), seed=0, epoch=0, batch_size=16, lanes=4, block_rows=8)
    (read, *_) = plan_delivery(worker_blocks(plan, worker_lanes(4, 1, 0))).reads
    with_texts, without = (data.read_rows(read, selection, template) for template in (TEMPLATE, None))
    assert with_texts["record_id"].tolist() == without["record_id"].tolist()
    assert (set(without["text_id"].tolist()), 0 in with_texts["text_id"]) == ({0}, False)


def test_a_patient_on_both_sides_is_refused(tmp_path):
    rows = [
        ManifestRow(**vars(row) | {"patient_id": "p1", "fold": 1 + n % 2}) for n, row in enumerate(synthetic_rows(4))
    ]
    data = PreparedDataset.open(write_dataset(tmp_path, rows))
    with pytest.raises(DatasetError, match=r"1 patients have records in the train and in the test folds.*`p1`"):
        data.check_patients(Selection((1,)), Selection((2,)), names=("train", "test"))
    data.check_patients(Selection((1,)), Selection((3,)), names=("train", "test"))


def test_blocks_deliver_each_selected_record_once_with_its_own_signal_and_text(dataset):
    data, rows = dataset
    selection = Selection((1, 2, 3, 4, 5))
    groups = data.row_groups(selection)
    stored = {}
    for group in groups:
        table = data.read(group, selection)
        stored |= dict(zip(table["record_id"].to_pylist(), signals(table), strict=True))
    by_id = {row.record_id: row for row in rows}
    plan = plan_epoch(groups, seed=0, epoch=1, batch_size=16, lanes=4, block_rows=8)
    seen = []
    for worker in range(2):
        blocks = worker_blocks(plan, worker_lanes(4, 2, worker))
        delivery = plan_delivery(blocks)
        chunks = (data.read_rows(read, selection, TEMPLATE) for read in delivery.reads)
        texts = [data.read_texts(block, selection, TEMPLATE) for block in blocks]
        text = iter(np.concatenate([of_block["text"] for of_block in texts]))
        step_of_text = iter(np.concatenate([of_block["step"] for of_block in texts]))
        for step, batch in enumerate(planned_batches(delivery, chunks, first_step=0)):
            assert set(batch["step"].tolist()) == {step}
            for record_id, signal_uv, identity in zip(
                batch["record_id"], batch["signal_uv"], batch["text_id"], strict=True
            ):
                np.testing.assert_array_equal(signal_uv, stored[record_id])
                expected = apply_template(TEMPLATE, by_id[record_id].report)
                assert (next(step_of_text), next(text)) == (step, expected)
                assert identity == text_id(expected)
                seen.append(record_id)
    assert len(seen) == len(set(seen)) == plan.steps * 16
    assert {by_id[record_id].fold for record_id in seen} <= set(selection.folds)
