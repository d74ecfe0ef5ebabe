"""A head over HTTP: the scores of Python, which heads there are, and an error for those that there are not."""

import asyncio

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve.batching import Batches
from mets_ray.serve.heads import Heads
from tests.support.heads import CLASSES, with_heads
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg

QUERY = {"unit": "uV", "sampling_rate_hz": 100, "leads": ",".join(LEADS)}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(bare, tmp_path_factory):
    return with_heads(bare, tmp_path_factory.mktemp("adapted"), "linear", "text", "finetune")


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(load_bundle(str(bundle)), encoder_runtime="torch")


@pytest.fixture(scope="module")
def client(bundle):
    with plain_server(bundle) as (client, _):
        yield client


@pytest.mark.parametrize("name", ["linear", "text", "finetune"])
def test_a_head_answers_as_python_does(client, predictor, name):
    ecg = synthetic_ecg(duration_s=25)
    answer = client.post("/v1/predict", json={"ecg": json_ecg(ecg), "head": name}).raise_for_status().json()
    assert (answer["head"], answer["task"], answer["windows"]) == (name, "synthetic", 3)
    assert answer["model_version"] == predictor.model_version
    assert "windows_averaged" in [warning["reason"] for warning in answer["warnings"]]
    assert [row["class_name"] for row in answer["classes"]] == list(CLASSES)
    expected = predictor.predict(ecg, head=name)
    for rank, row in enumerate(expected, start=1):
        (found,) = [one for one in answer["classes"] if one["class_name"] == row.class_name]
        assert (found["logit"], found["score"]) == pytest.approx((row.logit, row.score), abs=1e-5)
        assert found["rank"] == rank
    # A file carries its options in the query.
    body = npy(np.rint(ecg.signal_mv * 1000).astype(np.int16))
    again = client.post(
        "/v1/predict", params=QUERY | {"head": name}, content=body, headers={"content-type": "application/x-npy"}
    )
    assert again.json()["classes"][0]["logit"] == pytest.approx(answer["classes"][0]["logit"], abs=0.05)


def test_names_that_no_head_has_get_404_and_a_missing_one_422(client, bare):
    body = {"ecg": json_ecg(synthetic_ecg())}
    answer = client.post("/v1/predict", json=body | {"head": "other"})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "unknown_head")
    assert "linear, text, finetune" in answer.json()["error"]["hint"]
    answer = client.post("/v1/predict", json=body)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (422, "no_head")
    with plain_server(bare) as (without, _):
        answer = without.post("/v1/predict", json=body | {"head": "text"})
        assert (answer.status_code, "mets-ray adapt" in answer.json()["error"]["hint"]) == (404, True)
        assert without.get("/v1/model").json()["heads"] == []


def test_the_model_lists_its_heads(client):
    listed = {one["name"]: one for one in client.get("/v1/model").json()["heads"]}
    assert list(listed) == ["linear", "text", "finetune"]
    assert listed["text"]["classes"] == list(CLASSES)
    assert (listed["text"]["prompt_set"], listed["linear"]["prompt_set"]) == ("descriptive@5", None)
    assert (listed["linear"]["labels_per_class"], listed["linear"]["labels"]["SR"]) == (8, 8)


def test_heads_of_one_encoder_share_a_queue(predictor):
    made = []

    def queue(compute, encoder):
        made.append(encoder)
        return Batches(compute, batch_size=4, wait_s=0, threads=1, counted=lambda size: None)

    async def ask():
        heads = Heads(predictor, queue)
        windows = predictor.windows(synthetic_ecg())
        return {name: await heads.logits(name, windows) for name in predictor.heads}

    found = asyncio.run(ask())
    assert [encoder is predictor for encoder in made] == [True, False]
    for name, logits in found.items():
        expected = {row.class_name: row.logit for row in predictor.predict(synthetic_ecg(), head=name)}
        np.testing.assert_allclose(logits, [expected[class_name] for class_name in CLASSES], atol=1e-5)
