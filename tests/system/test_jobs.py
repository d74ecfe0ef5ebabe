"""Jobs that are killed and started again, and `ray job submit`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mets_ray import storage
from mets_ray.archive.archive import open_archive
from mets_ray.archive.lance_table import open_table
from mets_ray.config.load import load_config
from mets_ray.errors import DatasetError
from tests.conftest import ROOT
from tests.support.archives import write_scores
from tests.support.datasets import scored_table, write_shards
from tests.support.jobs import run_job, started_job
from tests.support.processes import train_workers, wait_for_port
from tests.support.serving import free_port, make_bundle

SMALL = [
    "prepare.source.records=300",
    "encoder.width=4",
    "train.batch_size=48",
    "train.epochs=2",
    "train.num_workers=1",
    "evaluate.bootstrap_samples=50",
]
SHARDS, ROWS = 4, 300
MANY, FEW = 100, 4  # of shards and their rows: a task each


def wait_until(sign, job):
    deadline = time.monotonic() + 180
    while not sign():
        assert time.monotonic() < deadline
        assert job.running()
        time.sleep(0.02)


def assert_stopped(job, by=signal.SIGTERM):
    """A job that was sent `by` says so, and nothing else."""
    began = time.monotonic()
    job.process.join(90)
    status, result, shown = job.result(1)
    assert (status, result["error"], result["signal"]) == (128 + by, "stopped", by.name), shown
    assert "Traceback" not in shown
    assert "Exception ignored" not in shown
    assert "stack" not in shown.lower()
    print(f"stopped after {time.monotonic() - began:.1f} s")
    return shown


def test_an_interrupted_prepare_is_no_data_set_and_goes_on(ray_address, tmp_path):
    from mets_ray.training.fit import fit

    # Six shards of one row group, on four CPUs: some are not begun when the first one is seen.
    words = ["prepare.source.records=1300", "prepare.sampling_rate_hz=350"]
    straight, broken = (storage.join(str(tmp_path), name) for name in ("straight", "broken"))
    status, _, shown = run_job("prepare", *words, f"run_uri={tmp_path}", f"dataset_uri={straight}", address=ray_address)
    assert status == 0, shown

    again = [*words, f"run_uri={tmp_path}", f"dataset_uri={broken}"]
    with started_job("prepare", *again, address=ray_address) as job:
        wait_until(lambda: storage.list_files(f"{broken}/progress"), job)
        os.kill(job.process.pid, signal.SIGSTOP)  # it lives, and does not finish meanwhile
        status, refused, _ = run_job("prepare", *again, "prepare.sampling_rate_hz=200", address=ray_address)
        assert (status, refused["job"]) == (1, "prepare")
        assert f"`{broken}` is in use by `prepare` on " in refused["error"]
        assert f"(process {job.process.pid}) since 20" in refused["error"]
        os.kill(job.process.pid, signal.SIGCONT)
        job.process.terminate()
        assert_stopped(job)
    finished = {uri: Path(uri).stat().st_mtime_ns for uri in storage.list_files(f"{broken}/progress")}
    assert 0 < len(finished) < len(storage.list_files(f"{straight}/shards")) == 6
    with pytest.raises(DatasetError, match=r"holds no card\.json"):
        fit(load_config(None, [f"run_uri={tmp_path}", f"dataset_uri={broken}"]), broken)
    status, result, shown = run_job("prepare", *again, address=ray_address)
    assert status == 0, shown
    assert result["records_out"] == 1300
    assert {uri: Path(uri).stat().st_mtime_ns for uri in finished} == finished  # not written again
    for uri in storage.list_files(f"{straight}/shards"):
        assert storage.read_bytes(uri) == storage.read_bytes(uri.replace(straight, broken))


@pytest.mark.timeout(600)
def test_an_interrupted_run_resumes_to_the_very_same_weights(prepared, ray_address, tmp_path):
    from mets_ray.model.bundle import load_bundle

    words = [*SMALL, f"dataset_uri={prepared}", "train.epochs=4", "train.keep_checkpoints=9", "folds.validation=[]",
             "encoder.norm=group"]  # fmt: skip
    status, straight, shown = run_job("pretrain", *words, f"run_uri={tmp_path}/straight", address=ray_address)
    assert status == 0, shown

    with started_job("pretrain", *words, f"run_uri={tmp_path}/broken", address=ray_address) as job:
        wait_until(lambda: list(tmp_path.glob("broken/pretrain-*/checkpoint-00001-*/bundle.json")), job)
        job.process.kill()
        while train_workers():  # Ray ends them when it misses their driver
            time.sleep(0.1)
    (run,) = tmp_path.glob("broken/pretrain-*")
    again = [*words, f"run_uri={tmp_path}/broken", f"train.resume={run}"]
    with storage.hold(str(run), "pretrain"):
        status, refused, _ = run_job("pretrain", *again, address=ray_address)
        assert status == 1
        assert f"`{run}` is in use by `pretrain` on " in refused["error"]
    with started_job("pretrain", *again, address=ray_address) as job:
        wait_until(train_workers, job)
        job.process.terminate()
        shown = assert_stopped(job)
        assert f"train.resume={run} continues this run" in shown
        assert not train_workers()
    status, resumed, shown = run_job("pretrain", *again, address=ray_address)
    assert status == 0, shown
    assert resumed["run_uri"] == str(run)
    assert resumed["epochs"] == straight["epochs"] == 4
    weights = [load_bundle(result["bundle_uri"]).model.state_dict() for result in (straight, resumed)]
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    check_adapt_resumes(straight["bundle_uri"], prepared, ray_address, tmp_path)


def check_adapt_resumes(bundle_uri, dataset_uri, ray_address, tmp_path):
    """Fine-tuning that is killed goes on to the very same head, and only with the settings that it began with."""
    from mets_ray.model.bundle import load_bundle

    words = [*SMALL, f"dataset_uri={dataset_uri}", f"adapt.bundle_uri={bundle_uri}", "adapt.method=finetune",
             "adapt.epochs=4", "train.keep_checkpoints=9"]  # fmt: skip
    status, straight, shown = run_job("adapt", *words, f"run_uri={tmp_path}/adapted", address=ray_address)
    assert status == 0, shown
    with started_job("adapt", *words, f"run_uri={tmp_path}/killed", address=ray_address) as job:
        wait_until(lambda: list(tmp_path.glob("killed/adapt-*/checkpoint-00001-*/bundle.json")), job)
        job.process.kill()
        while train_workers():
            time.sleep(0.1)
    (run,) = tmp_path.glob("killed/adapt-*")
    assert not (run / "bundle").exists()
    again = [*words, f"run_uri={tmp_path}/killed", f"train.resume={run}"]
    status, refused, _ = run_job("adapt", *again, "adapt.layer_decay=0.5", address=ray_address)
    assert (status, "`adapt.layer_decay` was 0.7, is 0.5" in refused["error"]) == (1, True)
    status, resumed, shown = run_job("adapt", *again, address=ray_address)
    assert (status, f"{run} (resumed)" in shown) == (0, True), shown
    assert resumed["bundle_uri"] == str(run / "bundle")
    heads = [load_bundle(result["bundle_uri"]).heads["synthetic-finetune"] for result in (straight, resumed)]
    assert all(value.equal(heads[1].own_model[name]) for name, value in heads[0].own_model.items())
    assert heads[0].facts.validation_macro_auroc == heads[1].facts.validation_macro_auroc


def test_a_killed_job_started_again_scores_every_record_once(ray_address, tmp_path):
    dataset_uri = write_shards(tmp_path / "data", shards=SHARDS, rows=ROWS)
    bundle_uri = make_bundle(tmp_path / "bundle")
    words = [
        f"run_uri={tmp_path}",
        f"dataset_uri={dataset_uri}",
        f"score.bundle_uri={bundle_uri}",
        "score.max_actors=1",
    ]

    def files():
        return [file for folder in tmp_path.glob("scores-*") for file in folder.glob("part-*.parquet")]

    with started_job("score", *words) as job:  # on a cluster of its own, which dies with it
        wait_until(files, job)
        os.killpg(job.process.pid, signal.SIGKILL)  # the driver and its actors, in the middle of a shard
    time.sleep(1.0)
    finished = {file: file.stat().st_mtime_ns for file in files()}
    assert 0 < len(finished) < SHARDS

    status, result, shown = run_job("score", *words, address=ray_address)
    assert status == 0, shown
    assert result["skipped"] == len(finished) * ROWS
    assert result["records"] + result["skipped"] == SHARDS * ROWS
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    table = scored_table(result["output_uri"])
    assert len(set(table["record_id"].to_pylist())) == table.num_rows == SHARDS * ROWS


def test_a_killed_index_job_started_again_holds_every_record_once(ray_address, tmp_path):
    dataset_uri = write_shards(tmp_path / "data", shards=MANY, rows=FEW)
    archive_uri = str(tmp_path / "archive")
    words = [f"run_uri={tmp_path}", f"dataset_uri={dataset_uri}", f"index.output_uri={archive_uri}"]
    words.append(f"index.scores_uri={write_scores(tmp_path / 'scores', dataset_uri)}")

    def commits():
        return len(list(tmp_path.glob("archive/ecgs.lance/_versions/*.manifest")))

    with started_job("index", *words) as job:  # on a cluster of its own, which dies with it
        wait_until(lambda: commits() > 1, job)
        os.killpg(job.process.pid, signal.SIGKILL)  # the driver and its tasks, after the first commit
    time.sleep(1.0)
    with pytest.raises(DatasetError, match="half-written"):
        open_archive(archive_uri)
    there = open_table(archive_uri).count_rows()
    assert 0 < there < MANY * FEW

    status, result, shown = run_job("index", *words, address=ray_address)
    assert status == 0, shown
    assert result["skipped_shards"] == there / FEW
    assert result["records"] == MANY * FEW - there
    ids = open_table(archive_uri).to_table(columns=["record_id"])["record_id"].to_pylist()
    assert len(set(ids)) == len(ids) == MANY * FEW == open_archive(archive_uri).facts.records
    assert (result["found_themselves"], result["recall_at_50"]) == (result["checked"], 1.0)


@pytest.mark.parametrize(
    ("name", "sign", "by"),
    [
        ("pretrain", "frozen LM:", signal.SIGTERM),
        ("evaluate", "embedding:", signal.SIGINT),
        ("evaluate", "drawing the report", signal.SIGTERM),
        ("score", "score:", signal.SIGTERM),
    ],
)
def test_a_job_that_is_stopped_says_so_whatever_it_does(prepared, trained, ray_address, tmp_path, name, sign, by):
    words = [*SMALL, f"run_uri={tmp_path}", f"dataset_uri={prepared}", f"text.store_uri={tmp_path}/texts"]
    words += [f"{section}.bundle_uri={trained.bundle_uri}" for section in ("evaluate", "score")]

    def lease_files():
        return list(tmp_path.glob("**/lease/*.json"))

    with started_job(name, *words, "evaluate.bootstrap_samples=2000", address=ray_address) as job:
        wait_until(lambda: sign in job.shown() and (name == "evaluate" or lease_files()), job)
        os.kill(job.process.pid, by)
        assert_stopped(job, by)
    assert all(json.loads(file.read_bytes())["released"] for file in lease_files())


@pytest.mark.timeout(600)
def test_ray_job_submit_runs_the_job_and_passes_its_status_on(tmp_path):
    port, dashboard, agent = (str(free_port()) for _ in range(3))  # the default ports may still be a killed test's
    # As after `source .venv/bin/activate`: the entrypoint's `python` is looked up where the head was started.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    environment |= {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}  # as README says, with a token of its own
    environment |= {"RAY_prestart_worker_first_driver": "0"}  # four processes that nobody here waits for
    environment.pop("RAY_ADDRESS", None)
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    options = {
        "port": port,
        "num-cpus": "2",  # Ray starts as many processes ahead
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

    def job(verb, *words, environment=environment):
        return subprocess.run(
            [*ray, "job", verb, "--address", f"http://127.0.0.1:{dashboard}", *words],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    def submit(*words, options=(), name="pretrain", environment=environment):
        entrypoint = ["python", f"jobs/{name}.py", *words]
        return job("submit", "--working-dir", ".", *options, "--", *entrypoint, environment=environment)

    try:
        wait_for_port(int(dashboard), head)
        deadline = time.monotonic() + 90
        while (done := submit()).returncode and "inside a copy of the working folder" not in done.stdout:
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(2)
        assert done.returncode != 0
        stranger = submit(environment=environment | {"RAY_AUTH_MODE": "disabled"})
        assert stranger.returncode != 0
        assert "inside a copy" not in stranger.stdout, "a job ran without the token"
        assert "token" in (stranger.stdout + stranger.stderr).lower()

        done = submit(*SMALL, f"run_uri={tmp_path}", name="prepare")  # what the next one trains on
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "100%" in done.stdout
        (result,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job"')]
        assert (result["job"], result["records_out"]) == ("prepare", 300)
        assert storage.exists(storage.join(result["dataset_uri"], "card.json"))

        patience = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "90"}})
        options = ["--no-wait", "--submission-id", "told", "--runtime-env-json", patience]
        submit(*SMALL, f"run_uri={tmp_path}", "train.epochs=2000", options=options)
        while not (begun := list(tmp_path.glob("pretrain-*/checkpoint-00003-*"))):
            assert time.monotonic() < deadline + 300
            time.sleep(0.1)
        job("stop", "told")
        shown = job("logs", "told").stdout
        (result,) = [json.loads(line) for line in shown.splitlines() if line.startswith('{"job"')]
        assert result == {"job": "pretrain", "error": "stopped", "signal": "SIGTERM"}
        assert "epoch 3/2000" in shown
        assert "training stopped at epoch " in shown
        assert f"train.resume={begun[0].parent} continues this run" in shown
        assert "Traceback" not in shown
    finally:
        head.terminate()
        head.wait(timeout=60)
