"""Scores become an archive's index: what a record's row holds, and scores that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mets_ray.archive.archive import open_archive
from mets_ray.config.load import load_config
from mets_ray.dataset.card import read_card
from mets_ray.errors import CheckpointError, DatasetError
from mets_ray.text.reports import text_id
from tests.support.archives import write_scores
from tests.support.datasets import synthetic_rows, write_card, write_rows, write_shards

SHARDS, ROWS = 3, 8


@pytest.fixture(scope="module")
def dataset_uri(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"), shards=SHARDS, rows=ROWS)


@pytest.fixture
def scores_uri(dataset_uri, tmp_path):
    return write_scores(tmp_path / "scores", dataset_uri)


def config_of(folder, scores_uri, *words):
    return load_config(None, [f"run_uri={folder}", f"index.scores_uri={scores_uri}", *words])


def test_scores_become_an_index_and_a_data_set_that_grows_replaces_its_records(ray_cluster, tmp_path):
    from mets_ray.pipelines.index import figures, index, table

    rows = synthetic_rows(SHARDS * ROWS)
    summaries = [
        write_rows(tmp_path / "data", rows[start : start + ROWS], name=f"part-{start:05d}-abc")
        for start in range(0, len(rows), ROWS)
    ]
    dataset_uri, scores_uri = str(tmp_path / "data"), tmp_path / "scores"
    write_card(dataset_uri, summaries[:2])
    config = config_of(tmp_path, write_scores(scores_uri, dataset_uri), "index.reports=true")
    result = index(config, dataset_uri)
    assert Path(result.archive_uri).name == "archive-run-dddddddd"
    assert figures(result) | {"archive_uri": ""} == {
        "archive_uri": "",
        "records": 2 * ROWS,
        "shards": 2,
        "skipped_shards": 0,
        "records_in_archive": 2 * ROWS,
        "patients_in_archive": len({row.patient_id for row in rows[: 2 * ROWS]}),
        "partitions": 0,
        "recall_at_50": 1.0,
        "found_themselves": 2 * ROWS,
        "checked": 2 * ROWS,
    }
    assert "16 of 16 records find themselves" in table(result)

    archive, row = open_archive(result.archive_uri), rows[ROWS + 3]
    hit = archive.record(row.record_id)
    shard = read_card(dataset_uri).shards[1]
    assert hit.patient_id == row.patient_id
    assert hit.columns | {"dataset": "", "age": None, "flat_s": None, "wander_share": None} == {
        "source": "synthetic",
        "fold": row.fold,
        "age": None,
        "sex": row.sex,
        "device": row.device,
        "site": row.site,
        "recorded_at": row.recorded_at,
        "leads_missing": [],
        "suspect": "",
        "flat_s": None,
        "clipped_s": 0.0,
        "wander_share": None,
        "hum_ratio": None,  # at 100 Hz there is no 50 Hz to measure
        "statement_ids": [text_id(one) for one in row.statements],
        "dataset": "",
        "shard": shard.path,
        "shard_row": 3,
    }
    assert all(np.isfinite(hit.columns[name]) for name in ("age", "flat_s", "wander_share"))
    assert archive.facts.datasets[hit.columns["dataset"]].uri == dataset_uri
    stored = pq.read_table(f"{scores_uri}/{Path(shard.path).name}")["embedding"][3].as_py()
    np.testing.assert_array_equal(archive.embedding(row.record_id), np.asarray(stored, np.float32))
    near = archive.nearest_reports(archive.embedding(row.record_id), k=1)[0]
    assert near.report in {one.report for one in rows}

    again = index(config, dataset_uri)
    assert (again.records, again.skipped, again.facts) == (0, 2, result.facts)

    write_card(dataset_uri, summaries)
    more = index(config_of(tmp_path, write_scores(tmp_path / "more", dataset_uri), "index.reports=true"), dataset_uri)
    assert (more.archive_uri, more.records, more.facts.records) == (result.archive_uri, 3 * ROWS, 3 * ROWS)
    assert sorted(one.shards for one in more.facts.datasets.values()) == [0, 3]


def test_scores_that_cannot_be_indexed_are_refused(ray_cluster, dataset_uri, scores_uri, tmp_path):
    from mets_ray.pipelines.index import index

    def refused(fact, uri=scores_uri, kind=DatasetError):
        with pytest.raises(kind) as caught:
            index(config_of(tmp_path, uri), dataset_uri)
        assert fact in caught.value.fact
        assert caught.value.hint

    refused("holds no scores.json", tmp_path)
    refused("unfinished", write_scores(tmp_path / "1", dataset_uri, finished=False))
    refused("without embeddings", write_scores(tmp_path / "2", dataset_uri, embeddings=False))
    refused("another data set", write_scores(tmp_path / "3", dataset_uri, dataset_sha256="x"))
    Path(tmp_path / "3" / "scores.json").write_text("{")
    refused("is damaged", tmp_path / "3")
    shards = read_card(dataset_uri).shards
    other = write_scores(tmp_path / "4", dataset_uri)
    facts = json.loads(Path(other, "scores.json").read_bytes())
    Path(other, "scores.json").write_text(json.dumps(facts | {"bundle_digest": "e" * 64}))
    refused("scores of another bundle", other)
    gone = Path(scores_uri, Path(shards[1].path).name)
    data = gone.read_bytes()
    gone.unlink()
    refused(f"the scores of `{shards[1].path}` are gone")
    gone.write_bytes(data)
    assert index(config_of(tmp_path, scores_uri), dataset_uri).facts.records == SHARDS * ROWS
    archive_uri = tmp_path / "archive-run-dddddddd"
    scores = write_scores(tmp_path / "5", dataset_uri, digest="e" * 64)
    with pytest.raises(CheckpointError, match="another bundle"):
        index(config_of(tmp_path, scores, f"index.output_uri={archive_uri}"), dataset_uri)
