"""Files of a run that are damaged give an error of ours that names them."""

import json

import pytest

from mets_ray import storage
from mets_ray.config.load import load_config
from mets_ray.errors import MetsError
from mets_ray.pipelines.score import _claim
from mets_ray.training.batch_log import read_batches, write_steps
from mets_ray.training.failures import Failure, record_failure, repeated_failure
from mets_ray.training.run_folder import open_run_folder
from tests.support.serving import make_bundle

RUBBISH = [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe\x00", b"a: b: c", b"[" * 10_000]


def config_of_run(run):
    open_run_folder(load_config(None, [f"run_uri={run}"]))
    (config_uri,) = storage.list_files(str(run), suffix="config.yaml")
    resumed = load_config(None, [f"run_uri={run}", f"train.resume={config_uri.rpartition('/')[0]}"])
    return config_uri, lambda: open_run_folder(resumed)


def checkpoint_list(run):
    config_uri, read = config_of_run(run)
    uri = config_uri.replace("config.yaml", "checkpoint_manager_snapshot.json")
    storage.write_bytes(uri, b'{"checkpoint_results": []}')
    return uri, read


def checkpoint(run):
    config_uri, read = config_of_run(run)
    uri = config_uri.replace("config.yaml", "checkpoint_manager_snapshot.json")
    checkpoint_uri = storage.join(config_uri.rpartition("/")[0], "checkpoint-00001-0000000")
    make_bundle(run).rename(checkpoint_uri)
    storage.write_bytes(uri, b'{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint-00001-0000000"}]}')
    return f"{checkpoint_uri}/bundle.json", read


def failure(run):
    record_failure(Failure(start="a", worker=0, epoch=1, step=2, fact="x"), str(run))
    (uri,) = storage.list_files(str(run))
    return uri, lambda: repeated_failure(str(run))


def batches(run):
    write_steps(str(run), 0, {0: ["a"]})
    (uri,) = storage.list_files(str(run))
    return uri, lambda: read_batches(str(run))


def scores(run):
    metadata = {"run": "r", "prompt_set": {"name": "p"}, "fingerprint": "f" * 64}
    return f"{run}/scores.json", lambda: _claim(str(run), metadata)


@pytest.mark.parametrize("name", ["checkpoint-00002-0000000", "../../x", "a/b"])
def test_a_listed_checkpoint_that_is_not_there_is_named(tmp_path, name):
    uri, read = checkpoint_list(tmp_path)
    storage.write_bytes(uri, json.dumps({"checkpoint_results": [{"checkpoint_dir_name": name}]}).encode())
    with pytest.raises(MetsError, match="names the checkpoint") as error:
        read()
    assert error.value.hint


@pytest.mark.parametrize("made", [config_of_run, checkpoint_list, checkpoint, failure, batches, scores])
@pytest.mark.parametrize("content", RUBBISH)
def test_a_damaged_file_is_named(tmp_path, made, content):
    uri, read = made(tmp_path)
    read()
    storage.write_bytes(uri, content)
    with pytest.raises(MetsError, match=uri.rpartition("/")[2]) as error:
        read()
    assert error.value.hint
