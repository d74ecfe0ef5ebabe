"""The HTTP routes over real HTTP, without Ray: formats, classes, prompt sets, errors, token, limits, deadline."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
import wfdb

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import LEAD_SETS
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.model.bundle import load_bundle
from mets_ray.model.lead_quality import LeadSetQuality
from mets_ray.tasks.prompt_sets import load_prompt_set
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg
from tests.support.zips import zipped

LABELS = ["atrial fibrillation", "sinus rhythm", "left bundle branch block"]
NPY = {"content-type": "application/x-npy"}
PARAMETERS = {"unit": "uV", "sampling_rate_hz": 100, "leads": ",".join(LEADS)}


LEAD_QUALITY = {
    name: LeadSetQuality(
        leads=members,
        macro_auroc=auroc,
        low=auroc - 0.02,
        high=auroc + 0.02,
        tasks={"synthetic": auroc},
        records=400,
    )
    for (name, members), auroc in zip(LEAD_SETS.items(), (0.90, 0.87, 0.85, 0.80, 0.86), strict=True)
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), lead_sets=LEAD_QUALITY)


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    with plain_server(bundle, state_uri=str(tmp_path_factory.mktemp("state"))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return server[0]


def microvolts(ecg):
    return np.rint(ecg.signal_mv * 1000).astype(np.int16)


def similarity(answer):
    assert answer.status_code == 200, answer.text
    return [row["similarity"] for row in answer.json()["classes"]]


def ask(client, ecg, **options):
    return client.post("/v1/zero-shot", json={"ecg": ecg} | ({"candidate_labels": LABELS} | options))


def refused(answer, status, reason):
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text
    return answer.json()["error"]


def wfdb_files(folder, ecg, name="rec"):
    wfdb.wrsamp(
        name,
        fs=ecg.sampling_rate_hz,
        units=["mV"] * len(ecg.leads),
        sig_name=list(ecg.leads),
        d_signal=microvolts(ecg).T.astype(np.int64),
        fmt=["16"] * len(ecg.leads),
        adc_gain=[1000.0] * len(ecg.leads),
        baseline=[0] * len(ecg.leads),
        write_dir=str(folder),
    )
    return {f"{name}{suffix}": (folder / f"{name}{suffix}").read_bytes() for suffix in (".hea", ".dat")}


def test_an_answer_holds_all_that_it_should(client, bundle):
    answer = ask(client, json_ecg(synthetic_ecg())).json()
    rows = answer["classes"]
    assert [row["class_name"] for row in rows] == LABELS
    assert sum(row["score"] for row in rows) == pytest.approx(1.0)
    assert sorted(row["rank"] for row in rows) == [1, 2, 3]
    best = max(rows, key=lambda row: row["score"])
    assert best["rank"] == 1
    assert best["similarity"] == max(row["similarity"] for row in rows)
    assert answer["model_version"].startswith(load_bundle(str(bundle)).facts.run)
    assert answer["hypothesis_template"] == "{}"
    assert (answer["prompt_set"], answer["windows"], answer["warnings"]) == (None, 1, [])
    assert {"decode", "preprocess", "classes", "encode", "total"} <= set(answer["timings_ms"])
    assert "not a medical device" in answer["notice"]


def test_independent_scores(client):
    rows = ask(client, json_ecg(synthetic_ecg()), multi_label=True).json()["classes"]
    alone = [
        ask(client, json_ecg(synthetic_ecg()), multi_label=True, candidate_labels=[label]).json()["classes"][0]
        for label in LABELS
    ]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in alone], abs=1e-6)


def test_every_body_format_gives_the_same_scores(client, tmp_path):
    signal_uv = microvolts(synthetic_ecg(7))
    ecg = type(synthetic_ecg())(signal_uv / 1000.0, LEADS, 100.0)
    expected = similarity(ask(client, json_ecg(ecg)))
    files = wfdb_files(tmp_path, ecg)
    table = ",".join(LEADS) + "\n" + "\n".join(",".join(map(str, row)) for row in ecg.signal_mv.T)
    query = {"candidate_labels": LABELS}
    plain = {"unit": "mV", "sampling_rate_hz": 100}
    answers = {
        "microvolts": ask(client, json_ecg(ecg, unit="uV")),
        "npy int16": client.post("/v1/zero-shot", params=query | PARAMETERS, content=npy(signal_uv), headers=NPY),
        "npy float32": client.post(
            "/v1/zero-shot",
            params=query | PARAMETERS | {"unit": "mV"},
            content=npy(ecg.signal_mv.astype(np.float32)),
            headers=NPY,
        ),
        "zip": client.post(
            "/v1/zero-shot", params=query, content=zipped(files), headers={"content-type": "application/zip"}
        ),
        "multipart": client.post(
            "/v1/zero-shot", params=query, files=[("file", (name, data)) for name, data in files.items()]
        ),
        "multipart zip": client.post("/v1/zero-shot", params=query, files={"file": ("r.zip", zipped(files))}),
        "multipart json": client.post(
            "/v1/zero-shot", params=query, files={"file": ("r.json", json.dumps(json_ecg(ecg)))}
        ),
        "csv": client.post(
            "/v1/zero-shot", params=query | plain, content=table, headers={"content-type": "text/csv; charset=utf-8"}
        ),
        "multipart csv": client.post("/v1/zero-shot", params=query | plain, files={"file": ("r.csv", table)}),
    }
    for name, answer in answers.items():
        assert similarity(answer) == pytest.approx(expected, abs=1e-5), name


def test_leads_are_read_by_name_in_any_order_and_case(client):
    ecg = synthetic_ecg(3)
    order = np.random.default_rng(0).permutation(12)
    turned = json_ecg(ecg) | {
        "signal": ecg.signal_mv[order].tolist(),
        "leads": [LEADS[row].upper() if row % 2 else LEADS[row].lower() for row in order],
    }
    assert similarity(ask(client, turned)) == similarity(ask(client, json_ecg(ecg)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unit": ""}, "missing_unit"),
        ({"unit": "mmHg"}, "unknown_unit"),
        ({"sampling_rate_hz": 3}, "implausible_sampling_rate"),
        ({"leads": ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V7"]}, "unknown_lead"),
        ({"leads": ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V5"]}, "duplicate_lead"),
        ({"signal": [[0.0] * 1000] * 12}, "flat_lead"),
        ({"signal": [[0.0, 1.0] * 300] * 12}, "too_short"),
        ({"signal": [[0.0, 1e9] * 500] * 12}, "amplitude_too_large"),
    ],
)
def test_ecgs_that_cannot_be_used_are_refused_with_their_reason(client, changes, reason):
    refused(ask(client, json_ecg(synthetic_ecg()) | changes), 422, reason)


def leads_of(ecg, leads):
    return ecg | {"signal": [ecg["signal"][LEADS.index(lead)] for lead in leads], "leads": list(leads)}


@pytest.mark.parametrize(
    ("leads", "words"),
    [
        (
            LEADS[:8],
            "8 of 12 leads, without V3, V4, V5, V6; nearest that was measured: limb leads, macro AUROC 0.870 "
            "[0.850, 0.890], with 12 leads 0.900 (400 validation records)",
        ),
        (
            ("II",),
            "1 of 12 leads, without I, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6; nearest that was measured: "
            "II, macro AUROC 0.800 [0.780, 0.820], with 12 leads 0.900",
        ),
    ],
)
def test_fewer_leads_are_zeros_with_a_warning_that_says_what_that_costs(client, leads, words):
    ecg = json_ecg(synthetic_ecg(3))
    answer = ask(client, leads_of(ecg, leads))
    assert similarity(answer) != similarity(ask(client, ecg))
    (warning,) = answer.json()["warnings"]
    assert warning["reason"] == "leads_missing"
    assert warning["message"].startswith(words)


def test_a_bundle_that_was_trained_on_whole_ecgs_refuses_fewer_leads(tmp_path):
    with plain_server(make_bundle(tmp_path, "augment.lead_dropout=0")) as (client, _):
        ecg = json_ecg(synthetic_ecg())
        error = refused(ask(client, leads_of(ecg, LEADS[:8])), 422, "missing_leads")
        assert "V3, V4, V5, V6" in error["message"]
        assert "augment.lead_dropout" in error["hint"]
        model = client.get("/v1/model").json()
        assert (model["signal"]["takes_fewer_leads"], model["lead_sets"]) == (False, [])


def test_nothing_is_guessed_for_npy(client):
    body = npy(microvolts(synthetic_ecg()))
    for key in PARAMETERS:
        query = {name: value for name, value in PARAMETERS.items() if name != key} | {"candidate_labels": LABELS}
        answer = client.post("/v1/zero-shot", params=query, content=body, headers=NPY)
        assert answer.status_code == 422
        assert key in answer.json()["error"]["message"]


def test_requests_that_do_not_fit_say_what_does_not(client):
    ecg = json_ecg(synthetic_ecg())
    assert (
        "`candidate_label`"
        in refused(client.post("/v1/zero-shot", json={"ecg": ecg, "candidate_label": ["a"]}), 422, "bad_fields")[
            "message"
        ]
    )
    refused(client.post("/v1/zero-shot", json={"ecg": ecg}), 422, "no_classes")
    refused(ask(client, ecg, prompt_set="mets:synthetic"), 422, "two_class_lists")
    refused(ask(client, ecg, candidate_labels=["a", "a"]), 422, "repeated_class")
    for seen_alike in (["\u00e9", "e\u0301"], ["AF", "AF "], ["sinus rhythm", "sinus\u200b  rhythm"]):
        refused(ask(client, ecg, candidate_labels=seen_alike), 422, "repeated_class")
    refused(ask(client, ecg, hypothesis_template="none"), 422, "bad_template")
    twice = json.dumps({"ecg": ecg, "candidate_labels": ["a", "b"]})[:-1] + ', "candidate_labels": ["c"]}'
    headers = {"content-type": "application/json"}
    refused(client.post("/v1/zero-shot", content=twice, headers=headers), 422, "repeated_key")
    refused(ask(client, ecg, candidate_labels=None, prompt_set="mets"), 422, "ambiguous_prompt_set")
    refused(ask(client, ecg, candidate_labels=None, prompt_set="nothing"), 404, "unknown_prompt_set")
    refused(ask(client, ecg, candidate_labels=None, prompt_set="mets:synthetic@9"), 404, "unknown_prompt_set")
    refused(
        ask(client, ecg, candidate_labels=None, prompt_set="mets:synthetic", hypothesis_template="{}"),
        422,
        "template_without_labels",
    )
    headers = {"content-type": "application/json"}
    refused(client.post("/v1/zero-shot", content="{", headers=headers), 400, "malformed_body")
    refused(client.post("/v1/zero-shot?unit=mV", content="{}", headers=headers), 400, "query_beside_json")
    refused(client.post("/v1/zero-shot?units=mV", content="x", headers=NPY), 422, "bad_fields")
    refused(
        client.post("/v1/zero-shot", content="x", headers={"content-type": "image/png"}), 415, "unsupported_media_type"
    )
    refused(client.post("/v1/zero-shot", content="x"), 415, "unsupported_media_type")
    refused(client.get("/v1/zero-shot"), 405, "method_not_allowed")
    refused(client.get("/v1/nothing"), 404, "no_such_route")


def test_labels_in_one_string_are_split_at_commas_as_hugging_face_does(client):
    body, two = npy(microvolts(synthetic_ecg())), ["atrial fibrillation", "sinus rhythm"]

    def names(answer):
        assert answer.status_code == 200, answer.text
        assert answer.json()["warnings"] == []
        return [row["class_name"] for row in answer.json()["classes"]]

    for labels in ("atrial fibrillation,sinus rhythm", " atrial fibrillation , sinus rhythm,", two):
        query = PARAMETERS | {"candidate_labels": labels}
        assert names(client.post("/v1/zero-shot", params=query, content=body, headers=NPY)) == two
        assert names(ask(client, json_ecg(synthetic_ecg()), candidate_labels=labels)) == two
        assert client.put("/v1/prompt-sets/commas", json={"candidate_labels": labels}).json()["classes"] == two
    # several values, and a list, are labels as they stand
    apart = ["infarction, anterior", "infarction, inferior"]
    query = PARAMETERS | {"candidate_labels": apart}
    assert names(client.post("/v1/zero-shot", params=query, content=body, headers=NPY)) == apart
    assert names(ask(client, json_ecg(synthetic_ecg()), candidate_labels=apart)) == apart
    # and an empty value beside a single one, or a list of one, keeps it whole
    query = PARAMETERS | {"candidate_labels": [apart[0], ""], "multi_label": True}
    for route in ("/v1/zero-shot", "/v1/zero-shot/batch"):
        answer = client.post(route, params=query, content=body, headers=NPY).raise_for_status().json()
        rows = answer["classes"] if "classes" in answer else answer["results"][0]["classes"]
        assert [row["class_name"] for row in rows] == apart[:1]
    assert names(ask(client, json_ecg(synthetic_ecg()), candidate_labels=apart[:1], multi_label=True)) == apart[:1]
    query["candidate_labels"] = [*apart, ""]
    refused(client.post("/v1/zero-shot", params=query, content=body, headers=NPY), 422, "blank_class")
    refused(ask(client, json_ecg(synthetic_ecg()), candidate_labels="," * 5000), 422, "bad_fields")


def test_abbreviations_are_read_as_what_they_mean_and_the_answer_says_so(client):
    ecg = json_ecg(synthetic_ecg())
    answer = ask(client, ecg, candidate_labels=["AF", "sinus rhythm"]).json()
    assert [row["class_name"] for row in answer["classes"]] == ["AF", "sinus rhythm"]
    (warned,) = answer["warnings"]
    assert warned == {"reason": "abbreviation", "message": "read `AF` as `atrial fibrillation`"}
    spelt = ask(client, ecg, candidate_labels=["atrial fibrillation", "sinus rhythm"])
    assert similarity(spelt) == [row["similarity"] for row in answer["classes"]]
    assert spelt.json()["warnings"] == []
    twice = ask(client, ecg, candidate_labels=["AF", "Atrial fibrillation", "sinus rhythm"]).json()["warnings"]
    assert [warning["reason"] for warning in twice] == ["abbreviation", "same_words"]
    # What is written out is held to the same limit as what is typed.
    refused(ask(client, ecg, candidate_labels=["AF " * 60]), 422, "class_too_long")


def test_classes_in_another_language_are_named(client):
    labels = ["Vorhofflimmern", "fibrillation auriculaire", "sinus rhythm"]
    (warned,) = ask(client, json_ecg(synthetic_ecg()), candidate_labels=labels).json()["warnings"]
    assert warned["reason"] == "other_language"
    assert "`Vorhofflimmern` (German), `fibrillation auriculaire` (French)" in warned["message"]


def test_the_softmax_over_one_class_is_said_to_mean_nothing(client):
    ecg = json_ecg(synthetic_ecg())
    answer = ask(client, ecg, candidate_labels=["atrial fibrillation, sinus rhythm"]).json()
    assert [row["score"] for row in answer["classes"]] == [1.0]
    assert [warned["reason"] for warned in answer["warnings"]] == ["one_class"]
    batch = {"ecgs": [ecg, ecg], "candidate_labels": ["sinus rhythm"]}
    for result in client.post("/v1/zero-shot/batch", json=batch).json()["results"]:
        assert [warned["reason"] for warned in result["warnings"]] == ["one_class"]
    assert ask(client, ecg, candidate_labels=["sinus rhythm"], multi_label=True).json()["warnings"] == []


def test_json_with_a_byte_order_mark_is_read(client):
    for method, path, body in (
        ("POST", "/v1/zero-shot", {"ecg": json_ecg(synthetic_ecg()), "candidate_labels": LABELS}),
        ("POST", "/v1/zero-shot/batch", {"ecgs": [json_ecg(synthetic_ecg())], "candidate_labels": LABELS}),
        ("POST", "/v1/embed", {"texts": ["sinus rhythm"]}),
        ("PUT", "/v1/prompt-sets/marked", {"candidate_labels": LABELS}),
    ):
        marked = b"\xef\xbb\xbf" + json.dumps(body).encode()
        answer = client.request(method, path, content=marked, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 201), answer.text


def test_an_error_is_short_whatever_it_quotes(client):
    ecg = json_ecg(synthetic_ecg())
    assert len(ask(client, ecg | {"unit": "x" * 100_000}).text) < 1500
    assert len(ask(client, ecg | {"x" * 100_000: 1}).text) < 1500


def test_what_would_hold_up_the_parser_is_refused_before_it(client):
    body = b'{"ecg": {"signal": [' + b"[]," * 100_000 + b"[]]}}"
    answer = client.post("/v1/zero-shot", content=body, headers={"content-type": "application/json"})
    refused(answer, 422, "too_many_arrays")
    refused(ask(client, json_ecg(synthetic_ecg()) | {"signal": []}), 422, "leads_mismatch")
    none = npy(np.zeros((0, 12, 1000), dtype=np.int16))
    refused(client.post("/v1/zero-shot/batch", params=PARAMETERS, content=none, headers=NPY), 422, "no_ecg")


def test_an_error_never_holds_the_signal(client):
    ecg = json_ecg(synthetic_ecg()) | {"signal": [[123.456789] * 1000] * 11 + [["secret"] * 1000]}
    answer = ask(client, ecg)
    assert answer.status_code == 422
    assert "secret" not in answer.text
    assert "123.456" not in answer.text


def test_a_batch_scores_what_it_can(client):
    good, other = json_ecg(synthetic_ecg(1)), json_ecg(synthetic_ecg(2))
    answer = client.post(
        "/v1/zero-shot/batch", json={"ecgs": [good, good | {"unit": "mmHg"}, other], "candidate_labels": LABELS}
    ).json()
    first, second, third = answer["results"]
    assert first["classes"] == ask(client, good).json()["classes"]
    assert second["error"]["reason"] == "unknown_unit"
    assert third["classes"] == ask(client, other).json()["classes"]


def test_an_ecg_of_another_form_leaves_the_rest_of_its_batch_alone(client):
    good = json_ecg(synthetic_ecg(1))
    ragged = good | {"signal": [good["signal"][0][:-1], *good["signal"][1:]]}
    ecgs = [ragged, good | {"leads": good["leads"][:8]}, good | {"signal": []}, good]
    answer = client.post("/v1/zero-shot/batch", json={"ecgs": ecgs, "candidate_labels": LABELS})
    *unusable, last = answer.raise_for_status().json()["results"]
    assert [result["error"]["reason"] for result in unusable] == ["ragged_signal", "leads_mismatch", "leads_mismatch"]
    assert last["classes"] == ask(client, good).json()["classes"]


def test_a_batch_as_npy(client):
    signals = np.stack([microvolts(synthetic_ecg(index)) for index in (1, 2, 3)])
    query = PARAMETERS | {"candidate_labels": LABELS}
    answer = client.post("/v1/zero-shot/batch", params=query, content=npy(signals), headers=NPY).json()
    for index, result in zip((1, 2, 3), answer["results"], strict=True):
        body = npy(microvolts(synthetic_ecg(index)))
        alone = client.post("/v1/zero-shot", params=query, content=body, headers=NPY).json()
        for row, expected in zip(result["classes"], alone["classes"], strict=True):
            assert row["similarity"] == pytest.approx(expected["similarity"], abs=1e-6)
    too_many = npy(np.repeat(signals[:1], 65, axis=0))
    assert client.post("/v1/zero-shot/batch", params=query, content=too_many, headers=NPY).status_code == 413
    assert client.post("/v1/zero-shot", params=query, content=npy(signals), headers=NPY).status_code == 422


def test_embeddings_of_ecg_and_text_give_the_similarity(client):
    ecg = json_ecg(synthetic_ecg(5), unit="uV")
    text = "sinus rhythm"
    (of_ecg,) = client.post("/v1/embed", json={"ecg": ecg}).json()["embeddings"]
    (of_text,) = client.post("/v1/embed", json={"texts": [text]}).json()["embeddings"]
    (expected,) = similarity(ask(client, ecg, candidate_labels=["sinus rhythm"]))
    assert float(np.dot(of_ecg, of_text)) == pytest.approx(expected, abs=1e-6)
    assert np.linalg.norm(of_ecg) == pytest.approx(1.0, abs=1e-5)
    refused(client.post("/v1/embed", json={"ecg": ecg, "texts": [text]}), 422, "bad_fields")
    refused(client.post("/v1/embed", json={"texts": []}), 422, "no_classes")
    assert len(client.post("/v1/embed", json={"texts": [text, text]}).json()["embeddings"]) == 2


def test_the_preview_is_what_the_model_sees(client):
    ecg = synthetic_ecg(4)
    answer = client.post("/v1/ecg", json=json_ecg(ecg)).json()
    np.testing.assert_array_equal(answer["signal_uv"], preprocess(ecg, SignalConfig(100, 10.0, highpass_hz=0.5)))
    assert (answer["leads"], answer["sampling_rate_hz"], answer["duration_s"]) == (list(LEADS), 100, 10.0)
    assert answer["start_s"] == 0.0


def test_the_preview_says_where_it_begins_if_the_first_window_cannot_be_used(client):
    ecg = synthetic_ecg(4, duration_s=29)
    ecg.signal_mv[LEADS.index("V2"), :900] = 0.0
    whole = client.post("/v1/ecg", json=json_ecg(ecg)).json()
    assert (whole["windows"], whole["start_s"]) == (3, 0.0)
    ecg.signal_mv[LEADS.index("V2"), :1000] = 0.0
    answer = client.post("/v1/ecg", json=json_ecg(ecg)).json()
    assert (answer["windows"], answer["start_s"]) == (2, 9.5)
    later = replace(ecg, signal_mv=ecg.signal_mv[:, 950:])
    np.testing.assert_array_equal(answer["signal_uv"], preprocess(later, SignalConfig(100, 10.0, highpass_hz=0.5)))


def test_examples_are_recognisable_requests(client):
    listed = client.get("/v1/examples").json()["examples"]
    assert len(listed) == 12
    assert {item["credit"] for item in listed} == {None}
    ecg = client.get("/v1/examples/afib").json()
    assert similarity(ask(client, ecg))
    refused(client.get("/v1/examples/nothing"), 404, "unknown_example")


def test_the_model_says_what_it_is(client, bundle):
    model = client.get("/v1/model").json()
    signal = {"sampling_rate_hz": 100, "duration_s": 10.0, "leads": list(LEADS), "highpass_hz": 0.5}
    assert model["signal"] == signal | {"takes_fewer_leads": True}
    assert [row["name"] for row in model["lead_sets"]] == list(LEAD_SETS)
    assert model["lead_sets"][1] == {"name": "limb leads", **LEAD_QUALITY["limb leads"].model_dump(mode="json")}
    assert model["training_data"]["synthetic"] is True
    assert "Not a medical device" in model["intended_use"]
    assert model["bundle_uri"] == str(bundle)
    sets = {item["name"]: item for item in model["prompt_sets"]}
    assert sets["descriptive:synthetic"]["classes"] == list(load_prompt_set("descriptive").tasks["synthetic"])
    assert client.get("/healthz").json() == {"status": "ok"}
    parts = {"model": "ok", "language_model": "ok", "store": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"} | parts


def test_a_stored_class_needs_no_lm_and_a_new_one_needs_it_once(server):
    client, counts = server
    ecg = json_ecg(synthetic_ecg())
    before = len(counts.lm_texts)
    assert ask(client, ecg, candidate_labels=None, prompt_set="descriptive:synthetic").status_code == 200
    assert len(counts.lm_texts) == before
    for _ in range(3):
        assert ask(client, ecg, candidate_labels=["a class that nobody named before"]).status_code == 200
    assert counts.lm_texts[before:] == [["a class that nobody named before"]]


def test_the_same_new_class_in_many_requests_at_once_is_one_call(server):
    client, counts = server
    ecg = json_ecg(synthetic_ecg())
    before = len(counts.lm_texts)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client, ecg, candidate_labels=["asked for at once"]), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(counts.lm_texts) == before + 1


def test_without_an_lm_only_stored_texts_are_served(bundle):
    with plain_server(bundle, with_lm=False) as (client, _):
        ecg = json_ecg(synthetic_ecg())
        refused(ask(client, ecg), 422, "unknown_text")
        assert ask(client, ecg, candidate_labels=None, prompt_set="mets:synthetic").status_code == 200
        answer = client.put("/v1/prompt-sets/mine", json={"candidate_labels": ["sinus rhythm"]})
        refused(answer, 422, "unknown_text")


def test_a_default_prompt_set(bundle):
    with plain_server(bundle, prompt_set="mets:synthetic") as (client, _):
        answer = client.post("/v1/zero-shot", json={"ecg": json_ecg(synthetic_ecg())}).json()
        assert answer["prompt_set"] == "mets:synthetic@1"


def test_the_token_opens_v1_and_nothing_else_needs_it(bundle, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", "right")
    with plain_server(bundle, auth="bearer") as (client, counts):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
            answer = client.get("/v1/model", headers=headers)
            refused(answer, 401, "no_token")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/model", headers={"authorization": "Bearer right"}).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        assert client.get("/openapi.json").json()["paths"]["/v1/model"]["get"]["security"] == [{"bearer": []}]
        assert ("rejected", "no_token") in counts.calls


def test_a_body_beyond_the_bound_is_refused_before_it_is_parsed(bundle):
    with plain_server(bundle, max_body_bytes=10_000) as (client, _):
        refused(client.post("/v1/zero-shot", content=b"{" * 10_001, headers=NPY), 413, "too_large")

        def chunks():  # without a content length
            for _ in range(100):
                yield b"x" * 1000

        refused(client.post("/v1/zero-shot", content=chunks(), headers=NPY), 413, "too_large")
        refused(client.put("/v1/prompt-sets/a", json={"candidate_labels": ["x" * 10_001]}), 413, "too_large")


def test_a_request_past_its_deadline_is_503_with_retry_after(bundle):
    with plain_server(bundle, deadline_s=0.3, retry_after_s=7) as (client, _):

        def slow():
            yield b"{"
            time.sleep(1.0)
            yield b"}"

        answer = client.post("/v1/zero-shot", content=slow(), headers={"content-type": "application/json"})
        refused(answer, 503, "deadline")
        assert answer.headers["retry-after"] == "7"


def test_what_is_counted(server):
    client, counts = server
    del counts.calls[:]
    ask(client, json_ecg(synthetic_ecg()))
    ask(client, json_ecg(synthetic_ecg()) | {"unit": "mmHg"})
    ended = [call for call in counts.calls if call[0] == "ended"]
    assert ended == [("ended", "/v1/zero-shot", 200), ("ended", "/v1/zero-shot", 422)]
    assert ("rejected", "unknown_unit") in counts.calls
    assert counts.calls.count(("began",)) == 2


def test_prompt_sets_are_versioned_and_exact(client):
    ecg = json_ecg(synthetic_ecg())
    first = client.put("/v1/prompt-sets/mine", json={"candidate_labels": ["alpha", "beta"]})
    again = client.put("/v1/prompt-sets/mine", json={"candidate_labels": ["alpha", "beta"]})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    classes = {"B": ["beta", "beta wave"], "A": ["alpha"]}
    second = client.put("/v1/prompt-sets/mine", json={"classes": classes, "hypothesis_template": "ECG: {}"})
    assert (second.status_code, second.json()["prompt_set"]) == (201, "mine@2")
    newest = ask(client, ecg, candidate_labels=None, prompt_set="mine").json()
    assert newest["prompt_set"] == "mine@2"
    assert [row["class_name"] for row in newest["classes"]] == ["B", "A"]
    older = ask(client, ecg, candidate_labels=None, prompt_set="mine@1").json()
    assert [row["class_name"] for row in older["classes"]] == ["alpha", "beta"]
    assert {"name": "mine", "version": 2, "classes": ["B", "A"], "origin": "registered"} in client.get(
        "/v1/model"
    ).json()["prompt_sets"]


def test_prompt_sets_survive_restarts_and_reach_other_replicas_without_the_lm(bundle, tmp_path):
    ecg = json_ecg(synthetic_ecg())
    with plain_server(bundle, state_uri=str(tmp_path)) as (first, first_counts):
        first.put("/v1/prompt-sets/mine", json={"candidate_labels": ["gamma", "delta"]})
        expected = similarity(ask(first, ecg, candidate_labels=None, prompt_set="mine"))
        assert len(first_counts.lm_texts) == 1
        # another replica, at the same time and without an LM
        with plain_server(bundle, state_uri=str(tmp_path), with_lm=False) as (second, _):
            assert similarity(ask(second, ecg, candidate_labels=None, prompt_set="mine")) == expected
            first.put("/v1/prompt-sets/mine", json={"candidate_labels": ["gamma", "epsilon"]})
            exact = ask(second, ecg, candidate_labels=None, prompt_set="mine@2").json()
            assert [row["class_name"] for row in exact["classes"]] == ["gamma", "epsilon"]


def test_a_newer_version_is_seen_after_the_refresh(bundle, tmp_path):
    settings = {"state_uri": str(tmp_path), "prompt_set_refresh_s": 0.2}
    ecg = json_ecg(synthetic_ecg())
    with plain_server(bundle, **settings) as (first, _), plain_server(bundle, **settings) as (second, _):
        first.put("/v1/prompt-sets/mine", json={"candidate_labels": ["one"]})
        assert ask(second, ecg, candidate_labels=None, prompt_set="mine").json()["prompt_set"] == "mine@1"
        first.put("/v1/prompt-sets/mine", json={"candidate_labels": ["two"]})
        time.sleep(0.3)
        assert ask(second, ecg, candidate_labels=None, prompt_set="mine").json()["prompt_set"] == "mine@2"


def test_writers_of_one_name_at_the_same_time_all_get_versions_of_their_own(bundle, tmp_path):
    settings = {"state_uri": str(tmp_path)}
    with plain_server(bundle, **settings) as (first, _), plain_server(bundle, **settings) as (second, _):

        def put(number):
            client = (first, second)[number % 2]
            return client.put("/v1/prompt-sets/mine", json={"candidate_labels": [f"class {number}"]}).json()

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(put, range(16)))
        assert sorted(answer["version"] for answer in answers) == list(range(1, 17))
        for answer in answers:
            exact = ask(first, json_ecg(synthetic_ecg()), candidate_labels=None, prompt_set=answer["prompt_set"])
            assert [row["class_name"] for row in exact.json()["classes"]] == answer["classes"]


@pytest.mark.parametrize(
    ("name", "body", "status", "reason"),
    [
        ("Mine", {"candidate_labels": ["a"]}, 422, "bad_name"),
        ("a" * 65, {"candidate_labels": ["a"]}, 422, "bad_name"),
        ("..", {"candidate_labels": ["a"]}, 404, "no_such_route"),
        ("%2e%2e%2fx", {"candidate_labels": ["a"]}, 404, "no_such_route"),
        ("mets", {"candidate_labels": ["a"]}, 409, "reserved_name"),
        ("x", {"candidate_labels": []}, 422, "no_classes"),
        ("x", {"classes": {"A": []}}, 422, "blank_class"),
        ("x", {"classes": {"A": ["a"]}, "candidate_labels": ["a"]}, 422, "bad_fields"),
        ("x", {}, 422, "bad_fields"),
    ],
)
def test_prompt_sets_that_cannot_be_are_refused(client, name, body, status, reason):
    refused(client.put(f"/v1/prompt-sets/{name}", json=body), status, reason)


def test_without_state_nothing_is_registered(bundle):
    with plain_server(bundle) as (client, _):
        refused(client.put("/v1/prompt-sets/mine", json={"candidate_labels": ["a"]}), 403, "no_state")


def test_a_broken_store_is_503(bundle, tmp_path):
    state = tmp_path / "state"
    state.write_text("a file where the folder should be")
    with plain_server(bundle, state_uri=str(state)) as (client, _):
        refused(client.put("/v1/prompt-sets/mine", json={"candidate_labels": ["a"]}), 503, "storage")


def test_a_fault_of_ours_is_500_without_the_message(bundle, monkeypatch, caplog):
    from mets_ray.model.predictor import Predictor

    def fail(self, ecg):
        raise ValueError(" ".join(["patient", "data"]))  # not in one piece: a traceback quotes the line

    monkeypatch.setattr(Predictor, "windows", fail)
    with plain_server(bundle) as (client, counts), caplog.at_level("ERROR", logger="ray.serve"):
        answer = ask(client, json_ecg(synthetic_ecg()))
    refused(answer, 500, "internal_error")
    assert "patient data" not in answer.text + caplog.text
    assert "ValueError" in caplog.text
    assert ("ended", "/v1/zero-shot", 500) in counts.calls


def test_the_page_and_the_documentation_ask_no_other_host(client):
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    script = client.get("/static/app.js")
    assert (script.status_code, script.headers["cache-control"]) == (200, "no-cache")
    for text in (page.text, client.get("/docs").text):
        for attribute in ('src="http', 'href="http', "src='http", "//cdn"):
            assert attribute not in text


def test_a_client_that_goes_away_does_not_stop_others(bundle):
    with plain_server(bundle) as (client, _):
        ecg = json_ecg(synthetic_ecg())
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/zero-shot", json={"ecg": ecg, "candidate_labels": ["left alone"]}, timeout=0.001)
        assert ask(client, ecg, candidate_labels=["left alone"]).status_code == 200
