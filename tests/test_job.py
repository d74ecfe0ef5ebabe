"""Jobs as a user starts them, before any work: exit status, the last line of stdout, storage that does not answer."""

import json

import pytest

from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError
from tests.support.jobs import run_job, run_script


def test_wrong_settings_end_with_status_2_and_say_what_to_do(tmp_path):
    status, answer, shown = run_script("pretrain", f"run_uri={tmp_path}", "train.batch_size=100", "train.batchsize=3")
    result = json.loads(answer)
    assert status == 2
    assert result["job"] == "pretrain"
    assert "`train.batchsize` is not a setting; did you mean `train.batch_size`?" in result["error"]
    assert result["error"] in shown


def test_folders_that_vanish_with_the_job_are_refused_and_others_made_absolute(tmp_path, monkeypatch):
    from mets_ray.job import _absolute, _refuse_folders_that_vanish

    folder = tmp_path / "runtime_resources" / "working_dir"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for words in (["run_uri=.runs"], ["run_uri=/x", "dataset_uri=data"], ["run_uri=s3://b", "text.store_uri=store"]):
        with pytest.raises(ConfigError, match="that Ray deletes"):
            _refuse_folders_that_vanish(load_config(None, words))
    _refuse_folders_that_vanish(load_config(None, ["run_uri=/x", "dataset_uri=s3://b/data"]))

    (folder / "lm").mkdir()
    words = ["text.model=lm", "train.init_from=bundle", "dataset_uri=s3://b/data"]
    config = _absolute(load_config(None, words))
    assert (config.text.model, config.train.init_from) == (str(folder / "lm"), str(folder / "bundle"))
    assert config.dataset_uri == "s3://b/data"
    assert _absolute(load_config(None, ["text.model=emily/bert"])).text.model == "emily/bert"


def test_help_lists_every_setting():
    status, shown, _ = run_script("prepare", "--help")
    assert status == 0
    assert "prepare.reads_in_flight = 32" in shown
    assert "evaluate.bundle_uri = null" in shown


def test_a_store_that_does_not_answer_fails_soon_and_clearly(ray_address, tmp_path):
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing listens on the discard port
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    words = [f"run_uri={tmp_path}", "dataset_uri=s3://ecg/data", "evaluate.bundle_uri=s3://ecg/bundle"]
    status, result, _ = run_job("evaluate", *words, address=ray_address, environment=environment, timeout=120)
    assert status == 1
    assert "s3://ecg/data" in result["error"]
    assert "hint:" in result["error"]
