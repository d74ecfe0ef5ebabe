"""Jobs as a user starts them, before any work: exit status, the last line of stdout, storage that does not answer."""

import json
import os
import socket
import subprocess
import sys

import pytest

from mets_ray import storage
from mets_ray.cli import COMMANDS
from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError
from mets_ray.job import load_settings, parse_words, used_places
from mets_ray.serve.run import read_settings, request_timeout_s
from tests.conftest import ROOT
from tests.support.jobs import run_script


def test_wrong_settings_end_with_status_2_and_say_what_to_do(tmp_path):
    status, answer, shown = run_script("pretrain", f"run_uri={tmp_path}", "train.batch_size=100", "train.batchsize=3")
    result = json.loads(answer)
    assert status == 2
    assert result["job"] == "pretrain"
    assert "`train.batchsize` is not a setting; did you mean `train.batch_size`?" in result["error"]
    assert result["error"] in shown


def test_folders_that_vanish_with_the_job_are_refused_and_others_made_absolute(tmp_path, monkeypatch):
    folder = tmp_path / "runtime_resources" / "working_dir"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for words in (["run_uri=.runs"], ["run_uri=/x", "dataset_uri=data"], ["run_uri=s3://b", "text.store_uri=store"]):
        with pytest.raises(ConfigError, match="that Ray deletes"):
            settings("pretrain", *words)
    assert settings("pretrain", "run_uri=/x", "dataset_uri=s3://b/data").dataset_uri == "s3://b/data"
    with pytest.raises(ConfigError, match=r"`score\.output_uri` is the relative path `out`"):
        settings("score", "run_uri=/x", "score.output_uri=out", "score.bundle_uri=/b")
    assert settings("pretrain", "run_uri=/x", "score.output_uri=out").score.output_uri == str(folder / "out")

    (folder / "lm").mkdir()
    (folder / "bundle").mkdir()
    words = ["run_uri=/x", "text.model=lm", "train.init_from=bundle", "evaluate.also=a,s3://b/c"]
    config = settings("pretrain", *words)
    assert (config.text.model, config.train.init_from) == (str(folder / "lm"), str(folder / "bundle"))
    assert config.evaluate.also == (str(folder / "a"), "s3://b/c")
    assert settings("pretrain", "run_uri=/x", "text.model=emily/bert").text.model == "emily/bert"


def settings(name, *words):
    command = COMMANDS[name]
    return load_settings(command, parse_words(command, words))


@pytest.mark.parametrize("key", ["evaluate.bundle_uri", "evaluate.also", "evaluate.compare_to", "evaluate.prompt_set"])
def test_every_uri_of_a_command_is_checked_on_a_cluster_and_none_of_the_others(key):
    value = "here.yaml" if key.endswith("prompt_set") else "here"
    words = ["run_uri=s3://b", "dataset_uri=s3://b/d", "evaluate.bundle_uri=s3://b/b", f"{key}={value}"]
    config = load_config(None, [*words, "score.bundle_uri=there", "train.init_from=there"])
    local = [place.key for place in used_places(COMMANDS["evaluate"], config) if storage.is_local(place.uri)]
    assert local == [key + ("[0]" if key.endswith("also") else "")]


@pytest.mark.parametrize(
    ("command", "words", "fact"),
    [
        ("evaluate", [], "`evaluate.bundle_uri` is not set"),
        ("score", [], "`score.bundle_uri` is not set"),
        ("index", [], "`index.scores_uri` is not set"),
        ("pretrain", ["prepare.source=ptbxl"], "`dataset_uri` is not set"),
        ("prepare", ["prepare.source=ptbxl", "dataset_uri=x"], "`prepare.source.uri` is not set"),
        ("pretrain", ["train.lr=1"], "did you mean `train.learning_rate`?"),
        ("export", ["bundle_uri=b", "output=x"], "did you mean `output_uri`?"),
        ("serve", ["batch_sise=1"], "did you mean `batch_size`?"),
        ("serve", ["auth=none", "--host=0.0.0.0"], "lets other machines in"),
        ("serve", ["auth=none", "--port=70000"], "`--port` is 70000"),
        ("serve", ["auth=bearer", "token_env=NO_SUCH_TOKEN"], "`auth` is bearer, but the environment variable"),
    ],
)
def test_what_can_be_refused_is_refused_before_ray_and_torch_are_loaded(tmp_path, command, words, fact):
    done = run_and_tell_libraries(tmp_path, command, *words)
    assert done.returncode == 2
    assert fact in done.stderr
    assert "loaded []" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_named_before_ray_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_and_tell_libraries(tmp_path, "serve", f"--port={port}")
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on: Address already in use" in done.stderr
    assert "loaded []" in done.stderr


@pytest.mark.parametrize("applications", ["3", "[3]", "{name: x}", "[{args: [a]}]", "[]"])
def test_a_file_for_serve_without_settings_in_its_first_application_is_refused(tmp_path, applications):
    path = tmp_path / "serve.yaml"
    path.write_text(f"applications: {applications}\n")
    with pytest.raises(ConfigError, match="not a list whose first entry has its settings in `args`"):
        read_settings(str(path), ["bundle_uri=b"])
    path.write_text("applications:\n  - name: x\n    args:  # all of them are left out\n")
    assert read_settings(str(path), ["bundle_uri=b"]).bundle_uri == "b"


def test_serve_waits_longer_than_any_deadline_of_the_app():
    assert request_timeout_s(read_settings(None, [])) > 10 + 120
    assert request_timeout_s(read_settings(None, ["timeline_deadline_s=900", "deadline_s=30"])) > 930


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["serve", "--help"], ["--version"]])
def test_help_loads_none_of_the_libraries_that_take_seconds(tmp_path, words):
    done = run_and_tell_libraries(tmp_path, *words)
    assert done.returncode == 0
    assert done.stdout
    assert "loaded []" in done.stderr


def run_and_tell_libraries(folder, *words):
    """Run mets-ray with some words; the last line of stderr lists which slow libraries it has imported."""
    slow = ["ray", "torch", "transformers", "pandas", "scipy.signal", "scipy.stats", "sklearn", "matplotlib", "wfdb"]
    code = (
        "import sys; from mets_ray.cli import main\n"
        "try: main()\n"
        f"finally: print('loaded', [name for name in {slow} if name in sys.modules], file=sys.stderr)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_help_lists_the_settings_of_the_command():
    for name, shown_keys, other in (
        ("prepare", ("prepare.reads_in_flight = 32", "run_uri = "), "evaluate."),
        ("pretrain", ("train.epochs = ", "encoder.width = ", "augment.retimed = ", "folds.test = "), "score."),
    ):
        status, shown, _ = run_script(name, "--help")
        assert status == 0
        assert all(f"\n  {key}" in shown for key in shown_keys)
        assert f"\n  {other}" not in shown
