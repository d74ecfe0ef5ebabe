"""Files of a run that are damaged give an error of ours that names them."""

import pytest

from mets_ray import storage
from mets_ray.config.load import load_config
from mets_ray.errors import MetsError
from mets_ray.pipelines.score import _claim
from mets_ray.training.batch_log import read_batches, write_steps
from mets_ray.training.failures import Failure, record_failure, repeated_failure
from mets_ray.training.run_folder import open_run_folder

RUBBISH = [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe\x00", b"a: b: c", b"[" * 10_000]


def config_of_run(run):
    open_run_folder(load_config(None, [f"run_uri={run}"]))
    (config_uri,) = storage.list_files(str(run), suffix="config.yaml")
    resumed = load_config(None, [f"run_uri={run}", f"train.resume={config_uri.rpartition('/')[0]}"])
    return config_uri, lambda: open_run_folder(resumed)


def failure(run):
    record_failure(Failure(start="a", worker=0, epoch=1, step=2, fact="x"), str(run))
    (uri,) = storage.list_files(str(run))
    return uri, lambda: repeated_failure(str(run))


def batches(run):
    write_steps(str(run), 0, {0: ["a"]})
    (uri,) = storage.list_files(str(run))
    return uri, lambda: read_batches(str(run))


def scores(run):
    config = load_config(None, [f"run_uri={run}"])
    metadata = {"run": "r", "prompt_set": {"name": "p"}, "fingerprint": "f" * 64}
    return f"{_claim(config, metadata)}/scores.json", lambda: _claim(config, metadata)


@pytest.mark.parametrize("made", [config_of_run, failure, batches, scores])
@pytest.mark.parametrize("content", RUBBISH)
def test_a_damaged_file_is_named(tmp_path, made, content):
    uri, read = made(tmp_path)
    read()
    storage.write_bytes(uri, content)
    with pytest.raises(MetsError, match=uri.rpartition("/")[2]) as error:
        read()
    assert error.value.hint
