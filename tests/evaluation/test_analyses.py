"""The ECGs that an evaluation shows are read by the ids of their stored rows, whatever their records are called."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.evaluation.analyses import read_examples
from mets_ray.metrics.extremes import Example
from mets_ray.pipelines.embed import embedded_records, windows_of
from tests.support.datasets import synthetic_rows, write_dataset


def example(record_id, patient):
    return Example("synthetic", "best", record_id, patient, "SR", 1.0, 0.5, ("SR",))


@pytest.mark.parametrize(
    ("names", "stride_s", "shown"),
    [
        (("plain", "site-w0", "other"), None, {"plain": "plain", "site-w0": "site-w0"}),
        (("a@0", "a@10", "b@0"), 10.0, {"a": "a@0", "b": "b@0"}),
        (("a@10", "a@20", "b@0"), 10.0, {"a": "a@10"}),  # `prepare` rejected the first window
        (("a@0", "b@0", "c@0"), 10.0, {"a@0": "a@0", "c@0": "c@0"}),
        (("a-w0", "a-w1", "b-w0"), None, {"a": "a-w0", "b": "b-w0"}),
        (("a-w1", "a-w2", "b-w0"), None, {"a": "a-w1"}),
        (("a-w0", "b-w0", "c-w0"), None, {"a-w0": "a-w0", "b-w0": "b-w0"}),
    ],
)
def test_each_example_has_the_signal_of_its_first_row(tmp_path, names, stride_s, shown):
    patients = [name.split("@")[0].split("-w")[0] if "site" not in name else "p" for name in names]
    rows = [
        replace(row, record_id=name, patient_id=patient, fold=1)
        for row, name, patient in zip(synthetic_rows(3), names, patients, strict=True)
    ]
    dataset = PreparedDataset.open(write_dataset(tmp_path, rows, window_stride_s=stride_s, folds={1: 3}))
    test = Selection((1,))
    stored = [dataset.read(group, test) for group in dataset.row_groups(test)]
    signal_of = {
        name: signal
        for table in stored
        for name, signal in zip(table["record_id"].to_pylist(), signals(table), strict=True)
    }
    embedded = embedded_records(
        [
            {"record_id": name, "patient_id": patient, "labels": ["SR"], "report": "", "ecg_embedding": [1.0, 0.0],
             "ecg_features": [1.0], "signal_features": [1.0]}
            for name, patient in zip(names, patients, strict=True)
        ],
        of_windows=windows_of(dataset.card.model_copy(update={"source": "cpsc2018"})),
    )  # fmt: skip
    inputs = SimpleNamespace(dataset=dataset, test=test, records=embedded)
    of_record = dict(zip(embedded.record_ids, embedded.patients.tolist(), strict=True))
    found = read_examples(inputs, [example(name, of_record[name]) for name in shown])
    assert set(found) == set(shown)
    for name, row in shown.items():
        np.testing.assert_array_equal(found[name], signal_of[row])
