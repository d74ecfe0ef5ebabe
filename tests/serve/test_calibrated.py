"""Calibrated answers over HTTP: probabilities for the words of a calibrated prompt set, and why not for all others."""

import json

import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.errors import CheckpointError
from mets_ray.serve.deployments import build
from mets_ray.serve.settings import ServeConfig
from tests.support.calibrations import RARE, damage, made_up_file, write_file
from tests.support.serving import json_ecg, make_bundle, plain_server, synthetic_ecg

CALIBRATED = ("probability", "probability_interval", "present", "threshold")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    write_file(bundle, made_up_file(bundle))
    return bundle


@pytest.fixture(scope="module")
def client(bundle, tmp_path_factory):
    with plain_server(bundle, state_uri=str(tmp_path_factory.mktemp("state"))) as (client, _):
        yield client


def ask(client, **body):
    body = {"ecg": json_ecg(synthetic_ecg())} | body
    return client.post("/v1/zero-shot", json=body).raise_for_status().json()


def test_a_calibrated_prompt_set_has_probabilities(client, bundle):
    answer = ask(client, prompt_set="descriptive:synthetic")
    assert (answer["calibrated"], answer["not_calibrated"]) == (True, None)
    for row in answer["classes"]:
        if row["class_name"] == RARE:
            assert [row[key] for key in CALIBRATED] == [None] * 4
            assert row["not_calibrated"]["reason"] == "few_patients"
            continue
        low, high = row["probability_interval"]
        assert 0 < low < row["probability"] < high < 1
        assert row["present"] is (row["probability"] >= row["threshold"])
        assert row["not_calibrated"] is None
    # The same, whatever the kind of score, and in a batch, where each ECG says so for itself.
    alone = ask(client, prompt_set="descriptive:synthetic", multi_label=True)
    assert [row["probability"] for row in alone["classes"]] == [row["probability"] for row in answer["classes"]]
    limbs = json_ecg(synthetic_ecg())
    limbs = limbs | {"signal": limbs["signal"][:6], "leads": list(LEADS[:6])}
    body = {"ecgs": [json_ecg(synthetic_ecg()), limbs], "prompt_set": "descriptive:synthetic"}
    whole, part = client.post("/v1/zero-shot/batch", json=body).json()["results"]
    assert whole["classes"] == answer["classes"]
    assert (part["calibrated"], part["not_calibrated"]["reason"]) == (False, "leads_missing")
    assert part["classes"][0]["probability"] is None
    # What the answer says of its numbers is true of them, and so is what the server says of itself.
    assert "`probability` is calibrated" in answer["notice"]
    assert "not calibrated probabilities" in ask(client, candidate_labels=["sinus rhythm"])["notice"]
    model = client.get("/v1/model").json()
    assert "`probability` is calibrated" in model["intended_use"]
    assert "`probability` is calibrated" in client.get("/openapi.json").json()["info"]["description"]
    (facts,) = model["calibrations"]
    assert facts["prompt_set"] == "descriptive:synthetic@5"
    assert (facts["records"], facts["patients"], facts["threshold_rule"], facts["folds"]) == (300, 150, "best_f1", "9")
    assert facts["records_in_folds"] == 310
    assert RARE in facts["not_calibrated"]
    assert len(facts["classes"]) == len(answer["classes"]) - 1


def test_a_recording_of_several_windows_has_no_probability(client):
    ecg = json_ecg(synthetic_ecg())
    long = ecg | {"signal": [[*lead, *lead] for lead in ecg["signal"]]}
    answer = ask(client, ecg=long, prompt_set="descriptive:synthetic")
    assert (answer["windows"], answer["calibrated"]) == (2, False)
    assert answer["not_calibrated"]["reason"] == "several_windows"
    assert {row["probability"] for row in answer["classes"]} == {None}
    damaged = ecg | {"signal": [[*([0.1] * len(lead)), *lead] for lead in ecg["signal"]]}  # losing a window earns none
    answer = ask(client, ecg=damaged, prompt_set="descriptive:synthetic")
    assert (answer["windows"], answer["not_calibrated"]["reason"]) == (1, "several_windows")
    assert {row["z_score"] for row in answer["classes"]} == {None}
    body = {"ecg": long, "prompt_set": "descriptive:synthetic"}
    (head, *_) = client.post("/v1/timeline", json=body).text.splitlines()
    assert json.loads(head)["not_calibrated"]["reason"] == "over_time"
    refused = client.post("/v1/zero-shot", json={**body, "explain": True})
    assert (refused.status_code, refused.json()["error"]["reason"]) == (422, "several_windows")
    assert "at most 10 s" in refused.json()["error"]["hint"]


def test_other_words_are_not_calibrated_and_the_answer_says_why(client):
    registered = {"classes": {"AFIB": ["atrial fibrillation"], "SR": ["sinus rhythm"]}}
    client.put("/v1/prompt-sets/mine", json=registered).raise_for_status()
    for asked, reason in (
        ({"candidate_labels": ["AFIB", "SR"]}, "plain_labels"),
        ({"prompt_set": "mets:synthetic"}, "no_calibration"),
        ({"prompt_set": "mine"}, "no_calibration"),
    ):
        answer = ask(client, **asked)
        assert (answer["calibrated"], answer["not_calibrated"]["reason"]) == (False, reason)
        for row in answer["classes"]:
            assert [row[key] for key in (*CALIBRATED, "not_calibrated")] == [None] * 5
            assert 0 <= row["score"] <= 1


def test_a_damaged_file_is_left_out_and_told_and_one_that_is_named_stops_the_start(tmp_path):
    bundle = make_bundle(tmp_path)
    path = write_file(bundle, made_up_file(bundle))
    damage(path)
    with plain_server(bundle) as (client, _):
        answer = ask(client, prompt_set="descriptive:synthetic")
        model = client.get("/v1/model").json()
    assert answer["not_calibrated"]["reason"] == "calibration_left_out"
    assert "another digest" in answer["not_calibrated"]["message"]
    assert model["calibrations"] == []
    assert [warning["reason"] for warning in model["warnings"]] == ["calibration_left_out"]
    with pytest.raises(CheckpointError, match="another digest"):
        build(ServeConfig(bundle_uri=str(bundle), calibration_uri=str(path)))


def test_a_bundle_without_calibration_answers_as_before(tmp_path):
    with plain_server(make_bundle(tmp_path)) as (client, _):
        answer, model = ask(client, prompt_set="descriptive:synthetic"), client.get("/v1/model").json()
    assert (answer["calibrated"], model["calibrations"]) == (False, [])
    assert model["intended_use"].endswith("Scores are not calibrated probabilities.")
    assert answer["notice"].endswith("Scores are not calibrated probabilities.")
    before = {"class_name", "score", "similarity", "rank"}
    assert all({key for key, value in row.items() if value is not None} == before for row in answer["classes"])
