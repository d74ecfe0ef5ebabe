"""Explanations over HTTP: those of Python, for one ECG of one window, and why not otherwise."""

import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS
from mets_ray.model.bundle import load_bundle
from mets_ray.model.explain import MOST_CLASSES
from mets_ray.model.predictor import Predictor
from tests.support.serving import STATEMENTS, json_ecg, make_bundle, npy, plain_server, synthetic_ecg

LABELS = ["atrial fibrillation", "sinus rhythm", "left bundle branch block"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), statements=STATEMENTS)


@pytest.fixture(scope="module")
def client(bundle):
    with plain_server(bundle) as (client, _):
        yield client


def ask(client, route="/v1/zero-shot", **options):
    return client.post(route, json={"ecg": json_ecg(synthetic_ecg()), "candidate_labels": LABELS} | options)


def refused(answer, reason, message):
    error = answer.json()["error"]
    assert (answer.status_code, error["reason"]) == (422, reason), answer.text
    assert message in error["message"]
    return error["hint"]


def test_an_explanation_is_that_of_python(client, bundle):
    plain = ask(client).raise_for_status().json()
    assert plain["explanation"] is None
    answer = ask(client, explain=True, explain_classes=LABELS[1::-1]).raise_for_status().json()
    told = answer["explanation"]
    assert answer["classes"] == plain["classes"]
    assert "explain" in answer["timings_ms"]
    expected = Predictor(load_bundle(str(bundle))).explain(synthetic_ecg(), LABELS, classes=LABELS[1::-1])
    assert (told["leads"], told["segment_s"], told["windows_encoded"]) == (list(LEADS), 0.5, 336)
    assert [row["text"] for row in told["nearest"]] == [row.text for row in expected.nearest]
    assert told["no_statements"] is None
    assert [row["class_name"] for row in told["classes"]] == LABELS[1::-1]
    for row, of_python in zip(told["classes"], expected.classes, strict=True):
        np.testing.assert_allclose(row["drops"], of_python.drops, atol=2e-5)
        np.testing.assert_allclose(row["lead_drops"], of_python.lead_drops, atol=2e-5)
        np.testing.assert_allclose(row["segment_drops"], of_python.segment_drops, atol=2e-5)
        for way in ("near", "far"):
            assert [one["text"] for one in row[way]] == [one.text for one in getattr(of_python, way)]
            assert [one["patients"] for one in row[way]] == [STATEMENTS[one["text"]] for one in row[way]]


def test_a_file_asks_in_its_query(client):
    query = {"unit": "mV", "sampling_rate_hz": 100, "leads": ",".join(LEADS), "candidate_labels": LABELS}
    answer = client.post(
        "/v1/zero-shot",
        params=query | {"explain": "true", "explain_classes": LABELS[2]},
        content=npy(synthetic_ecg().signal_mv),
        headers={"content-type": "application/x-npy"},
    )
    (row,) = answer.raise_for_status().json()["explanation"]["classes"]
    assert row["class_name"] == LABELS[2]


def test_what_cannot_be_explained_has_an_error_of_its_own(client):
    many = [f"finding {number}" for number in range(MOST_CLASSES + 1)]
    hint = refused(
        ask(client, candidate_labels=many, explain=True), "too_many_explained", f"at most {MOST_CLASSES} are"
    )
    assert "`explain_classes`" in hint
    refused(ask(client, explain=True, explain_classes=["VT"]), "bad_explain_classes", "'VT' is to be explained and is")
    refused(ask(client, explain_classes=LABELS), "explain_classes_alone", "nothing is to be explained")
    long = json_ecg(synthetic_ecg(duration_s=20))
    refused(ask(client, ecg=long, explain=True), "several_windows", "2 windows of 10 s")
    assert ask(client, ecg=long).status_code == 200
    elsewhere = {"candidate_labels": LABELS, "explain": True}
    batch = client.post("/v1/zero-shot/batch", json={"ecgs": [json_ecg(synthetic_ecg())]} | elsewhere)
    assert "/v1/zero-shot with explain=true" in refused(batch, "explain_elsewhere", "/v1/zero-shot/batch gives no")
    refused(ask(client, "/v1/timeline", explain=True), "explain_elsewhere", "/v1/timeline gives no explanations")


def test_a_bundle_without_statements_says_so(tmp_path):
    with plain_server(make_bundle(tmp_path)) as (client, _):
        told = ask(client, explain=True).raise_for_status().json()["explanation"]
    assert told["no_statements"]["reason"] == "no_statements"
    assert told["nearest"] == told["classes"][0]["near"] == []
    assert np.shape(told["classes"][0]["drops"]) == (12, 20)


def test_an_ecg_in_a_unit_far_too_small_is_refused_and_not_an_ecg_without_leads(client):
    ecg = json_ecg(synthetic_ecg())
    ecg["signal"] = (np.array(ecg["signal"]) / 1000).tolist()  # volts
    for explain in (False, True):
        answer = ask(client, ecg=ecg | {"unit": "uV"}, explain=explain)
        hint = refused(answer, "flat_lead", "nothing reaches a microvolt")
        assert "unit" in hint
