"""Jobs as a user starts them: exit status, the last line of stdout, storage that does not answer, a whole way on S3."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from mets_ray import storage
from mets_ray.config.load import load_config
from mets_ray.errors import ConfigError, DatasetError
from tests.conftest import ROOT

SMALL = [
    "synthetic.records=300",
    "encoder.width=4",
    "train.batch_size=48",
    "train.epochs=2",
    "train.num_workers=1",
    "evaluate.bootstrap_samples=50",
]


def run_job(name, *words, environment=None, timeout=240):
    """(exit status, the JSON of stdout's last line, stderr) of `python jobs/<name>.py`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words],
        env=os.environ | {"RAY_ADDRESS": "local"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr


def test_wrong_settings_end_with_status_2_and_say_what_to_do(tmp_path):
    status, result, shown = run_job("pretrain", f"run_uri={tmp_path}", "train.batch_size=100", "train.batchsize=3")
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
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "prepare.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "prepare.reads_in_flight = 32" in done.stdout
    assert "evaluate.bundle_uri = null" in done.stdout


def test_a_store_that_does_not_answer_fails_soon_and_clearly(tmp_path):
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing listens on the discard port
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    words = [f"run_uri={tmp_path}", "dataset_uri=s3://ecg/data", "evaluate.bundle_uri=s3://ecg/bundle"]
    status, result, _ = run_job("evaluate", *words, environment=environment, timeout=120)
    assert status == 1
    assert "s3://ecg/data" in result["error"]
    assert "hint:" in result["error"]


@contextmanager
def s3_server():
    """A real S3 server on loopback with an empty bucket: (environment of clients)."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="test",
            aws_secret_access_key="test", region_name="us-east-1",
        ).create_bucket(Bucket="ecg")  # fmt: skip
        yield environment
    finally:
        server.stop()


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


@pytest.mark.slow
def test_the_whole_way_with_s3_uris_only(data_folder, monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        records = upload_ptbxl(data_folder, "s3://ecg/source", 100)
        common = [
            "prepare.source=ptbxl",
            "prepare.source_uri=s3://ecg/source/ptb-xl",
            "prepare.report_source=12sl",
            "prepare.statements_uri=s3://ecg/source/labels",
            "dataset_uri=s3://ecg/data",
            "run_uri=s3://ecg/runs",
            "folds.train=[1,2,3,4,5,6]",
            "folds.validation=[7,8]",
            "folds.test=[9,10]",
        ]
        status, prepared, shown = run_job("prepare", *common)
        assert status == 0, shown
        assert prepared["records_in"] == prepared["records_out"] + sum(prepared["rejected"].values()) == records
        assert re.search(rf"records in +{records}", shown)

        small = ["encoder.width=4", "train.epochs=1", "train.batch_size=16", "evaluate.bootstrap_samples=20"]
        status, trained, shown = run_job("pretrain", *common, *small)
        assert status == 0, shown
        assert trained["bundle_uri"].startswith("s3://ecg/runs/pretrain-")
        assert trained["lm_texts_embedded"] > 0

        status, scored, shown = run_job("evaluate", *common, *small, f"evaluate.bundle_uri={trained['bundle_uri']}")
        assert status == 0, shown
        assert 0.0 < scored["macro_auroc"] < 1.0
        assert set(scored["tasks"]) == {"ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm"}
        assert set(scored["tasks"]["ptbxl_super"]) == {"value", "lo", "hi"}
        assert "not the published split" in " ".join(scored["notices"])
        assert storage.read_bytes(scored["table_uri"]).decode() in shown


@contextmanager
def killed_once(command, sign):
    """Start a job, SIGKILL it as soon as `sign()` holds."""
    with subprocess.Popen(
        command, env=os.environ | {"RAY_ADDRESS": "local"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 180
        while not sign():
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    yield


@pytest.mark.slow
def test_an_interrupted_prepare_is_no_data_set_and_goes_on(tmp_path):
    from mets_ray.training.fit import fit

    words = ["synthetic.records=6000"]  # four shards
    straight, broken = (storage.join(str(tmp_path), name) for name in ("straight", "broken"))
    status, _, shown = run_job("prepare", *words, f"run_uri={tmp_path}", f"dataset_uri={straight}")
    assert status == 0, shown

    again = [*words, f"run_uri={tmp_path}", f"dataset_uri={broken}"]
    command = [sys.executable, str(ROOT / "jobs" / "prepare.py"), *again]
    with killed_once(command, lambda: storage.list_files(f"{broken}/progress")):
        finished = {uri: Path(uri).stat().st_mtime_ns for uri in storage.list_files(f"{broken}/progress")}
        assert 0 < len(finished) < 4
        with pytest.raises(DatasetError, match=r"holds no card\.json"):
            fit(load_config(None, [f"run_uri={tmp_path}", f"dataset_uri={broken}"]), broken)
    status, result, shown = run_job("prepare", *again)
    assert status == 0, shown
    assert result["records_out"] == 6000
    assert {uri: Path(uri).stat().st_mtime_ns for uri in finished} == finished  # not written again
    for uri in storage.list_files(f"{straight}/shards"):
        assert storage.read_bytes(uri) == storage.read_bytes(uri.replace(straight, broken))


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_very_same_weights(tmp_path):
    from mets_ray.model.bundle import load_bundle

    words = [*SMALL, "train.epochs=4", "train.keep_checkpoints=9", "folds.validation=[]", "encoder.norm=group"]
    status, straight, shown = run_job("pretrain", *words, f"run_uri={tmp_path}/straight")
    assert status == 0, shown

    command = [sys.executable, str(ROOT / "jobs" / "pretrain.py"), *words, f"run_uri={tmp_path}/broken"]
    with killed_once(command, lambda: list(tmp_path.glob("broken/pretrain-*/checkpoint-00001-*/bundle.json"))):
        pass
    (run,) = tmp_path.glob("broken/pretrain-*")
    status, resumed, shown = run_job("pretrain", *words, f"run_uri={tmp_path}/broken", f"train.resume={run}")
    assert status == 0, shown
    assert resumed["run_uri"] == str(run)
    assert resumed["epochs"] == straight["epochs"] == 4
    weights = [load_bundle(result["bundle_uri"]).model.state_dict() for result in (straight, resumed)]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_job_submit_runs_the_job_and_passes_its_status_on(tmp_path):
    port, dashboard, agent = (str(free_port()) for _ in range(3))  # the default ports may still be a killed test's
    # As after `source .venv/bin/activate`: the entrypoint's `python` is looked up where the head was started.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    environment.pop("RAY_ADDRESS", None)
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    options = {
        "port": port,
        "num-cpus": "4",
        "temp-dir": "/tmp/rj",
        "min-worker-port": "0",
        "max-worker-port": "0",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
    }
    head = subprocess.Popen(
        [*ray, "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def submit(*words):
        command = [*ray, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", ".", "--"]
        return subprocess.run(
            [*command, "python", "jobs/pretrain.py", *words],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    try:
        deadline = time.monotonic() + 90
        while (done := submit("train.batch_size=100")).returncode and "cannot share equally" not in done.stdout:
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(2)
        assert done.returncode != 0
        assert "inside a copy of the working folder" in submit().stdout

        done = submit(*SMALL, f"run_uri={tmp_path}")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "epoch 2/2" in done.stdout
        (result,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job"')]
        assert (result["job"], result["epochs"]) == ("pretrain", 2)
        assert storage.exists(storage.join(result["bundle_uri"], "bundle.json"))
    finally:
        head.terminate()
        head.wait(timeout=60)
