"""The application on Ray Serve, over real HTTP: scores of evaluation, batches, counts, logs, the guide's examples."""

import asyncio
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from mets_ray.errors import RequestError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.zero_shot import task_scores
from mets_ray.pipelines.embed import EcgEmbedder
from mets_ray.sources.synthetic import render_synthetic
from mets_ray.tasks.label_sets import load_label_sets
from mets_ray.tasks.prompt_sets import load_prompt_set
from tests.conftest import ROOT
from tests.support.archives import tiny_archive
from tests.support.datasets import synthetic_rows, write_dataset
from tests.support.serving import json_ecg, npy, synthetic_ecg

NPY = {"content-type": "application/x-npy"}
LEADS = "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def metric_after(served, name, expected, **tags):
    """The metric once it has reached `expected`: Ray exports every few seconds."""
    for _ in range(60):
        value = served.metric(name, **tags)
        if value >= expected:
            break
        time.sleep(0.5)
    return value


def test_scores_are_those_of_evaluation(served, client, tmp_path):
    import io

    import pyarrow.parquet as pq

    sources = {row.record_id: render_synthetic(row.record_uri) for row in synthetic_rows(8)}
    dataset_uri = write_dataset(tmp_path / "dataset", synthetic_rows(8))
    rows = pa.concat_tables([pq.read_table(io.BytesIO(path.read_bytes())) for path in tmp_path.rglob("shards/part-*")])
    assert dataset_uri
    bundle = load_bundle(str(served.bundle))
    label_set = load_label_sets("synthetic")["synthetic"]
    embedded = EcgEmbedder(str(served.bundle), "cpu")(rows)
    embeddings = np.stack(embedded["ecg_embedding"].to_numpy())
    labels = rows["labels"].to_pylist()
    expected, _, kept = task_scores(
        bundle.model, load_prompt_set("descriptive"), label_set, bundle.prompts, embeddings, labels
    )
    assert kept.all()
    for index, record_id in enumerate(rows["record_id"].to_pylist()):
        query = {"unit": "mV", "sampling_rate_hz": 100, "leads": LEADS, "prompt_set": "descriptive:synthetic"}
        answer = client.post(
            "/v1/zero-shot", params=query, content=npy(sources[record_id].signal_mv), headers=NPY
        ).json()
        found = {item["class_name"]: item["similarity"] for item in answer["classes"]}
        assert [found[name] for name in label_set.classes] == pytest.approx(expected[index].tolist(), abs=1e-5)


def test_requests_that_come_together_share_forward_passes(served, client):
    time.sleep(3)  # what earlier tests sent is counted by then
    before = served.metric("mets_ray_windows_total"), served.metric("mets_ray_forward_passes_total")
    bodies = [{"ecg": json_ecg(synthetic_ecg(index)), "prompt_set": "mets:synthetic"} for index in range(16)]
    alone = [client.post("/v1/zero-shot", json=body).json()["classes"] for body in bodies[:4]]

    def send(body):
        return httpx.post(f"{served.url}/v1/zero-shot", json=body, timeout=60).json()["classes"]

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(send, bodies * 4))
    for found, expected in zip(together[:4], alone, strict=True):
        for row, other in zip(found, expected, strict=True):
            assert row["similarity"] == pytest.approx(other["similarity"], abs=1e-5)
    windows = metric_after(served, "mets_ray_windows_total", before[0] + 68) - before[0]
    passes = served.metric("mets_ray_forward_passes_total") - before[1]
    assert windows == 68
    assert passes < windows


def test_forty_new_classes_under_load_and_each_costs_one_lm_text(served, client):
    ecg = json_ecg(synthetic_ecg(), unit="uV")
    labels = [f"made up finding number {number}" for number in range(40)]
    before = served.metric("mets_ray_lm_texts_total")

    def ask(label):
        body = {"ecg": ecg, "candidate_labels": [label, "sinus rhythm"]}
        return httpx.post(f"{served.url}/v1/zero-shot", json=body, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, labels * 2)) == {200}
    assert metric_after(served, "mets_ray_lm_texts_total", before + 40) - before == pytest.approx(40, abs=1)
    answer = client.put("/v1/prompt-sets/forty", json={"candidate_labels": labels})
    assert answer.status_code == 201
    assert client.post("/v1/zero-shot", json={"ecg": ecg, "prompt_set": "forty"}).status_code == 200
    time.sleep(3)
    assert served.metric("mets_ray_lm_texts_total") - before == pytest.approx(40, abs=1)


def test_what_prometheus_sees(served, client):
    ecg = json_ecg(synthetic_ecg())
    reasons = {"route": "/v1/zero-shot", "status": "422"}
    before = served.metric("mets_ray_requests_total", **reasons)
    client.post("/v1/zero-shot", json={"ecg": ecg | {"unit": "mmHg"}, "prompt_set": "mets:synthetic"})
    assert metric_after(served, "mets_ray_requests_total", before + 1, **reasons) == before + 1
    assert served.metric("mets_ray_rejections_total", reason="unknown_unit") >= 1
    assert served.metric("mets_ray_request_latency_ms_count", route="/v1/zero-shot") >= 1
    assert served.metric("mets_ray_batch_size_count") >= 1
    assert served.metric("mets_ray_text_cache_total", result="hit") >= 1
    assert served.metric("mets_ray_ongoing_requests") == 0

    client.post("/v1/zero-shot", json={"ecg": ecg, "prompt_set": "mets:synthetic"})
    assert metric_after(served, "mets_ray_prompt_set_requests_total", 1, prompt_set="mets:synthetic", version="1") >= 1
    assert metric_after(served, "mets_ray_cache_bytes", 1, cache="class_vectors") >= 1
    version = client.get("/v1/model").json()["model_version"]
    assert served.metric("mets_ray_requests_total", model_version=version, **reasons) == before + 1
    assert served.metric("mets_ray_request_latency_ms_count", model_version=version) >= 1


def test_rules_and_dashboard_name_what_this_cluster_shows(served, client):
    """`tests/cluster/test_monitoring.py` finds the names in the sources; here Prometheus would read them."""
    from tests.cluster.test_monitoring import named_metrics

    failing = {"ray_serve_health_check_failures_total"}  # shown from the first failure on
    body, shown = {"ecg": json_ecg(synthetic_ecg())}, set()
    many = {"ecgs": [body["ecg"]] * 20, "prompt_set": "mets:synthetic"}
    for _ in range(3):  # inputs are compared from 50 ECGs on
        assert client.post("/v1/zero-shot/batch", json=many).is_success
    for _ in range(30):
        assert client.post("/v1/zero-shot", json=body | {"candidate_labels": ["a new one", "another"]}).is_success
        assert client.post("/v1/zero-shot", json=body | {"prompt_set": "mets:synthetic"}).is_success
        assert client.post("/v1/zero-shot", json=body).status_code == 422
        text = httpx.get(served.metrics_url, timeout=10).text
        shown |= {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
        if not (missing := named_metrics() - shown - failing):
            break
        time.sleep(1)
    assert sorted(missing) == []


def test_what_the_archive_refuses_is_not_in_its_log(served, tmp_path):
    import ray
    from ray import serve

    from mets_ray.serve.archive.deployment import ArchiveHandle, bind_archive
    from mets_ray.serve.archive.question import Question
    from mets_ray.serve.settings import ServeConfig

    uri = tiny_archive(tmp_path / "archive", records=20, bundle_uri=served.bundle)
    config = ServeConfig(
        bundle_uri=str(served.bundle), archive_uri=uri, archive_cpus=0.5, archive_memory_bytes=512 * 2**20
    )
    bound = bind_archive(config, load_bundle(str(served.bundle)).digest)
    archive = ArchiveHandle(serve.run(bound, name="archive", route_prefix=None))

    async def refusals():
        found = []
        for asked in (
            archive.ecg("patient-4711", None),
            archive.search(Question(record_id="patient-4711"), 5, None, None, True),
            archive.search(Question(record_id="r00001"), 5, "patient_id = patient-4711", None, True),
            archive.search(None, 5, "patient-4711", None, True),  # a fault of the server's own
        ):
            try:
                await asked
            except RequestError as error:
                found.append((error.status, error.reason, bool(error.hint)))
        return found

    try:
        assert asyncio.run(refusals()) == [
            (404, "unknown_record", True), (404, "unknown_record", True), (422, "bad_query", True),
            (500, "internal_error", False),
        ]  # fmt: skip
    finally:
        serve.delete("archive")
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    text = "".join(path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file())
    assert "the archive's `search` failed: AttributeError" in text
    assert "patient-4711" not in text


def test_logs_hold_requests_and_no_patient(served, client):
    import ray

    marker = "marker-of-a-patient"
    signal = np.full((12, 1000), 0.123987654)
    body = {"ecg": json_ecg(synthetic_ecg()) | {"signal": signal.tolist()}, "candidate_labels": [marker]}
    assert client.post("/v1/zero-shot", json=body).status_code == 422
    query = {"unit": "uV", "sampling_rate_hz": 100, "leads": LEADS, "candidate_labels": marker}
    assert client.post("/v1/zero-shot", params=query, content=b"x", headers=NPY).status_code == 400
    named = client.post("/v1/zero-shot", json=body, headers={"x-request-id": "id-of-this-test"})
    made = client.head("/nothing")
    assert named.headers.get_list("x-request-id") == ["id-of-this-test"]  # Ray answers it too, and once is enough
    assert named.json()["error"]["request_id"] == "id-of-this-test"
    assert len(made.headers.get_list("x-request-id")) == 1
    time.sleep(2)
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    text = "".join(path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file())
    assert "POST /v1/zero-shot 422" in text
    lines = {line.partition("audit ")[2] for line in text.splitlines() if '{"request_id": "id-of-this-test"' in line}
    (audited,) = lines  # of the replica's file, and of what a worker's output repeats
    assert '"status": 422' in audited
    assert marker not in text
    assert "0.123987" not in text


def guide_example(language, word):
    text = (ROOT / "docs/guide/serve.md").read_text()
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if word in block]
    return found


def test_the_curl_of_the_guide(served, tmp_path):
    (tmp_path / "ecg.npy").write_bytes(npy(np.rint(synthetic_ecg().signal_mv * 1000).astype(np.int16)))
    command = guide_example("bash", "ecg.npy").replace("http://127.0.0.1:8000", served.url)
    answer = subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert '"class_name":"atrial fibrillation"' in answer


def test_the_httpx_example_of_the_guide(served, tmp_path):
    np.save(tmp_path / "ecg.npy", np.rint(synthetic_ecg().signal_mv * 1000).astype(np.int16))
    code = guide_example("python", "httpx").replace("http://127.0.0.1:8000", served.url)
    assert len(code.splitlines()) <= 14
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "atrial fibrillation" in run.stdout, shlex.quote(run.stderr)
