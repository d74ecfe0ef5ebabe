"""Whole jobs on S3 URIs: the real PTB-XL while requests fail and wait."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest

pytest.importorskip("boto3")
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from mets_ray import storage
from mets_ray.archive.archive import open_archive
from mets_ray.archive.query import Direction
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.storage import s3
from tests.support.archives import write_scores
from tests.support.datasets import write_shards
from tests.support.faulty_proxy import count_retries, faulty_proxy
from tests.support.jobs import run_job
from tests.support.s3 import s3_server


def upload_ptbxl(data_folder, uri, records):
    """The first records of each fold of the real PTB-XL, with its tables and the 12SL statements."""
    table = pd.read_csv(data_folder / "ptb-xl" / "ptbxl_database.csv")
    table = table.groupby("strat_fold").head(records // 10)
    storage.write_bytes(f"{uri}/ptb-xl/ptbxl_database.csv", table.to_csv(index=False).encode())
    for name in table["filename_lr"]:
        for suffix in (".hea", ".dat"):
            storage.write_bytes(
                f"{uri}/ptb-xl/{name}{suffix}", (data_folder / "ptb-xl" / f"{name}{suffix}").read_bytes()
            )
    labels = data_folder / "ptb-xl-plus" / "labels"
    for name in ("12sl_statements.csv", "mapping/12slv23ToSNOMED.csv"):
        storage.write_bytes(f"{uri}/labels/{name}", (labels / name).read_bytes())
    return len(table)


@pytest.mark.timeout(1200)
def test_the_whole_way_on_s3_on_a_bad_day_loses_nothing(data_folder, ray_address, monkeypatch):
    """prepare → pretrain → evaluate with S3 URIs only, 5% of the requests failing and 2% waiting 3 s."""
    with s3_server() as store, faulty_proxy(store["AWS_ENDPOINT_URL"], seed=7, stall_s=3.0) as proxy:
        environment = store | {"AWS_ENDPOINT_URL": proxy.url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        where = {"address": ray_address, "everywhere": environment, "timeout": 400}
        s3.RetryingS3FileSystem.clear_instance_cache()
        records = upload_ptbxl(data_folder, "s3://ecg/source", 300)
        proxy.shares = {"slow_down": 0.02, "error": 0.01, "cut": 0.01, "reset": 0.005, "lost": 0.005, "stall": 0.02}
        common = [
            "prepare.source=ptbxl",
            "prepare.source.uri=s3://ecg/source/ptb-xl",
            "prepare.source.report=12sl",
            "prepare.source.statements_uri=s3://ecg/source/labels",
            "dataset_uri=s3://ecg/data",
            "run_uri=s3://ecg/runs",
            "folds.train=[1,2,3,4,5,6]",
            "folds.validation=[7,8]",
            "folds.test=[9,10]",
        ]
        status, prepared, shown = run_job("prepare", *common, **where)
        assert status == 0, shown
        assert prepared["records_in"] == prepared["records_out"] + sum(prepared["rejected"].values()) == records
        assert re.search(rf"records in +{records}", shown)

        small = ["encoder.width=4", "train.epochs=2", "train.batch_size=16", "train.num_workers=2"]
        status, trained, shown = run_job("pretrain", *common, *small, "train.log_batches=true", **where)
        assert status == 0, shown
        assert trained["bundle_uri"].startswith("s3://ecg/runs/pretrain-")
        assert trained["lm_texts_embedded"] > 0
        assert trained["epochs"] == 2

        small = [*small, "evaluate.bootstrap_samples=20", f"evaluate.bundle_uri={trained['bundle_uri']}"]
        status, scored, shown = run_job("evaluate", *common, *small, **where)
        assert status == 0, shown
        assert 0.0 < scored["macro_auroc"] < 1.0
        assert set(scored["tasks"]) == {"ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm"}
        assert set(scored["tasks"]["ptbxl_super"]) == {"value", "lo", "hi"}
        assert "not the published split" in " ".join(scored["notices"])

        proxy.shares = {"slow_down": 0.1, "cut": 0.1}
        assert storage.read_bytes(scored["table_uri"]).decode() in shown
        dataset = PreparedDataset.open("s3://ecg/data")

        def record_ids():
            filesystem, path = storage.arrow_filesystem("s3://ecg/data")
            tables = [
                pq.read_table(f"{path}/{shard.path}", columns=["record_id"], filesystem=filesystem)
                for shard in dataset.card.shards
            ]
            return [record_id for table in tables for record_id in table["record_id"].to_pylist()]

        (ids, again) = count_retries(proxy, record_ids)
        assert len(ids) == len(set(ids)) == prepared["records_out"]
        assert sum(len(patients) for patients in dataset.index.patients) == prepared["records_out"]
        print(dict(proxy.counts), "retried by this process:", again)
        assert proxy.faults > 20
        assert proxy.counts["stall"] > 5
        # Each request of every process that was broken was retried: what nobody retried would be lost.
        assert not proxy.unanswered, proxy.unanswered


def test_an_archive_lives_in_a_bucket(ray_address, monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3.RetryingS3FileSystem.clear_instance_cache()
        dataset_uri = write_shards("s3://ecg/data", shards=2, rows=30)
        words = [f"dataset_uri={dataset_uri}", f"index.scores_uri={write_scores('s3://ecg/scores', dataset_uri)}"]
        words += ["run_uri=s3://ecg/runs", "index.output_uri=s3://ecg/archive"]
        where = {"address": ray_address, "everywhere": environment}
        status, result, shown = run_job("index", *words, **where)
        assert status == 0, shown
        assert (result["records_in_archive"], result["recall_at_50"]) == (60, 1.0)
        status, again, shown = run_job("index", *words, **where)
        assert status == 0, shown
        assert (again["records"], again["skipped_shards"]) == (0, 2)
        archive = open_archive("s3://ecg/archive")
        ids = [hit.record_id for hit in archive.cohort([Direction(archive.spread_rows(1)[0])], above=-1.0)]
        assert len(ids) == len(set(ids)) == 60
        assert archive.like(ids[0], k=3, where="age > 0").hits
