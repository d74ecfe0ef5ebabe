"""Texts of a data set and of a bundle, without Ray."""

from types import SimpleNamespace

import numpy as np
import pytest
import ray

from mets_ray.config.load import load_config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.pipelines.texts import ReportsOfPatients, report_statements, report_table, report_texts
from mets_ray.text.embeddings import part_folder, write_part
from mets_ray.text.reports import text_id
from tests.support.datasets import synthetic_rows, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("texts"), synthetic_rows(30)))


def test_each_report_comes_once_with_its_statements(dataset):
    rows = synthetic_rows(30)
    assert report_texts(dataset, "It says {}", dataset.all_folds) == sorted({f"It says {row.report}" for row in rows})
    found = report_statements(dataset, "It says {}", dataset.all_folds)
    assert found == {f"It says {row.report}": tuple(row.statements) or (row.report,) for row in rows}


def test_each_pair_of_a_report_and_a_patient_comes_once(dataset):
    rows = synthetic_rows(30)
    found = ReportsOfPatients.read(dataset, "It says {}", dataset.all_folds)
    assert found.texts == report_texts(dataset, "It says {}", dataset.all_folds)
    pairs = list(zip(found.report_ids.tolist(), found.patients.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) == len({(row.report, row.patient_id) for row in rows})
    by_report = {}
    for report_id, patient in pairs:
        by_report.setdefault(report_id, set()).add(patient)
    for text in found.texts:
        holders = {row.patient_id for row in rows if f"It says {row.report}" == text}
        assert len(by_report[text_id(text)]) == len(holders)


def test_texts_stored_under_the_bundles_fingerprint_need_no_language_model(dataset, tmp_path):
    facts, store = SimpleNamespace(text_fingerprint="0123456789abcdef" * 4), str(tmp_path / "store")
    texts = ["atrial fibrillation", "sinus rhythm"]
    vectors = np.arange(12, dtype=np.float16).reshape(2, -1)
    ids = np.asarray([text_id(text) for text in texts])
    part = {"text": np.asarray(texts), "text_id": ids, "embedding": vectors}
    part |= {"embedded": np.ones(2), "is_prompt": np.zeros(2)}
    write_part(part, folder_uri=part_folder(store, facts.text_fingerprint))
    config = load_config(None, [f"text.store_uri={store}", "text.model=nobody/no-such-model"])
    was_started = ray.is_initialized()  # by another test
    table = report_table(config, SimpleNamespace(facts=facts), texts, dataset)
    np.testing.assert_array_equal(table.lookup(ids), vectors)
    assert ray.is_initialized() == was_started
