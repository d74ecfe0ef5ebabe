"""Long recordings as rows of windows: ids, counts, what is left out; other data sets stay as they were."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.recording_windows import WindowName, window_name
from mets_ray.dataset.shard_writer import ShardTask, write_shard
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import preprocess
from mets_ray.errors import ConfigError, RecordError
from mets_ray.pipelines.prepare import dataset_fingerprint
from mets_ray.sources.catalogue import window_stride_s
from mets_ray.sources.manifest import Manifest
from mets_ray.sources.synthetic import Synthetic
from tests.support.datasets import SIGNAL, synthetic_rows

RATE = 250


class Holter(Synthetic):
    """Recordings of 35 s at 250 Hz with two leads and a gap from 12 to 14 s; the last is too short, one is missing."""

    def read(self, record_uri):
        if "index=2&" in record_uri:
            raise RecordError("missing_file", "it is not there")
        seconds = 5 if "index=3&" in record_uri else 35
        return recording(seconds)


def recording(seconds):
    signal_mv = np.random.default_rng(seconds).normal(0, 0.3, (2, seconds * RATE))
    signal_mv[1, 12 * RATE : 14 * RATE] = np.nan
    absent = tuple(lead for lead in LEADS if lead not in ("II", "V1"))
    return Ecg(signal_mv, ("II", "V1"), RATE, absent_leads=absent, other_signals=("ABP",))


def write(folder, rows, stride_s=5.0):
    task = ShardTask("part-00000-abc", rows, frozenset(), stride_s=stride_s)
    source, uri = Holter(kind="synthetic"), str(folder)
    return write_shard(task, source, signal=SIGNAL, dataset_uri=uri, reads_in_flight=2, privacy=Privacy())


def test_each_recording_becomes_its_windows_and_gaps_are_left_out(tmp_path):
    rows = synthetic_rows(4)
    summary = write(tmp_path, rows)
    # Windows begin at 0, 5, ..., 25 s; those from 5 and 10 s hold the gap, and so does that from 0 s with its reach.
    bad = [s for s in range(0, 30, 5) if fails(s)]
    assert {5, 10} <= set(bad) <= {0, 5, 10}
    assert summary.records_in == 2 * 6 + 2
    assert summary.recordings_lost == 2
    assert summary.rejected == {"missing_file": 1, "non_finite": 2 * len(bad), "too_short": 1}
    assert summary.other_signals == {"ABP": 2 * (6 - len(bad))}
    table = pq.read_table(tmp_path / summary.shard.path)
    assert summary.records_in == table.num_rows + sum(summary.rejected.values())
    good = [s for s in range(0, 30, 5) if s not in bad]
    expected = [f"{row.record_id}@{s}" for row in rows[:2] for s in good]
    assert table["record_id"].to_pylist() == expected
    for number, found in enumerate(table.to_pylist()):
        row = rows[number // len(good)]
        assert (found["patient_id"], found["fold"], found["labels"]) == (row.patient_id, row.fold, list(row.labels))
        assert found["statements"] == list(row.statements)
    ecg = recording(35)
    last = preprocess(replace(ecg, signal_mv=ecg.signal_mv[:, 25 * RATE :]), SIGNAL)
    signals = table["signal_uv"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(signals[len(good) - 1], last)
    rejected = pq.read_table(tmp_path / "rejected" / "part-00000-abc.parquet").to_pylist()
    assert {row["record_id"] for row in rejected} >= {f"{rows[0].record_id}@5", rows[2].record_id, rows[3].record_id}


def fails(start_s):
    ecg = recording(35)
    try:
        preprocess(replace(ecg, signal_mv=ecg.signal_mv[:, start_s * RATE :]), SIGNAL)
    except RecordError:
        return True
    return False


def test_two_runs_write_the_same_bytes_and_a_finished_shard_is_kept(tmp_path):
    rows = synthetic_rows(2)
    first, second = (write(tmp_path / name, rows) for name in "ab")
    assert first == second
    assert write(tmp_path / "a", rows).reused


@pytest.mark.parametrize("name", [WindowName("100", 0.0), WindowName("a@b", 86390.5), WindowName("p/r", 7.25)])
def test_a_window_is_named_by_its_recording_and_its_start(name):
    assert window_name(str(name)) == name


@pytest.mark.parametrize("row_id", ["100", "100@x", "@5", "a-w0"])
def test_other_ids_are_no_windows(row_id):
    assert window_name(row_id) is None


def config(*words):
    return load_config(None, list(words))


def test_windows_are_asked_for_and_other_fingerprints_stay(tmp_path):
    assert window_stride_s(config()) is None
    assert window_stride_s(config("prepare.window.at=start")) is None
    assert window_stride_s(config("prepare.window.at=every")) == 10.0
    assert window_stride_s(config("prepare.window.at=every", "prepare.window.stride_s=2.5")) == 2.5
    assert window_stride_s(config("prepare.source=mitbih", "prepare.window.at=annotation")) is None
    for words in (
        ["prepare.source=mitbih", "prepare.window.at=every"],
        ["prepare.source=mitbih", "prepare.window.at=start"],
        ["prepare.source=ptbxl", "prepare.window.at=annotation"],
        ["prepare.source=cinc", "prepare.source.stretch=windows", "prepare.window.at=every"],
    ):
        with pytest.raises(ConfigError, match=r"prepare\.window\.at"):
            window_stride_s(config(*words))
    with pytest.raises(ConfigError, match="stride_s"):
        config("prepare.window.stride_s=5")
    manifest = Manifest(synthetic_rows(2), "synthetic", "s")
    names = [
        dataset_fingerprint(config(*words).prepare, manifest, "", Privacy(), stride_s)
        for words, stride_s in (
            ([], None),
            (["prepare.window.records_per_shard=1"], None),
            ([], 10.0),
            ([], 5.0),
            (["prepare.window.records_per_shard=1"], 5.0),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
