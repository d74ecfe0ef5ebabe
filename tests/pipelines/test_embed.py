"""Rows of a stream become records in one order, and windows of a recording one record."""

from types import SimpleNamespace

import numpy as np
import pytest

from mets_ray.pipelines.embed import embedded_records, windows_of


def row(record_id, patient_id, embedding, labels=("SR",)):
    return {
        "record_id": record_id,
        "patient_id": patient_id,
        "labels": list(labels),
        "report": f"report of {record_id}",
        "ecg_embedding": embedding,
        "ecg_features": [2 * value for value in embedding],
    }


def test_records_come_in_the_order_of_their_ids():
    records = embedded_records([row("b", "1", [0.0, 1.0]), row("a", "1", [1.0, 0.0], ["AF"])])
    assert records.record_ids == ("a", "b")
    assert records.labels == [["AF"], ["SR"]]
    assert records.reports == ("report of a", "report of b")
    assert records.embeddings.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert records.features.tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert records.rows == 2


def test_windows_of_a_recording_are_averaged_to_a_unit_vector():
    rows = [
        row("A1-w1", "A1", [0.0, 1.0]),
        row("A0-w0", "A0", [0.6, 0.8]),
        row("A1-w0", "A1", [1.0, 0.0]),
        row("A1-w10", "A1", [1.0, 0.0]),
    ]
    records = embedded_records(rows, of_windows="challenge")
    assert records.record_ids == ("A0", "A1")
    assert records.patients.tolist() == ["A0", "A1"]
    assert records.rows == 4
    assert records.embeddings[1] == pytest.approx(np.array([2.0, 1.0]) / np.sqrt(5.0))
    assert records.features[1] == pytest.approx(np.array([4.0, 2.0]) / 3.0)
    assert np.linalg.norm(records.embeddings, axis=1) == pytest.approx([1.0, 1.0])


def test_what_only_looks_like_a_window_stays_a_record():
    """MIT-BIH's beats share a patient, and a name may end in -w1 by itself."""
    rows = [row("100-1", "100", [1.0, 0.0]), row("100-2", "100", [0.0, 1.0]), row("x-w1", "y", [1.0, 0.0])]
    records = embedded_records(rows, of_windows="challenge")
    assert records.record_ids == ("100-1", "100-2", "x-w1")


def test_windows_of_a_data_set_of_windows_are_one_record():
    rows = [row("a@10", "p", [1.0, 0.0]), row("a@0", "p", [0.0, 1.0]), row("b@0", "p", [1.0, 0.0])]
    assert embedded_records(rows).record_ids == ("a@0", "a@10", "b@0")
    records = embedded_records(rows, of_windows="prepared")
    assert records.record_ids == ("a", "b")
    assert records.embeddings[0] == pytest.approx(np.array([1.0, 1.0]) / np.sqrt(2.0))


@pytest.mark.parametrize("source", ["wfdb", "files", "ptbxl"])
def test_records_of_another_source_may_be_named_by_weeks(source):
    """`7-w1` and `7-w2` are windows of one recording in the challenges' records only."""
    rows = [row("7-w1", "7", [1.0, 0.0], ["AF"]), row("7-w2", "7", [0.0, 1.0], ["SR"])]
    card = SimpleNamespace(window_stride_s=None, source=source)
    records = embedded_records(rows, of_windows=windows_of(card))
    assert records.record_ids == ("7-w1", "7-w2")
    assert records.labels == [["AF"], ["SR"]]
    challenge = embedded_records(rows, of_windows=windows_of(SimpleNamespace(window_stride_s=None, source="cinc2021")))
    assert challenge.record_ids == ("7",)
